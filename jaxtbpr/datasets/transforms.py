"""Images to uint8 arrays and captions to clean text, with the random changes of training.

Images are changed before they become arrays, by Pillow, whose resampling the field's codebases
share; all randomness comes from the generator that the caller passes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from jaxtbpr.core import images
from jaxtbpr.core.options import Option, Options
from jaxtbpr.datasets.resizing import FILTERS, SQUASH, Resize, fit

POLICIES = ("independent", "two_of_six")

AUGMENT_OPTIONS: Options = {
    "policy": Option(
        POLICIES[0],
        "independent: each by its probability; two_of_six: as TBPS-CLIP and SynTBPR",
        choices=POLICIES,
    ),
    "flip": Option(0.5, "probability of a mirrored image", low=0, high=1),
    "crop": Option(0.5, "probability of a random resized crop", low=0, high=1),
    "crop_area": Option(0.8, "smallest fraction of the area that a crop keeps", low=0.1, high=1),
    "jitter": Option(0.5, "probability of another brightness and contrast", low=0, high=1),
    "jitter_strength": Option(0.1, "largest relative change of either", low=0, high=0.9),
    "erase": Option(0.25, "probability of a rectangle of noise", low=0, high=1),
    "erase_area": Option(0.2, "largest fraction of the area that it covers", low=0.01, high=0.9),
    "word_deletion": Option(0.0, "probability of dropping each word", low=0, high=1),
    "word_swap": Option(0.0, "swaps of two words, as a fraction of the words", low=0, high=1),
    "word_replacement": Option(0.0, "probability of a synonym for each word", low=0, high=1),
    "word_insertion": Option(0.0, "synonyms inserted, as a fraction of the words", low=0, high=1),
    "mix": Option(0.0, "MixGen: fraction of a batch that mixes two pairs", low=0, high=0.5),
}

NO_AUGMENT = {name: 0.0 for name in AUGMENT_OPTIONS}

_LEVELS = np.arange(256)


def decode_image(
    data: bytes | Image.Image,
    size: tuple[int, int],
    resample: str = "bicubic",
    resize: Resize = SQUASH,
) -> np.ndarray:
    """Returns the image at `size`: uint8 [H, W, 3].

    data: an image, encoded or opened. size: (H, W). resample: one of FILTERS, antialiased. resize:
    by default straight to the size, aspect ratio not kept, which is what TBPS-CLIP and SynTBPR do
    before they divide by 255 and normalise. Raises images.ImageError.
    """
    image = images.open_image(data) if isinstance(data, bytes) else data
    return np.asarray(fit(image, size, resample, resize))


def augment_image(
    image: Image.Image,
    size: tuple[int, int],
    rng: np.random.Generator,
    options: Mapping[str, float],
    resample: str = "bicubic",
    resize: Resize = SQUASH,
) -> np.ndarray:
    """Returns a random variant of `image` for training: uint8 [H, W, 3].

    size: (H, W). options: the values of `AUGMENT_OPTIONS`. Colours stay nearly what they are,
    since captions name them. Depends on `rng` alone.
    """
    if options["policy"] == "two_of_six":
        return _two_of_six(image, size, rng, resize)
    flips, crops, jitters, erases, *draws = rng.random(14).tolist()
    box = None
    if crops < options["crop"]:
        box = _crop_box(image.size, draws[:4], options["crop_area"])
    pixels = np.asarray(fit(image, size, resample, resize, box))
    if flips < options["flip"]:
        pixels = pixels[:, ::-1]
    if jitters < options["jitter"]:
        pixels = _jitter(pixels, draws[4:6], options["jitter_strength"])
    if erases < options["erase"]:
        most = options["erase_area"]
        top, left, h, w = _erase_box(size, draws[6:], 0.1 * most, most)
        pixels = pixels.copy()
        pixels[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
    return pixels


def _two_of_six(
    image: Image.Image, size: tuple[int, int], rng: np.random.Generator, resize: Resize
) -> np.ndarray:
    """SynTBPR's and TBPS-CLIP's training images: two changes, drawn with replacement of six.

    Resized with the bilinear filter first. Colours by 0.1, rotation by 15 degrees, a crop of at
    least 0.9, grey with 0.1, mirrored with 0.5, a rectangle of 0.1 to 0.2 erased with 0.5.
    """
    image = fit(image, size, "bilinear", resize)
    for change in rng.integers(len(_SIX), size=2):
        image = _SIX[change](image, rng.random(8).tolist())
    return np.asarray(image)


def _change_colours(image: Image.Image, draws: Sequence[float]) -> Image.Image:
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhancer, draw in zip(enhancers, draws, strict=False):
        image = enhancer(image).enhance(0.9 + 0.2 * draw)
    return image


def _rotate(image: Image.Image, draws: Sequence[float]) -> Image.Image:
    return image.rotate(30 * draws[0] - 15)


def _crop_a_little(image: Image.Image, draws: Sequence[float]) -> Image.Image:
    box = _crop_box(image.size, draws[:4], 0.9)
    return image.resize(image.size, FILTERS["bilinear"], box=box)


def _grey(image: Image.Image, draws: Sequence[float]) -> Image.Image:
    return image.convert("L").convert("RGB") if draws[0] < 0.1 else image


def _mirror(image: Image.Image, draws: Sequence[float]) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws[0] < 0.5 else image


def _erase(image: Image.Image, draws: Sequence[float]) -> Image.Image:
    if draws[0] >= 0.5:
        return image
    top, left, height, width = _erase_box((image.height, image.width), draws[1:], 0.1, 0.2)
    image = image.copy()
    image.paste((0, 0, 0), (left, top, left + width, top + height))
    return image


_SIX = (_change_colours, _rotate, _crop_a_little, _grey, _mirror, _erase)


def strong_view(
    image: Image.Image,
    size: tuple[int, int],
    rng: np.random.Generator,
    resample: str = "bicubic",
    resize: Resize = SQUASH,
) -> np.ndarray:
    """Returns one of SimCLR's views of `image`: uint8 [H, W, 3].

    A crop of a fifth of the image to all of it, colours jittered with probability 0.8 (brightness,
    contrast and saturation by 0.4, hue by 0.1), grey with 0.2, blurred with 0.5 (radius 0.1 to 2),
    mirrored with 0.5: the settings of TBPS-CLIP (arXiv:2308.10045).
    """
    jitters, greys, blurs, flips, radius, *draws = rng.random(13).tolist()
    box = _crop_box(image.size, draws[:4], 0.2)
    view = fit(image, size, resample, resize, box)
    if jitters < 0.8:
        brightness, contrast, saturation = (0.6 + 0.8 * draw for draw in draws[4:7])
        view = ImageEnhance.Brightness(view).enhance(brightness)
        view = ImageEnhance.Contrast(view).enhance(contrast)
        view = _turn_hue(ImageEnhance.Color(view).enhance(saturation), 0.2 * draws[7] - 0.1)
    if greys < 0.2:
        view = view.convert("L").convert("RGB")
    if blurs < 0.5:
        view = view.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * radius))
    pixels = np.asarray(view)
    return pixels[:, ::-1] if flips < 0.5 else pixels


def _turn_hue(image: Image.Image, fraction: float) -> Image.Image:
    """Turns all hues by `fraction` of the circle."""
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(level + round(256 * fraction)) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _crop_box(
    size: tuple[int, int], draws: Sequence[float], least_area: float
) -> tuple[float, float, float, float]:
    """Returns (left, upper, right, lower), of nearly the aspect ratio of `size` (W, H).

    draws: four uniform numbers in [0, 1), for area, aspect ratio, x and y.
    """
    area = least_area + (1 - least_area) * draws[0]
    stretch = 0.9 + 0.2 * draws[1]
    width = size[0] * min(1.0, (area * stretch) ** 0.5)
    height = size[1] * min(1.0, (area / stretch) ** 0.5)
    left, upper = draws[2] * (size[0] - width), draws[3] * (size[1] - height)
    return left, upper, min(left + width, size[0]), min(upper + height, size[1])


def _jitter(pixels: np.ndarray, draws: Sequence[float], strength: float) -> np.ndarray:
    """Scales brightness and, about the middle grey, contrast: one table look-up per value."""
    brightness, contrast = (1 + strength * (2 * draw - 1) for draw in draws)
    values = (_LEVELS * brightness - 128) * contrast + 128
    return np.take(np.clip(values, 0, 255).astype(np.uint8), pixels)


def _erase_box(
    size: tuple[int, int], draws: Sequence[float], least: float, most: float
) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width) of random erasing (Zhong et al., arXiv:1708.04896).

    size: (H, W). The rectangle covers from `least` to `most` of the image.
    """
    area = least + (most - least) * draws[0]
    stretch = 0.5 + 1.5 * draws[1]
    height = min(size[0], max(1, round(size[0] * (area * stretch) ** 0.5)))
    width = min(size[1], max(1, round(size[1] * (area / stretch) ** 0.5)))
    top, left = int(draws[2] * (size[0] - height + 1)), int(draws[3] * (size[1] - width + 1))
    return top, left, height, width
