"""The main job: a retrieval model from nothing but drawn people, in under ten minutes on 2 cores.

SynTBPR (arXiv 2503.22171), scenario "no real data", with the embedded engines: prompts are drawn
from attribute lists, people are rendered, each is shown again in other scenes, captions come
from a grammar with mistakes in them, and a small CLIP is trained from scratch.

  python -m jaxtbpr.main --config=configs/syn.py            the whole job
  python -m jaxtbpr.main --config=configs/syn.py:smoke      the same path in about a minute
"""

from jaxtbpr.pipeline import default_config


def get_config(arg="full"):
    config = default_config()
    config.seed = 0
    config.prompts.update(train=2500, val=100, test=250)  # identities
    config.generate.update(height=128, width=64)
    config.augment.edits = 3  # so 4 images of each identity
    config.data.update(text_length=48, vocab_size=1024)  # 99 % of the captions have fewer tokens
    config.data.augment.update(jitter=0.0, erase=0.0)  # four epochs are too few to need more
    # A small model of many steps: batches of 128 took twice the images to the same R@1.
    config.model.update(stem="hierarchical", embed_dim=128)
    config.model.update(vision_width=128, vision_layers=4, vision_heads=4)
    config.model.update(text_width=96, text_layers=2, text_heads=4)
    config.train.update(batch_size=64, epochs=4, warmup_epochs=0.33, learning_rate=1e-3)

    if arg == "smoke":
        config.prompts.update(train=48, val=8, test=12)
        config.model.update(vision_layers=2, text_layers=2, vision_width=64, text_width=64)
        config.train.update(batch_size=32, warmup_epochs=1)
    elif arg != "full":
        raise ValueError(f"configs/syn.py:{arg} is not known; use configs/syn.py or :smoke")
    return config
