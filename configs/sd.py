"""SynTBPR's images of new people, by your Stable Diffusion 1.x or 2.x.

Rich prompts of the paper's four kinds, five images of each, every image a new identity;
PNDM, 50 steps, guidance 8.5. On each TPU core or GPU of the machine:

  python -m jaxtbpr.main --config=configs/sd.py --config.generate.model=/models/sd-v1-5
  python -m jaxtbpr.main --config=configs/sd.py:smoke --config.generate.model=/models/sd-v1-5

The model is a Diffusers folder, a hub id or a single .safetensors file with its tokenizer's files
beside it. The images are in WORKDIR/generate, the records of accepted ones in WORKDIR/filter.
"""

from jaxtbpr.stages import default_config


def get_config(arg="full"):
    config = default_config()
    config.stages = ("prompts", "generate", "filter")
    config.prompts.update(engine="grammar", images_per_prompt=5, train=4000, val=100, test=0)
    config.generate.update(engine="diffusion", sampler="pndm", steps=50, guidance_scale=8.5)
    config.generate.update(dtype="bfloat16", jpeg_quality=95)

    if arg == "smoke":
        config.prompts.update(train=2, val=0, images_per_prompt=2)
        config.generate.update(steps=4, dtype="float32")
    elif arg != "full":
        raise ValueError(f"configs/sd.py:{arg} is not known; use configs/sd.py or :smoke")
    return config
