"""Real people without captions (Market-1501, MSMT17, ...): a model writes the captions.

After `python -m jaxtbpr.workers.install`, on a machine with a GPU:

  python -m jaxtbpr.main --config=configs/photos.py --config.photos.folder=/data/Market-1501

`--config.caption.engine=openai --config.caption.url=http://HOST:8000/v1` asks a server instead.
The built set is called "synthetic", since its captions are; its splits are the folder's.
"""

from jaxtbpr.stages import default_config


def get_config():
    config = default_config()
    config.stages = ("photos", "caption", "build", "train", "evaluate", "report")
    config.caption.update(engine="transformers", dtype="bfloat16", instruction="both")
    config.data.image_size = (128, 64)
    config.data.vocab_size = 8192
    config.train.update(batch_size=80, epochs=30, learning_rate=5e-4)
    return config
