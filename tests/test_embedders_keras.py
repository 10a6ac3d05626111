"""Keras models as embedders: calling, fingerprints, saving, loading. Models are tiny; importing Keras is what takes time."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_embedders import EmbedderContract

from simstore.embedders import Embedder, KerasEmbedder, check_same, from_record, model_bytes, to_record
from simstore.errors import (
    EmbedderMismatchError,
    InvalidArgumentError,
)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", reason="needs the extra simstore[keras]")

KERNEL = np.array([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5]], np.float32)
BIAS = np.array([0.125, -0.5], np.float32)


def small_model(**options: Any) -> Any:
    """Dense 3 → 2 with known weights, then tanh."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="tanh")], **options)
    model.layers[0].set_weights([KERNEL, BIAS])
    return model


def saved(embedder: KerasEmbedder, directory: Path) -> tuple[dict[str, Any], Path]:
    """The record of an embedder and the path where its model was written."""
    content = model_bytes(embedder)
    assert content is not None
    path = directory / f"{embedder.spec.fingerprint}.keras"
    path.write_bytes(content)
    return to_record(embedder), path


def restored(embedder: KerasEmbedder, directory: Path) -> Embedder:
    again = from_record(*saved(embedder, directory))
    assert again is not None
    return again


class TestKerasEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return KerasEmbedder(small_model(), batch_size=8)

    def expected(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array([np.tanh(sum(row[i] * KERNEL[i] for i in range(3)) + BIAS) for row in inputs], np.float32)


class TestKerasEmbedderWithLayer(TestKerasEmbedder):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return KerasEmbedder(small_model(), preprocess=keras.layers.Rescaling(0.5, offset=1.0), batch_size=6)

    def expected(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().expected(inputs * np.float32(0.5) + np.float32(1.0))


def halved(batch: Any) -> Any:
    if batch.dtype.kind != "f":
        return batch * 0.5
    batch *= 0.5  # in place, as keras.applications do it
    return batch


class TestKerasEmbedderWithFunction(TestKerasEmbedder):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return KerasEmbedder(small_model(), preprocess=halved)

    def expected(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().expected(inputs * np.float32(0.5))


class TestRestoredEmbedder(TestKerasEmbedder):
    @pytest.fixture
    def embedder(self, tmp_path: Path) -> Embedder:
        return restored(KerasEmbedder(small_model(), batch_size=8), tmp_path)


# -- calling ---------------------------------------------------------------------------------------------------------


def test_the_model_is_traced_once() -> None:
    calls = []

    @keras.saving.register_keras_serializable("simstore-tests")
    class Counting(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            calls.append(inputs.shape)
            return inputs

    embedder = KerasEmbedder(keras.Sequential([keras.Input((3,)), Counting()]), batch_size=16)
    calls.clear()
    for n in (1, 2, 7, 16, 40, 1):
        embedder.embed(np.ones((n, 3)))
    assert len(calls) <= 1


def test_layers_behave_as_in_use_not_as_in_training() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.9), keras.layers.BatchNormalization()])
    ones = np.ones((64, 3), np.float32)
    np.testing.assert_allclose(KerasEmbedder(model).embed(ones), ones, rtol=1e-3)


def test_a_model_that_cannot_be_traced() -> None:
    model = small_model()
    model.compile(run_eagerly=True)
    np.testing.assert_allclose(
        KerasEmbedder(model).embed(np.ones((3, 3))), KerasEmbedder(small_model()).embed(np.ones((3, 3))), rtol=1e-6
    )


def test_a_last_axis_of_one_comes_and_goes_as_in_keras() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    flat = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    images, rows = np.random.default_rng(1).random((5, 4, 4)), np.random.default_rng(2).random((5, 4))
    np.testing.assert_array_equal(KerasEmbedder(model).embed(images), KerasEmbedder(model).embed(images[..., None]))
    np.testing.assert_array_equal(KerasEmbedder(flat).embed(rows), KerasEmbedder(flat).embed(rows[..., None]))


def test_inputs_of_another_shape() -> None:
    embedder = KerasEmbedder(small_model())
    with pytest.raises(InvalidArgumentError, match=r"takes inputs of shape \(3,\).*given some of shape \(4,\)"):
        embedder.embed(np.ones((2, 4)))
    eagerly = small_model()
    eagerly.compile(run_eagerly=True)
    with pytest.raises(InvalidArgumentError, match=r"takes inputs of shape \(3,\)"):
        KerasEmbedder(eagerly).embed(np.ones((2, 4)))
    with pytest.raises(InvalidArgumentError, match="do not form one array"):
        embedder.embed([np.ones(3), np.ones(4)])


def test_images_of_any_size_and_a_resizing_layer() -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D()])
    resizing = keras.Sequential([keras.layers.Resizing(4, 4), keras.layers.Rescaling(1 / 255)])
    embedder = KerasEmbedder(model, preprocess=resizing)
    for size in (4, 9, 16):
        image = np.full((size, size, 3), 51, np.uint8)
        np.testing.assert_allclose(embedder.embed([image, image]), np.full((2, 3), 0.2), rtol=1e-5)
    embedder.check_unchanged()  # though the layers are built now


def test_several_inputs_through_a_preprocess_function() -> None:
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, keras.layers.Subtract()([a, b]))
    embedder = KerasEmbedder(model, preprocess=lambda texts: {"a": lengths(texts), "b": 2 * lengths(texts)})

    def lengths(texts: list[str]) -> NDArray[np.float32]:
        return np.array([[len(text), 1] for text in texts], np.float32)

    assert embedder.embed(["ab", "c", "defg"]).tolist() == [[-2, -1], [-1, -1], [-4, -1]]


# -- texts -----------------------------------------------------------------------------------------------------------


def text_layer(vocabulary: list[str]) -> Any:
    layer = keras.layers.TextVectorization(output_mode="count", max_tokens=4)
    layer.adapt(vocabulary)
    return layer


@pytest.mark.parametrize("as_preprocess", [False, True])
def test_texts(as_preprocess: bool, tmp_path: Path) -> None:
    layer = text_layer(["a a a b b c"])  # vocabulary: [UNK], a, b, c
    if as_preprocess:
        counts = keras.Input((4,), dtype=layer(np.array(["a"])).dtype)
        embedder = KerasEmbedder(keras.Model(counts, keras.layers.Rescaling(1.0)(counts)), preprocess=layer)
    else:
        texts = keras.Input((), dtype="string")
        embedder = KerasEmbedder(keras.Model(texts, layer(texts)))
    expected = [[0, 1, 2, 0], [1, 0, 0, 1], [0, 0, 0, 0]]
    assert embedder.embed(["b a b", "c zebra", ""]).tolist() == expected
    assert embedder.embed(np.array(["b a b"])).tolist() == expected[:1]
    if not as_preprocess:
        with pytest.raises(InvalidArgumentError, match="takes texts, and was given numbers"):
            embedder.embed([1.5, 2.5])
    assert restored(embedder, tmp_path).embed(["b a b", "c zebra", ""]).tolist() == expected


def test_the_vocabulary_belongs_to_the_fingerprint() -> None:
    def fingerprint(vocabulary: str) -> str:
        texts = keras.Input((), dtype="string")
        return KerasEmbedder(keras.Model(texts, text_layer([vocabulary])(texts))).spec.fingerprint

    assert fingerprint("a a a b b c") == fingerprint("a a a b b c")
    assert fingerprint("a a a b b c") != fingerprint("c c c b b a")


# -- which models ----------------------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def test_a_subclassed_model_can_be_made_functional() -> None:
    with pytest.raises(InvalidArgumentError, match="make it functional"):
        KerasEmbedder(Subclassed())
    inputs = keras.Input((3,))
    assert KerasEmbedder(keras.Model(inputs, Subclassed()(inputs))).embed(np.ones((4, 3))).shape == (4, 2)


def test_outputs_that_are_no_vectors() -> None:
    inputs = keras.Input((3,))
    two = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)])
    maps = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)])
    eight = keras.Input(batch_shape=(8, 3))
    fixed = keras.Model(eight, keras.ops.reshape(eight, (8, 3)))
    for model in (two, maps, fixed):
        with pytest.raises(InvalidArgumentError, match=r"not one of shape \(None, dim\)"):
            KerasEmbedder(model)
    with pytest.raises(InvalidArgumentError, match="does not know its output shape"):
        KerasEmbedder(keras.Sequential([keras.layers.Dense(2)]))


def test_a_model_that_knows_its_shapes_from_being_called_once() -> None:
    model = keras.Sequential([keras.layers.Dense(2, activation="tanh")])
    model(np.ones((5, 3)))
    model.set_weights([KERNEL, BIAS])
    assert model.output_shape == (5, 2)
    embedder, declared = KerasEmbedder(model), KerasEmbedder(small_model())
    assert embedder.spec.fingerprint == declared.spec.fingerprint
    np.testing.assert_allclose(embedder.embed(np.ones((70, 3))), declared.embed(np.ones((70, 3))), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": len}, r"model is a keras\.Model"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"preprocess": 3}, "preprocess"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    given = {"model": small_model()} | arguments
    with pytest.raises(InvalidArgumentError, match=message):
        KerasEmbedder(**given)


def test_a_model_given_as_embedder_is_told_how() -> None:
    with pytest.raises(InvalidArgumentError, match=r"give KerasEmbedder\(model\)"):
        to_record(small_model())


def test_without_keras(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["keras"] = None
from pathlib import Path
from simstore.embedders import KerasEmbedder, from_record
from simstore.errors import KerasMissingError
record = dict(kind="keras", name="n", dim=2, fingerprint="f", batch_size=4, preprocess=None, saved=True)
for use in (lambda: KerasEmbedder(object()), lambda: from_record(record, Path("x")).embed([1.0])):
    try:
        use()
    except ImportError as err:
        assert isinstance(err, KerasMissingError) and "pip install 'simstore[keras]'" in str(err), err
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- fingerprints ----------------------------------------------------------------------------------------------------


def test_a_model_that_is_built_again_is_the_same() -> None:
    first, second = KerasEmbedder(small_model()), KerasEmbedder(small_model())
    assert first.spec.name != second.spec.name
    assert first.spec.fingerprint == second.spec.fingerprint
    check_same(to_record(first), second)


def test_compiling_and_freezing_change_nothing() -> None:
    model = small_model()
    before = KerasEmbedder(model).spec.fingerprint
    model.compile("adam", "mse")
    model.trainable = False
    assert KerasEmbedder(model).spec.fingerprint == before


def test_training_changes_it() -> None:
    model = small_model()
    embedder = KerasEmbedder(model)
    record = to_record(embedder)
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.zeros((4, 2)), verbose=0)
    with pytest.raises(EmbedderMismatchError):
        check_same(record, KerasEmbedder(model))
    for use in (to_record, model_bytes):
        with pytest.raises(InvalidArgumentError, match="make a new KerasEmbedder") as caught:
            use(embedder)
        assert embedder.spec.fingerprint in str(caught.value)


def test_what_runs_before_the_model_belongs_to_it() -> None:
    def renamed(batch: Any) -> Any:
        return halved(batch)

    model = small_model()
    rescaling = keras.layers.Rescaling
    fingerprints = [
        KerasEmbedder(model, preprocess=preprocess).spec.fingerprint
        for preprocess in (None, halved, renamed, rescaling(0.5), rescaling(0.25))
    ]
    assert len(set(fingerprints)) == 5
    assert KerasEmbedder(model, preprocess=rescaling(0.5)).spec.fingerprint == fingerprints[3]
