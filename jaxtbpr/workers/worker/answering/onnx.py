"""Pose networks in .onnx files: YOLO-pose and RTMO, by onnxruntime."""

import numpy as np
import onnxruntime
from PIL import Image

from . import decoding
from .decoding import Persons
from .errors import Stop

_SIDE = 640  # of the input where the file leaves it open
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
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
        self._name, self._dtype, self._batch, self._size = self._read_input()
        self._is_yolo = len(self._session.get_outputs()) == 1

    def __call__(self, image: Image.Image, min_score: float, nms_iou: float) -> Persons:
        """Returns the persons of an image. Raises Stop where the file is another kind of network.

        YOLO takes RGB of 0 to 1, RTMO BGR of 0 to 255, each with its letterbox.
        """
        placed = decoding.letterbox(image, self._size, is_centred=self._is_yolo)
        pixels = placed.pixels / 255 if self._is_yolo else placed.pixels[..., ::-1]
        outputs = self._run(pixels.transpose(2, 0, 1)[None].astype(self._dtype))
        try:
            persons = decoding.decode(outputs)
        except ValueError as error:
            raise Stop(f"model {self._path!r} finds no poses: {error}") from error
        chosen = decoding.select(persons, min_score=min_score, nms_iou=nms_iou)
        return decoding.in_image(chosen, placed, image.size)

    def _read_input(self) -> tuple[str, type, int, tuple[int, int]]:
        """Returns name, dtype, batch and (height, width) of the one input."""
        inputs = self._session.get_inputs()
        first = inputs[0]
        batch, channels, height, width = first.shape if len(first.shape) == 4 else (0,) * 4
        takes_colours = channels == 3 or not isinstance(channels, int)  # open: has a name
        if len(inputs) > 1 or first.type not in _DTYPES or not takes_colours:
            names = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise Stop(
                f"model {self._path!r} takes {names}; export one that takes an image alone, "
                "float [batch, 3, height, width]."
            )
        batch = batch if isinstance(batch, int) else 1
        height, width = (n if isinstance(n, int) else _SIDE for n in (height, width))
        return first.name, _DTYPES[first.type], batch, (height, width)

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs [1, ...] for pixels [1, 3, h, w]; a fixed batch is filled up."""
        filled = np.repeat(pixels, self._batch, axis=0)
        try:
            outputs = self._session.run(None, {self._name: filled})
        except Exception as error:  # see above
            message = str(error).strip().splitlines()[0]
            raise Stop(f"model {self._path!r} cannot be run: {message}") from error
        return [np.asarray(output[:1], np.float64) for output in outputs]
