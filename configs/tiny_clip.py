"""tiny-clip: the CLIP that is shipped in jaxtbpr/assets, trained on drawn people alone.

Captions name everything that the renderer draws, scene and style too, in short sentences without
mistakes, so that the model can be asked for one attribute at a time. Images are squares and the
towers plain, as Hugging Face's CLIPModel has them.

  python -m jaxtbpr.main --config=configs/tiny_clip.py
  python -m jaxtbpr.retrieval.export --checkpoint=runs/tiny_clip/train \
      --out=jaxtbpr/assets/tiny-clip --dtype=float16
  python -m jaxtbpr.retrieval.zero_shot --model=jaxtbpr/assets/tiny-clip --workdir=runs/tiny_clip
"""

from jaxtbpr.pipeline import default_config

# How often a caption names a slot: two or three of all, so that no slot can be left to others.
MENTION = {
    "sex": 0.15, "age": 0.04, "build": 0.04, "hair": 0.12, "hair_colour": 0.12,
    "upper": 0.15, "upper_colour": 0.2, "upper_pattern": 0.15, "sleeves": 0.05,
    "lower": 0.15, "lower_colour": 0.2, "shoes": 0.12, "shoes_colour": 0.15,
    "bag": 0.15, "bag_colour": 0.12, "hat": 0.18, "hat_colour": 0.15,
    "eyewear": 0.15, "item": 0.15, "item_colour": 0.6,
    "posture": 0.12, "view": 0.1, "background": 0.1, "weather": 0.15, "style": 0.2,
}  # fmt: skip


def get_config():
    config = default_config()
    config.prompts.update(train=14_000, val=100, test=500)  # identities
    config.generate.update(height=128, width=64)
    config.augment.edits = 3
    config.augment.change.update(background=1.0, weather=1.0, style=1.0)
    config.caption.update(wrong=0.0, missing=0.0, fewest_words=3)
    config.caption.per_image.train = 12
    config.caption.mention.update(MENTION)
    config.data.update(image_size=(128, 128), text_length=24, vocab_size=640, cache_mb=2048)
    config.data.augment.update(jitter=0.0, erase=0.0, crop_area=0.9)
    config.model.update(patch=16, embed_dim=128, activation="quick_gelu")
    config.model.update(vision_width=160, vision_layers=6, vision_heads=5)
    config.model.update(text_width=128, text_layers=2, text_heads=4)
    config.train.update(batch_size=128, steps=8_000, warmup_epochs=0.05, learning_rate=1e-3)
    config.train.update(captions=6, ema=0.999, clip_norm=1.0, eval_every=0.2, weight_decay=0.1)
    return config
