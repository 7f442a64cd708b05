"""tiny-sd: a Stable Diffusion in miniature, trained on drawn people and the prompts that draw them.

  python -m jaxtbpr.main --config=configs/tiny_sd.py

The autoencoder comes first, then text encoder and UNet together on its latents, with min-SNR
weights, a tenth of the prompts left empty, and a moving average of the weights. A killed run goes
on from its last checkpoint. runs/tiny_sd/finetune/model is the Diffusers folder that is shipped as
jaxtbpr/assets/tiny-sd, for generate.model of another run. To go on from it with other people:

  python -m jaxtbpr.main --config=configs/tiny_sd.py --workdir=runs/tiny_sd-more --config.seed=1 \
      --config.finetune.start=tiny-sd --config.finetune.vae_parts=decoder
"""

from jaxtbpr.pipeline import default_config


def get_config():
    config = default_config()
    config.stages = ("prompts", "generate", "finetune")
    config.prompts.update(train=30_000, val=0, test=500)
    config.generate.update(height=128, width=64)
    config.finetune.update(text_length=64, channels=(64, 128), vae_channels=(16, 32, 48, 64))
    config.finetune.latent_channels = 12  # 4 are too few for small things: shoes, hats, glasses
    config.finetune.vae.update(steps=3_200)
    config.finetune.unet.update(steps=4_600)
    return config
