"""What every sampler has in common: batches as a function of seed, epoch and number, and the augmenter."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError
from simstore.similarity.augmenters import Augmenter
from simstore.similarity.augmenters.augmenter import ImageAugmenter
from simstore.similarity.samplers.selection import Rows, as_numpy, at_least, plain_seed

__all__ = ["Sampler"]

AugmenterFn = Augmenter | Callable[[Any, Any, int, bool], Any]
Batch = tuple[NDArray[Any], NDArray[Any]]


class Sampler(keras.utils.PyDataset):
    """Base of the samplers: a Keras dataset of steps_per_epoch balanced batches, for ``fit``.

    A batch depends on seed, epoch and its number alone: it is the same in whatever order and by however many workers
    batches are made. ``fit`` asks for them in an order of its own, by Python's random: with shuffle=False it is 0, 1, 2, …,
    and keras.utils.set_random_seed makes it the same every time. The sampler's epoch is over when ``on_epoch_end`` is
    called and all its batches were asked for; so it does not end early if ``fit`` is given fewer steps. (With workers above 1
    leave steps_per_epoch to the sampler: Keras mixes up batches then.)

    Args:
        classes_per_batch: How many classes a batch has.
        examples_per_class_per_batch: How many examples of each.
        num_augmentations_per_example: How many views of each example the augmenter is asked for.
        steps_per_epoch: How many batches make an epoch.
        augmenter: Called as augmenter(x, y, num_augmentations_per_example, is_warmup) with a batch. It returns the tuple
            (x, y), or a list of views, each like x: they follow one another in the batch, with the labels repeated.
        warmup: For so many epochs the augmenter gets is_warmup=True.
        seed: The same seed gives the same batches. The augmenters of ``simstore.similarity`` take theirs from it; any
            other has to see to its own.
        workers: How many threads make batches for ``fit``.
    """

    def __init__(
        self,
        classes_per_batch: int,
        examples_per_class_per_batch: int = 2,
        num_augmentations_per_example: int = 1,
        steps_per_epoch: int = 1000,
        augmenter: AugmenterFn | None = None,
        warmup: int = -1,
        *,
        seed: int | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers)
        at_least(
            1,
            classes_per_batch=classes_per_batch,
            examples_per_class_per_batch=examples_per_class_per_batch,
            num_augmentations_per_example=num_augmentations_per_example,
            steps_per_epoch=steps_per_epoch,
        )
        at_least(-1, warmup=warmup)
        if augmenter is not None and not callable(augmenter):
            raise InvalidArgumentError(f"augmenter is an Augmenter or a function, not {type(augmenter).__name__}")
        self.classes_per_batch = int(classes_per_batch)
        self.examples_per_class_per_batch = int(examples_per_class_per_batch)
        self.num_augmentations_per_example = int(num_augmentations_per_example)
        self.steps_per_epoch = int(steps_per_epoch)
        self.augmenter = augmenter
        self.warmup = int(warmup)
        self.seed = plain_seed(seed)
        self.epoch = 0
        self._asked: set[int] = set()

    @property
    def batch_size(self) -> int:
        """Examples in a batch, before the augmenter."""
        return self.classes_per_batch * self.examples_per_class_per_batch

    @property
    def is_warmup(self) -> bool:
        """Whether this is one of the first ``warmup`` epochs."""
        return self.epoch < self.warmup

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        raise NotImplementedError

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.get_slice(0, 1)[0].shape[1:])

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.steps_per_epoch

    def __getitem__(self, index: int) -> Batch:
        """The batch of that number in this epoch: x [batch_size, …], y int64 [batch_size]."""
        if not 0 <= index < self.steps_per_epoch:
            raise IndexError(f"batch {index} of a sampler with {self.steps_per_epoch} batches per epoch")
        generator = np.random.default_rng([self.seed, self.epoch, int(index)])
        self._asked.add(index)  # after the epoch was read: another thread may end it from here on
        x, y = self._examples(self._batch_rows(int(index), generator))
        return (x, y) if self.augmenter is None else self._augmented(x, y, int(generator.integers(2**31)))

    def generate_batch(self, batch_id: int) -> Batch:
        """As ``sampler[batch_id]``."""
        return self[batch_id]

    def on_epoch_end(self) -> None:
        """Begins the next epoch, with other batches, if this one's were all asked for.

        Keras also calls this before the first epoch of ``fit``, and at the end of its own, which may be shorter.
        """
        is_over = len(self._asked) == self.steps_per_epoch
        if is_over or self.use_multiprocessing:  # other processes ask copies of this object
            self._asked = set()
            self.epoch += 1

    def get_slice(self, begin: int = 0, size: int = -1) -> Batch:
        """Examples by their place, as they are: not augmented.

        Args:
            begin: The first one, from 0.
            size: How many; -1 for all from there on.

        Returns:
            x [size, …] and y [size].

        Raises:
            InvalidArgumentError: The slice reaches over an end.
        """
        at_least(0, begin=begin)
        at_least(-1, size=size)
        end = self.num_examples if size == -1 else begin + size
        if begin > self.num_examples or end > self.num_examples:
            raise InvalidArgumentError(
                f"get_slice({begin}, {size}) reaches over the end: there are {self.num_examples} examples, numbered from 0"
            )
        return self._examples(np.arange(begin, end))

    def _batch_rows(self, index: int, generator: np.random.Generator) -> Rows:
        """The rows of a batch in this epoch."""
        raise NotImplementedError

    def _examples(self, rows: Rows) -> Batch:
        """Examples and labels of rows."""
        raise NotImplementedError

    def _augmented(self, x: NDArray[Any], y: NDArray[Any], seed: int) -> Batch:
        result = augmented(self.augmenter, x, y, self.num_augmentations_per_example, self.is_warmup, seed)
        return stacked_views(result, y) if isinstance(result, list) else result


def augmented(augmenter: Any, x: Any, y: Any, n_views: int, is_warmup: bool, seed: int) -> Any:
    """What an augmenter makes of a batch: (x, y) or a list of views, as arrays."""
    if isinstance(augmenter, ImageAugmenter):
        result: Any = augmenter.views(x, n_views, is_warmup, seed=seed)
    else:
        result = augmenter(x, y, n_views, is_warmup)
    if isinstance(result, list) and result:
        return [as_numpy(view) for view in result]
    if isinstance(result, tuple) and len(result) == 2:
        return as_numpy(result[0]), as_numpy(result[1])
    raise InvalidArgumentError(f"an augmenter returns the tuple (x, y) or a list of views, not {type(result).__name__}")


def stacked_views(views: list[NDArray[Any]], y: NDArray[Any]) -> Batch:
    """Views one after the other, and the labels as often."""
    return np.concatenate(views), np.tile(y, len(views))
