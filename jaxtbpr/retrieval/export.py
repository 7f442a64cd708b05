"""Command: exports a trained model to the formats of other libraries.

  jaxtbpr export --checkpoint=WORKDIR/train --out=FOLDER

--format=auto chooses the format that most tools open, and prints which and why.
huggingface: opens with transformers' CLIPModel.from_pretrained and CLIPProcessor, in PyTorch too;
  for square images only.
openai, timm: a folder for open_clip's create_model_from_pretrained("local-dir:FOLDER") and
  get_tokenizer; openai for tall images, timm for EVA02-CLIP at its published image size.
eva: the tensor names of EVA02-CLIP's own code.
"""

from absl import flags

from jaxtbpr.core import command, files
from jaxtbpr.core.progress import say
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.weights.names import FORMATS
from jaxtbpr.retrieval.clip.weights.open_clip import timm_name
from jaxtbpr.retrieval.saved import RESIZE_HELP, RESIZES, open_saved
from jaxtbpr.retrieval.training.checkpoint import WHICH

AUTO = "auto"
DTYPES = ("float32", "float16")


def export(
    checkpoint: str, out: str, *, which: str, kind: str, dtype: str, resize: str = ""
) -> None:
    """Writes the model in `checkpoint` (see `open_saved`) to folder `out`.

    kind: one of names.FORMATS, or "auto" for the one that most tools open. Raises InputError
    where that format cannot hold the model, and where `out` holds another model.
    """
    saved = open_saved(checkpoint, which, resize=resize)
    if kind == AUTO:
        kind, why = weights.choose_format(saved.config, saved.resize)
        say(f"export: chose --format={kind}, since {why}")
    weights.refuse_another_model(out, kind)
    weights.save_folder(
        out,
        saved.read_params(),
        saved.config,
        saved.tokenizer(),
        kind=kind,
        resample=saved.resample,
        resize=saved.resize,
        dtype=dtype,
    )
    say(f"export: {kind} checkpoint in {out}")
    if kind == "eva" or (kind == "timm" and timm_name(saved.config) is None):
        say(
            "export: open_clip has no such network, so only jaxtbpr reads this folder, and "
            "EVA02-CLIP's own code if it was written with --format=eva. To open it in open_clip, "
            "use --format=timm with an EVA02-CLIP at its published image size."
        )


def main() -> None:
    """Runs `export` with the command's flags."""
    args = flags.FLAGS
    files.check_output(args.out, "--out", folder=True)
    export(
        args.checkpoint,
        args.out,
        which=args.which,
        kind=args.format,
        dtype=args.dtype,
        resize=args.resize,
    )


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("checkpoint", None, "WORKDIR, or a published checkpoint")
    flags.DEFINE_string("out", None, "folder to write")
    flags.DEFINE_enum("which", "selected", WHICH, "checkpoint: best on validation, or last")
    flags.DEFINE_enum("format", AUTO, (AUTO, *FORMATS), "format of the exported checkpoint")
    flags.DEFINE_enum("dtype", "float32", DTYPES, "dtype of the tensors")
    flags.DEFINE_enum("resize", "", RESIZES, RESIZE_HELP)
    command.require("checkpoint", "out")


COMMAND = "export", "export a trained model for transformers or open_clip"

if __name__ == "__main__":
    define_flags()
    command.run(main, "--checkpoint and --out")
