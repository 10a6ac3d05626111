"""What augmenters have in common: how they are called, the range of pixels, and where chance comes from."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from simstore.errors import InvalidArgumentError

__all__ = ["Augmenter", "ImageAugmenter", "Seed"]

Seed = Callable[[], Any]  # gives each draw a seed of its own


class Augmenter(ABC):
    """Makes views of the examples of a batch. Subclass it, and give ``augment``."""

    @abstractmethod
    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> list[Any]:
        """So many views, each like x."""

    def __call__(self, x: Any, y: Any = None, num_augmentations_per_example: int = 2, is_warmup: bool = False) -> list[Any]:
        """So many views of a batch, each like x.

        Args:
            x: Examples [n, …].
            y: Their labels; an augmenter may need them.
            num_augmentations_per_example: How many views.
            is_warmup: Whether a sampler's first ``warmup`` epochs are on.
        """
        return self.augment(x, y, num_augmentations_per_example, is_warmup)


class ImageAugmenter(Augmenter):
    """Base of the augmenters of images: whole batches at once, in Keras operations.

    Images are [n, height, width, 1 or 3]. Integers go from 0 to 255 and floats from 0 to 1, unless value_range says
    otherwise. Views are float32, in the range of the images. While is_warmup they are not augmented, only resized.

    Args:
        height: Of the views, in pixels.
        width: Of the views, in pixels.
        value_range: (lowest, highest) value of a pixel. By default what the type says.
        seed: The same seed gives the same views, call by call.
    """

    def __init__(
        self, height: int, width: int, *, value_range: tuple[float, float] | None = None, seed: int | None = None
    ) -> None:
        if height < 1 or width < 1:
            raise InvalidArgumentError(f"height and width are at least 1 pixel, not {height} × {width}")
        if value_range is not None and not value_range[0] < value_range[1]:
            raise InvalidArgumentError(f"value_range is (lowest, highest), not {value_range}")
        self.height = height
        self.width = width
        self.value_range = value_range
        self.seed = seed
        self._seeds = keras.random.SeedGenerator(seed)

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> list[Any]:
        """So many views, each [n, height, width, channels]."""
        return self.views(x, num_augmentations_per_example, is_warmup)

    def views(self, x: Any, n_views: int, is_warmup: bool = False, *, seed: int | None = None) -> list[Any]:
        """As ``augment``; with a seed, by this alone: calls may come in any order.

        Raises:
            InvalidArgumentError: x is no batch of images, or its values are out of range.
        """
        x = x if hasattr(x, "shape") else np.asarray(x)
        low, high = self._range_of(x)
        images = (ops.cast(ops.convert_to_tensor(x), "float32") - low) / (high - low)
        draw = self._next_seed if seed is None else _counted(seed)
        views = [self._resized(images) if is_warmup else self._view(images, draw) for _ in range(n_views)]
        return [ops.clip(view, 0.0, 1.0) * (high - low) + low for view in views]

    @abstractmethod
    def _view(self, images: Any, draw: Seed) -> Any:
        """One view of images from 0 to 1."""

    @abstractmethod
    def _resized(self, images: Any) -> Any:
        """The images in the views' size."""

    def _next_seed(self) -> Any:
        return self._seeds

    def _range_of(self, x: Any) -> tuple[float, float]:
        if len(x.shape) != 4 or x.shape[-1] not in (1, 3):
            raise InvalidArgumentError(
                f"images are [n, height, width, 1 or 3], not {list(x.shape)}: x[..., None] adds the axis of grey ones"
            )
        is_float = "float" in keras.backend.standardize_dtype(x.dtype)
        low, high = self.value_range or ((0.0, 1.0) if is_float else (0.0, 255.0))
        # Tensors are not looked into: it would wait for the device, and inside a graph there is nothing to see.
        if isinstance(x, np.ndarray) and x.size and (x.min() < low or x.max() > high):
            raise InvalidArgumentError(
                f"pixels go from {x.min():g} to {x.max():g}, but {x.dtype} images are taken for {low:g} to {high:g}: "
                f"give value_range="
            )
        return float(low), float(high)


def _counted(seed: int) -> Seed:
    """Seeds that follow from one, for a single call."""
    generator = np.random.default_rng(seed)
    return lambda: int(generator.integers(2**31))
