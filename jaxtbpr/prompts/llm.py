"""Engine `llm`: rough prompts enriched by a language model, as in SynTBPR (arXiv:2503.22171).

The stubs are those of engine `grammar`, of the same people; the instruction is ours, since the
paper does not give one. The model runs in an isolated worker.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.seeds import rng
from jaxtbpr.prompts.clauses import Clause, Fitted, Ruler
from jaxtbpr.prompts.drawing import Prompt
from jaxtbpr.workers import answers
from jaxtbpr.workers import client as clients
from jaxtbpr.workers.answers import Limits, Refusal
from jaxtbpr.workers.client import Client, Request, Result

OPTIONS: Options = {
    "engine": Option("transformers", "where the model runs", choices=clients.ENGINES),
    **clients.options("Qwen/Qwen2.5-7B-Instruct", max_tokens=120),
    "min_words": Option(15, "fewest words of a rich prompt", low=1, high=1000),
    "max_words": Option(60, "most words of a rich prompt", low=1, high=1000),
}

_SHARD = 500  # prompts that are requested together, and differ from each other
_INSTRUCTION = (
    "Make a rich prompt for an image generator out of this rough description of one person:\n\n"
    "{rough}\n\n"
    "Keep everything that it says. Add what is missing of hair, upper garment, lower garment and "
    "shoes, each with a colour, what the person does, the place, the light and the camera. {begin}"
    "One person alone is to be seen, from head to feet. Write one English sentence of {least} to "
    "{most} words, and answer with it alone."
)
_SEX = {"female": {"woman", "girl", "lady", "female"}, "male": {"man", "boy", "gentleman", "male"}}

Draw = Callable[[str, int], Iterator[Prompt]]


def expand(
    draw: Draw,
    counts: Mapping[str, int],
    client: Client,
    ruler: Ruler,
    options: Mapping[str, Any],
    seed: int,
    subject: str,
) -> Draw:
    """Returns a function like `draw`, with the texts that a model makes of its prompts.

    counts: prompts of each split; all are requested here, and kept in memory. subject: "sks
    person", with which every text must begin, or "".
    """
    drawn = {split: list(draw(split, count)) for split, count in counts.items()}
    rough = {
        f"{split}-{number}": prompt
        for split, prompts in drawn.items()
        for number, prompt in enumerate(prompts)
    }
    requests = [_request(key, prompt, options, seed, subject) for key, prompt in rough.items()]
    starts = range(0, len(requests), _SHARD)
    shards = (
        (number, lambda start=start: requests[start : start + _SHARD])
        for number, start in enumerate(starts)
    )
    results: dict[str, Result] = {}
    for _, done in client.ask(shards, _judge(rough, ruler, options, subject)):
        results |= done
    models = {request.key: request.model for request in requests}

    def rich(split: str, count: int) -> Iterator[Prompt]:
        for number, prompt in enumerate(drawn[split][:count]):
            key = f"{split}-{number}"
            yield _enriched(prompt, results[key], models[key], ruler, subject)

    return rich


def _request(
    key: str, prompt: Prompt, options: Mapping[str, Any], seed: int, subject: str
) -> Request:
    models = tuple(dict.fromkeys(options["models"]))
    model = models[int(rng(seed, "prompts", "model", key).integers(len(models)))]
    text = _INSTRUCTION.format(
        rough=_rough(prompt),
        begin=f'Call the person "{subject}" at the beginning. ' if subject else "",
        least=options["min_words"],
        most=options["max_words"],
    )
    return Request(key, "", model, None, lambda attempt: text)


def _rough(prompt: Prompt) -> str:
    return prompt.fields.get("rough_prompt", prompt.text.text)


def _judge(
    rough: Mapping[str, Prompt], ruler: Ruler, options: Mapping[str, Any], subject: str
) -> clients.Judge:
    limits = Limits(options["min_words"], options["max_words"])

    def judge(
        request: Request, instruction: str, text: str, finish: str, earlier: list[str]
    ) -> Refusal | None:
        prompt = rough[request.key]
        # Repeating the rough prompt is what the model is asked for.
        instruction_alone = instruction.replace(_rough(prompt), "")
        refusal = answers.check(
            text, limits, instruction=instruction_alone, finish=finish, earlier=earlier
        )
        if refusal:
            return refusal
        if problem := ruler.fit([Clause(text)]).problem:
            return Refusal("long", problem)
        return _unlike(text, prompt.fields["descriptors"], subject)

    return judge


def _unlike(text: str, descriptors: Mapping[str, str], subject: str) -> Refusal | None:
    """Why a text is not about the person described, as far as its words show."""
    if subject and subject.lower() not in text.partition(",")[0].lower():
        return Refusal("subject", f"its first clause does not name {subject!r}")
    words = set(answers.words(text))
    sex = descriptors["gender"]
    other = {"female": "male", "male": "female"}.get(sex)
    if other and words & _SEX[other] and not words & _SEX[sex]:
        return Refusal("other person", f"it speaks of a {other} person, not of a {sex} one")
    return None


def _enriched(prompt: Prompt, result: Result, model: str, ruler: Ruler, subject: str) -> Prompt:
    fields = {
        "prompt_kind": prompt.fields["prompt_kind"],
        "rough_prompt": _rough(prompt),
    } | prompt.fields
    fields |= {"model": model, "rejected_answers": list(result.rejected)}
    if result.text is None:
        assert result.last is not None
        reason = f"no usable text after {len(result.rejected)} attempts: {result.last.reason}"
        return Prompt(Fitted(prompt.text.text, problem=reason), fields, prompt.redrawn)
    # A sentence begins with a capital; the subject's token stays as the generator learned it.
    fitted = ruler.fit([Clause(result.text)])
    text = re.sub(re.escape(subject), lambda _: subject, fitted.text, flags=re.IGNORECASE)
    return Prompt(dataclasses.replace(fitted, text=text), fields, prompt.redrawn)
