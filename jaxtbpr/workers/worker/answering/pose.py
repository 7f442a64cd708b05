"""Engine `pose`: the persons of images and their joints."""

import pathlib
from collections.abc import Callable, Collection, Iterator

from PIL import Image

from .decoding import Persons
from .exchange import Row
from .images import UNREADABLE, open_image

# (image, lowest score of a person, IoU above which two boxes are the same person)
Finder = Callable[[Image.Image, float, float], Persons]


class Poses:
    """Finds the persons of images.

    folder: that image paths start from; settings: none are read; model: see `_open`.
    """

    def __init__(self, folder: pathlib.Path, settings: Row, model: str):
        self._folder, self._find = folder, _open(model)

    def __call__(self, requests: list[Row], done: Collection[str]) -> Iterator[Row]:
        """Yields the answers, one image at a time."""
        return (self._answer(request) for request in requests if request["id"] not in done)

    def _answer(self, request: Row) -> Row:
        try:
            image = open_image(self._folder, request["image"])
        except UNREADABLE as error:
            return {"id": request["id"], "problem": f"the image cannot be read: {error}"}
        detected = self._find(image, request["min_score"], request["nms_iou"])
        parts = (part.round(4).tolist() for part in detected)
        persons = [
            {"box": box, "score": score, "joints": joints}
            for box, score, joints in zip(*parts, strict=True)
        ]
        return {"id": request["id"], "persons": persons, "size": list(image.size)}


def _open(model: str) -> Finder:
    """Opens "mediapipe" or an .onnx file."""
    # Imported here, since each needs other packages.
    if model == "mediapipe":
        from .blazepose import BlazePose

        return BlazePose()
    from .onnx import OnnxPose

    return OnnxPose(model)
