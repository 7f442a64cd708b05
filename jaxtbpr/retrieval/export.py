"""Command: writes a trained model as others read it.

  python -m jaxtbpr.retrieval.export --checkpoint=WORKDIR/train --out=FOLDER

--format=auto writes the form that most tools open, and says which and why. huggingface, of square
images alone, opens with transformers' CLIPModel.from_pretrained and CLIPProcessor, in PyTorch too.
openai or timm is a folder for open_clip's create_model_from_pretrained("local-dir:FOLDER") and
get_tokenizer: openai holds tall images, timm EVA02-CLIPs at their published image size. eva has
the names of EVA02-CLIP's own code.
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

    kind: of names.FORMATS, or "auto" for the one that most tools open it in. Raises InputError
    where that format cannot hold it, and where `out` holds another model.
    """
    saved = open_saved(checkpoint, which, resize=resize)
    if kind == AUTO:
        kind, why = weights.choose_format(saved.config, saved.resize)
        say(f"export: --format={kind} is chosen, since {why}")
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
            "export: open_clip has no such network; the commands here read it, and the code of "
            "EVA02-CLIP reads names of --format=eva. --format=timm of an EVA02-CLIP at its "
            "published image size opens in open_clip."
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
    flags.DEFINE_enum("which", "selected", WHICH, "checkpoint of a training")
    flags.DEFINE_enum("format", AUTO, (AUTO, *FORMATS), "names and layout of the tensors")
    flags.DEFINE_enum("dtype", "float32", DTYPES, "of the tensors")
    flags.DEFINE_enum("resize", "", RESIZES, RESIZE_HELP)
    command.require("checkpoint", "out")


if __name__ == "__main__":
    define_flags()
    command.run(main, "--checkpoint and --out")
