"""SynTBPR's retrieval model: EVA02-CLIP (or any published CLIP) fine-tuned by N-ITC and R-ITC.

The argument names the set to train on, as in configs/real.py; the weights are yours:

  python -m jaxtbpr.main --config=configs/syntbpr.py:cuhk_pedes \
      --config.build.folders.cuhk_pedes=/data/CUHK-PEDES \
      --config.model.weights=/models/EVA02_CLIP_B_psz16_s8B.safetensors \
      --config.data.tokenizer=/models/clip-tokenizer

Pre-training on synthetic data first (`syntbpr.py:own`, rate 5e-5, 8 epochs, batch 320), then on a
real set, is the same command twice, with WORKDIR/train of the first as the second's weights. The
values are the published ones; only the model is selected on validation identities here.
"""

from jaxtbpr.stages import default_config

REAL = ("cuhk_pedes", "icfg_pedes", "rstpreid")
SYNTHETIC = ("mals", "luperson_mllm", "synth_pedes", "own")


def get_config(arg="cuhk_pedes"):
    if arg not in REAL + SYNTHETIC:
        known = ", ".join(REAL + SYNTHETIC)
        raise ValueError(f"configs/syntbpr.py:{arg} is not known; use one of {known}")
    is_synthetic = arg in SYNTHETIC
    config = default_config()
    config.stages = ("build", "train", "evaluate", "report")
    config.build.folders = {name: "" for name in REAL + SYNTHETIC}  # "" = not there
    config.build.images = {name: "" for name in REAL + SYNTHETIC}  # "" = in its usual place
    config.build.formats = {name: "" for name in REAL + SYNTHETIC}  # "" = as detected
    config.data.train_sets = (arg,)
    config.data.test_sets = ()  # all that have a test split
    config.data.update(image_size=(224, 224), text_length=77)
    config.data.augment.update(policy="two_of_six", word_deletion=0.05)
    config.train.update(
        batch_size=320,
        epochs=8 if is_synthetic else 5,
        learning_rate=5e-5 if is_synthetic else 1e-4,
        start_learning_rate=1e-6,
        end_learning_rate=5e-6,
        warmup_epochs=1.0,
        weight_decay=0.02,
        nitc=1.0,
        ritc=1.0,
        ritc_eps=1e-8,
        soft_labels="sigmoid",
        soft_label_ratio=0.005,
        grad_cache_chunks=4,
    )
    config.model.update(scan=True, dtype="bfloat16")
    return config
