"""Balanced batches of TFRecord files, as a tf.data dataset: for sets that do not fit into memory."""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simstore.errors import InvalidArgumentError
from simstore.similarity.samplers.selection import at_least, plain_seed
from simstore.similarity.samplers.tfdata import import_tensorflow

__all__ = ["TFRecordDatasetSampler"]

_WAITING = 16  # blocks of a class that may wait for other classes


def TFRecordDatasetSampler(
    shard_path: str | Path,
    deserialization_fn: Callable[[Any], Any],
    example_per_class: int = 2,
    batch_size: int = 32,
    shards_per_cycle: int | None = None,
    compression: str | None = None,
    parallelism: int = -1,
    async_cycle: bool = False,
    prefetch_size: int | None = None,
    shard_suffix: str = "*.tfrec",
    num_repeat: int = -1,
    *,
    seed: int | None = None,
) -> Any:
    """Batches of batch_size / example_per_class classes with example_per_class examples of each, class by class.

    The files are read through, several at a time, in an order that is drawn anew for each pass. Examples are put together by
    class as they come, in blocks of example_per_class; as soon as there is a block of enough classes, they make a batch. So
    counts are exact however the examples lie, and memory is bounded: no more than 16 blocks of a class wait. What comes
    beyond is left out of this pass, at random, as are examples that fill no block. This is so for a class that is more
    frequent than others, and where files, taken together, have long stretches of few classes: mix them when writing.

    Args:
        shard_path: The directory of the files.
        deserialization_fn: A TensorFlow function from a serialised record to (x, y), y a whole number. x may be a structure
            of tensors; shapes are fixed.
        example_per_class: How many examples of a class a batch has.
        batch_size: How many examples it has, a multiple of example_per_class.
        shards_per_cycle: How many files are read by turns; all by default.
        compression: Of the files: None, "ZLIB" or "GZIP".
        parallelism: How many records are deserialised at a time; by default as TensorFlow sees fit. It changes no batch.
        async_cycle: Whether the files of a cycle are read in parallel. It changes no batch.
        prefetch_size: How many batches are made ahead; 10 by default.
        shard_suffix: Glob pattern of the files.
        num_repeat: How many passes; -1 for endless ones. Blocks that wait at the end of one go on in the next.
        seed: The same seed gives the same batches, from the first one on whenever the dataset is iterated.

    Returns:
        A tf.data.Dataset of batches (x, y).

    Raises:
        InvalidArgumentError: There are no such files, batch_size is no multiple, or deserialization_fn returns something else;
            while iterating, as TensorFlow's error: a whole pass had fewer classes than a batch needs.
        PackageMissingError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    at_least(1, example_per_class=example_per_class, batch_size=batch_size)
    if batch_size % example_per_class:
        raise InvalidArgumentError(f"batch_size={batch_size} is no multiple of example_per_class={example_per_class}")
    if shards_per_cycle is not None:
        at_least(1, shards_per_cycle=shards_per_cycle)
    if num_repeat != -1:
        at_least(1, num_repeat=num_repeat)
    shards = sorted(str(path) for path in Path(shard_path).glob(shard_suffix))
    if not shards:
        raise InvalidArgumentError(
            f"there are no files {shard_suffix} in {shard_path}: shard_suffix= is the pattern of their names"
        )
    start = plain_seed(seed)
    example = _checked(tf, tf.data.TFRecordDataset(shards).map(deserialization_fn).element_spec)
    n_at_a_time = min(shards_per_cycle or len(shards), len(shards))

    def one_pass(number: Any) -> Any:
        order = tf.argsort(tf.random.stateless_uniform([len(shards)], seed=[start, number]))
        return tf.data.Dataset.from_tensor_slices(tf.gather(shards, order)).interleave(
            lambda path: tf.data.TFRecordDataset(path, compression_type=compression),
            cycle_length=n_at_a_time,
            block_length=example_per_class,
            num_parallel_calls=n_at_a_time if async_cycle else 1,
            deterministic=True,
        )

    def blocks_of(number: Any) -> Any:
        examples = one_pass(number).map(deserialization_fn, num_parallel_calls=parallelism, deterministic=True)
        blocks = examples.group_by_window(
            lambda x, y: tf.cast(y, tf.int64),
            lambda _, window: window.batch(example_per_class, drop_remainder=True),
            example_per_class,
        )
        return blocks.map(lambda x, y: (number, x, y))

    with tf.device("cpu:0"):
        passes = tf.data.Dataset.range(num_repeat if num_repeat > 0 else np.iinfo(np.int64).max)
        blocks = passes.flat_map(blocks_of)
        spec = tf.nest.map_structure(lambda one: tf.TensorSpec([batch_size, *one.shape], one.dtype), example)
        batches = tf.data.Dataset.from_generator(
            lambda: _batches(tf, blocks, batch_size // example_per_class, start), output_signature=spec
        )
        return batches.prefetch(10 if prefetch_size is None else prefetch_size)


def _checked(tf: Any, spec: Any) -> Any:
    """The spec of (x, y)."""
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise InvalidArgumentError(f"deserialization_fn returns (x, y), not {spec}")
    if not isinstance(spec[1], tf.TensorSpec) or not spec[1].dtype.is_integer or spec[1].shape.rank not in (None, 0):
        raise InvalidArgumentError(f"y of deserialization_fn is a single whole number, not {spec[1]}")
    return spec


def _batches(tf: Any, blocks: Any, n_classes: int, seed: int) -> Iterator[Any]:
    """Batches of one block of each of n_classes classes."""
    generator = np.random.default_rng(seed)
    waiting: dict[int, deque[Any]] = {}
    this_pass, n_made, seen = 0, 0, set[int]()
    for number, x, y in blocks:
        if int(number) != this_pass:
            _check_pass(n_made, seen, n_classes)
            this_pass, n_made, seen = int(number), 0, set()
        label = int(y[0])
        seen.add(label)
        queue = waiting.setdefault(label, deque())
        if len(queue) < _WAITING:
            queue.append((x, y))
        else:
            queue[generator.integers(_WAITING)] = (x, y)
        if len(waiting) == n_classes:
            yield tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *[one.popleft() for one in waiting.values()])
            n_made += 1
            waiting = {label: queue for label, queue in waiting.items() if queue}
    _check_pass(n_made, seen, n_classes)


def _check_pass(n_made: int, seen: set[int], n_classes: int) -> None:
    if not n_made:
        raise InvalidArgumentError(
            f"a pass over the files had {len(seen)} classes of at least example_per_class examples, and a batch has "
            f"{n_classes}: make batch_size smaller, or example_per_class"
        )
