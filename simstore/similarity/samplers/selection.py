"""Which examples go where: labels checked, rows per class, rows chosen. All of it on row numbers: examples are not copied."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError

__all__ = [
    "at_least",
    "chosen_rows",
    "class_rows",
    "drawn_rows",
    "integer_labels",
    "label_vector",
    "plain_seed",
    "select_examples",
]

Rows = NDArray[np.int64]


def select_examples(
    x: Any,
    y: Any,
    class_list: Sequence[int] | None = None,
    num_examples_per_class: int | None = None,
    *,
    seed: int | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """At most so many examples of each class, drawn without replacement and shuffled.

    Args:
        x: Examples [n, …].
        y: Their labels [n] or [n, 1].
        class_list: The classes to keep; all by default.
        num_examples_per_class: How many of each, at most; all by default.
        seed: The same seed selects the same examples in the same order.

    Returns:
        Examples and labels [m].

    Raises:
        InvalidArgumentError: x and y do not fit together, or there is no example of a class in class_list.

    Example:
        >>> x, y = select_examples([[1], [2], [3], [4]], [5, 6, 6, 6], class_list=[6], num_examples_per_class=2, seed=1)
        >>> x.shape, y.tolist()
        ((2, 1), [6, 6])
    """
    labels = label_vector(y)
    rows = chosen_rows(labels, len(x), class_list, num_examples_per_class, plain_seed(seed))
    return as_numpy(x)[rows], labels[rows]


def label_vector(y: Any) -> NDArray[Any]:
    """Labels as an array [n].

    Raises:
        InvalidArgumentError: They have another shape than [n] or [n, 1].
    """
    labels = as_numpy(y)
    if labels.ndim == 2 and labels.shape[1] == 1:  # as keras.datasets.cifar10 has them
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InvalidArgumentError(
            f"y has one label per example, shape [n] or [n, 1], not {list(labels.shape)}: "
            "np.argmax(y, axis=1) makes such of one-hot ones"
        )
    if not len(labels):
        raise InvalidArgumentError("y is empty: there is nothing to sample")
    return labels


def integer_labels(y: Any) -> Rows:
    """Labels as int64 [n], as losses take them.

    Raises:
        InvalidArgumentError: They have another shape, or are no whole numbers.
    """
    labels = label_vector(y)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InvalidArgumentError(
            f"labels to train with are whole numbers, not {labels.dtype}: "
            "names, y = np.unique(y, return_inverse=True) numbers any others"
        )
    return labels.astype(np.int64)


def chosen_rows(
    labels: NDArray[Any], n_examples: int, class_list: Sequence[int] | None, per_class: int | None, seed: int
) -> Rows:
    """The rows of at most per_class examples of each class in class_list, shuffled."""
    if len(labels) != n_examples:
        raise InvalidArgumentError(
            f"x has {n_examples} examples and y {len(labels)} labels: there is one label for each example"
        )
    if per_class is not None:
        at_least(1, num_examples_per_class=per_class)
    generator = np.random.default_rng(seed)
    by_class = class_rows(labels, class_list)
    kept = [rows if per_class is None else generator.permutation(rows)[:per_class] for rows in by_class.values()]
    return generator.permutation(np.concatenate(kept))


def class_rows(labels: NDArray[Any], class_list: Sequence[int] | None = None) -> dict[Any, Rows]:
    """The rows of each class, classes and rows ascending.

    Raises:
        InvalidArgumentError: There is no example of a class in class_list, or it names none.
    """
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    parts = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    by_class = {label: np.sort(rows) for label, rows in zip(classes.tolist(), parts, strict=True)}
    if class_list is None:
        return by_class
    wanted = set(as_numpy(class_list).ravel().tolist())
    missing = sorted(wanted - by_class.keys(), key=str)
    if missing or not wanted:
        raise InvalidArgumentError(f"class_list names {missing or 'no class'}; y has the classes {shortened(list(by_class))}")
    return {label: rows for label, rows in by_class.items() if label in wanted}


def drawn_rows(generator: np.random.Generator, by_class: Sequence[Rows], n_classes: int, per_class: int) -> Rows:
    """Rows of so many examples of so many classes, class by class: none twice, but in classes that are too small."""
    drawn = []
    for code in generator.choice(len(by_class), n_classes, replace=False):
        rows = by_class[code]
        drawn.append(rows[generator.choice(len(rows), per_class, replace=len(rows) < per_class)])
    return np.concatenate(drawn)


def check_classes(by_class: dict[Any, Rows], n_classes: int, per_class: int, *, replace: bool = False) -> None:
    """Raises InvalidArgumentError unless there are enough classes, and enough examples in each."""
    if n_classes > len(by_class):
        raise InvalidArgumentError(
            f"classes_per_batch={n_classes}, but there are only {len(by_class)} classes: {shortened(list(by_class))}"
        )
    small = {label: len(rows) for label, rows in by_class.items() if len(rows) < per_class}
    if small and not replace:
        label, count = next(iter(small.items()))
        raise InvalidArgumentError(
            f"{len(small)} of {len(by_class)} classes have fewer than examples_per_class_per_batch={per_class} examples "
            f"(class {label!r} has {count}): lower it, leave them out by class_list, or draw repeatedly by replace=True"
        )


def at_least(minimum: int, **values: Any) -> None:
    """Raises InvalidArgumentError for a value that is no whole number of at least minimum."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
            raise InvalidArgumentError(f"{name} is a whole number of at least {minimum}, not {value!r}")


def plain_seed(seed: int | None) -> int:
    """The seed; without one a fresh one, so that what follows from it stays the same all the same."""
    if seed is None:
        return int(np.random.default_rng().integers(2**31))
    at_least(0, seed=seed)
    return int(seed)


def as_numpy(values: Any) -> NDArray[Any]:
    """An array of what was given: array, tensor or list.

    Raises:
        InvalidArgumentError: It is a list of arrays of different shapes.
    """
    if keras.ops.is_tensor(values):
        return np.asarray(keras.ops.convert_to_numpy(values))
    try:
        return np.asarray(values)
    except ValueError as err:
        raise InvalidArgumentError(f"examples have different shapes and make no array ({err}): resize or pad them") from err


def example_array(x: Any) -> NDArray[Any]:
    """Examples as an array [n, …].

    Raises:
        InvalidArgumentError: They have different shapes, or are no arrays at all.
    """
    examples = as_numpy(x)
    if examples.ndim == 0 or examples.dtype == object:
        raise InvalidArgumentError(
            "x is no array [n, …]: resize or pad examples of different shapes, and load others by load_example_fn"
        )
    return examples


def shortened(values: list[Any], most: int = 12) -> str:
    """A list for a message, its middle left out when it is long."""
    shown = [repr(value) for value in values]
    return ", ".join(shown if len(shown) <= most else [*shown[: most - 1], "…", shown[-1]])
