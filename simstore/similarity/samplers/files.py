"""A sampler of images in files: they are read when their turn comes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError, PackageMissingError
from simstore.similarity.samplers.memory import MultiShotMemorySampler
from simstore.similarity.samplers.sampler import AugmenterFn

__all__ = ["MultiShotFileSampler", "load_image"]


def load_image(path: str | Path, target_size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """An image file as float32 [height, width, 3], from 0 to 1.

    Args:
        path: A file that Pillow can read.
        target_size: (height, width) to resize it to, by Lanczos resampling; its own size by default.

    Raises:
        InvalidArgumentError: It is no image.
        PackageMissingError: Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as err:
        raise PackageMissingError("load_image needs Pillow: pip install 'simstore[images]'") from err
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except UnidentifiedImageError as err:
        raise InvalidArgumentError(f"{path} is no image that Pillow can read: give load_example_fn= what reads it") from err
    if target_size is not None:
        image = image.resize((target_size[1], target_size[0]), Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32) / np.float32(255)


class MultiShotFileSampler(MultiShotMemorySampler):
    """As MultiShotMemorySampler, of files: x are their paths.

    Images of a batch need one size: functools.partial(load_image, target_size=(64, 64)) sees to it. With workers above 1,
    so many files are read at a time.

    Args:
        x: Paths [n].
        y: Their labels, whole numbers, [n] or [n, 1].
        load_example_fn: Makes an example of a path.
        classes_per_batch, examples_per_class_per_batch, steps_per_epoch, class_list, total_examples_per_class, augmenter,
            warmup, num_augmentations_per_example, replace, seed, workers: See MultiShotMemorySampler.
    """

    def __init__(
        self,
        x: Sequence[Any],
        y: Any,
        load_example_fn: Callable[[Any], Any] = load_image,
        classes_per_batch: int = 2,
        examples_per_class_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Sequence[int] | None = None,
        total_examples_per_class: int | None = None,
        augmenter: AugmenterFn | None = None,
        warmup: int = -1,
        *,
        num_augmentations_per_example: int = 1,
        replace: bool = False,
        seed: int | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(
            x,
            y,
            classes_per_batch,
            examples_per_class_per_batch,
            steps_per_epoch,
            class_list,
            total_examples_per_class,
            augmenter,
            load_example_fn,
            warmup,
            num_augmentations_per_example=num_augmentations_per_example,
            replace=replace,
            seed=seed,
            workers=workers,
        )
