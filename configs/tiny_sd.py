"""tiny-sd: a Stable Diffusion in miniature, trained on drawn people and the prompts that draw them.

The autoencoder comes first, then text encoder and UNet together on its latents, with min-SNR
weights, a tenth of the prompts left empty, and a moving average of the weights. A killed run
resumes from its last checkpoint. WORKDIR/finetune/model is a Diffusers folder, for generate.model
of another run. jaxtbpr/assets/tiny-sd was made in four rounds, each from the weights of the one
before. The last adds a perceptual loss by a CLIP trained on drawn people, but not tiny-clip, which
evaluates the images.

  python -m jaxtbpr.main --config=configs/tiny_sd.py
  python -m jaxtbpr.main --config=configs/tiny_sd.py:decoder \
      --config.finetune.model=runs/tiny_sd/finetune/model
  python -m jaxtbpr.main --config=configs/tiny_sd.py:whole \
      --config.finetune.model=runs/tiny_sd-decoder/finetune/model
  python -m jaxtbpr.main --config=configs/syn.py:scratch --workdir=runs/drawn \
      --config.generate.engine=render --config.augment.engine=render
  python -m jaxtbpr.main --config=configs/tiny_sd.py:last \
      --config.finetune.model=runs/tiny_sd-whole/finetune/model
"""

from jaxtbpr.stages import default_config


def get_config(arg="first"):
    config = default_config()
    config.stages = ("prompts", "generate", "finetune")
    config.prompts.update(train=30_000, val=0, test=500)
    config.generate.update(height=128, width=64)
    config.finetune.update(text_length=64, channels=(64, 128), vae_channels=(16, 32, 48, 64))
    config.finetune.latent_channels = 12  # 4 lose small things: shoes, hats, glasses
    steps = {
        "first": (3_200, 4_600),
        "decoder": (7_600, 0),  # keeps the latents that the UNet has learned
        "whole": (8_000, 2_400),
        "last": (1_500, 7_000),
    }
    if arg not in steps:
        raise ValueError(f"configs/tiny_sd.py:{arg} is not known; use one of {', '.join(steps)}")
    config.finetune.vae.steps, config.finetune.unet.steps = steps[arg]
    if arg in ("decoder", "last"):
        config.finetune.vae_parts = "decoder"
    if arg == "last":
        config.seed = 1  # newly drawn people
        config.prompts.train = 40_000
        config.finetune.vae.learning_rate = 5e-3
        config.finetune.perceptual.update(weight=1.5, model="runs/drawn/train")
    return config
