"""Trains and evaluates on real data, in its published layout, with the stages of configs/syn.py.

The argument names the set to train on; every folder that is named is built, and evaluated on if it
has a test split (`--config.data.test_sets="('rstpreid',)"` chooses):

  python -m jaxtbpr.main --config=configs/real.py:rstpreid \
      --config.build.folders.rstpreid=/data/RSTPReid --config.build.folders.cuhk_pedes=/data/CUHK

`own` stands for a folder of your own: images beside one CSV or JSON-lines file (see
jaxtbpr/datasets/README.md).
Optimiser and schedule follow TBPS-CLIP's config for real data (batch 80), but for the learning rate
and the epochs, which are those of a small model from scratch (TBPS-CLIP has 1e-4 and 5);
configs/syntbpr.py starts from published weights.
"""

from jaxtbpr.stages import default_config

SETS = ("cuhk_pedes", "icfg_pedes", "rstpreid", "mals", "luperson_mllm", "synth_pedes", "own")


def get_config(arg="cuhk_pedes"):
    if arg not in SETS:
        raise ValueError(f"configs/real.py:{arg} is not known; use one of {', '.join(SETS)}")
    config = default_config()
    config.stages = ("build", "train", "evaluate", "report")
    config.build.folders = {name: "" for name in SETS}  # "" = not there
    config.build.images = {name: "" for name in SETS}  # "" = in its usual place
    config.build.formats = {name: "" for name in SETS}  # "" = as detected
    config.data.train_sets = (arg,)
    config.data.test_sets = ()  # all that have a test split
    config.data.image_size = (128, 64)
    config.data.vocab_size = 8192
    config.train.update(batch_size=80, epochs=30, learning_rate=5e-4)
    return config
