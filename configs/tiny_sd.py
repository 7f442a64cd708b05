"""tiny-sd: a Stable Diffusion in miniature, trained on drawn people and the prompts that draw them.

  python -m jaxtbpr.main --config=configs/tiny_sd.py

The autoencoder comes first, then text encoder and UNet together on its latents, with min-SNR
weights, a tenth of the prompts left empty, and a moving average of the weights. A killed run goes
on from its last checkpoint. runs/tiny_sd/finetune/model is a Diffusers folder, as generate.model
of another run may name it. What is shipped as jaxtbpr/assets/tiny-sd has a sharper decoder, trained
alone on the latents as they were: vae/ is of this second run, all else of the first.

  python -m jaxtbpr.main --config=configs/tiny_sd.py --workdir=runs/tiny_sd-decoder \
      --config.finetune.start=runs/tiny_sd/finetune/model --config.finetune.vae_parts=decoder \
      --config.finetune.vae.steps=7600 --config.finetune.unet.steps=20
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
