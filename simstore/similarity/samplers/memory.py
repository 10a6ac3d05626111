"""Samplers of examples in memory: several of each class, or one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError
from simstore.similarity.samplers.sampler import AugmenterFn, Batch, Sampler, augmented, stacked_views
from simstore.similarity.samplers.selection import (
    Rows,
    as_numpy,
    at_least,
    check_classes,
    chosen_rows,
    class_rows,
    drawn_rows,
    example_array,
    integer_labels,
)

__all__ = ["MultiShotMemorySampler", "SingleShotMemorySampler"]


class MultiShotMemorySampler(Sampler):
    """Batches of classes_per_batch classes with examples_per_class_per_batch examples of each, class by class.

    Classes and examples are drawn anew for every batch, without replacement within it. The examples of ``get_slice`` are
    shuffled, so that a slice is a fair sample of all classes.

    Args:
        x: Examples [n, …]: array, tensor or list. With load_example_fn whatever this takes, as paths.
        y: Their labels, whole numbers, [n] or [n, 1].
        classes_per_batch: How many classes a batch has.
        examples_per_class_per_batch: How many examples of each.
        steps_per_epoch: How many batches make an epoch.
        class_list: The classes to use; all by default.
        total_examples_per_class: Use at most so many examples of each class, drawn without replacement.
        augmenter: See ``Sampler``.
        load_example_fn: Makes an example of an element of x, whenever it is wanted.
        warmup: See ``Sampler``.
        num_augmentations_per_example: How many views the augmenter makes of each example.
        replace: Whether classes of fewer than examples_per_class_per_batch examples are drawn from repeatedly. If not,
            they are an error.
        seed: The same seed selects the same examples and gives the same batches.
        workers: See ``Sampler``.

    Raises:
        InvalidArgumentError: Labels of a wrong shape or type, more classes per batch than there are, too few examples of a
            class, or another argument is wrong.

    Example:
        >>> sampler = MultiShotMemorySampler(np.eye(6), [0, 0, 1, 1, 2, 2], classes_per_batch=2, seed=1)
        >>> x, y = sampler[0]
        >>> x.shape, np.unique(y, return_counts=True)[1].tolist()
        ((4, 6), [2, 2])
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        classes_per_batch: int = 2,
        examples_per_class_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Sequence[int] | None = None,
        total_examples_per_class: int | None = None,
        augmenter: AugmenterFn | None = None,
        load_example_fn: Callable[[Any], Any] | None = None,
        warmup: int = -1,
        *,
        num_augmentations_per_example: int = 1,
        replace: bool = False,
        seed: int | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(
            classes_per_batch,
            examples_per_class_per_batch,
            num_augmentations_per_example,
            steps_per_epoch,
            augmenter,
            warmup,
            seed=seed,
            workers=workers,
        )
        labels = integer_labels(y)
        self._rows = chosen_rows(labels, len(x), class_list, total_examples_per_class, self.seed)
        self._x = example_array(x) if load_example_fn is None else x
        self._y = labels[self._rows]
        self._load = load_example_fn
        by_class = class_rows(self._y)
        check_classes(by_class, classes_per_batch, examples_per_class_per_batch, replace=replace)
        self.class_list: list[int] = list(by_class)
        self._by_class = list(by_class.values())

    @property
    def num_examples(self) -> int:
        """How many examples there are, of the classes chosen."""
        return len(self._rows)

    def _batch_rows(self, index: int, generator: np.random.Generator) -> Rows:
        return drawn_rows(generator, self._by_class, self.classes_per_batch, self.examples_per_class_per_batch)

    def _examples(self, rows: Rows) -> Batch:
        places = self._rows[rows]
        if self._load is None:
            return self._x[places], self._y[rows]
        return as_numpy([as_numpy(self._load(self._x[place])) for place in places]), self._y[rows]


class SingleShotMemorySampler(Sampler):
    """Batches of examples_per_batch examples, each a class of its own, as views that the augmenter makes of them.

    The label of an example is its row in x. Examples come in random order, without replacement: each once before any
    comes again, but for those that do not fill a batch at the end of a pass.

    Args:
        x: Examples [n, …].
        augmenter: See ``Sampler``.
        examples_per_batch: How many examples a batch is made of.
        num_augmentations_per_example: How many views of each it holds.
        steps_per_epoch: How many batches make an epoch.
        warmup: See ``Sampler``.
        separate_views: Whether a batch is the pair (view 1, view 2), as ContrastiveModel takes it, rather than the views
            one after the other and their labels, as SimilarityModel takes them.
        seed: The same seed gives the same batches.
        workers: See ``Sampler``.

    Raises:
        InvalidArgumentError: More examples per batch than there are, no augmenter, or another argument is wrong.
    """

    def __init__(
        self,
        x: Any,
        augmenter: AugmenterFn,
        examples_per_batch: int,
        num_augmentations_per_example: int = 2,
        steps_per_epoch: int = 1000,
        warmup: int = -1,
        *,
        separate_views: bool = False,
        seed: int | None = None,
        workers: int = 1,
    ) -> None:
        at_least(1, examples_per_batch=examples_per_batch)
        super().__init__(
            examples_per_batch,
            1,
            num_augmentations_per_example,
            steps_per_epoch,
            augmenter,
            warmup,
            seed=seed,
            workers=workers,
        )
        if augmenter is None:
            raise InvalidArgumentError("augmenter is None: with one example of each class, all that is alike are its views")
        if separate_views and num_augmentations_per_example != 2:
            raise InvalidArgumentError(
                f"separate_views is for pairs: num_augmentations_per_example is 2 then, not {num_augmentations_per_example}"
            )
        self._x = example_array(x)
        if examples_per_batch > len(self._x):
            raise InvalidArgumentError(f"examples_per_batch={examples_per_batch}, but there are only {len(self._x)} examples")
        self.separate_views = separate_views
        self._order: tuple[int, Rows] | None = None

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        return len(self._x)

    def _batch_rows(self, index: int, generator: np.random.Generator) -> Rows:
        batches_per_pass = self.num_examples // self.classes_per_batch
        this_pass, place = divmod(self.epoch * self.steps_per_epoch + index, batches_per_pass)
        kept = self._order
        if kept is None or kept[0] != this_pass:  # two threads may both make it: they make the same
            kept = self._order = (this_pass, np.random.default_rng([self.seed, this_pass]).permutation(self.num_examples))
        return kept[1][place * self.classes_per_batch : (place + 1) * self.classes_per_batch]

    def _examples(self, rows: Rows) -> Batch:
        return self._x[rows], rows.astype(np.int64)

    def _augmented(self, x: NDArray[Any], y: NDArray[Any], seed: int) -> Batch:
        result = augmented(self.augmenter, x, y, self.num_augmentations_per_example, self.is_warmup, seed)
        if not self.separate_views:
            return stacked_views(result, y) if isinstance(result, list) else result
        if not isinstance(result, list) or len(result) != 2:
            raise InvalidArgumentError("separate_views needs an augmenter that returns a list of two views")
        return result[0], result[1]
