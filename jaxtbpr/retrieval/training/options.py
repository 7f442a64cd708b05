"""The config sections of stage train: `data`, `model` and `train`."""

from jaxtbpr.core.options import Option, Options
from jaxtbpr.datasets import loader
from jaxtbpr.retrieval.clip.model import PIXELS, POSITIONS
from jaxtbpr.retrieval.clip.published import PUBLISHED
from jaxtbpr.retrieval.clip.transformer import ACTIVATIONS, REMAT
from jaxtbpr.retrieval.training import losses
from jaxtbpr.retrieval.training.objective import LOSSES, ContrastiveLoss, HeadLoss
from jaxtbpr.retrieval.training.pair_weights import KINDS

DATA_OPTIONS: Options = {
    "train_sets": Option(("synthetic",), "the built sets to train on"),
    "test_sets": Option(("synthetic",), "the built sets to test on"),
    "tokenizer": Option("", "tokenizer.json or its folder; '' = learned from the train captions"),
    "vocab_size": Option(2048, "tokens of a learned tokenizer", low=300, high=1_000_000),
} | loader.LOADER_OPTIONS

MODEL_OPTIONS: Options = {
    "weights": Option("", "model to start from, with its sizes: folder, file, hub id or tiny-clip"),
    "name": Option("", "published model whose sizes are taken", choices=("", *PUBLISHED)),
    "patch_size": Option(16, "side of an image patch in pixels", low=1, high=64),
    "stem": Option("patch", "what makes patches tokens", choices=("patch", "hierarchical")),
    "vision_width": Option(256, "channels of the vision transformer", low=8, high=4096),
    "vision_layers": Option(6, "blocks of the vision transformer", low=1, high=64),
    "vision_heads": Option(4, "attention heads of the vision transformer", low=1, high=64),
    "text_width": Option(256, "channels of the text transformer", low=8, high=4096),
    "text_layers": Option(4, "blocks of the text transformer", low=1, high=64),
    "text_heads": Option(4, "attention heads of the text transformer", low=1, high=64),
    "embed_dim": Option(256, "channels of the common space", low=8, high=4096),
    "activation": Option("gelu_tanh", "of the MLPs", choices=tuple(ACTIVATIONS)),
    "pixels": Option("imagenet", "whose colours are normalised to", choices=tuple(PIXELS)),
    "positions": Option(
        "normal", "what those of the patches start as, learned then", choices=tuple(POSITIONS)
    ),
    "dtype": Option("float32", "of the computation", choices=("float32", "bfloat16")),
    "scan": Option(False, "compile one block of a tower for all: fast to start, slower a step"),
    "remat": Option("none", "what the backward pass computes again", choices=tuple(REMAT)),
}

TARGETS = ("identity", "facts")


def _weight(loss: ContrastiveLoss | HeadLoss) -> Option:
    return Option(loss.default, f"weight of {loss.title}", low=0, high=100)


OPTIONS: Options = {
    "batch_size": Option(128, "pairs in a step, over all devices", low=2, high=1_000_000),
    "epochs": Option(8, "passes over the data", low=1, high=10_000),
    "steps": Option(0, "steps in all; 0 = as many as the epochs have", low=0, high=100_000_000),
    "learning_rate": Option(1e-3, "peak learning rate", low=0, high=10),
    "start_learning_rate": Option(1e-6, "learning rate of the first step", low=0, high=10),
    "end_learning_rate": Option(5e-6, "learning rate that the cosine ends at", low=0, high=10),
    "warmup_epochs": Option(1.0, "epochs in which the rate rises", low=0, high=10_000),
    "weight_decay": Option(0.02, "of AdamW, on matrices and embeddings", low=0, high=10),
    "beta2": Option(0.98, "of AdamW's second moment", low=0.5, high=0.9999),
    "clip_norm": Option(0.0, "largest norm of the gradients; 0 = no clipping", low=0, high=1e6),
    "freeze": Option("", "regular expression of whole parameter paths that stay as they are"),
    "layer_decay": Option(1.0, "learning rate of a block over that above it", low=0.01, high=1),
    "head_lr_factor": Option(
        5.0, "learning rate of the identity and word heads over the others'", low=0
    ),
    "lora": Option("", "regular expression of kernel paths that LoRA changes; the rest is frozen"),
    "lora_rank": Option(8, "rank of LoRA's changes", low=1, high=1024),
    **{loss.name: _weight(loss) for loss in LOSSES},
    "ritc_eps": Option(1e-8, "added to the targets of R-ITC", low=1e-30, high=1),
    "robust_loss": Option("smoothing", "noise-robust loss", choices=tuple(losses.ROBUST)),
    "mlm_layers": Option(4, "blocks of the head that guesses masked words", low=1, high=64),
    "multi_view": Option(False, "N-ITC of a second view of each image, too"),
    "captions": Option(1, "captions of each image in a step", low=1, high=64),
    "targets": Option(
        "identity", "captions match their identity, or all of whom they are true", choices=TARGETS
    ),
    "small_loss_fraction": Option(
        1.0, "share of a batch, of the smallest losses, that counts", low=0, high=1
    ),
    "channel_mask": Option(0.0, "share of the embedding's channels left out", low=0, high=0.99),
    "soft_labels": Option("sigmoid", "kind of soft labels", choices=losses.SOFT_LABELS),
    "soft_label_ratio": Option(0.0, "their share, after the first epoch", low=0, high=1),
    "save_pair_losses": Option(False, "write the loss of every train pair after each epoch"),
    "denoise": Option("", "weights of the pairs from their losses", choices=KINDS),
    "denoise_warmup_epochs": Option(1, "epochs before these weights count", low=1, high=10_000),
    "ema_decay": Option(
        0.0, "decay of a moving average of the weights; 0 = off", low=0, high=0.99999
    ),
    "grad_cache_chunks": Option(
        1, "parts of a batch that the towers take one by one", low=1, high=65536
    ),
    "loss_rows": Option(
        0, "rows of similarities held at a time; 0 = all rows", low=0, high=1_000_000
    ),
    "accumulation_steps": Option(1, "steps whose gradients make one update", low=1, high=65536),
    "patience": Option(
        0, "evaluations without a better one that end it; 0 = never stop early", low=0
    ),
    "fsdp": Option(1, "devices that share one copy of the parameters", low=1, high=65536),
    "log_every": Option(10, "steps between rows of metrics.jsonl", low=1, high=1_000_000),
    "eval_every": Option(1.0, "epochs between evaluations", low=0.001, high=10_000),
    "checkpoint_every": Option(250, "steps between checkpoints", low=1, high=1_000_000_000),
    "eval_batch_size": Option(100, "images or captions embedded at once", low=1, high=1_000_000),
}
