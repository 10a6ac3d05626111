"""Embedders: the contract that each kind keeps, functions, and what a store remembers. Keras has a file of its own."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from numpy.typing import NDArray

from simstore.embedders import Embedder, FunctionEmbedder, check_same, from_record, model_bytes, to_record
from simstore.embedders.batches import as_batch, pieces
from simstore.embedders.fingerprint import canonical, fingerprint_of
from simstore.errors import CorruptStoreError, EmbedderMismatchError, InvalidArgumentError, InvalidVectorError
from simstore.types import EmbedderSpec


class EmbedderContract:
    """What every embedder does. A subclass has the fixture ``embedder``: of inputs float32 [3], vectors [2]."""

    def expected(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The vectors by an independent computation."""
        raise NotImplementedError

    @pytest.fixture
    def inputs(self) -> NDArray[np.float32]:
        return np.random.default_rng(1).standard_normal((37, 3)).astype(np.float32)

    def test_is_an_embedder(self, embedder: Embedder) -> None:
        assert isinstance(embedder, Embedder)

    def test_spec(self, embedder: Embedder) -> None:
        assert isinstance(embedder.spec, EmbedderSpec)
        assert embedder.spec.dim == 2
        assert embedder.spec.name and embedder.spec.fingerprint
        assert embedder.spec == embedder.spec

    @pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 16, 37])
    def test_vectors(self, embedder: Embedder, inputs: NDArray[np.float32], n: int) -> None:
        vectors = embedder.embed(inputs[:n])
        assert vectors.dtype == np.float32
        assert vectors.shape == (n, 2)
        assert vectors.flags.c_contiguous
        np.testing.assert_allclose(vectors, self.expected(inputs[:n]), rtol=1e-5, atol=1e-6)

    def test_no_inputs(self, embedder: Embedder, inputs: NDArray[np.float32]) -> None:
        for nothing in (inputs[:0], []):
            assert embedder.embed(nothing).shape == (0, 2)

    def test_a_list_is_a_batch(self, embedder: Embedder, inputs: NDArray[np.float32]) -> None:
        expected = embedder.embed(inputs[:5])
        np.testing.assert_allclose(embedder.embed(list(inputs[:5])), expected, rtol=1e-6)
        np.testing.assert_allclose(embedder.embed(tuple(inputs[:5])), expected, rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8"])
    def test_other_types_of_number(self, embedder: Embedder, dtype: str) -> None:
        numbers = np.arange(6).reshape(2, 3)
        np.testing.assert_allclose(embedder.embed(numbers.astype(dtype)), self.expected(numbers.astype(np.float32)), rtol=1e-5)

    @pytest.mark.parametrize("one", ["text", b"bytes", 3, np.float32(3), {"a": [1]}, None, iter([1])])
    def test_a_single_input_is_no_batch(self, embedder: Embedder, one: object) -> None:
        with pytest.raises(InvalidArgumentError, match=r"give a single input as \[input\]"):
            embedder.embed(one)

    def test_inputs_stay_as_they_are(self, embedder: Embedder, inputs: NDArray[np.float32]) -> None:
        before = inputs.copy()
        embedder.embed(inputs)
        np.testing.assert_array_equal(inputs, before)

    def test_many_threads(self, embedder: Embedder, inputs: NDArray[np.float32]) -> None:
        expected = embedder.embed(inputs)
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda i: embedder.embed(inputs[i : i + 1]), list(range(37)) * 4))
        np.testing.assert_allclose(np.concatenate(results), np.tile(expected, (4, 1)), rtol=1e-5, atol=1e-6)

    def test_record_survives_msgpack(self, embedder: Embedder) -> None:
        record = to_record(embedder)
        assert set(record) == {"kind", "name", "dim", "fingerprint", "batch_size", "preprocess", "saved", "input"}
        assert msgpack.unpackb(msgpack.packb(record)) == record
        assert (record["name"], record["dim"], record["fingerprint"]) == (
            embedder.spec.name,
            embedder.spec.dim,
            embedder.spec.fingerprint,
        )

    def test_is_the_same_as_its_record(self, embedder: Embedder) -> None:
        check_same(to_record(embedder), embedder)

    def test_another_one_is_refused(self, embedder: Embedder) -> None:
        other = FunctionEmbedder(rotated, name="other", dim=2)
        with pytest.raises(EmbedderMismatchError) as caught:
            check_same(to_record(embedder), other)
        for fact in (embedder.spec.fingerprint, other.spec.fingerprint, embedder.spec.name, "'other'"):
            assert fact in str(caught.value)

    def test_restoring(self, embedder: Embedder, inputs: NDArray[np.float32], tmp_path: Path) -> None:
        record, content = to_record(embedder), model_bytes(embedder)
        assert record["saved"] == (content is not None)
        path = tmp_path / "model.keras"
        path.write_bytes(content or b"")
        restored = from_record(record, path)
        assert (restored is not None) == record["saved"]
        if restored is not None:
            assert restored.spec == embedder.spec
            np.testing.assert_allclose(restored.embed(inputs), embedder.embed(inputs), rtol=1e-5, atol=1e-6)
            check_same(record, restored)
            assert to_record(restored) == record
            assert model_bytes(restored) == content


def rotated(batch: Any) -> Any:
    return np.asarray(batch)[:, [1, 0]]


class TestFunctionEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return FunctionEmbedder(rotated, name="rotated", dim=2)

    def expected(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array([[row[1], row[0]] for row in inputs], np.float32)


class Own:
    """An embedder of a user's own making."""

    spec = EmbedderSpec("own", 2, "own-1")

    def embed(self, batch: Any) -> NDArray[np.float32]:
        return np.ascontiguousarray(rotated(batch), np.float32)


def test_an_own_embedder_is_remembered_by_its_spec() -> None:
    record = to_record(Own())
    assert record["kind"] == "other" and record["saved"] is False
    assert model_bytes(Own()) is None
    assert from_record(record, None) is None
    check_same(record, Own())


# -- functions -------------------------------------------------------------------------------------------------------


def test_a_function_is_known_by_name_and_dim() -> None:
    def fingerprint(fn: Callable[[Any], Any], name: str, dim: int) -> str:
        return FunctionEmbedder(fn, name=name, dim=dim).spec.fingerprint

    first = fingerprint(rotated, "a", 2)
    assert first == fingerprint(np.asarray, "a", 2)
    assert first != fingerprint(rotated, "b", 2)
    assert first != fingerprint(rotated, "a", 3)
    assert fingerprint(rotated, "a1", 2) != fingerprint(rotated, "a", 12)
    assert to_record(FunctionEmbedder(rotated, name="a", dim=2))["kind"] == "function"


def test_texts_come_to_the_function_as_a_list() -> None:
    seen: list[Any] = []

    def lengths(texts: Any) -> Any:
        seen.append(texts)
        return [[len(text), 1] for text in texts]

    embedder = FunctionEmbedder(lengths, name="lengths", dim=2)
    for texts in (["ab", "c"], ("ab", "c"), np.array(["ab", "c"]), np.array(["ab", "c"], object)):
        assert embedder.embed(texts).tolist() == [[2, 1], [1, 1]]
    assert seen == [["ab", "c"]] * 4


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((2, 3)), r"\[2, 2\], not one of shape \[2, 3\]"),
        (np.zeros((1, 2)), r"not one of shape \[1, 2\]"),
        (np.zeros(2), r"not one of shape \[2\]"),
        (None, "should return an array"),
        ([["a", "b"], ["c", "d"]], "should return numbers"),
        ([[1, 2], [3]], "should return an array"),
    ],
)
def test_a_function_that_returns_something_else(returned: Any, message: str) -> None:
    embedder = FunctionEmbedder(lambda batch: returned, name="bad", dim=2)
    with pytest.raises(InvalidVectorError, match=message) as caught:
        embedder.embed([1.0, 2.0])
    assert "'bad'" in str(caught.value)


def test_an_error_in_the_function_is_the_users() -> None:
    def fails(batch: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        FunctionEmbedder(fails, name="fails", dim=2).embed([1.0])


@pytest.mark.parametrize(
    "arguments",
    [{"fn": 3}, {"name": ""}, {"name": 3}, {"dim": 0}, {"dim": 2.0}, {"dim": True}],
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    good: dict[str, Any] = {"fn": rotated, "name": "a", "dim": 2}
    with pytest.raises(InvalidArgumentError, match=f"^{next(iter(arguments))} is"):
        FunctionEmbedder(**(good | arguments))


# -- what a store remembers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [rotated, "model", object(), EmbedderSpec("a", 2, "f")])
def test_what_is_no_embedder(wrong: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="FunctionEmbedder"):
        to_record(wrong)


@pytest.mark.parametrize("spec", [EmbedderSpec("a", 0, "f"), EmbedderSpec("a", 2, ""), EmbedderSpec(3, 2, "f")])  # type: ignore[arg-type]
def test_an_own_embedder_with_a_wrong_spec(spec: EmbedderSpec) -> None:
    own = Own()
    own.spec = spec
    with pytest.raises(InvalidArgumentError, match="an embedder's"):
        to_record(own)


SAVED = {
    "kind": "keras",
    "name": "net",
    "dim": 2,
    "fingerprint": "f0",
    "batch_size": 4,
    "preprocess": None,
    "saved": True,
}


def test_neither_importing_nor_restoring_imports_keras(tmp_path: Path) -> None:
    code = f"""
import sys
import simstore.embedders
embedder = simstore.embedders.from_record({SAVED!r}, {str(tmp_path / "none.keras")!r})
assert (embedder.spec.name, embedder.spec.dim, embedder.spec.fingerprint) == ("net", 2, "f0")
simstore.embedders.check_same({SAVED!r}, embedder)
assert not {{"keras", "tensorflow"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_remedies_of_a_mismatch_fit_the_store() -> None:
    other = FunctionEmbedder(rotated, name="other", dim=2)
    with pytest.raises(EmbedderMismatchError, match="leave embedder= out"):
        check_same(SAVED, other)
    with pytest.raises(EmbedderMismatchError) as caught:
        check_same(SAVED | {"saved": False}, other)
    assert "leave" not in str(caught.value)


def test_the_bytes_of_a_saved_model_that_is_gone(tmp_path: Path) -> None:
    gone = from_record(SAVED, tmp_path / "none.keras")
    assert gone is not None
    with pytest.raises(CorruptStoreError, match=r"none\.keras"):
        model_bytes(gone)


# -- batches and fingerprints ----------------------------------------------------------------------------------------


def test_what_is_stacked() -> None:
    assert isinstance(as_batch([1, 2.5]), np.ndarray)
    assert np.shape(as_batch([np.zeros((2, 3))] * 4)) == (4, 2, 3)
    assert isinstance(as_batch([np.zeros(2), np.zeros(3)]), list)
    assert as_batch(["a", "bc"]) == ["a", "bc"]
    assert as_batch([{"a": 1}]) == [{"a": 1}]


def test_long_texts_come_in_smaller_pieces() -> None:
    batch: list[Any] = ["x" * length for length in (600_000, 400_000, 100_000, 3_000_000, 5, 7)] + [b"y" * 2_000_000, None]
    cut = list(pieces(batch, 100))
    assert [(first, count) for first, count, _ in cut] == [(0, 2), (2, 1), (3, 1), (4, 2), (6, 1), (7, 1)]
    assert [item for _, count, piece in cut for item in piece[:count]] == batch


@pytest.mark.parametrize("n", range(1, 30))
def test_pieces_hold_everything_once_and_have_few_sizes(n: int) -> None:
    for batch in (np.arange(n), list(range(n))):
        cut = list(pieces(batch, 6))
        assert [x for _, count, piece in cut for x in list(piece)[:count]] == list(range(n))
        assert [first for first, _, _ in cut] == list(range(0, n, 6))
        assert {len(piece) for _, _, piece in cut} <= {1, 2, 4, 6}
        assert all(piece[-1] == piece[count - 1] for _, count, piece in cut)


def test_every_bit_of_a_part_counts() -> None:
    a = np.arange(6, dtype=np.float32)
    parts = [[a], [a.reshape(2, 3)], [a.astype(np.float64)], [a.view(np.int32)], [a[::-1]], [a, a], [a[:3], a[3:]], []]
    texts = [["ab"], ["a", "b"], ["b", "a"], ["", "ab"]]
    assert len({fingerprint_of(part) for part in [*parts, *texts]}) == len(parts) + len(texts)  # type: ignore[arg-type]
    assert fingerprint_of([a[::2]]) == fingerprint_of([a[::2].copy()])
    assert fingerprint_of([np.empty((0, 3))]) != fingerprint_of([np.empty((0, 4))])


def layer(name: str, activation: str = "relu", **config: Any) -> dict[str, Any]:
    return {"class_name": "Dense", "config": {"name": name, "activation": activation, **config}}


def test_a_configuration_without_what_does_not_matter() -> None:
    model = {"name": "model_1", "layers": [layer("dense_7")], "output_layers": [["dense_7", 0, 0]]}
    again = {
        "name": "model",
        "layers": [layer("dense", trainable=False, build_config={"input_shape": [None, 3]}, lora=None)],
        "output_layers": [["dense", 0, 0]],
        "compile_config": {"optimizer": "adam"},
    }
    assert canonical(model) == canonical(again)


@pytest.mark.parametrize(
    "other",
    [
        {"name": "m", "layers": [layer("relu", "tanh"), layer("b")], "output": ["b", 0, 0]},
        {"name": "m", "layers": [layer("tanh", "tanh"), layer("b")], "output": ["b", 0, 0]},
        {"name": "m", "layers": [layer("relu"), layer("b")], "output": ["relu", 0, 0]},
        {
            "name": "m",
            "layers": [layer("relu"), layer("b", dtype={"class_name": "DTypePolicy", "config": {"name": "f"}})],
        },
        {
            "name": "m",
            "layers": [layer("relu"), layer("b", dtype={"class_name": "DTypePolicy", "config": {"name": "g"}})],
        },
    ],
)
def test_a_configuration_that_computes_something_else(other: dict[str, Any]) -> None:
    base = {"name": "m", "layers": [layer("relu"), layer("b")], "output": ["b", 0, 0]}
    assert canonical(base) != canonical(other)


def test_dtype_policies_are_no_names() -> None:
    def with_policy(name: str) -> str:
        policy = {"class_name": "DTypePolicy", "config": {"name": name}}
        return canonical({"name": "m", "layers": [layer("a", dtype=policy)]})

    assert with_policy("float32") != with_policy("mixed_float16")
