"""Random weights in the layout of torch-fidelity's Inception, and what it makes of images:
PYTHON tiny_inception.py WEIGHTS FEATURES.npz IMAGE...
"""

import importlib.util
import sys
import types

import numpy as np
import torch
from PIL import Image


def main(weights, features, *images):
    package = types.ModuleType("torch_fidelity")  # whose own imports want torchvision
    package.__path__ = importlib.util.find_spec("torch_fidelity").submodule_search_locations
    sys.modules["torch_fidelity"] = package
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    class Unloaded(inception.FeatureExtractorInceptionV3):
        def load_state_dict(self, weights):
            pass

    torch.manual_seed(0)
    inception.load_state_dict_from_url = lambda *_, **__: {}
    network = Unloaded("inception", ["2048"]).eval()
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):  # else nothing of the image would be left
            torch.nn.init.kaiming_normal_(part.weight)
    torch.save(network.state_dict(), weights)
    pixels = [torch.tensor(np.asarray(Image.open(path).convert("RGB"))) for path in images]
    with torch.no_grad():
        rows = [network(one.permute(2, 0, 1)[None])[0][0].numpy() for one in pixels]
    np.savez(features, features=np.stack(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
