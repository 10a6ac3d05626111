"""Small images for a page: many in one PNG, written without another package."""

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError
from simstore.similarity.visualization.images import Image, Items, as_image, scaled

__all__ = ["Tiles", "png", "tiles_of"]

Pixels = NDArray[np.uint8]

_COLUMNS = 16
_PER_SHEET = 256  # a browser decodes a sheet when it first shows one of its images: small ones come at once
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # channels: grey, RGB, RGBA


@dataclass(frozen=True, slots=True)
class Tiles:
    """Images of one size in sheets: image i is in sheet i // per_sheet, there in row j // columns and column j % columns.

    Attributes:
        size: Height and width of an image.
        columns: Images in a row of a sheet.
        per_sheet: Images in a sheet.
        sheets: PNGs, as data URIs.
    """

    size: tuple[int, int]
    columns: int
    per_sheet: int
    sheets: list[str]


def tiles_of(images: Items, longest_side: int) -> Tiles:
    """The images in sheets; those larger than longest_side are made smaller.

    Args:
        images: [n, height, width] with or without channels, all of one size.
        longest_side: In pixels.
    """
    pixels = _pixels(images, longest_side)
    sheets = [pixels[start : start + _PER_SHEET] for start in range(0, len(pixels), _PER_SHEET)]
    uris = ["data:image/png;base64," + base64.b64encode(png(_sheet(part))).decode() for part in sheets]
    return Tiles((pixels.shape[1], pixels.shape[2]), _COLUMNS, _PER_SHEET, uris)


def png(pixels: Pixels) -> bytes:
    """A PNG file of an image uint8 [height, width, 1, 3 or 4]."""
    height, width, n_channels = pixels.shape
    rows = np.zeros((height, 1 + width * n_channels), np.uint8)  # a filter's number, 0 for none, before each row
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[n_channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _pixels(images: Items, longest_side: int) -> Pixels:
    arrays = [as_image(image, "images holds images; one of them") for image in images]
    if len({array.shape for array in arrays}) != 1:
        raise InvalidArgumentError(f"images are all of one size, not {sorted({array.shape for array in arrays})}")
    floats = scaled([_smaller(array, longest_side) for array in arrays])
    return np.stack([np.round(image * 255).astype(np.uint8) for image in floats])


def _smaller(image: NDArray[Any], longest_side: int) -> NDArray[Any]:
    """An image whose sides are at most that, each pixel the mean of those it stands for; one that is small stays."""
    shrink = max(image.shape[:2]) / longest_side
    if shrink <= 1:
        return image
    height, width = (max(1, round(side / shrink)) for side in image.shape[:2])
    means = _means(_means(image.astype(np.float32), height, 0), width, 1)
    return np.round(means).astype(np.uint8) if image.dtype == np.uint8 else means


def _means(values: Image, n: int, axis: int) -> Image:
    """n means of about equally many values along an axis."""
    starts = np.arange(n) * values.shape[axis] // n
    counts = np.diff([*starts, values.shape[axis]])
    sums = np.add.reduceat(values, starts, axis=axis)
    return np.asarray(sums / counts.reshape([-1 if i == axis else 1 for i in range(values.ndim)]), np.float32)


def _sheet(part: Pixels) -> Pixels:
    """Up to _PER_SHEET images [n, height, width, channels] in one."""
    n, height, width, n_channels = part.shape
    n_rows = -(-n // _COLUMNS)
    sheet = np.zeros((n_rows * _COLUMNS, height, width, n_channels), np.uint8)
    sheet[:n] = part
    grid = sheet.reshape(n_rows, _COLUMNS, height, width, n_channels).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grid.reshape(n_rows * height, _COLUMNS * width, n_channels))
