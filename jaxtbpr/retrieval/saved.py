"""A model on disk, one trained here or a published checkpoint: to embed with, or to train on."""

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
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.progress import say
from jaxtbpr.retrieval import weights
from jaxtbpr.retrieval.checkpoint import Checkpoints
from jaxtbpr.retrieval.model import (
    SHARDING,
    Clip,
    ClipConfig,
    init_params,
    pixel_moments,
)
from jaxtbpr.retrieval.train_log import MODEL, TOKENIZER
from jaxtbpr.retrieval.transformer import with_scan
from jaxtbpr.retrieval.weights.images import SQUASH, Images, read_images
from jaxtbpr.retrieval.weights.positions import resample_grid, resample_line

# Files of a published checkpoint's folder by which its tokenizer is found.
_TOKENIZER_FILES = ("merges.txt", "tokenizer.json")


@dataclasses.dataclass(frozen=True)
class Saved:
    """A model whose parameters are not read yet.

    config: with the changes that were asked for; resample: the filter that resizes its images;
    read_params: returns the parameters for `config`, float32; source: where they come from.
    """

    source: str
    config: ClipConfig
    resample: str
    read_params: Callable[[], Any]
    _tokenizer: Callable[[], Tokenizer]

    def tokenizer(self, words: str = "") -> Tokenizer:
        """Loads its tokenizer, or the one in the file or folder `words`.

        Raises UserError where there is none or it has another number of tokens than the model.
        """
        found = tokenizer.load(words) if words else self._tokenizer()
        if found.get_vocab_size() != self.config.vocab_size:
            raise UserError(
                f"{self.source} has embeddings of {self.config.vocab_size} tokens, but its "
                f"tokenizer has {found.get_vocab_size()}; put the model's own there."
            )
        return found


def open_saved(source: epath.PathLike, which: str = "selected", **changes: Any) -> Saved:
    """Opens WORKDIR/train or its WORKDIR, or whatever `weights.load` takes.

    which: the checkpoint of a training, "selected" or "last". changes: fields of `ClipConfig`;
    for another image size or text length the positions are resampled. Raises UserError where
    anything is missing.
    """
    directory = trained_folder(source)
    return _trained(directory, which, changes) if directory else _published(source, changes)


def trained_folder(source: epath.PathLike) -> epath.Path | None:
    """Returns the folder of the training that `source` names, None where it names none.

    source: WORKDIR/train, or for short WORKDIR or WORKDIR/train/checkpoints.
    """
    given = epath.Path(source).expanduser()
    near = [given, given / "train", *([given.parent] if given.name == "checkpoints" else [])]
    return next((folder for folder in near if (folder / MODEL).exists()), None)


def placed_shapes(config: ClipConfig, mesh: Mesh) -> Any:
    """The parameters of a model as jax.ShapeDtypeStructs that say where they lie on `mesh`."""
    model = Clip(config)
    return meshes.place(lambda: init_params(model, jax.random.key(0)), mesh, SHARDING)


def _trained(directory: epath.Path, which: str, changes: dict[str, Any]) -> Saved:
    saved = files.read_json(directory / MODEL)
    own = ClipConfig.from_dict(saved["model"])
    config = dataclasses.replace(own, **changes)

    def read_params() -> Any:
        shapes = placed_shapes(own, meshes.make_mesh())
        with Checkpoints(directory / "checkpoints") as checkpoints:
            params = checkpoints.restore_params(checkpoints.step_of(which), shapes)
        return _adapt(jax.device_get(params), own, config)

    words = directory / TOKENIZER
    source = os.fspath(directory)
    return Saved(source, config, saved["resample"], read_params, lambda: tokenizer.load(words))


def _published(source: epath.PathLike, changes: dict[str, Any]) -> Saved:
    checkpoint = weights.open_checkpoint(source)
    own, images = checkpoint.config(), read_images(checkpoint.folder, checkpoint.kind)
    own = dataclasses.replace(own, pixels=images.pixels if images else "clip")
    config = dataclasses.replace(own, **changes)
    for line in _image_changes(images, own, config):
        say(f"{os.fspath(source)}: {line}")
    return Saved(
        source=os.fspath(source),
        config=config,
        resample=images.resample if images else "bicubic",
        read_params=lambda: weights.read_params(checkpoint, config),
        _tokenizer=lambda: _find_tokenizer(checkpoint.folder),
    )


def _image_changes(images: Images | None, own: ClipConfig, config: ClipConfig) -> list[str]:
    """One line for each way in which images are not prepared as the checkpoint says."""
    lines = []
    if images is None:
        lines.append(
            "nothing beside it says how images are prepared, so CLIP's mean, deviation and "
            "bicubic filter are taken; put its preprocessor_config.json or open_clip_config.json "
            "there if it was trained otherwise."
        )
    elif images.mode != SQUASH:
        lines.append(
            f"{images.source.name} says that its images were {images.mode}; here they are resized "
            "straight to the model's size, so that a person is seen from head to foot."
        )
    if images is not None and images.size not in (None, own.image_size):
        told, used = ("x".join(map(str, size)) for size in (images.size, own.image_size))
        lines.append(f"{images.source.name} says images of {told}, its positions {used}.")
    if pixel_moments(config.pixels) != pixel_moments(own.pixels):
        mean, std = pixel_moments(own.pixels)
        lines.append(
            f"colours are normalised as model.pixels={config.pixels!r} says, not as it was "
            f"trained (mean {mean}, deviation {std})."
        )
    return lines


def _find_tokenizer(folder: epath.Path) -> Tokenizer:
    if any((folder / name).exists() for name in _TOKENIZER_FILES):
        return tokenizer.load(folder)
    raise UserError(
        f"{folder} holds no tokenizer (vocab.json and merges.txt, or tokenizer.json); put "
        "that of the model there."
    )


def _adapt(params: Any, own: ClipConfig, config: ClipConfig) -> Any:
    """The parameters of `own` for `config`: positions resampled, blocks scanned or not."""
    params = with_scan(params, config.scan)
    image, text = params["image"], params["text"]
    image["positional_embedding"] = resample_grid(
        image["positional_embedding"], config.grid, own.grid
    )
    if own.text_length != config.text_length:
        text["positional_embedding"] = resample_line(
            text["positional_embedding"], config.text_length
        )
    return params
