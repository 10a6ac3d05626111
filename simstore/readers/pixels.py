"""From an open Pillow image to an array: modes, sizes, orientation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.types import ImageInput

__all__ = ["fitted", "orientation_of", "upright_size"]

_ORIENTATION = 0x0112  # EXIF
_GAP = 3.0  # a JPEG is decoded to at least so many times the wanted size, and shrunk to it by whole factors first
_LINEAR = {"L", "RGB", "La", "RGBa"}  # modes whose pixels can be averaged


def upright_size(image: Any, orientation: int) -> tuple[int, int]:
    """Width and height of an image, once it is turned as its EXIF says."""
    width, height = image.size
    return (height, width) if orientation >= 5 else (width, height)


def orientation_of(image: Any) -> int:
    """1 to 8. An EXIF block that cannot be read is no reason to lose the image."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def fitted(image: Any, wanted: ImageInput | None, orientation: int) -> NDArray[np.uint8]:
    """An open image's pixels, uint8 [height, width, channels], turned, in the size and channels wanted."""
    channels = 3 if wanted is None else wanted.channels
    size = _size(image, wanted, orientation >= 5)
    full = image.size
    if size != full and image.format in ("JPEG", "MPO"):
        image.draft("L" if channels == 1 else "RGB", (int(size[0] * _GAP), int(size[1] * _GAP)))
    pixels = _linear(image)
    if pixels.size != size:
        pixels = pixels.resize(size, _lanczos(), box=_box(image.size, full), reducing_gap=_GAP)
    return _array(_turned(pixels, orientation), channels)


def _size(image: Any, wanted: ImageInput | None, is_turned: bool) -> tuple[int, int]:
    """The (width, height) to resize to, before it is turned."""
    width, height = image.size
    if wanted is None:
        return width, height
    across, down = (wanted.height, wanted.width) if is_turned else (wanted.width, wanted.height)
    return across or width, down or height


def _box(drafted: tuple[int, int], full: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The part of a drafted image that the image takes up: draft rounds its size up."""
    if drafted == full:
        return None
    factor = max(1, round(full[0] / drafted[0]), round(full[1] / drafted[1]))
    return 0, 0, min(drafted[0], full[0] / factor), min(drafted[1], full[1] / factor)


def _lanczos() -> Any:
    from PIL import Image

    return Image.Resampling.LANCZOS


def _linear(image: Any) -> Any:
    """The image in a mode whose pixels can be averaged; with alpha multiplied in, so that hidden colours do not bleed."""
    mode = image.mode
    if mode in _LINEAR:
        image.load()
        return image if "transparency" not in image.info else image.convert("RGBA").convert("RGBa")
    if mode.startswith(("I", "F")):
        return _eight_bits(image)
    if mode in ("RGBA", "PA") or "transparency" in image.info:
        return image.convert("RGBA").convert("RGBa")
    if mode == "LA":
        return image.convert("La")
    return image.convert("L" if mode == "1" else "RGB")


def _eight_bits(image: Any) -> Any:
    from PIL import Image

    values = np.asarray(image)
    if values.dtype.itemsize == 2:  # I;16 and its kin
        return Image.fromarray((values >> 8).astype(np.uint8))
    values = np.where(np.isfinite(values), values, 0).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    return Image.fromarray(np.rint((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8))


def _turned(image: Any, orientation: int) -> Any:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _array(image: Any, channels: int) -> NDArray[np.uint8]:
    if channels == 4:
        whole = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        return np.array(whole, np.uint8)
    if image.mode in ("La", "RGBa"):
        image = _over_white(image)
    mode = "L" if channels == 1 else "RGB"
    pixels = np.array(image if image.mode == mode else image.convert(mode), np.uint8)
    return pixels[:, :, None] if channels == 1 else pixels


def _over_white(image: Any) -> Any:
    """An image whose alpha is multiplied in, laid over white."""
    from PIL import Image, ImageChops

    *colours, alpha = image.split()
    missing = ImageChops.invert(alpha)
    over = [ImageChops.add(colour, missing) for colour in colours]  # no more than 255: Lanczos overshoots
    return over[0] if len(over) == 1 else Image.merge("RGB", over)
