"""An augmenter made of a function."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity.augmenters.augmenter import Augmenter

__all__ = ["ContrastiveAugmenter"]


class ContrastiveAugmenter(Augmenter):
    """Views by a function of your own.

    Args:
        process: A function of one example, called for each view of it (and once more for each batch: Keras looks at what it
            returns); or a Keras layer, called with the whole batch and training=True. Its randomness is its own: seed it
            there, and leave a sampler's ``workers`` at 1 for batches that are the same every time.
        num_cpu: Not used.

    Example:
        >>> augmenter = ContrastiveAugmenter(lambda image: image + keras.random.normal(image.shape, stddev=0.1))
        >>> [tuple(view.shape) for view in augmenter(ops.zeros((8, 28, 28, 1)))]
        [(8, 28, 28, 1), (8, 28, 28, 1)]
    """

    def __init__(self, process: Callable[[Any], Any], num_cpu: int | None = None) -> None:
        if not callable(process):
            raise InvalidArgumentError(f"process is a function or a Keras layer, not {type(process).__name__}")
        self.process = process
        self.num_cpu = num_cpu

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> list[Any]:
        """So many views, each [n, …]."""
        examples = ops.convert_to_tensor(x)
        return [self._view(examples) for _ in range(num_augmentations_per_example)]

    def _view(self, examples: Any) -> Any:
        if isinstance(self.process, keras.layers.Layer):
            return self.process(examples, training=True)
        return ops.map(self.process, examples)
