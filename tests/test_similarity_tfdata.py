"""Samplers that are tf.data datasets: counts, seeds, errors."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from simstore.errors import InvalidArgumentError
from simstore.similarity.augmenters import SimCLRAugmenter
from simstore.similarity.samplers import TFDataSampler, TFRecordDatasetSampler

X = np.arange(60, dtype=np.int32).reshape(30, 2)  # example i is [2i, 2i + 1]
Y = np.repeat([3, 5, 7, 11, 13], [10, 8, 6, 4, 2])
DS = tf.data.Dataset.from_tensor_slices((X, Y))


def taken(ds: Any, count: int) -> list[Any]:
    return [tf.nest.map_structure(lambda part: part.numpy(), batch) for batch in ds.take(count)]


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def assert_differ(first: list[Any], second: list[Any]) -> None:
    assert any(not np.array_equal(x, other_x) for (x, _), (other_x, _) in zip(first, second, strict=True))


# -- TFDataSampler -----------------------------------------------------------------------------------------------------


def test_exact_counts_and_no_example_twice() -> None:
    found = taken(TFDataSampler(DS, 3, 4, class_list=[3, 5, 7, 11], seed=1), 60)
    for x, y in found:
        assert x.shape == (12, 2) and sorted(Counter(y.tolist()).values()) == [4, 4, 4]
        assert len(set(x[:, 0].tolist())) == 12
        np.testing.assert_array_equal(Y[x[:, 0] // 2], y)
    assert {int(one) for _, y in found for one in y} == {3, 5, 7, 11}
    assert len({int(one) for x, _ in found for one in x[:, 0]}) == 28


def test_same_seed_same_batches_each_time_it_is_iterated() -> None:
    ds = TFDataSampler(DS, 2, 2, seed=1)
    assert ds.element_spec[0].shape == (4, 2)
    assert_same(taken(ds, 20), taken(ds, 20))
    assert_same(taken(ds, 20), taken(TFDataSampler(DS, 2, 2, seed=1), 20))
    assert_differ(taken(ds, 20), taken(TFDataSampler(DS, 2, 2, seed=2), 20))
    assert_differ(taken(ds, 20)[:10], taken(ds, 20)[10:])


def test_total_examples_per_class_and_replacement() -> None:
    few = taken(TFDataSampler(DS, 5, 2, total_examples_per_class=3, seed=1), 100)
    per_class = {label: {int(one[0]) for x, y in few for one in x[y == label]} for label in (3, 5, 7, 11, 13)}
    assert [len(rows) for rows in per_class.values()] == [3, 3, 3, 3, 2]
    with pytest.raises(InvalidArgumentError, match="2 of 5 classes have fewer"):
        TFDataSampler(DS, 5, 6)
    _, y = taken(TFDataSampler(DS, 5, 6, replace=True, seed=1), 1)[0]
    assert set(Counter(y.tolist()).values()) == {6}


def test_structures_labels_within_y_and_further_parts() -> None:
    ds = tf.data.Dataset.from_tensor_slices(({"a": X, "b": X[:, 0]}, {"id": Y, "other": -Y}, X[:, 1]))
    for x, y, rest in taken(TFDataSampler(ds, 2, 2, label_output="id", seed=1), 5):
        np.testing.assert_array_equal(x["a"][:, 0], x["b"])
        np.testing.assert_array_equal(x["b"] + 1, rest)
        np.testing.assert_array_equal(y["id"], -y["other"])
        np.testing.assert_array_equal(Y[rest // 2], y["id"])
    pairs = tf.data.Dataset.from_tensor_slices((X, (X[:, 0], Y)))
    x, (first, labels) = taken(TFDataSampler(pairs, 2, 2, label_output=1, seed=1), 1)[0]
    np.testing.assert_array_equal(Y[first // 2], labels)


def test_load_fn_and_augmenter_of_single_examples_after_warmup() -> None:
    plain = taken(TFDataSampler(DS, 2, 2, seed=1), 4)
    ds = TFDataSampler(DS, 2, 2, load_fn=lambda x, y: (x * 10, y), augmenter=lambda x, y: (-x, y), warmup=6, seed=1)
    found = taken(ds, 4)
    sign = np.where(np.arange(16) < 6, 1, -1)[:, None]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), np.concatenate([x for x, _ in plain]) * 10 * sign)
    assert_same([y for _, y in found], [y for _, y in plain])
    always = taken(TFDataSampler(DS, 2, 2, augmenter=lambda x, y: (-x, y), seed=1), 4)
    assert_same(always, [(-x, y) for x, y in plain])


def test_an_augmenter_of_images_is_seeded_too() -> None:
    images = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    ds = tf.data.Dataset.from_tensor_slices((images, np.arange(20) % 4))

    def made(seed: int, warmup: int = 0) -> list[Any]:
        augmenter = SimCLRAugmenter(6, 7, eval_crop_proportion=1.0)
        sampler = TFDataSampler(ds, 3, 2, augmenter=augmenter, warmup=warmup, seed=seed)
        assert sampler.element_spec[0].shape == (6, 6, 7, 1)
        return taken(sampler, 4)

    assert_same(made(1), made(1))
    assert_differ(made(1), made(2))
    augmented, warm = made(1), made(1, warmup=12)
    assert_same(augmented[2:], warm[2:])
    assert_differ(augmented[:1], warm[:1])


def test_files_by_load_fn(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(str(number))
    paths = [str(tmp_path / f"{number}.txt") for number in range(8)]
    ds = tf.data.Dataset.from_tensor_slices((paths, np.arange(8) // 4))
    sampler = TFDataSampler(
        ds, 2, 3, load_fn=lambda path, y: (tf.strings.to_number(tf.io.read_file(path), tf.int64), y), seed=1
    )
    for x, y in taken(sampler, 5):
        np.testing.assert_array_equal(x // 4, y)
        assert len(set(x.tolist())) == 6


@pytest.mark.parametrize(
    ("ds", "message"),
    [
        (DS.repeat(), "endless"),
        (DS.filter(lambda x, y: y > 3), "assert_cardinality"),
        (DS.batch(5), "shape"),
        (tf.data.Dataset.from_tensor_slices(X), r"single examples \(x, y\)"),
        (DS.take(0), r"at least one, not 0"),
        (tf.data.Dataset.from_tensor_slices((X, X)), r"shape \[n\] or \[n, 1\]"),
        (tf.data.Dataset.from_tensor_slices((X, Y.astype(float))), "whole numbers"),
        (X, "a tf.data.Dataset, not ndarray"),
    ],
)
def test_wrong_datasets(ds: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        TFDataSampler(ds)


def test_wrong_arguments() -> None:
    with pytest.raises(InvalidArgumentError, match="classes_per_batch=6, but there are only 5 classes"):
        TFDataSampler(DS, 6)
    with pytest.raises(InvalidArgumentError, match=r"class_list names \[4\]"):
        TFDataSampler(DS, class_list=[3, 4])
    pairs = tf.data.Dataset.from_tensor_slices((X, {"id": Y}))
    with pytest.raises(InvalidArgumentError, match="label_output='label' is not in y"):
        TFDataSampler(pairs, label_output="label")
    ragged = tf.data.Dataset.range(1, 4).map(lambda n: (tf.zeros([n]), 0))
    with pytest.raises(InvalidArgumentError, match="different shapes"):
        TFDataSampler(ragged, 1)
    with pytest.raises(InvalidArgumentError, match=r"for ds of \(x, y\)"):
        TFDataSampler(tf.data.Dataset.from_tensor_slices((X, Y, X)), augmenter=SimCLRAugmenter(4, 4))


# -- TFRecordDatasetSampler --------------------------------------------------------------------------------------------


def parsed(record: Any) -> tuple[Any, Any]:
    one = tf.io.FixedLenFeature([], tf.int64)
    features = tf.io.parse_single_example(record, {"number": one, "label": one})
    return tf.stack([features["number"], -features["number"]]), features["label"]


def number_and_label(number: int, label: int) -> bytes:
    def of(value: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = tf.train.Features(feature={"number": of(number), "label": of(label)})
    return bytes(tf.train.Example(features=features).SerializeToString())


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes shards of labels; example i of all has the number i."""

    def shards(*labels: list[int], compression: str = "", suffix: str = "tfrec") -> Path:
        number = 0
        for place, of_shard in enumerate(labels):
            with tf.io.TFRecordWriter(str(tmp_path / f"{place}.{suffix}"), compression) as writer:
                for label in of_shard:
                    writer.write(number_and_label(number, label))
                    number += 1
        return tmp_path

    return shards


def labels_of_shards(n_shards: int = 4, n_classes: int = 6, n_each: int = 9) -> list[list[int]]:
    """Each shard has stretches of n_each examples of every class, beginning with another one."""
    return [[(first + step) % n_classes for step in range(n_classes) for _ in range(n_each)] for first in range(n_shards)]


def test_records_in_exact_counts(write: Write) -> None:
    labels = labels_of_shards()
    flat = np.concatenate(labels)
    sampler = TFRecordDatasetSampler(write(*labels), parsed, example_per_class=2, batch_size=6, num_repeat=1, seed=1)
    assert sampler.element_spec[0].shape == (6, 2) and sampler.element_spec[1].shape == (6,)
    found = taken(sampler, -1)
    for x, y in found:
        np.testing.assert_array_equal(x[:, 1], -x[:, 0])
        np.testing.assert_array_equal(flat[x[:, 0]], y)
        assert sorted(Counter(y.tolist()).values()) == [2, 2, 2]
        np.testing.assert_array_equal(y[::2], y[1::2])
    numbers = np.concatenate([x[:, 0] for x, _ in found])
    assert len(set(numbers.tolist())) == len(numbers)  # none twice in a pass
    assert len(numbers) >= 0.9 * len(flat)


def test_records_same_seed_same_batches(write: Write) -> None:
    path = write(*labels_of_shards())

    def made(seed: int | None, **options: Any) -> list[Any]:
        return taken(TFRecordDatasetSampler(path, parsed, 2, 6, seed=seed, **options), 60)  # a pass has at most 36

    ds = TFRecordDatasetSampler(str(path), parsed, 2, 6, seed=1)
    assert_same(taken(ds, 60), made(1))
    assert_same(taken(ds, 60), made(1))
    assert_same(made(1), made(1, async_cycle=True, parallelism=4, prefetch_size=1))
    assert_differ(made(1), made(2))
    assert_differ(made(1)[:24], made(1)[36:])
    assert_same(made(3, shards_per_cycle=2), made(3, shards_per_cycle=2))


def test_records_of_one_frequent_class_and_in_long_stretches(write: Write) -> None:
    path = write([0] * 500, [1, 2] * 20, [3] * 40)
    found = taken(TFRecordDatasetSampler(path, parsed, 2, 8, shards_per_cycle=3, num_repeat=3, seed=1), -1)
    assert len(found) == 30  # classes 1 and 2 have 10 blocks each
    for _, y in found:
        assert Counter(y.tolist()) == {0: 2, 1: 2, 2: 2, 3: 2}
    assert max(int(one) for x, y in found for one in x[y == 0][:, 0]) > 100  # not only those that come first


def test_compressed_records_and_their_names(write: Write) -> None:
    path = write([0, 1] * 10, compression="GZIP", suffix="gz")
    sampler = TFRecordDatasetSampler(path, parsed, 2, 4, compression="GZIP", shard_suffix="*.gz", seed=1)
    assert sorted(taken(sampler, 1)[0][1].tolist()) == [0, 0, 1, 1]
    with pytest.raises(InvalidArgumentError, match=r"no files \*\.tfrec in"):
        TFRecordDatasetSampler(path, parsed)


def test_records_of_too_few_classes(write: Write) -> None:
    sampler = TFRecordDatasetSampler(write([0] * 10 + [1] * 10 + [2]), parsed, 2, 6)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="had 2 classes of at least example_per_class examples, and a batch has 3"
    ):
        taken(sampler, 1)


def test_wrong_arguments_of_records(write: Write) -> None:
    path = write([0, 1] * 10)
    with pytest.raises(InvalidArgumentError, match="batch_size=32 is no multiple of example_per_class=3"):
        TFRecordDatasetSampler(path, parsed, 3)
    with pytest.raises(InvalidArgumentError, match="num_repeat"):
        TFRecordDatasetSampler(path, parsed, num_repeat=0)
    with pytest.raises(InvalidArgumentError, match=r"returns \(x, y\)"):
        TFRecordDatasetSampler(path, lambda record: parsed(record)[0])
    with pytest.raises(InvalidArgumentError, match="y of deserialization_fn is a single whole number"):
        TFRecordDatasetSampler(path, lambda record: parsed(record)[::-1])
