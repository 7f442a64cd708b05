"""Opens a model on disk, trained here or published: to embed with, or to train further."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh
from tokenizers import Tokenizer

from jaxtbpr.core import files, tokenizer
from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import InputError
from jaxtbpr.core.progress import say
from jaxtbpr.core.workdir import COMMIT
from jaxtbpr.datasets.resizing import MODES, SQUASH, Resize
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.model import SHARDING, Clip, ClipConfig, init_params, pixel_moments
from jaxtbpr.retrieval.clip.transformer import with_scan
from jaxtbpr.retrieval.clip.weights.images import Images, read_images
from jaxtbpr.retrieval.clip.weights.positions import resample_grid, resample_line
from jaxtbpr.retrieval.training.checkpoint import Checkpoints

MODEL, TOKENIZER = "model.json", "tokenizer.json"  # of a model trained here, beside checkpoints/
# How a model's images may be resized; "" is `open_saved`'s default.
RESIZES = ("", *MODES, "model")
RESIZE_HELP = (
    "how images are resized; '' = as in training for a model trained here, squash for a published "
    "one"
)

# Files of a published checkpoint's folder by which its tokenizer is found.
_TOKENIZER_FILES = ("merges.txt", "tokenizer.json")


@dataclasses.dataclass(frozen=True)
class Saved:
    """A model whose parameters are not read yet.

    source: where it comes from; config: with the changes of `open_saved`; resample: the filter
    that resizes its images; resize: how they are resized; read_params: returns the parameters for
    `config`, float32.
    """

    source: str
    config: ClipConfig
    resample: str
    resize: Resize
    read_params: Callable[[], Any]
    _tokenizer: Callable[[], Tokenizer]

    def tokenizer(self, path: str = "") -> Tokenizer:
        """Loads its tokenizer, or the one in the file or folder `path`.

        Raises InputError where there is none or it has another number of tokens than the model.
        """
        tokenizer_used = tokenizer.load(path) if path else self._tokenizer()
        if tokenizer_used.get_vocab_size() != self.config.vocab_size:
            raise InputError(
                f"{self.source} has embeddings of {self.config.vocab_size} tokens, but its "
                f"tokenizer has {tokenizer_used.get_vocab_size()}; use the model's own tokenizer."
            )
        return tokenizer_used


def open_saved(
    source: epath.PathLike,
    which: str = "selected",
    *,
    resize: str = "",
    resample: str = "",
    **changes: Any,
) -> Saved:
    """Opens WORKDIR/train or its WORKDIR, or whatever `weights.load` takes.

    which: the checkpoint of a model trained here, "selected" or "last". resize: one of RESIZES;
    "model" does as the checkpoint says; "" as well for a model trained here, but squash for a
    published one, since most of those crop to a square, which cuts off head and feet. resample:
    the filter, "" for the model's. changes: fields of `ClipConfig`; for another image size or text
    length the positions are resampled. Prints a line for each way in which images are prepared
    otherwise than the checkpoint says. Raises InputError where anything is missing.
    """
    directory = trained_folder(source)
    opened = _trained(directory, which, changes) if directory else _published(source, changes)
    saved, images, lines = opened
    chosen = _chosen(resize or ("model" if directory else "squash"), images, saved.source)
    used = dataclasses.replace(saved, resize=chosen, resample=resample or saved.resample)
    for line in [*lines, *_resize_changes(images, saved, used)]:
        say(f"{os.fspath(source)}: {line}")
    return used


def trained_folder(source: epath.PathLike) -> epath.Path | None:
    """Returns the folder of the model trained here that `source` names, None where it names none.

    source: WORKDIR/train, or for short WORKDIR or WORKDIR/train/checkpoints.
    """
    place = epath.Path(source).expanduser()
    near = [place, place / "train", *([place.parent] if place.name == "checkpoints" else [])]
    return next((folder for folder in near if (folder / MODEL).exists()), None)


def placed_shapes(config: ClipConfig, mesh: Mesh) -> Any:
    """The parameters of a model as jax.ShapeDtypeStructs with their shardings on `mesh`."""
    model = Clip(config)
    return meshes.place(lambda: init_params(model, jax.random.key(0)), mesh, SHARDING)


def _trained(
    directory: epath.Path, which: str, changes: dict[str, Any]
) -> tuple[Saved, Images, list[str]]:
    saved = files.read_json(directory / MODEL)
    try:
        saved_config = ClipConfig.from_dict(saved["model"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{directory / MODEL} describes no model of this version ({error!r}); restore the "
            "file, or train the model again."
        ) from error
    config = dataclasses.replace(saved_config, **changes)

    def read_params() -> Any:
        shapes = placed_shapes(saved_config, meshes.make_mesh())
        with Checkpoints(directory / "checkpoints") as checkpoints:
            params = checkpoints.restore_params(checkpoints.step_of(which), shapes)
        return _adapt(jax.device_get(params), saved_config, config)

    tokenizer_file = directory / TOKENIZER
    source = os.fspath(directory)
    resize = Resize(**saved.get("resize", {}))  # old runs did not save it: they could only squash
    images = Images(
        saved_config.pixels, saved["resample"], saved_config.image_size, resize, directory / MODEL
    )
    opened = Saved(
        source, config, images.resample, resize, read_params, lambda: tokenizer.load(tokenizer_file)
    )
    is_finished = (directory / COMMIT).exists()
    lines = (
        [] if is_finished else [f"training is not finished; using the {which} checkpoint so far"]
    )
    return opened, images, lines


def _published(
    source: epath.PathLike, changes: dict[str, Any]
) -> tuple[Saved, Images | None, list[str]]:
    checkpoint = weights.open_checkpoint(source)
    saved_config = checkpoint.config()
    images = read_images(checkpoint.folder, checkpoint.kind, saved_config.image_size)
    saved_config = dataclasses.replace(saved_config, pixels=images.pixels if images else "clip")
    config = dataclasses.replace(saved_config, **changes)
    opened = Saved(
        source=os.fspath(source),
        config=config,
        resample=images.resample if images else "bicubic",
        resize=SQUASH,
        read_params=lambda: weights.read_params(checkpoint, config),
        _tokenizer=lambda: _find_tokenizer(checkpoint.folder),
    )
    return opened, images, _image_changes(images, saved_config, config)


def _chosen(mode: str, images: Images | None, source: str) -> Resize:
    """How images are resized; mode: one of MODES or "model"."""
    models_resize = images.resize if images else None
    if mode == "model" and models_resize is None:
        if images is None:
            why = "its folder has no file that says how images are resized"
        else:
            why = f"{images.source.name} resizes images in a way that is not supported"
        raise InputError(f"resize='model' of {source}: {why}; choose squash, shortest or longest.")
    if models_resize is not None and mode in ("model", models_resize.mode):
        return models_resize
    return Resize(mode)


def _resize_changes(images: Images | None, saved: Saved, used: Saved) -> list[str]:
    """One line for each way in which images are resized otherwise than the checkpoint says."""
    lines = []
    if images is not None and images.resize != used.resize:
        size = saved.config.image_size
        why = ", so that a person is seen from head to foot" if used.resize == SQUASH else ""
        lines.append(
            f"by {images.source.name} images are {_in_words(images.resize, size)}; here "
            f"they are {_in_words(used.resize, size)}{why} (resize='model' follows the file)."
        )
    if images is not None and saved.resample != used.resample:
        lines.append(
            f"images are resized with filter {used.resample} as configured, not with "
            f"{saved.resample} as {images.source.name} says."
        )
    return lines


def _in_words(resize: Resize | None, size: tuple[int, int]) -> str:
    if resize is None:
        return "resized in a way that is not supported"
    if resize.mode == "squash":
        return "resized straight to the model's size"
    shape = "a square" if size[0] == size[1] else "the model's shape"
    return f"{'cropped' if resize.mode == 'shortest' else 'padded'} to {shape}"


def _image_changes(
    images: Images | None, saved_config: ClipConfig, config: ClipConfig
) -> list[str]:
    """One line for each way in which images are not prepared as the checkpoint says."""
    lines = []
    if images is None:
        lines.append(
            "its folder has no file that says how images are prepared, so CLIP's mean, std and "
            "bicubic filter are used; if it was trained otherwise, add its "
            "preprocessor_config.json or open_clip_config.json."
        )
    if images is not None and images.size not in (None, saved_config.image_size):
        trained_size, used = (
            "x".join(map(str, size)) for size in (images.size, saved_config.image_size)
        )
        lines.append(
            f"{images.source.name} says images of {trained_size}, but its positional embedding "
            f"is for {used}, which is used."
        )
    if pixel_moments(config.pixels) != pixel_moments(saved_config.pixels):
        mean, std = pixel_moments(saved_config.pixels)
        lines.append(
            f"pixels are normalised as pixels={config.pixels!r} says, not as in its "
            f"training (mean {mean}, std {std})."
        )
    return lines


def _find_tokenizer(folder: epath.Path) -> Tokenizer:
    if any((folder / name).exists() for name in _TOKENIZER_FILES):
        return tokenizer.load(folder)
    raise InputError(
        f"{folder} has no tokenizer (vocab.json and merges.txt, or tokenizer.json); add "
        "the model's tokenizer."
    )


def _adapt(params: Any, saved_config: ClipConfig, config: ClipConfig) -> Any:
    """The parameters of `saved_config` for `config`: positions resampled, blocks scanned or not."""
    params = with_scan(params, config.scan)
    image, text = params["image"], params["text"]
    image["positional_embedding"] = resample_grid(
        image["positional_embedding"], config.grid, saved_config.grid
    )
    if saved_config.text_length != config.text_length:
        text["positional_embedding"] = resample_line(
            text["positional_embedding"], config.text_length
        )
    return params
