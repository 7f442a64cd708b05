"""tiny-clip: the CLIP in jaxtbpr/assets, trained on drawn people alone.

Captions name everything that the renderer draws, scene and style too, in short sentences without
mistakes, so that the model can be asked for one attribute at a time. Images are square and the
towers are those of Hugging Face's CLIPModel.

Three rounds, each from the weights of the one before and on newly drawn people, since a round sees
each of its images several times:

  python -m jaxtbpr.main --config=configs/tiny_clip.py
  python -m jaxtbpr.main --config=configs/tiny_clip.py:second \
      --config.model.weights=runs/tiny_clip/train
  python -m jaxtbpr.main --config=configs/tiny_clip.py:third \
      --config.model.weights=runs/tiny_clip-second/train
  python -m jaxtbpr.retrieval.export --checkpoint=runs/tiny_clip-third/train \
      --out=jaxtbpr/assets/tiny-clip --dtype=float16 --which=last
  python -m jaxtbpr.retrieval.zero_shot --model=tiny-clip --workdir=runs/tiny_clip
"""

from jaxtbpr.stages import default_config

# Probability that a caption names a slot: one or two of all, so that each slot must be learned.
MENTION = {
    "sex": 0.08, "age": 0.02, "build": 0.02, "hair": 0.09, "hair_colour": 0.09,
    "upper": 0.09, "upper_colour": 0.12, "upper_pattern": 0.09, "sleeves": 0.02,
    "lower": 0.09, "lower_colour": 0.14, "shoes": 0.08, "shoes_colour": 0.09,
    "bag": 0.12, "bag_colour": 0.09, "hat": 0.13, "hat_colour": 0.11,
    "eyewear": 0.14, "item": 0.12, "item_colour": 0.6,
    "posture": 0.08, "view": 0.06, "background": 0.06, "weather": 0.1, "style": 0.12,
}  # fmt: skip

ROUNDS = {"first": 4_000, "second": 8_000, "third": 4_000}  # steps


def get_config(arg="first"):
    config = default_config()
    config.prompts.update(train=14_000, val=100, test=500)  # identities
    config.generate.update(height=128, width=64)
    config.augment.edits = 3
    config.augment.change.update(background=1.0, weather=1.0, style=1.0)
    config.caption.update(wrong=0.0, missing=0.0, template_min_words=5)
    config.caption.per_image.train = 16
    config.caption.mention.update(MENTION)
    config.data.update(image_size=(128, 128), text_length=24, vocab_size=640, cache_mb=2048)
    config.data.augment.update(jitter=0.0, erase=0.0, crop_area=0.9)
    config.model.update(patch_size=16, positions="sines", embed_dim=128, activation="quick_gelu")
    config.model.update(vision_width=128, vision_layers=5, vision_heads=4)
    config.model.update(text_width=96, text_layers=2, text_heads=4)
    # Eight captions of an image in a step, since images are expensive to encode. Short captions are
    # true of many images of a batch, which must not be negatives.
    config.train.update(batch_size=64, captions=8, targets="facts")
    config.train.update(learning_rate=1e-3, warmup_epochs=0.02, clip_norm=1.0, weight_decay=0.1)
    config.train.update(ema_decay=0.998, eval_every=0.1)

    if arg not in ROUNDS:
        raise ValueError(f"configs/tiny_clip.py:{arg} is not known; the rounds are {list(ROUNDS)}")
    config.seed = list(ROUNDS).index(arg)
    config.train.steps = ROUNDS[arg]
    if arg != "first":
        config.prompts.update(val=20, test=20)
    return config
