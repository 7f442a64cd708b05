"""Plots of training: every scalar by step, and R@1 by epoch."""

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.metrics_writer import read_metrics
from jaxtbpr.report import plots
from jaxtbpr.report.plots import Line, Plot

MODEL = "model.json"  # of stage train

# Order and titles of the scalars of train/metrics.jsonl; others follow by their names.
SCALARS = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    "logit_scale": "Logit scale",
    "gradient_norm": "Gradient norm",
    "images_per_second": "Images per second",
    "host_wait": "Time spent waiting for data",
}
SMOOTH = ("loss", "gradient_norm", "images_per_second", "host_wait")
FROM_ZERO = ("loss", "learning_rate", "gradient_norm", "images_per_second", "host_wait")
PERCENT = ("host_wait",)
NOT_PLOTTED = ("step", "epoch")


def scalar_plots(folder: epath.Path) -> list[Plot]:
    """Returns a plot for each scalar of `folder`/metrics.jsonl; [] without that file."""
    rows = read_metrics(folder / "metrics.jsonl")
    names = {name for row in rows for name in row if name not in NOT_PLOTTED}
    ordered = [name for name in SCALARS if name in names]
    ordered += sorted(names - set(SCALARS))
    return [_scalar_plot(name, rows) for name in ordered]


def recall_plot(folder: epath.Path) -> Plot | None:
    """Returns R@1 of every evaluated set by epoch, from `folder`/evals.jsonl; None without it."""
    rows = read_metrics(folder / "evals.jsonl")
    sets = list(dict.fromkeys(row["set"] for row in rows))
    if not sets:
        return None
    lines = []
    for name in sets:
        rows_of_set = [row for row in rows if row["set"] == name]
        lines.append(
            Line(
                name, [r["epoch"] for r in rows_of_set], [r["R1"] for r in rows_of_set], marks=True
            )
        )
    return plots.lines("R@1 by epoch", lines, x_label="epoch", percent=True, from_zero=True)


def model_rows(folder: epath.Path, weights: str) -> list[tuple[str, str]]:
    """Returns (part, its sizes) of the trained model, from `folder`/model.json; [] without it.

    weights: the checkpoint that training started from, "" for none.
    """
    path = folder / MODEL
    if not path.exists():
        return []
    model = files.read_json(path)["model"]
    height, width = model["image_size"]
    started = [("started from", weights)] if weights else []
    return [
        *started,
        ("images", f"{height} x {width} pixels, in patches of {model['patch_size']}"),
        ("image tower", _tower(model["vision"])),
        ("text", f"{model['text_length']} tokens of {model['vocab_size']:,}"),
        ("text tower", _tower(model["text"])),
        ("embedding", f"{model['embed_dim']} dimensions"),
    ]


def _tower(sizes: dict) -> str:
    return f"{sizes['layers']} blocks of {sizes['width']} channels, {sizes['heads']} heads"


def _scalar_plot(name: str, rows: list[dict]) -> Plot:
    rows_of_scalar = [row for row in rows if name in row]
    title = SCALARS.get(name, name.replace("_", " "))
    line = Line(
        title, [row["step"] for row in rows_of_scalar], [row[name] for row in rows_of_scalar]
    )
    return plots.lines(
        title,
        [line],
        x_label="step",
        percent=name in PERCENT,
        smooth=name in SMOOTH,
        from_zero=name in FROM_ZERO,
    )
