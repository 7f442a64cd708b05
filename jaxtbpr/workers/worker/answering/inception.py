"""Engine `fid`: Inception features for FID, by torch-fidelity."""

import base64
import importlib.util
import pathlib
import sys
import types
from collections.abc import Collection, Iterator

import numpy as np
import torch

from .devices import device_name
from .errors import Stop
from .exchange import Row
from .images import UNREADABLE, open_image

_LAYER = "2048"  # the last pooling, as in Heusel et al., arXiv:1706.08500


class Inception:
    """The network.

    folder: that image paths start from; settings: "device" (see `device_name`); weights: a state
    dict in the layout of torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`.
    """

    def __init__(self, folder: pathlib.Path, settings: Row, weights: str):
        self._folder, self._device = folder, device_name(settings["device"])
        network_class = _network_class()
        try:
            # torch-fidelity unpickles anything, so check first that the file holds tensors only.
            torch.load(weights, map_location="cpu", weights_only=True)
            network = network_class("inception", [_LAYER], feature_extractor_weights_path=weights)
        except Exception as error:  # whatever PyTorch raises at a file that it cannot read
            # Without PyTorch's message, which advises to unpickle without restriction.
            raise Stop(
                f"{weights} is not a state dict of torch-fidelity's Inception weights "
                f"({type(error).__name__}); give weights-inception-2015-12-05-6726825d.pth."
            ) from error
        self._network = network.to(self._device).eval()

    def __call__(self, requests: list[Row], done: Collection[str]) -> Iterator[Row]:
        """Yields the answers, one image at a time, since sizes differ."""
        return (self._answer(request) for request in requests if request["id"] not in done)

    @torch.inference_mode()
    def _answer(self, request: Row) -> Row:
        try:
            pixels = np.array(open_image(self._folder, request["image"]))
        except UNREADABLE as error:
            return {"id": request["id"], "problem": f"the image cannot be read: {error}"}
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self._device)
        (features,) = self._network(tensor)
        data = features[0].float().cpu().numpy().astype("<f4").tobytes()
        return {"id": request["id"], "features": base64.b64encode(data).decode()}


def _network_class() -> type:
    """The class, without the rest of its package, whose other networks need torchvision."""
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None:
        needed = pathlib.Path(__file__).parents[1] / "requirements-fid.txt"
        raise Stop(f"FID needs the package torch-fidelity, which is not installed; see {needed}.")
    package = types.ModuleType("torch_fidelity")
    package.__path__ = spec.submodule_search_locations
    sys.modules["torch_fidelity"] = package
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3
