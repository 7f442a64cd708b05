"""The main config: a retrieval model from generated people alone, in ten minutes on 2 cores.

SynTBPR (arXiv 2503.22171), scenario "no real data", with the embedded models: prompts are drawn
from attribute lists, the Stable Diffusion `tiny-sd` makes an image of each and edits it to show
the same person in other scenes, captions come from a grammar with mistakes in them, and the CLIP
`tiny-clip` is fine-tuned.

  python -m jaxtbpr.main --config=configs/syn.py            the whole job
  python -m jaxtbpr.main --config=configs/syn.py:smoke      the same stages, 1 minute; 4 at first
  python -m jaxtbpr.main --config=configs/syn.py:scratch    with a CLIP from scratch

`--config.generate.engine=render --config.augment.engine=render` draws the people instead.
"""

from jaxtbpr.stages import default_config


def get_config(arg="full"):
    config = default_config()
    config.seed = 0
    config.prompts.update(train=1200, val=50, test=250)  # identities
    config.generate.update(height=128, width=64, engine="diffusion", model="tiny-sd")
    config.generate.update(sampler="dpmpp_2m", steps=12, guidance_scale=5.0)
    config.augment.update(engine="diffusion", edits=2)  # so 3 images of each identity
    config.data.text_length = 48  # 94 % of the captions are shorter, in tokens of tiny-clip
    config.data.augment.update(jitter=0.0, erase=0.0)  # not needed in so few epochs
    config.model.weights = "tiny-clip"
    config.train.update(batch_size=64, epochs=3, warmup_epochs=0.33, learning_rate=3e-4)

    if arg == "smoke":
        config.prompts.update(train=48, val=8, test=12)
        config.train.update(batch_size=32, warmup_epochs=1)
    elif arg == "scratch":
        config.data.vocab_size = 1024  # of these 99 %
        config.model.update(weights="", stem="hierarchical", embed_dim=128)
        config.model.update(vision_width=128, vision_layers=4, vision_heads=4)
        config.model.update(text_width=96, text_layers=2, text_heads=4)
        # Small batches: those of 128 needed twice the images for the same R@1.
        config.train.update(epochs=8, learning_rate=1e-3)
    elif arg != "full":
        raise ValueError(f"configs/syn.py:{arg} is not known; use :smoke, :scratch or nothing")
    return config
