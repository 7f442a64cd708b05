"""Pose networks in .onnx files: YOLO-pose and RTMO, by onnxruntime."""

import numpy as np
import onnxruntime
from PIL import Image

from . import decoding
from .decoding import Persons
from .serve import Stop

_SIDE = 640  # of the input where the file leaves it open
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class OnnxPose:
    """A network of one of the layouts of `decoding`. path: of the file."""

    def __init__(self, path: str):
        there = onnxruntime.get_available_providers()
        try:
            self._session = onnxruntime.InferenceSession(
                path, providers=[name for name in _PROVIDERS if name in there]
            )
        except Exception as error:  # onnxruntime has an exception for each of its error codes
            raise Stop(f"model {path!r} cannot be loaded: {error}") from error
        self._path = path
        self._input = self._session.get_inputs()[0]
        self._size = tuple(n if isinstance(n, int) else _SIDE for n in self._input.shape[2:])
        self._is_yolo = len(self._session.get_outputs()) == 1

    def __call__(self, image: Image.Image, least_score: float, overlap: float) -> Persons:
        """Returns the persons of an image. Raises Stop where the file is another kind of network.

        YOLO takes RGB of 0 to 1, RTMO BGR of 0 to 255, each letterboxed in its way.
        """
        placed = decoding.letterbox(image, self._size, is_centred=self._is_yolo)
        pixels = placed.pixels / 255 if self._is_yolo else placed.pixels[..., ::-1]
        dtype = np.float16 if self._input.type == "tensor(float16)" else np.float32
        given = {self._input.name: pixels.transpose(2, 0, 1)[None].astype(dtype)}
        outputs = [output.astype(np.float64) for output in self._session.run(None, given)]
        try:
            found = decoding.decode(outputs)
        except ValueError as error:
            raise Stop(f"model {self._path!r} finds no poses: {error}") from error
        chosen = decoding.select(found, least_score=least_score, overlap=overlap)
        return decoding.in_image(chosen, placed, image.size)
