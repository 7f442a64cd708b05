"""Engine `transformers`: a local model in PyTorch, on a GPU or the CPU.

Models with an image part (Qwen2-VL to Qwen3-VL, InternVL's -hf folders, LLaVA and whatever else
is an "image text to text" model there), text models (Qwen2-Instruct and the like), and MiniCPM-V,
whose code comes with the weights and runs only if the model is named in `trust_remote_code`.
"""

import contextlib
import copy
import pathlib
import random
from collections.abc import Collection, Iterator
from typing import Any

import torch
import transformers
from PIL import Image

from . import seeing
from .devices import device_name
from .errors import Stop
from .exchange import Row
from .images import UNREADABLE, open_image

_PROBE = {"messages": [{"role": "user", "text": "What is here?"}], "image": "probe"}
_TOO_SMALL = "the GPU's memory is too small for one request to model"
_LONGEST = 500  # characters of an error message
_TOO_MANY = 20  # requests that are each too large for the memory, where not one was answered


class Unfit(Exception):
    """Requests of which at least one cannot be put into the form that the model takes."""


class LocalModel:
    """One model in memory.

    folder: that image paths start from; settings: "device" (see `device_name`), "dtype" ("auto" or
    a name), "batch_size", "trust_remote_code" (models whose custom code may run); model: a folder
    or hub id, optionally with "@revision".
    """

    def __init__(self, folder: pathlib.Path, settings: Row, model: str):
        transformers.logging.set_verbosity_error()
        self._folder, self._size, self._model = folder, settings["batch_size"], model
        self._device = device_name(settings["device"])
        self._has_answered = False  # if not, the fault is the model's, not the request's
        with _explained(model):
            self._generate = self._load(
                model, settings["dtype"], model in settings["trust_remote_code"]
            )

    def __call__(self, requests: list[Row], done: Collection[str]) -> Iterator[Row]:
        """Yields the answers batch by batch.

        A batch is always the same requests of a task, also after a restart: padding changes the
        last bits of numbers, and these may change a word. For the same reason they may depend on
        the GPU where one is too small for a batch, which then is answered in halves.
        """
        self._has_answered |= bool(done)
        held: list[Row] = []  # problems that may be the model's: not to be stored then
        for start in range(0, len(requests), self._size):
            batch = requests[start : start + self._size]
            if all(request["id"] in done for request in batch):
                continue
            held += [answer for answer in self._answer(batch) if answer["id"] not in done]
            self._has_answered |= any("text" in answer for answer in held)
            if self._has_answered:
                yield from held
                held.clear()
            _require_memory(held, _TOO_MANY)
        _require_memory(held, 2)
        yield from held

    def _answer(self, batch: list[Row]) -> list[Row]:
        answers, good, images = [], [], []
        for request in batch:
            try:
                path = request["image"]
                images.append(open_image(self._folder, path) if path else None)
                good.append(request)
            except UNREADABLE as error:
                problem = f"the image cannot be read: {error}"
                answers.append({"id": request["id"], "problem": problem})
        return answers + (self._generated(good, images) if good else [])

    def _generated(self, requests: list[Row], images: list[Image.Image | None]) -> list[Row]:
        """The answers; of each half by itself where one request fails the batch.

        A request that fails alone has a problem: an image that the processor does not take, or
        that is too large for the memory.
        """
        try:
            return self._generate(requests, images)
        except (torch.OutOfMemoryError, Unfit, ValueError) as error:
            if len(requests) == 1:
                return [{"id": requests[0]["id"], "problem": self._problem(error)}]
        # Only here is the memory of the error's frames released.
        torch.cuda.empty_cache()
        half = len(requests) // 2
        return [
            answer
            for part in (slice(half), slice(half, None))
            for answer in self._generated(requests[part], images[part])
        ]

    def _problem(self, error: Exception) -> str:
        if isinstance(error, torch.OutOfMemoryError):
            return (
                f"{_TOO_SMALL} {self._model!r}: take a smaller model, or smaller images ({error})"
            )
        return f"model {self._model!r} cannot take it: {_line(error)}"

    def _load(self, model: str, dtype: str, is_trusted: bool) -> Any:
        name, _, revision = model.partition("@")
        where = {"trust_remote_code": is_trusted} | ({"revision": revision} if revision else {})
        config = transformers.AutoConfig.from_pretrained(name, **where)
        seeing.require_known(config, model)
        how = where | {"dtype": dtype}
        if "AutoModel" in getattr(config, "auto_map", {}) and is_trusted:
            network = transformers.AutoModel.from_pretrained(name, **how)
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, **where)
            return Chat(network.to(self._device).eval(), tokenizer)
        is_seeing = type(config) in transformers.AutoModelForImageTextToText._model_mapping
        if is_seeing:
            network = transformers.AutoModelForImageTextToText.from_pretrained(name, **how)
            processor = seeing.load_processor(name, where)
        else:
            network = transformers.AutoModelForCausalLM.from_pretrained(name, **how)
            processor = transformers.AutoTokenizer.from_pretrained(name, **where)
        generation = Generation(network.to(self._device).eval(), processor)
        # A processor that fails on this image fails on every one.
        if is_seeing:
            inputs = generation.inputs([_PROBE], [Image.new("RGB", seeing.PROBE)])
            seeing.check_tokens(processor, config, inputs, name, where)
        else:
            generation.inputs([_PROBE | {"image": None}], [None])
        return generation


class Generation:
    """Generates with a model of the library, a batch at a time."""

    def __init__(self, network: Any, processor: Any):
        self._network, self._processor = network, processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._tokenizer.padding_side = "left"  # the answer follows the prompt directly
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    @torch.inference_mode()
    def __call__(self, requests: list[Row], images: list[Image.Image | None]) -> list[Row]:
        """Returns the answers. images: None for requests without one. Raises Unfit and Stop."""
        try:
            inputs = self.inputs(requests, images)
        except Stop:
            raise
        except Exception as error:
            raise Unfit(_line(error)) from error
        inputs = inputs.to(self._network.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._network.dtype)
        most = [request["max_tokens"] for request in requests]
        config = self._config(max(most))
        made = self._network.generate(
            **inputs,
            generation_config=config,
            logits_processor=transformers.LogitsProcessorList([Sampler(requests)]),
        )
        made = made[:, inputs["input_ids"].shape[1] :].cpu()
        ends = set(_as_list(config.eos_token_id))
        return [_answer(self._tokenizer, *row, ends) for row in zip(requests, made, strict=True)]

    def inputs(self, requests: list[Row], images: list[Image.Image | None]) -> Any:
        """Returns what the network takes. Raises Stop where it takes no images."""
        shown = [[image] for image in images if image is not None]
        is_blind = self._tokenizer is self._processor
        if is_blind and shown:
            raise Stop(
                f"model {self._network.name_or_path!r} takes no images; name one that does in the "
                "config key `models` of this stage."
            )
        texts = [
            self._processor.apply_chat_template(
                _messages(request), add_generation_prompt=True, tokenize=False
            )
            for request in requests
        ]
        if is_blind:
            return self._processor(texts, return_tensors="pt", padding=True)
        return self._processor(text=texts, images=shown or None, return_tensors="pt", padding=True)

    def _config(self, max_tokens: int) -> transformers.GenerationConfig:
        """The model's own, greedy, since `Sampler` has drawn already; its stop words stay."""
        config = copy.deepcopy(self._network.generation_config)
        config.update(do_sample=False, num_beams=1, temperature=1.0, top_p=1.0, top_k=50)
        config.update(max_new_tokens=max_tokens, max_length=None)
        if config.pad_token_id is None:
            config.pad_token_id = self._tokenizer.pad_token_id
        if config.eos_token_id is None:
            config.eos_token_id = self._tokenizer.eos_token_id
        return config


class Chat:
    """Generates with a model that has `chat(image, msgs, tokenizer, ...)`, as MiniCPM-V does."""

    def __init__(self, network: Any, tokenizer: Any):
        self._network, self._tokenizer = network, tokenizer

    @torch.inference_mode()
    def __call__(self, requests: list[Row], images: list[Image.Image | None]) -> list[Row]:
        """Returns the answers, each made alone with its own seed."""
        return [self._one(*pair) for pair in zip(requests, images, strict=True)]

    def _one(self, request: Row, image: Image.Image | None) -> Row:
        shown = [] if image is None else [image]
        messages = [{"role": m["role"], "content": [m["text"]]} for m in request["messages"]]
        messages[-1]["content"] = [*shown, *messages[-1]["content"]]
        drawn = {"temperature": request["temperature"], "top_p": request["top_p"]}
        is_drawn = request["temperature"] > 0
        torch.manual_seed(request["seed"])
        text = self._network.chat(
            image=None,
            msgs=messages,
            tokenizer=self._tokenizer,
            sampling=is_drawn,
            max_new_tokens=request["max_tokens"],
            **(drawn if is_drawn else {}),
        )
        return {"id": request["id"], "text": text, "finish": "stop"}


class Sampler(transformers.LogitsProcessor):
    """Draws every row's next token by that row's seed, temperature and top-p.

    All other tokens are made impossible, so that greedy search takes the one drawn: what a
    request gets does not depend on the others of its batch. Temperature 0 leaves it to greedy
    search.
    """

    def __init__(self, requests: list[Row]):
        self._draws = [random.Random(request["seed"]) for request in requests]
        self._temperature = torch.tensor([[max(r["temperature"], 1e-6)] for r in requests])
        self._top_p = torch.tensor([[r["top_p"] if r["temperature"] else 0.0] for r in requests])

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Returns scores [B, V] that are 0 for the token drawn and -inf elsewhere."""
        heat, top_p = self._temperature.to(scores.device), self._top_p.to(scores.device)
        chances, order = torch.softmax(scores.float() / heat, -1).sort(descending=True)
        sums = chances.cumsum(-1)
        kept = sums - chances < top_p
        kept[:, 0] = True
        reach = (chances * kept).sum(-1, keepdim=True)
        draws = torch.tensor([[draw.random()] for draw in self._draws], device=scores.device)
        place = (sums <= draws * reach).sum(-1, keepdim=True)
        place = torch.minimum(place, kept.sum(-1, keepdim=True) - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, order.gather(-1, place), 0.0)


def _answer(tokenizer: Any, request: Row, made: torch.Tensor, ends: set[int]) -> Row:
    """The answer of one row of tokens; its `max_tokens` may be fewer than the batch's."""
    tokens = made.tolist()[: request["max_tokens"]]
    stop = next((k for k, token in enumerate(tokens) if token in ends), None)
    text = tokenizer.decode(tokens[:stop], skip_special_tokens=True)
    return {"id": request["id"], "text": text, "finish": "length" if stop is None else "stop"}


def _messages(request: Row) -> list[Row]:
    """The messages in the form of chat templates: plain text where there is no image."""
    messages = [{"role": m["role"], "content": m["text"]} for m in request["messages"]]
    if request["image"]:
        for message in messages:
            message["content"] = [{"type": "text", "text": message["content"]}]
        messages[-1]["content"].insert(0, {"type": "image"})
    return messages


@contextlib.contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turns what goes wrong while a model is loaded into a sentence."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise Stop(f"model {model!r} does not fit into the GPU's memory: {error}") from error
    except Stop:
        raise
    except Exception as error:  # libraries raise many types for files that they do not understand
        if "trust_remote_code" in str(error):
            raise Stop(
                f"model {model!r} comes with custom code, which would be executed: name it in the "
                "config key `trust_remote_code` of this stage if you trust it."
            ) from error
        raise Stop(
            f"model {model!r} cannot be loaded by transformers {transformers.__version__}: "
            f"{_line(error).rstrip('.')}{seeing.advice(model, str(error))}"
        ) from error


def _require_memory(held: list[Row], most: int) -> None:
    """Raises Stop where so many requests were too large for the memory, and none was answered."""
    reasons = [row["problem"] for row in held if row["problem"].startswith(_TOO_SMALL)]
    if len(reasons) >= most:
        raise Stop(reasons[0])


def _line(error: Exception) -> str:
    """The message of an error in one line, with its type where that helps."""
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, Unfit | OSError | ValueError) and text else type(error).__name__
    return ": ".join(filter(None, (kind, text)))[:_LONGEST]


def _as_list(value: Any) -> list:
    return value if isinstance(value, list) else [value]
