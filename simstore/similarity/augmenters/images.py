"""What is done to images, each image of a batch in its own way: [n, height, width, channels], float32 from 0 to 1.

Crops, flips and blur are separable: one matrix for the rows of an image and one for its columns. Each row of such a
matrix sums to 1, so that an even image stays as it is, up to its edges.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from simstore.similarity.augmenters.augmenter import Seed

__all__ = ["blur", "centre_box", "color_jitter", "random_area_box", "random_side_box", "resample", "solarize"]

_LUMA = (0.299, 0.587, 0.114)
_TO_YIQ = np.array([_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_NO_BLUR = 1e-3  # of a pixel: the matrix is the unit matrix then

Box = tuple[Any, Any, Any, Any]  # top, left, height, width in pixels, each [n]


def random_area_box(images: Any, draw: Seed, *, area: tuple[float, float], aspect: tuple[float, float]) -> Box:
    """Boxes of a random share of the area and a random aspect ratio to the image's own, within the image.

    Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015. A box that would reach over an edge is cut there.
    """
    n, height, width = _size(images)
    share = _uniform(n, *area, draw)
    ratio = ops.exp(_uniform(n, math.log(aspect[0]), math.log(aspect[1]), draw))
    tall = ops.minimum(ops.sqrt(share / ratio), 1.0)
    wide = ops.minimum(ops.sqrt(share * ratio), 1.0)
    return _placed(tall * height, wide * width, height, width, draw)


def random_side_box(images: Any, draw: Seed, *, side: tuple[float, float]) -> Box:
    """Boxes of a random share of both sides, within the image."""
    n, height, width = _size(images)
    share = _uniform(n, *side, draw)
    return _placed(share * height, share * width, height, width, draw)


def centre_box(images: Any, share: float = 1.0) -> Box:
    """The middle of each image, of that share of both sides."""
    n, height, width = _size(images)
    ones = ops.ones((n,), "float32")
    tall, wide = ones * (share * height), ones * (share * width)
    return (height - tall) / 2, (width - wide) / 2, tall, wide


def resample(images: Any, box: Box, height: int, width: int, *, is_flipped: Any = None) -> Any:
    """The boxes of images at another size, bilinearly, with antialiasing where they shrink.

    Args:
        images: [n, height, width, channels].
        box: What to show of each.
        height: Of the result.
        width: Of the result.
        is_flipped: bool [n], images to mirror left to right; none by default.
    """
    _, rows, columns = _size(images)
    top, left, tall, wide = box
    down = _interpolation(top, tall, height, rows)
    across = _interpolation(left, wide, width, columns)
    if is_flipped is not None:
        across = ops.where(ops.reshape(is_flipped, (-1, 1, 1)), ops.flip(across, axis=1), across)
    return _separable(images, down, across)


def blur(images: Any, draw: Seed, *, probability: float, sigma: tuple[float, float]) -> Any:
    """Some images blurred by a Gaussian of a random width, in pixels."""
    n, height, width = _size(images)
    widths = ops.maximum(_uniform(n, *sigma, draw), _NO_BLUR)
    widths = ops.where(happens(images, probability, draw), widths, _NO_BLUR)
    return _separable(images, _gaussian(widths, height), _gaussian(widths, width))


def solarize(images: Any, draw: Seed, *, probability: float, threshold: float) -> Any:
    """Some images with their pixels of at least threshold inverted."""
    chosen = ops.reshape(happens(images, probability, draw), (-1, 1, 1, 1))
    return ops.where(ops.logical_and(chosen, images >= threshold), 1.0 - images, images)


def color_jitter(
    images: Any,
    draw: Seed,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    is_additive: bool,
    jitter_probability: float,
    grey_probability: float,
) -> Any:
    """Random brightness, contrast, saturation and hue for some images, none of the colour for others.

    brightness: x · b, b within 1 ± brightness; or x + b, b within ± brightness, if additive.
    contrast: (x − m) · c + m, c within 1 ± contrast, m the image's mean per channel.
    saturation, hue: in YIQ, the plane of colour scaled by s within 1 ± saturation and turned by a share of a full circle
    within ± hue. Grey images have neither.

    But for the clipping of values the order makes no difference (all are linear and leave greys grey), so it is fixed.
    """
    n = _size(images)[0]
    is_jittered = happens(images, jitter_probability, draw)

    def around(middle: float, reach: float) -> Any:
        values = _uniform(n, max(middle - reach, 0.0) if middle else -reach, middle + reach, draw)
        return ops.where(is_jittered, values, middle)

    images = images + _each(around(0.0, brightness)) if is_additive else images * _each(around(1.0, brightness))
    mean = ops.mean(images, axis=(1, 2), keepdims=True)
    images = (images - mean) * _each(around(1.0, contrast)) + mean
    if images.shape[-1] == 3:
        scale = ops.where(happens(images, grey_probability, draw), 0.0, around(1.0, saturation))
        images = _recoloured(images, scale, around(0.0, hue) * (2 * math.pi))
    return ops.clip(images, 0.0, 1.0)


def happens(images: Any, probability: float, draw: Seed) -> Any:
    """bool [n], true for each image with that probability."""
    return _uniform(_size(images)[0], 0.0, 1.0, draw) < probability


def _recoloured(images: Any, scale: Any, angle: Any) -> Any:
    """Colours scaled and turned in YIQ."""
    i, q, zero = scale * ops.cos(angle), scale * ops.sin(angle), ops.zeros_like(scale)
    turned = ops.reshape(ops.stack([zero + 1, zero, zero, zero, i, -q, zero, q, i], axis=1), (-1, 3, 3))
    matrix = ops.matmul(ops.matmul(_FROM_YIQ, turned), _TO_YIQ)  # (n, 3, 3)
    return ops.einsum("nhwc,ndc->nhwd", images, matrix)


def _interpolation(start: Any, length: Any, n_out: int, n_in: int) -> Any:
    """Weights (n, n_out, n_in) of pixels for a stretch of them shown as n_out pixels."""
    step = ops.reshape(length / n_out, (-1, 1, 1))
    place = ops.reshape(start, (-1, 1, 1)) + (_pixels(n_out, (1, -1, 1)) + 0.5) * step - 0.5
    weights = ops.relu(1.0 - ops.abs(place - _pixels(n_in, (1, 1, -1))) / ops.maximum(step, 1.0))
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def _gaussian(sigma: Any, n_pixels: int) -> Any:
    """Weights (n, n_pixels, n_pixels) of a Gaussian, cut at the edges."""
    apart = _pixels(n_pixels, (1, -1, 1)) - _pixels(n_pixels, (1, 1, -1))
    weights = ops.exp(-0.5 * ops.square(apart / ops.reshape(sigma, (-1, 1, 1))))
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def _separable(images: Any, down: Any, across: Any) -> Any:
    return ops.einsum("nwj,nhjc->nhwc", across, ops.einsum("nhi,nijc->nhjc", down, images))


def _placed(tall: Any, wide: Any, height: int, width: int, draw: Seed) -> Box:
    """Boxes of that size somewhere in the image."""
    n = ops.shape(tall)[0]
    return (height - tall) * _uniform(n, 0.0, 1.0, draw), (width - wide) * _uniform(n, 0.0, 1.0, draw), tall, wide


def _uniform(n: Any, low: float, high: float, draw: Seed) -> Any:
    return keras.random.uniform((n,), low, high, seed=draw())


def _each(values: Any) -> Any:
    return ops.reshape(values, (-1, 1, 1, 1))


def _pixels(count: int, shape: tuple[int, ...]) -> Any:
    return ops.reshape(ops.arange(count, dtype="float32"), shape)


def _size(images: Any) -> tuple[Any, Any, Any]:
    n, height, width, _ = ops.shape(images)
    return n, height, width
