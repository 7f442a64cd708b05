"""The config sections of stage train: `data`, `model` and `train`."""

from jaxtbpr.core.options import Option, Options
from jaxtbpr.datasets import loader
from jaxtbpr.retrieval.clip.model import PIXELS, POSITIONS
from jaxtbpr.retrieval.clip.published import PUBLISHED
from jaxtbpr.retrieval.clip.transformer import ACTIVATIONS, REMAT
from jaxtbpr.retrieval.training import losses
from jaxtbpr.retrieval.training.objective import LOSSES, ContrastiveLoss, HeadLoss
from jaxtbpr.retrieval.training.pair_weights import METHODS

DATA_OPTIONS: Options = {
    "train_sets": Option(("synthetic",), "built sets to train on"),
    "test_sets": Option(("synthetic",), "built sets to test on; () = all that have a test split"),
    "tokenizer": Option("", "tokenizer.json or its folder; '' = learned from the train captions"),
    "vocab_size": Option(2048, "tokens of a learned tokenizer", low=300, high=1_000_000),
} | loader.LOADER_OPTIONS

MODEL_OPTIONS: Options = {
    "weights": Option("", "model to start from, with its sizes: folder, file, hub id or tiny-clip"),
    "name": Option("", "published model whose sizes to use, untrained", choices=("", *PUBLISHED)),
    "patch_size": Option(16, "side of an image patch in pixels", low=1, high=64),
    "stem": Option("patch", "how patches become tokens", choices=("patch", "hierarchical")),
    "vision_width": Option(256, "channels of the vision transformer", low=8, high=4096),
    "vision_layers": Option(6, "blocks of the vision transformer", low=1, high=64),
    "vision_heads": Option(4, "attention heads of the vision transformer", low=1, high=64),
    "text_width": Option(256, "channels of the text transformer", low=8, high=4096),
    "text_layers": Option(4, "blocks of the text transformer", low=1, high=64),
    "text_heads": Option(4, "attention heads of the text transformer", low=1, high=64),
    "embed_dim": Option(256, "dimensions of the shared embedding", low=8, high=4096),
    "activation": Option("gelu_tanh", "activation of the MLPs", choices=tuple(ACTIVATIONS)),
    "pixels": Option(
        "imagenet", "mean and std that pixels are normalised with", choices=tuple(PIXELS)
    ),
    "positions": Option(
        "normal", "initial positional embedding of the patches", choices=tuple(POSITIONS)
    ),
    "dtype": Option("float32", "dtype of the computation", choices=("float32", "bfloat16")),
    "scan": Option(False, "scan over the blocks of a tower: compiles faster, slower steps"),
    "remat": Option(
        "none", "activations that the backward pass computes again", choices=tuple(REMAT)
    ),
}

TARGETS = ("identity", "facts")


def _weight(loss: ContrastiveLoss | HeadLoss) -> Option:
    return Option(loss.default, f"weight of {loss.title}", low=0, high=100)


OPTIONS: Options = {
    "batch_size": Option(128, "pairs per step, over all devices", low=2, high=1_000_000),
    "epochs": Option(8, "passes over the data", low=1, high=10_000),
    "steps": Option(0, "total steps; 0 = those of the epochs", low=0, high=100_000_000),
    "learning_rate": Option(1e-3, "peak learning rate", low=0, high=10),
    "start_learning_rate": Option(1e-6, "learning rate of the first step", low=0, high=10),
    "end_learning_rate": Option(5e-6, "learning rate at the end of the cosine", low=0, high=10),
    "warmup_epochs": Option(
        1.0, "epochs of linear warm-up of the learning rate", low=0, high=10_000
    ),
    "weight_decay": Option(
        0.02, "weight decay of AdamW, on matrices and embeddings", low=0, high=10
    ),
    "beta2": Option(0.98, "beta2 of AdamW", low=0.5, high=0.9999),
    "clip_norm": Option(0.0, "largest norm of the gradients; 0 = no clipping", low=0, high=1e6),
    "freeze": Option("", "regular expression of the whole paths of frozen parameters"),
    "layer_decay": Option(
        1.0, "learning rate of a block divided by that of the block above", low=0.01, high=1
    ),
    "head_lr_factor": Option(5.0, "learning rate factor of the identity and word heads", low=0),
    "lora": Option("", "regular expression of the kernel paths with LoRA; the rest is frozen"),
    "lora_rank": Option(8, "rank of LoRA", low=1, high=1024),
    **{loss.name: _weight(loss) for loss in LOSSES},
    "ritc_eps": Option(1e-8, "added to the targets of R-ITC", low=1e-30, high=1),
    "robust_loss": Option("smoothing", "noise-robust loss", choices=tuple(losses.ROBUST)),
    "mlm_layers": Option(4, "blocks of the MLM head", low=1, high=64),
    "multi_view": Option(False, "N-ITC also of a second view of each image"),
    "captions": Option(1, "captions per image in a step", low=1, high=64),
    "targets": Option(
        "identity",
        "captions match images of their identity, or all images that they are true of",
        choices=TARGETS,
    ),
    "small_loss_fraction": Option(
        1.0, "fraction of a batch that counts, the smallest losses", low=0, high=1
    ),
    "channel_mask": Option(0.0, "fraction of embedding channels masked", low=0, high=0.99),
    "soft_labels": Option("sigmoid", "function of soft labels", choices=losses.SOFT_LABELS),
    "soft_label_ratio": Option(0.0, "fraction of soft labels after the first epoch", low=0, high=1),
    "save_pair_losses": Option(False, "write the loss of every train pair after each epoch"),
    "denoise": Option("", "how pairs are weighted by their losses; '' = off", choices=METHODS),
    "denoise_warmup_epochs": Option(1, "epochs before these weights are used", low=1, high=10_000),
    "ema_decay": Option(
        0.0, "decay of a moving average of the weights; 0 = off", low=0, high=0.99999
    ),
    "grad_cache_chunks": Option(
        1, "chunks of a batch that the towers process one by one (GradCache)", low=1, high=65536
    ),
    "loss_rows": Option(
        0, "rows of similarities held at a time; 0 = all rows", low=0, high=1_000_000
    ),
    "accumulation_steps": Option(
        1, "steps whose gradients are accumulated per update", low=1, high=65536
    ),
    "patience": Option(
        0, "evaluations without improvement before it stops; 0 = never stop early", low=0
    ),
    "fsdp": Option(1, "devices that one copy of the parameters is split over", low=1, high=65536),
    "log_every": Option(10, "steps between rows of metrics.jsonl", low=1, high=1_000_000),
    "eval_every": Option(1.0, "epochs between evaluations", low=0.001, high=10_000),
    "checkpoint_every": Option(250, "steps between checkpoints", low=1, high=1_000_000_000),
    "eval_batch_size": Option(100, "images or captions embedded per batch", low=1, high=1_000_000),
}
