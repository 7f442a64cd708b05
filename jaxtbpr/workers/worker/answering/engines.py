"""The engines of the worker: one table, read by the worker and by the main program.

A new engine is a row here, and a class in a module beside this one. Nothing but the standard
library is imported, since both sides read the table and neither has the other's packages.
"""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Collection, Generator

from .exchange import Row

# Yields answers to the requests whose ids are not in the collection, in any order.
Engine = Callable[[list[Row], Collection[str]], Generator[Row, None, None]]


@dataclasses.dataclass(frozen=True)
class WorkerEngine:
    """One engine.

    opens: "module.Class" beside this file, called with (folder of the run, settings, model);
    writes_text: whether stages caption and prompts may ask it; requirements: the file beside this
    folder that pip installs, "" for an engine that needs nothing but Python; packages: what its
    Python must be able to import; download: how much pip fetches, with its usual wheels on Linux;
    one_per_gpu: whether each of several workers has its own GPU.
    """

    opens: str
    writes_text: bool = False
    requirements: str = ""
    packages: tuple[str, ...] = ()
    download: str = ""
    one_per_gpu: bool = False

    @property
    def is_server(self) -> bool:
        """Whether the model runs elsewhere, at a url."""
        return not self.requirements

    def open(self, folder: pathlib.Path, settings: Row, model: str) -> Engine:
        """Opens it for a model, in the worker. Raises ImportError where a package is missing."""
        module, _, name = self.opens.partition(".")
        return getattr(importlib.import_module(f".{module}", __package__), name)(
            folder, settings, model
        )


ENGINES = {
    "transformers": WorkerEngine(
        "transformers.LocalModel", writes_text=True, requirements="requirements.txt",
        packages=("torch", "transformers", "PIL"), download="several GB: torch with CUDA",
        one_per_gpu=True,
    ),
    "openai": WorkerEngine("openai.Server", writes_text=True),
    "pose": WorkerEngine(  # and MediaPipe or onnxruntime, whichever the model needs
        "pose.Poses", requirements="requirements-pose.txt", packages=("numpy", "PIL"),
        download="about 1 GB",
    ),
    "fid": WorkerEngine(
        "inception.Inception", requirements="requirements-fid.txt",
        packages=("torch", "torch_fidelity", "PIL"), download="several GB: torch with CUDA",
        one_per_gpu=True,
    ),
}  # fmt: skip
