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

# How often a caption names a slot: about seven of all, the small ones as often as the large.
MENTION = {
    "sex": 0.6, "age": 0.2, "build": 0.2, "hair": 0.3, "hair_colour": 0.3,
    "upper": 0.5, "upper_colour": 0.6, "upper_pattern": 0.35, "sleeves": 0.2,
    "lower": 0.5, "lower_colour": 0.6, "shoes": 0.35, "shoes_colour": 0.35,
    "bag": 0.6, "bag_colour": 0.4, "hat": 0.6, "hat_colour": 0.4,
    "eyewear": 0.4, "item": 0.5, "item_colour": 0.4,
    "posture": 0.35, "view": 0.3, "background": 0.35, "weather": 0.4, "style": 0.4,
}  # fmt: skip


def get_config():
    config = default_config()
    config.prompts.update(train=8_000, val=100, test=500)  # identities
    config.generate.update(height=128, width=64)
    config.augment.edits = 3
    config.augment.change.update(background=1.0, weather=1.0, style=1.0)
    config.caption.update(wrong=0.0, missing=0.0, fewest_words=3)
    config.caption.mention.update(MENTION)
    config.data.update(image_size=(96, 96), text_length=48, vocab_size=640, cache_mb=2048)
    config.data.augment.update(jitter=0.0, erase=0.0, crop_area=0.9)
    config.model.update(patch=16, embed_dim=128, activation="quick_gelu")
    config.model.update(vision_width=160, vision_layers=6, vision_heads=5)
    config.model.update(text_width=128, text_layers=3, text_heads=4)
    config.train.update(batch_size=128, epochs=6, warmup_epochs=0.5, learning_rate=1e-3)
    config.train.update(ema=0.999, clip_norm=1.0, eval_every=1.0)
    return config
