r"""SynTBPR's method (arXiv:2503.22171): a language model writes the prompts, multimodal models
write the captions, Stable Diffusion makes the images.

On a machine with a GPU, after `python -m jaxtbpr.workers.install` and `... install pose`:

  python -m jaxtbpr.main --config=configs/syn_mllm.py --config.generate.model=/models/sd-v1-5
  python -m jaxtbpr.main --config=configs/syn_mllm.py:server \
      --config.generate.model=/models/sd-v1-5 \
      --config.prompts.llm.url=http://HOST:8001/v1 --config.caption.url=http://HOST:8000/v1

Models are folders or hub ids. :server asks OpenAI-compatible servers (vLLM, SGLang), as many
models as each serves; :smoke runs the same stages on a few records.
"""

from jaxtbpr.stages import default_config

LLM = "Qwen/Qwen2-7B-Instruct"
MLLMS = ("OpenGVLab/InternVL3-8B-hf", "Qwen/Qwen2.5-VL-7B-Instruct")


def get_config(arg="full"):
    config = default_config()
    config.prompts.update(engine="llm", images_per_prompt=5, train=4000, val=100, test=200)
    # Stage augment appends another scene to a prompt, in up to 27 of the text encoder's 77 tokens.
    config.prompts.max_tokens = 50
    config.prompts.llm.update(models=(LLM,), dtype="bfloat16", max_words=36)
    config.generate.update(engine="diffusion", sampler="pndm", steps=50, guidance_scale=8.5)
    config.generate.update(dtype="bfloat16", jpeg_quality=95)
    # One person each, cropped; as in the paper with --config.filter.pose.model=yolov8x-pose-p6.onnx
    config.filter.engines = ("quality", "pose")
    config.augment.update(engine="diffusion", edits=3)
    # Four captions of an image, as the published sets seem to have; both kinds of instruction.
    config.caption.update(engine="transformers", models=MLLMS, dtype="bfloat16")
    config.caption.update(instruction="both", per_image={"train": 4, "val": 1, "test": 1})
    config.train.update(ritc=1.0)

    if arg == "server":
        config.prompts.llm.engine = "openai"
        config.caption.update(engine="openai", models=MLLMS[1:])  # most servers have one
    elif arg == "smoke":
        config.prompts.update(train=4, val=1, test=1, images_per_prompt=2)
        config.generate.update(steps=4, dtype="float32")
        config.augment.edits = 1
    elif arg != "full":
        raise ValueError(f"configs/syn_mllm.py:{arg} is not known; use :server or :smoke")
    return config
