"""Writes real photographs that packages bring with them: PYTHON photographs.py FOLDER.

astronaut, camera and coffee are scikit-image's, bus and zidane those of ultralytics, which is not
imported, since it wants torch.
"""

import pathlib
import sys
import sysconfig

import numpy as np
from PIL import Image
from skimage import data


def main(folder: str) -> None:
    there = pathlib.Path(folder)
    there.mkdir(parents=True, exist_ok=True)
    assets = pathlib.Path(sysconfig.get_path("purelib")) / "ultralytics" / "assets"
    bus, zidane = (np.asarray(Image.open(assets / f"{name}.jpg")) for name in ("bus", "zidane"))
    astronaut, camera = data.astronaut(), data.camera()
    shown = {
        "astronaut": astronaut,
        "camera": np.stack([camera] * 3, axis=-1),
        "coffee": data.coffee(),
        "bus": bus,
        "bus_left": bus[:, :300],  # the man at its left edge
        "bus_middle": bus[:, 200:420],  # the woman beside him
        "bus_both": bus[350:, :420],
        "zidane": zidane,
        "zidane_right": zidane[:, 640:],
        "two_astronauts": np.concatenate([astronaut[:, 20:400]] * 2, axis=1),
    }
    for name, pixels in shown.items():
        Image.fromarray(pixels).save(there / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
