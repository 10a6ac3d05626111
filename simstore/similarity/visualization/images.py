"""Arrays as images: whatever their type and range, float32 [height, width, 1, 3 or 4] between 0 and 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError

__all__ = ["Image", "Items", "as_image", "is_image", "scaled", "side_by_side"]

Image = NDArray[np.float32]
Items = Sequence[Any] | NDArray[Any]  # one after the other


def is_image(value: Any) -> bool:
    """Whether a value can be shown as an image: numbers [height, width] or [height, width, 1, 3 or 4]."""
    if value is None or isinstance(value, (str, bytes, dict)):
        return False
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # a ragged list, say
        return False
    is_shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    return array.dtype.kind in "biuf" and is_shaped and array.size > 0


def as_image(value: Any, name: str) -> NDArray[Any]:
    """An array [height, width, channels] of any numbers.

    Raises:
        InvalidArgumentError: It is no image.
    """
    if not is_image(value):
        shape = getattr(value, "shape", None)
        what = f"an array {list(shape)}" if shape is not None else type(value).__name__
        raise InvalidArgumentError(f"{name} is an image: numbers [height, width] or [height, width, 1, 3 or 4], not {what}")
    array = np.asarray(value)
    return array if array.ndim == 3 else array[:, :, None]


def scaled(images: Sequence[NDArray[Any]]) -> list[Image]:
    """The images between 0 and 1.

    uint8 is taken to end at 255, bool at 1. Others that leave 0 … 1 are stretched together, from the darkest of all
    their pixels (0 if none is below) to the brightest, so that they stay comparable. NaN and infinities become black.
    """
    finite = [_fraction(image) for image in images]
    # Pixels that uint8 has scaled are within 0 … 1: only the others can widen this.
    low = min([0.0, *(float(image.min()) for image in finite)])
    high = max([1.0, *(float(image.max()) for image in finite)])
    return [
        image if _is_fixed(original) else (image - np.float32(low)) / np.float32(high - low)
        for image, original in zip(finite, images, strict=True)
    ]


def side_by_side(images: Sequence[Image]) -> Image:
    """Images [height, width, channels] of one height in one row, all with as many channels as the richest has."""
    n_channels = max(image.shape[2] for image in images)
    return np.concatenate([_widened(image, n_channels) for image in images], axis=1)


def _is_fixed(image: NDArray[Any]) -> bool:
    return image.dtype == np.uint8 or image.dtype == np.bool_


def _fraction(image: NDArray[Any]) -> Image:
    divisor = np.float32(255 if image.dtype == np.uint8 else 1)
    return np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0) / divisor


def _widened(image: Image, n_channels: int) -> Image:
    if image.shape[2] == 1 and n_channels > 1:
        image = np.repeat(image, 3, axis=2)
    if image.shape[2] < n_channels:
        image = np.concatenate([image, np.ones_like(image[:, :, :1])], axis=2)
    return image
