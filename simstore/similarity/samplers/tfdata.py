"""Balanced batches of a tf.data dataset, as a tf.data dataset."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from simstore.errors import InvalidArgumentError, PackageMissingError
from simstore.similarity.augmenters import Augmenter
from simstore.similarity.samplers.sampler import augmented, stacked_views
from simstore.similarity.samplers.selection import (
    at_least,
    check_classes,
    chosen_rows,
    class_rows,
    drawn_rows,
    integer_labels,
    plain_seed,
)

__all__ = ["TFDataSampler", "import_tensorflow"]


def TFDataSampler(
    ds: Any,
    classes_per_batch: int = 2,
    examples_per_class_per_batch: int = 2,
    class_list: Sequence[int] | None = None,
    total_examples_per_class: int | None = None,
    augmenter: Callable[..., Any] | None = None,
    load_fn: Callable[..., Any] | None = None,
    warmup: int = 0,
    label_output: int | str | None = None,
    *,
    replace: bool = False,
    seed: int | None = None,
) -> Any:
    """Endless batches of classes_per_batch classes with examples_per_class_per_batch examples of each, class by class.

    Classes and examples are drawn anew for every batch, without replacement within it. The examples of ds are held in
    memory as it gives them: let it give paths where they are large, and load them by load_fn. Give ``fit`` its
    steps_per_epoch, as the dataset does not end.

    Args:
        ds: A finite tf.data.Dataset of single examples (x, y) or (x, y, …), each part a tensor or a structure of tensors.
        classes_per_batch: How many classes a batch has.
        examples_per_class_per_batch: How many examples of each.
        class_list: The classes to use; all by default.
        total_examples_per_class: Use at most so many examples of each class, drawn without replacement.
        augmenter: A TensorFlow function of one example, called as augmenter(x, y, …) and returning the like; or an Augmenter
            for ds of (x, y), which makes one view of each image of a batch.
        load_fn: A TensorFlow function of one example, called as load_fn(x, y, …) and returning the like, before augmenter.
        warmup: So many examples come without augmentation; for an Augmenter these are the ones that is_warmup covers.
        label_output: Where in y the label is: an index or a key. By default y is the label.
        replace: Whether classes of fewer than examples_per_class_per_batch examples are drawn from repeatedly. If not,
            they are an error.
        seed: The same seed gives the same batches, from the first one on whenever the dataset is iterated. A function given
            as augmenter has to see to its own.

    Returns:
        A tf.data.Dataset of batches (x, y, …), endless.

    Raises:
        InvalidArgumentError: ds is endless or of unknown size; labels of a wrong shape or type; more classes per batch than
            there are; too few examples of a class; or another argument is wrong.
        PackageMissingError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    at_least(1, classes_per_batch=classes_per_batch, examples_per_class_per_batch=examples_per_class_per_batch)
    at_least(0, warmup=warmup)
    examples = _held(tf, ds)
    try:
        labels = integer_labels(examples[1] if label_output is None else examples[1][label_output])
    except (LookupError, TypeError) as err:
        raise InvalidArgumentError(f"label_output={label_output!r} is not in y: {ds.element_spec[1]}") from err
    start = plain_seed(seed)
    rows = chosen_rows(labels, len(labels), class_list, total_examples_per_class, start)
    by_class = class_rows(labels[rows])
    check_classes(by_class, classes_per_batch, examples_per_class_per_batch, replace=replace)
    parts = [rows[places] for places in by_class.values()]
    batch_size = classes_per_batch * examples_per_class_per_batch

    def drawn(number: Any) -> Any:
        return drawn_rows(np.random.default_rng([start, int(number)]), parts, classes_per_batch, examples_per_class_per_batch)

    def batch_of(number: Any) -> Any:
        chosen = tf.ensure_shape(tf.numpy_function(drawn, [number], tf.int64, stateful=False), [batch_size])
        return tf.nest.map_structure(lambda values: tf.gather(values, chosen), held)

    with tf.device("cpu:0"):
        held = tf.nest.map_structure(tf.constant, examples)
        batches = tf.data.Dataset.counter().map(batch_of)
        one_by_one = None if isinstance(augmenter, Augmenter) else augmenter
        if load_fn is not None or one_by_one is not None:
            batches = _each(tf, batches, load_fn, one_by_one, warmup).batch(batch_size, drop_remainder=True)
        if isinstance(augmenter, Augmenter):
            batches = _augmented(tf, batches, augmenter, start, warmup)
        return batches.prefetch(tf.data.AUTOTUNE)


def import_tensorflow() -> Any:
    """TensorFlow.

    Raises:
        PackageMissingError: It is not installed.
    """
    try:
        import tensorflow
    except ImportError as err:
        raise PackageMissingError("samplers of tf.data need TensorFlow: pip install 'simstore[keras]'") from err
    return tensorflow


def _held(tf: Any, ds: Any) -> Any:
    """The examples of a dataset, stacked."""
    if not isinstance(ds, tf.data.Dataset):
        raise InvalidArgumentError(f"ds is a tf.data.Dataset, not {type(ds).__name__}")
    size = int(ds.cardinality())
    if size == tf.data.INFINITE_CARDINALITY:
        raise InvalidArgumentError("ds is endless: leave out its repeat(), the sampler repeats by itself")
    if size == tf.data.UNKNOWN_CARDINALITY:
        raise InvalidArgumentError(
            "the size of ds is unknown: if it is finite, tell by ds.apply(tf.data.experimental.assert_cardinality(n))"
        )
    spec = ds.element_spec
    if size == 0 or not isinstance(spec, tuple) or len(spec) < 2:
        raise InvalidArgumentError(f"ds gives single examples (x, y) or (x, y, …), at least one, not {size} of {spec}")
    try:
        whole = ds.batch(size, drop_remainder=True).get_single_element()
    except tf.errors.InvalidArgumentError as err:
        raise InvalidArgumentError(
            "the examples of ds have different shapes: ds.unbatch() if it gives batches; else let it give paths, and load and "
            "resize them by load_fn"
        ) from err
    return tf.nest.map_structure(lambda values: values.numpy(), whole)


def _each(tf: Any, batches: Any, load_fn: Any, augmenter: Any, warmup: int) -> Any:
    """Single examples, loaded and augmented."""
    examples = batches.unbatch()
    if load_fn is not None:
        examples = examples.map(load_fn, num_parallel_calls=tf.data.AUTOTUNE)
    if augmenter is None:
        return examples
    if not warmup:
        return examples.map(augmenter, num_parallel_calls=tf.data.AUTOTUNE)

    def later(place: Any, example: Any) -> Any:
        return tf.cond(place < warmup, lambda: example, lambda: augmenter(*example))

    return examples.enumerate().map(later, num_parallel_calls=tf.data.AUTOTUNE)


def _augmented(tf: Any, batches: Any, augmenter: Augmenter, seed: int, warmup: int) -> Any:
    """Batches (x, y), augmented as the other samplers' are."""

    def made(number: Any, x: Any, y: Any) -> Any:
        x, y = keras.ops.convert_to_numpy(x), keras.ops.convert_to_numpy(y)
        batch_seed = int(np.random.default_rng([seed, int(number), 1]).integers(2**31))
        result = augmented(augmenter, x, y, 1, int(number) * len(x) < warmup, batch_seed)
        return stacked_views(result, y) if isinstance(result, list) else result

    if not isinstance(batches.element_spec, tuple) or len(batches.element_spec) != 2:
        raise InvalidArgumentError("an Augmenter is for ds of (x, y); give a function of one example for anything else")
    first = made(0, *next(iter(batches)))

    def augment(number: Any, example: Any) -> Any:
        x, y = tf.py_function(made, [number, *example], [part.dtype for part in first])
        return tf.ensure_shape(x, first[0].shape), tf.ensure_shape(y, first[1].shape)

    return batches.enumerate().map(augment)
