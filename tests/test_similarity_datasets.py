"""Data sets by name: where they are found, in which order, and what is said when they are not."""

import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from simstore.errors import InvalidArgumentError
from simstore.similarity.samplers import TFDatasetMultiShotMemorySampler, datasets, load_dataset, register_dataset

TRAIN = (np.arange(24, dtype=np.uint8).reshape(6, 2, 2), np.array([0, 0, 0, 1, 1, 1], np.uint8))
TEST = (np.arange(100, 116, dtype=np.uint8).reshape(4, 2, 2), np.array([0, 0, 1, 1], np.uint8))


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, nothing registered, and no network for keras.datasets."""

    def no_network(*args: Any, **options: Any) -> Any:
        raise Exception("URL fetch failure on https://example.org: None -- no route to host")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "_registered", {})
    monkeypatch.setattr("keras.src.datasets.mnist.get_file", no_network)
    return tmp_path


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def save_splits(path: Path) -> Path:
    return save(path, x_train=TRAIN[0], y_train=TRAIN[1], x_test=TEST[0], y_test=TEST[1])


def test_registered_first_then_the_local_file(nowhere: Path) -> None:
    save_splits(nowhere / "mnist.npz")
    x, y = load_dataset("mnist")
    assert x.shape == (10, 2, 2, 1) and x.dtype == np.uint8  # grey images got their channel axis
    np.testing.assert_array_equal(x[..., 0], np.concatenate([TRAIN[0], TEST[0]]))
    np.testing.assert_array_equal(y, [0, 0, 0, 1, 1, 1, 0, 0, 1, 1])
    register_dataset("mnist", lambda: {"train": (np.zeros((3, 5)), [7, 7, 7])})
    x, y = load_dataset("mnist", splits=["train"])
    assert x.shape == (3, 5) and y.tolist() == [7, 7, 7]


def test_splits_in_the_order_asked_for() -> None:
    register_dataset("pair", lambda: (TRAIN, TEST))  # as keras.datasets' load_data
    np.testing.assert_array_equal(load_dataset("pair", splits="test")[0][..., 0], TEST[0])
    np.testing.assert_array_equal(load_dataset("pair", ("test", "train"))[0][..., 0], np.concatenate([TEST[0], TRAIN[0]]))
    with pytest.raises(InvalidArgumentError, match=r"has the splits \['test', 'train'\], not \['valid'\]"):
        load_dataset("pair", splits=["train", "valid"])


def test_a_path_is_read_and_nothing_else(nowhere: Path) -> None:
    path = save_splits(nowhere / "some.npz")
    for name in (path, str(path), "some.npz", "./some.npz"):
        assert len(load_dataset(name)[0]) == 10
    for name in ("absent.npz", "no/such", Path("absent")):
        with pytest.raises(InvalidArgumentError, match=r"there is no file .*path"):
            load_dataset(name)


def test_files_that_are_no_data_set(nowhere: Path) -> None:
    save(nowhere / "pickled.npz", x_train=np.array([{}], object), y_train=np.array([0]))
    with pytest.raises(InvalidArgumentError, match="pickled objects are never loaded"):
        load_dataset("pickled")
    (nowhere / "torn.npz").write_bytes(save_splits(nowhere / "whole.npz").read_bytes()[:400])
    with pytest.raises(InvalidArgumentError, match=r"torn\.npz cannot be read"):
        load_dataset("torn")
    (nowhere / "text.npz").write_text("no archive")
    with pytest.raises(InvalidArgumentError, match=r"text\.npz cannot be read"):
        load_dataset("text")
    with (nowhere / "single.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InvalidArgumentError, match=r"holds \[\], not x_train"):
        load_dataset("single")
    save(nowhere / "other.npz", images=np.zeros(3), y_train=np.zeros(3))
    with pytest.raises(InvalidArgumentError, match=r"holds \['images', 'y_train'\], not x_train"):
        load_dataset("other")
    save(nowhere / "uneven.npz", x_train=np.zeros((3, 2)), y_train=np.zeros(4, int))
    with pytest.raises(InvalidArgumentError, match="3 examples and 4 labels"):
        load_dataset("uneven", splits="train")


def test_bundled_digits() -> None:
    bundled = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = load_dataset("digits")
    assert x.shape == (1797, 8, 8, 1) and x.dtype == np.uint8 and x.max() == 255
    is_test = np.arange(1797) % 5 == 4
    np.testing.assert_array_equal(y, np.concatenate([bundled.target[~is_test], bundled.target[is_test]]))
    np.testing.assert_allclose(x[-1, :, :, 0] / 255 * 16, bundled.images[1794], atol=0.04)
    assert len(load_dataset("digits", "test")[1]) == 359
    iris_x, iris_y = load_dataset("iris", "test")
    assert iris_x.shape == (30, 4) and iris_x.dtype == np.float32 and Counter(iris_y.tolist()) == {0: 10, 1: 10, 2: 10}


def test_keras_datasets_come_next(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    """Keras' own loader, given the file that it would have downloaded."""
    path = save_splits(nowhere / "downloaded")
    monkeypatch.setattr("keras.src.datasets.mnist.get_file", lambda *args, **options: f"{path}.npz")
    assert load_dataset("mnist")[0].shape == (10, 2, 2, 1)


def test_tensorflow_datasets_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the library, which is large: what of it is called, and how it answers, as in its version 4.9."""

    class Builder:
        info = SimpleNamespace(features={"picture": None, "label": None})

        def __init__(self, name: str) -> None:
            if name != "sketches":
                raise LookupError(f"Dataset {name} not found.\nMore is said here.")

        def download_and_prepare(self) -> None:
            self.is_ready = True

        def as_dataset(self, *, split: str) -> Any:
            if not self.is_ready or split not in ("train", "test[:50%]"):
                raise ValueError(f"Unknown split {split!r}")
            count = 4 if split == "train" else 2
            return [{"picture": np.full((2, 3, 3), place, np.uint8), "label": np.int64(place % 2)} for place in range(count)]

    stand_in = ModuleType("tensorflow_datasets")
    stand_in.builder = Builder  # type: ignore[attr-defined]
    stand_in.as_numpy = iter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stand_in)
    sampler = TFDatasetMultiShotMemorySampler("sketches", 2, "picture", splits=["train", "test[:50%]"], seed=1)
    x, y = sampler.get_slice()
    assert x.shape == (6, 2, 3, 3) and sorted(x[:, 0, 0, 0].tolist()) == [0, 0, 1, 1, 2, 3]
    np.testing.assert_array_equal(x[:, 0, 0, 0] % 2, y)
    with pytest.raises(InvalidArgumentError, match=r"has \['picture', 'label'\], not \['image'\]"):
        load_dataset("sketches")
    with pytest.raises(InvalidArgumentError, match="has no split 'valid'"):
        load_dataset("sketches", "valid", x_key="picture")
    with pytest.raises(InvalidArgumentError, match=r"- tensorflow-datasets: LookupError: Dataset mnist not found\.$"):
        load_dataset("mnist")


def test_nowhere_names_every_place_and_its_remedy(nowhere: Path) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        TFDatasetMultiShotMemorySampler(dataset_name="mnist", classes_per_batch=10)
    lines = str(caught.value).splitlines()
    assert lines[0] == "data set 'mnist' was found in none of these places:"
    assert [line.split(":")[0] for line in lines[1:]] == [
        "- registered",
        "- local file",
        "- scikit-learn",
        "- keras.datasets",
        "- tensorflow-datasets",
    ]
    assert "samplers.register_dataset('mnist', fn)" in lines[1]
    assert str(nowhere / "mnist.npz") in lines[2] and "path as dataset_name" in lines[2]
    assert "digits, iris" in lines[3]
    assert "no route to host" in lines[4] and "where there is a network" in lines[4]
    with pytest.raises(InvalidArgumentError, match=r"keras\.datasets: has .*cifar10.*mnist"):
        load_dataset("no such set")


@pytest.mark.parametrize("value", [None, 3, (1, 2, 3), {}, {"train": 3}, ("ab", 3), {"train": (1, 2, 3)}])
def test_registered_functions_that_return_something_else(value: Any) -> None:
    register_dataset("odd", lambda: value)
    with pytest.raises(InvalidArgumentError, match="what is registered as 'odd' returned no splits"):
        load_dataset("odd")


def test_registering_nonsense() -> None:
    with pytest.raises(InvalidArgumentError, match="fn is a function"):
        register_dataset("mnist", 3)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="name is the name"):
        register_dataset("", lambda: None)


def test_sampler_of_a_data_set_fits_the_issues_model(nowhere: Path) -> None:
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    save(nowhere / "mnist.npz", x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
    sampler = TFDatasetMultiShotMemorySampler(dataset_name="mnist", classes_per_batch=10, steps_per_epoch=2, seed=1)
    assert sampler.num_examples == 40 and sampler.example_shape == (28, 28, 1)
    x, y = sampler[0]
    assert x.shape == (20, 28, 28, 1) and Counter(y.tolist()) == dict.fromkeys(range(10), 2)
    inputs = keras.layers.Input(shape=(28, 28, 1))
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(sampler, epochs=2, verbose=0)
    sx, sy = sampler.get_slice(0, 5)
    assert sx.shape == (5, 28, 28, 1) and sy.shape == (5,) and model.predict(sx, verbose=0).shape == (5, 10)


def test_preprocess_fn_runs_on_each_example() -> None:
    ragged = [np.full((size, 2, 1), size) for size in (1, 2, 3, 4)]
    register_dataset("ragged", lambda: {"train": (ragged, [1, 1, 2, 2])})
    with pytest.raises(InvalidArgumentError, match="different shapes"):
        load_dataset("ragged", "train")
    sampler = TFDatasetMultiShotMemorySampler(
        "ragged", 2, splits="train", preprocess_fn=lambda x, y: (x[:1, :, 0], y + 10), class_list=[11, 12], seed=1
    )
    x, y = sampler.get_slice()
    assert x.shape == (4, 1, 2) and sorted(zip(x[:, 0, 0].tolist(), y.tolist(), strict=True)) == [
        (1, 11),
        (2, 11),
        (3, 12),
        (4, 12),
    ]
