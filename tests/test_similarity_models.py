"""SimilarityModel: training, indexing, looking up, matching, and the known faults of TensorFlow Similarity."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("keras", reason="needs the extra simstore[keras]")

import keras
from similarity_models import batches, digits, digits_model, plain_model, values

from simstore.errors import (
    DuplicateKeyError,
    EmbedderMismatchError,
    InvalidArgumentError,
    InvalidVectorError,
    KeyNotFoundError,
    NotCalibratedError,
    PackageMissingError,
)
from simstore.similarity import losses
from simstore.similarity.distances import DISTANCES
from simstore.similarity.matchers import ClassificationMatch, MatchMajorityVote
from simstore.similarity.models import SimilarityModel
from simstore.similarity.retrieval_metrics import MapAtK, PrecisionAtK, RecallAtK
from simstore.similarity.types import Lookup

POINTS = np.array([[0, 0, 1], [0, 3, 1], [4, 0, 1], [4, 3, 1], [9, 9, 9]], np.float32)


@pytest.fixture
def model() -> Any:
    """A model whose index holds POINTS, of labels a, b, a, None, 7, as Euclidean."""
    model = plain_model()
    model.index(POINTS, ["a", "b", "a", None, 7], data=[{"n": i} for i in range(5)])
    return model


# -- looking up ----------------------------------------------------------------------------------------------------------


def test_lookup_has_rank_key_distance_label_embedding_and_data(model: Any) -> None:
    found = model.single_lookup([0, 0, 1], k=4)
    assert [(near.rank, near.key, near.distance, near.label) for near in found] == [
        (1, 0, 0.0, "a"), (2, 1, 3.0, "b"), (3, 2, 4.0, "a"), (4, 3, 5.0, None),
    ]  # fmt: skip
    assert [near.embedding.tolist() for near in found] == POINTS[:4].tolist()
    assert [near.data for near in found] == [{"n": i} for i in range(4)]
    assert model.lookup(POINTS[:1], k=4) == [found]
    assert [len(row) for row in model.lookup(POINTS)] == [5] * 5


def test_equal_lookups_are_equal_whatever_they_hold() -> None:
    near = Lookup(1, "k", 0.5, "a", np.ones(2, np.float32), {"image": np.zeros(3), "tags": [np.ones(1)]})
    assert near == Lookup(1, "k", 0.5, "a", np.ones(2, np.float32), {"image": np.zeros(3), "tags": [np.ones(1)]})
    assert near != Lookup(1, "k", 0.5, "a", np.ones(2, np.float32), {"image": np.ones(3), "tags": [np.ones(1)]})
    assert near != Lookup(1, "k", 0.5, "a") and near != "k"
    assert len({near, Lookup(1, "k", 0.5, "a", np.ones(2, np.float32), near.data)}) == 1


def naive(name: str, query: list[float], item: list[float]) -> float:
    q, v = np.array(query, float), np.array(item, float)
    return {
        "cosine": lambda: 1 - q @ v / np.sqrt((q @ q) * (v @ v)),
        "euclidean": lambda: np.sqrt(((q - v) ** 2).sum()),
        "squared_euclidean": lambda: ((q - v) ** 2).sum(),
        "inner_product": lambda: 1 - q @ v,
    }[name]()


@pytest.mark.parametrize("name", [distance.name for distance in DISTANCES if distance.metric])
def test_distances_are_true_ones_of_embeddings_of_any_length(name: str) -> None:
    rng = np.random.default_rng(2)
    points = (rng.normal(size=(50, 6)) * rng.uniform(0.1, 20, (50, 1))).astype(np.float32)
    model = plain_model(6, name)
    model.index(points)
    for query in points[:5] * np.float32(1.3):
        found = model.single_lookup(query, k=50)
        expected = sorted(naive(name, query, point) for point in points)
        np.testing.assert_allclose([near.distance for near in found], expected, rtol=2e-4, atol=2e-4)
        assert [near.distance for near in found] == sorted(near.distance for near in found)
        single = [naive(name, query, points[near.key]) for near in found]
        np.testing.assert_allclose([near.distance for near in found], single, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["manhattan", "snr"])
def test_a_distance_without_an_index_trains_but_does_not_index(name: str) -> None:
    model = plain_model(distance=name)
    with pytest.raises(InvalidArgumentError, match=f"{name!r} has no index"):
        model.index(POINTS)
    with pytest.raises(InvalidArgumentError, match="has no index"):
        model.create_index(name)
    model.create_index("cosine")
    assert len(model.index(POINTS)) == 5


def test_an_empty_index_gives_empty_lists() -> None:
    model = plain_model()
    assert model.single_lookup(POINTS[0]) == []
    assert model.lookup(POINTS[:2], k=3) == [[], []]
    assert model.index_size() == 0


def test_k_larger_than_the_index_gives_what_there_is(model: Any) -> None:
    assert len(model.single_lookup(POINTS[0], k=100)) == 5
    assert model.evaluate_retrieval(POINTS[:1], ["a"], [PrecisionAtK(k=10)]) == {"precision@10": pytest.approx(0.2)}
    with pytest.raises(InvalidArgumentError, match="k is at least 1"):
        model.single_lookup(POINTS[0], k=0)


# -- indexing ------------------------------------------------------------------------------------------------------------


def test_items_with_and_without_data_together() -> None:
    """TensorFlow Similarity lost count of which data was whose."""
    model = plain_model()
    model.index(POINTS[:2])
    model.index(POINTS[2:4], data=POINTS[2:4])
    model.index_single(POINTS[4], "z", data="text")
    found = {near.key: near.data for near in model.single_lookup(POINTS[0], k=5)}
    assert found[0] is None and found[1] is None and found[4] == "text"
    np.testing.assert_array_equal(found[2], POINTS[2])


def test_labels_are_str_int_or_none() -> None:
    model = plain_model()
    model.index(POINTS, np.array([[3], [1], [4], [1], [5]], np.uint8))
    model.index(POINTS[:3], ["3", None, 3])
    assert model.store.labels() == {"3": 1, 1: 2, 3: 2, 4: 1, 5: 1, None: 1}
    with pytest.raises(InvalidArgumentError, match="2 labels for 5 examples"):
        model.index(POINTS, [1, 2])
    with pytest.raises(InvalidArgumentError, match=r"\[n\] or \[n, 1\]"):
        model.index(POINTS, np.eye(5))
    assert model.index_size() == 8


def test_keys_replace_and_are_deleted_through_the_store(model: Any) -> None:
    assert model.index(POINTS[:2], ["x", "y"], keys=["p", "q"]) == ["p", "q"]
    assert model.index_single(POINTS[4] + 1, "z", key="p") == "p"
    numbered = model.index(POINTS[:2], keys=np.array([90, 91]))
    assert numbered == [90, 91] and type(numbered[0]) is int
    model.store.delete(numbered)
    assert model.index_size() == 7
    assert model.single_lookup(POINTS[4] + 1)[0].label == "z"
    assert model.store.delete(["p", 4]) == 2
    assert {near.key for near in model.single_lookup(POINTS[4], k=9)} == {0, 1, 2, 3, "q"}
    with pytest.raises(KeyNotFoundError):
        model.store.delete(["p"])
    with pytest.raises(DuplicateKeyError):
        model.index(POINTS[:2], keys=["p", "p"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_and_nothing_is_indexed(model: Any, bad: float) -> None:
    points = POINTS.copy()
    points[3, 1] = bad
    with pytest.raises(InvalidVectorError, match="vector 3"):
        model.index(points)
    with pytest.raises(InvalidVectorError, match="finite"):
        model.single_lookup(points[3])
    assert model.index_size() == 5


def test_inputs_of_another_shape_are_refused(model: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"takes inputs of shape \(3,\)"):
        model.index(np.ones((2, 4)))
    with pytest.raises(InvalidArgumentError, match=r"takes inputs of shape \(3,\)"):
        model.single_lookup(np.ones(4))
    with pytest.raises(InvalidArgumentError, match="one entry for each item"):
        model.index(POINTS, data="text")
    with pytest.raises(InvalidArgumentError, match="4 data for 5 items"):
        model.index(POINTS, data=POINTS[:4])


def test_single_adds_rebuild_nothing() -> None:
    """TensorFlow Similarity built its index anew for each: 300 times 2,000 vectors here."""
    rng = np.random.default_rng(0)
    model = plain_model(8)
    model.index(rng.normal(size=(2000, 8)).astype(np.float32))
    before = model.store.stats()
    extra = rng.normal(size=(300, 8)).astype(np.float32)
    for i, point in enumerate(extra):
        model.index_single(point, i)
        if i % 50 == 0:
            assert model.single_lookup(point, k=1)[0].label == i
    after = model.store.stats()
    assert after.items_written - before.items_written == 300
    assert after.item_bytes_written - before.item_bytes_written < 300 * (8 * 4 + 100)
    assert after.merges == 0 and after.folds <= 2


def test_tensors_and_lists_do_as_well_as_arrays() -> None:
    model = plain_model()
    model.index(
        keras.ops.convert_to_tensor(POINTS), keras.ops.convert_to_tensor([1, 2, 3, 4, 5]), keras.ops.convert_to_tensor(POINTS)
    )
    model.index([list(point) for point in POINTS], data=[keras.ops.convert_to_tensor(point) for point in POINTS])
    found = model.single_lookup(keras.ops.convert_to_tensor(POINTS[4]), k=2)
    assert [near.label for near in found] == [5, None]
    for near in found:
        np.testing.assert_array_equal(near.data, POINTS[4])


# -- the index as a whole ------------------------------------------------------------------------------------------------


def test_the_temporary_store_goes_with_the_model() -> None:
    model = plain_model()
    model.index(POINTS)
    directory = Path(model.store.info().path).parent
    assert directory.is_dir() and directory.name.startswith("simstore-index-")
    del model
    gc.collect()
    assert not directory.exists()


def test_reset_index_and_create_index_begin_anew(model: Any) -> None:
    first = Path(model.store.info().path)
    model.reset_index()
    assert model.index_size() == 0 and not first.exists()
    model.index(POINTS[:1])
    model.create_index("cosine")
    assert model.index_size() == 0
    model.index(POINTS[:2])
    assert model.single_lookup(POINTS[0] * 5, k=1)[0].distance == pytest.approx(0, abs=1e-6)


def test_compile_keeps_the_index_unless_its_metric_changes(model: Any) -> None:
    model.compile("adam", loss="mse", distance="euclidean")
    assert model.index_size() == 5
    model.compile("adam", loss="mse", distance="squared_euclidean")
    assert [near.distance for near in model.single_lookup(POINTS[0], k=3)] == [0, 9, 16]
    with pytest.raises(InvalidArgumentError, match=r"create_index\('cosine'\)"):
        model.compile("adam", loss="mse", distance="cosine")


def test_the_distance_comes_from_the_loss() -> None:
    model = plain_model()
    for loss in (losses.MultiSimilarityLoss("l2"), [losses.TripletLoss("l2")]):
        model.compile("adam", loss=loss, distance="auto")
        model.index(POINTS)
        assert model.index_summary().distance == "euclidean"
        model.create_index()
    with pytest.raises(InvalidArgumentError, match="distance='auto'"):
        model.compile("adam", loss="mse")
    with pytest.raises(InvalidArgumentError, match="'cosine', 'euclidean'"):
        model.compile("adam", loss="mse", distance="near")
    with pytest.raises(InvalidArgumentError, match="attach"):
        model.compile("adam", loss="mse", distance="l2", kv_store=object())
    with pytest.raises(InvalidArgumentError, match="search is a list"):
        model.create_index(search=["nmslib"])


def test_one_of_several_outputs_is_the_embedding() -> None:
    inputs = keras.Input((3,))
    double = keras.layers.Dense(3, use_bias=False, name="double", kernel_initializer=keras.initializers.Identity(2.0))(inputs)
    model = SimilarityModel(inputs, [keras.layers.Dense(1, name="one")(inputs), double])
    model.compile("sgd", loss=["mse", "mse"], distance="l2", embedding_output=1)
    model.index(POINTS)
    assert model.single_lookup(POINTS[4], k=1)[0].embedding.tolist() == [18, 18, 18]
    assert model.index_size() == 5
    for output in (5, -1, "embedding", True):
        with pytest.raises(InvalidArgumentError, match=f"no output {output!r}; it has 2, from 0: 'one', 'double'"):
            model.create_index("l2", embedding_output=output)
    assert model.index_size() == 5


def two_outputs(as_dict: bool) -> Any:
    """An output that is the input, and before it one for classes."""
    inputs = keras.Input((3,))
    points = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity", name="points")(inputs)
    classes = keras.layers.Dense(10, name="a" if as_dict else "classes")(inputs)
    return SimilarityModel(inputs, {"points": points, "classes": classes} if as_dict else [classes, points])


@pytest.mark.parametrize("as_dict", [False, True])
def test_the_embedding_is_the_output_whose_loss_has_a_distance(as_dict: bool, tmp_path: Path) -> None:
    each = {"classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "points": losses.TripletLoss("l2")}
    for loss in (each, dict(reversed(each.items())), None if as_dict else list(each.values())):
        model = two_outputs(as_dict)
        if loss is not None:
            model.compile("sgd", loss=loss)
            model.index(POINTS)
            assert model.index_summary().distance == "euclidean"
            assert model.single_lookup(POINTS[4], k=1)[0].embedding.tolist() == [9, 9, 9]
    model = two_outputs(as_dict)
    model.compile("sgd", loss=each)
    y = np.arange(5) // 2
    model.fit(POINTS, {"classes": y, "points": y} if as_dict else [y, y], verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    loaded.index(POINTS)
    assert loaded.index_summary().dim == 3
    model.compile("sgd", loss=each, distance="l2", embedding_output="classes")
    model.index(POINTS)
    assert model.index_summary().dim == 10
    with pytest.raises(InvalidArgumentError, match="distance='auto'"):
        model.compile("sgd", loss=each, embedding_output="classes")
    with pytest.raises(InvalidArgumentError, match="no output 'point'"):
        model.compile("sgd", loss={"point": losses.TripletLoss()})


def test_the_summary_tells_what_the_index_is(model: Any) -> None:
    model.single_lookup(POINTS[0])
    summary = model.index_summary()
    assert (summary.size, summary.distance, summary.dim, summary.is_temporary) == (5, "euclidean", 3, True)
    assert summary.is_current and summary.made_by == model.embedder().spec.fingerprint
    assert summary.n_lookups == 1 and summary.calibrated_by is None and summary.cutpoints == {}
    assert "5 of 3 numbers, by euclidean" in str(summary)
    with pytest.raises(InvalidArgumentError, match="no index yet"):
        plain_model().index_summary()


def test_to_data_frame(model: Any) -> None:
    frame = model.to_data_frame()
    assert list(frame.columns) == ["key", "label", "embedding", "data"]
    assert frame["label"].tolist()[:3] == ["a", "b", "a"] and frame["data"][4] == {"n": 4}
    assert np.array_equal(np.stack(frame["embedding"]), POINTS)
    assert len(model.to_data_frame(2)) == 2 and len(plain_model().to_data_frame()) == 0


def test_to_data_frame_of_fewer_than_none_is_refused(model: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="num_items is at least 1, or 0"):
        model.to_data_frame(-1)


def test_save_takes_tensorflow_similarity_s_argument(model: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"save\(path\), and then save_index"):
        model.save(tmp_path / "m.keras", save_index=True)
    assert list(tmp_path.iterdir()) == []
    model.save(tmp_path / "m.keras", save_index=False, compression=True)
    model.save(tmp_path / "m.keras", overwrite=True)
    assert keras.saving.load_model(tmp_path / "m.keras").index_size() == 0


def test_labels_that_are_a_dict_or_a_set_are_refused(model: Any) -> None:
    for labels in (dict.fromkeys(range(5), "a"), set("abcde")):
        with pytest.raises(InvalidArgumentError, match="a sequence with one for each example"):
            model.index(POINTS, labels)
    assert model.index_size() == 5


def test_to_data_frame_without_pandas_says_what_to_install(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PackageMissingError, match=r"simstore\[viz\]"):
        model.to_data_frame()


# -- several inputs ------------------------------------------------------------------------------------------------------


def sum_model(as_dict: bool = False) -> Any:
    """Of two inputs: the first and twice the second, whose last axis is 1."""
    a, b = keras.Input((3,), name="b_points"), keras.Input((3, 1), name="a_moves")
    outputs = keras.layers.Add()([a, keras.layers.Rescaling(2.0)(keras.layers.Flatten()(b))])
    outputs = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")(outputs)
    model = SimilarityModel({"b_points": a, "a_moves": b} if as_dict else [a, b], outputs)
    model.compile("sgd", loss="mse", distance="l2")
    return model


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_model_of_several_inputs_takes_them_as_predict_does(as_dict: bool) -> None:
    model, moves = sum_model(as_dict), np.arange(15, dtype=np.float32).reshape(5, 3, 1)
    expected = POINTS + 2 * moves[..., 0]
    batch = {"b_points": POINTS, "a_moves": moves}
    model.index(batch, ["a", "b", "c", "d", "e"])
    np.testing.assert_array_equal(np.stack(model.to_data_frame()["embedding"]), expected)
    np.testing.assert_array_equal(model.predict(batch, verbose=0), expected)
    assert model.single_lookup({"b_points": POINTS[3], "a_moves": moves[3]}, k=1)[0].label == "d"
    ordered = (moves, POINTS) if as_dict else (POINTS, moves)
    for x in (ordered, [part.tolist() for part in ordered], [part[..., None] if part is POINTS else part for part in ordered]):
        assert [near[0].label for near in model.lookup(x, k=1)] == ["a", "b", "c", "d", "e"]
    assert model.index_single([part[0] for part in ordered], "z", key="z") == "z"
    assert model.calibrate(batch, ["a", "b", "c", "d", "e"]).cutpoints["optimal"]["f1"] == 1.0
    assert model.match(batch)[1:] == ["b", "c", "d", "e"]
    assert model.evaluate_retrieval(batch, ["a", "b", "c", "d", "e"], [RecallAtK(k=1)])["recall@1"] >= 0.8
    model.layers[-1].set_weights([np.eye(3, dtype=np.float32) * 2])
    assert not model.index_summary().is_current
    with pytest.raises(EmbedderMismatchError):
        model.lookup(batch)


def test_many_examples_of_several_inputs() -> None:
    model, x = sum_model(), np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    model.index([x, np.zeros((5000, 3), np.float32)], verbose=1)
    np.testing.assert_array_equal(np.stack(model.to_data_frame()["embedding"]), x)


def test_what_several_inputs_cannot_be(tmp_path: Path) -> None:
    model = sum_model()
    for x in (POINTS, [POINTS], {"b_points": POINTS}, (POINTS,) * 3):
        with pytest.raises(InvalidArgumentError, match="has the inputs 'b_points', 'a_moves'"):
            model.index(x)
    with pytest.raises(InvalidArgumentError, match=r"\[5, 4\] examples"):
        model.index([POINTS, POINTS[:4]])
    with pytest.raises(InvalidArgumentError, match=r"input a_moves' takes inputs of shape \(3, 1\)"):
        model.index([POINTS, POINTS[:, :2]])
    model.index([POINTS, POINTS])
    uses = (lambda: model.attach(tmp_path / "s"), lambda: model.save_index(tmp_path / "s"), model.embedder)
    for use in (*uses, lambda: model.load_index(tmp_path / "s")):
        with pytest.raises(InvalidArgumentError, match="has 2 inputs"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_one_input_by_its_name() -> None:
    model = plain_model()
    model.index({model.inputs[0].name: POINTS})
    assert model.index_size() == 5


# -- training on ---------------------------------------------------------------------------------------------------------


def test_embeddings_are_those_of_the_weights_as_they_are_and_a_stale_index_is_refused(model: Any) -> None:
    model.fit(POINTS, POINTS * 2, epochs=1, verbose=0)
    expected = model.predict(POINTS, verbose=0)
    assert not np.allclose(expected, POINTS)
    for use in (lambda: model.single_lookup(POINTS[0]), lambda: model.index(POINTS), lambda: model.match(POINTS)):
        with pytest.raises(EmbedderMismatchError, match=r"holds 5 embeddings.*reset_index\(\)"):
            use()
    assert not model.index_summary().is_current and "NOT this model" in str(model.index_summary())
    model.reset_index()
    model.index(POINTS)  # through the function that was compiled before
    np.testing.assert_allclose(np.stack(model.to_data_frame()["embedding"]), expected, rtol=1e-5)


def test_set_weights_and_load_weights_are_noticed(model: Any, tmp_path: Path) -> None:
    model.save_weights(tmp_path / "m.weights.h5")
    model.set_weights([np.eye(3, dtype=np.float32) * 2])
    with pytest.raises(EmbedderMismatchError):
        model.single_lookup(POINTS[0])
    model.load_weights(tmp_path / "m.weights.h5")
    assert model.single_lookup(POINTS[0])[0].distance == 0
    model.train_on_batch(POINTS, POINTS * 2)
    with pytest.raises(EmbedderMismatchError):
        model.single_lookup(POINTS[0])


def test_compile_does_not_hide_that_the_model_was_trained(model: Any) -> None:
    """A new optimizer counts its steps from 0, as the one before did when the index was made."""
    model.fit(POINTS, POINTS * 2, epochs=1, verbose=0)
    model.compile("sgd", loss="mse", distance="euclidean")
    with pytest.raises(EmbedderMismatchError):
        model.single_lookup(POINTS[0])


def test_the_store_can_be_moved_to_the_trained_model() -> None:
    model = plain_model()
    model.index(POINTS, data=POINTS)
    model.fit(POINTS, POINTS * 2, epochs=1, verbose=0)
    assert model.store.reembed(model.embedder()).n_items == 5
    assert model.single_lookup(POINTS[2], k=1)[0].key == 2


# -- matching ------------------------------------------------------------------------------------------------------------


def test_match_needs_a_calibration(model: Any) -> None:
    with pytest.raises(NotCalibratedError, match=r"calibrate\(x, y\)"):
        model.match(POINTS)
    with pytest.raises(NotCalibratedError, match="the index has none"):
        model.evaluate_classification(POINTS, [1] * 5)
    with pytest.raises(InvalidArgumentError, match="the index is empty"):
        plain_model().calibrate(POINTS, [1] * 5)
    with pytest.raises(InvalidArgumentError, match="the index is empty"):
        plain_model().evaluate_retrieval(POINTS, [1] * 5, [RecallAtK()])


QUERIES = np.array([[0, 0, 1.5], [0, 3, 2], [4, 0, 3], [9, 9, 13]], np.float32)  # 0.5 from a, 1 from b, 2 from a, 4 from 7


def test_calibrate_and_match(model: Any) -> None:
    """Right at 0.5 and 1, wrong at 2 (its class is not indexed), right at 4: f1 is 1/2, 4/5, 2/3, 6/7."""
    results = model.calibrate(QUERIES, ["a", "b", "unknown", 7], {"sure": 0.75}, extra_metrics=["precision", "recall", "fpr"])
    optimal = results.cutpoints["optimal"]
    assert (optimal["distance"], optimal["f1"], optimal["precision"], optimal["fpr"]) == (4.0, 6 / 7, 0.75, 1.0)
    assert results.cutpoints["sure"]["distance"] == 1.0
    assert results.thresholds["distance"] == [0.5, 1.0, 2.0, 4.0]
    assert results.thresholds["value"] == [0.5, 0.8, 0.67, 0.86]
    assert model.match(QUERIES) == ["a", "b", "a", 7]
    assert model.match(QUERIES, "sure", no_match_label="nothing") == ["a", "b", "nothing", "nothing"]
    assert model.match(QUERIES, "all") == {"optimal": ["a", "b", "a", 7], "sure": ["a", "b", -1, -1]}
    with pytest.raises(InvalidArgumentError, match="'optimal', 'sure' or 'all', not 'surely'"):
        model.match(QUERIES, "surely")
    assert model.index_summary().cutpoints == {"optimal": 4.0, "sure": 1.0}


def test_an_unlabelled_neighbour_is_no_match(model: Any) -> None:
    model.calibrate(QUERIES, ["a", "b", "unknown", 7])
    assert model.match(POINTS[3:4]) == [-1]


def test_a_target_that_is_not_reached_is_no_cutpoint(model: Any) -> None:
    results = model.calibrate(QUERIES, ["a", "b", "unknown", 7], {"dream": 0.99})
    assert results.unmet == {"dream": pytest.approx(6 / 7)}
    with pytest.raises(InvalidArgumentError, match="no threshold reaches the target of 'dream'"):
        model.match(QUERIES, "dream")


def test_match_uses_the_k_and_the_matcher_that_were_calibrated(model: Any) -> None:
    model.calibrate(QUERIES[:2], ["a", "a"], k=4, matcher="match_majority_vote")
    assert model.match(QUERIES[1:2]) == ["a"]  # b, a, one without a label, a
    assert model.match(QUERIES[1:2], k=1, matcher="match_nearest") == ["b"]


class Farthest(ClassificationMatch):
    """The nearest one's label at the farthest one's distance."""

    name = "match_nearest"  # a name is no proof

    def predict(self, lookup_labels: Any, lookup_distances: Any) -> Any:
        return lookup_labels[:, 0], lookup_distances[:, -1]


def test_match_and_evaluate_use_the_matcher_itself(model: Any) -> None:
    """(0, 0, 1) has a at 0 and b at 3: the vote's distance is 3 by max, 1.5 by mean."""
    for matcher in (MatchMajorityVote(np.max), MatchMajorityVote(lambda distances, axis: distances.max(axis)), Farthest()):
        results = model.calibrate(POINTS[:1], ["a"], k=2, matcher=matcher)
        assert results.cutpoints["optimal"]["distance"] == 3.0
        assert model.match(POINTS[:1]) == ["a"]
        assert model.match(POINTS[:1] - [[1, 0, 0]]) == [-1]  # a at 1, b at 3.16
        assert model.match(POINTS[:1] - [[1, 0, 0]], k=1, matcher="match_nearest") == ["a"]
        assert model.evaluate_classification(POINTS[:1] - [[1, 0, 0]], ["a"])["optimal"]["recall"] == 0.0
        assert model.evaluate_classification(POINTS[:1] - [[1, 0, 0]], ["a"], 1, (), "nearest")["optimal"]["f1"] == 1.0


def test_evaluate_classification_tells_each_cutpoint(model: Any) -> None:
    model.calibrate(QUERIES, ["a", "b", "unknown", 7], {"sure": 0.75})
    results = model.evaluate_classification(QUERIES[:3], ["a", "b", "b"])
    assert list(results) == ["optimal", "sure"]
    assert results["optimal"] == {
        "name": "optimal", "distance": 4.0, "f1": 0.8, "precision": pytest.approx(2 / 3), "recall": 1.0,
    }  # fmt: skip
    assert results["sure"]["precision"] == 1.0


def test_a_calibration_holds_for_its_model_and_its_distance(model: Any) -> None:
    model.calibrate(QUERIES, ["a", "b", "unknown", 7])
    model.compile("sgd", loss="mse", distance="squared_euclidean")
    with pytest.raises(NotCalibratedError, match="another model or distance"):
        model.match(QUERIES)
    model.compile("sgd", loss="mse", distance="euclidean")
    assert model.match(QUERIES)[0] == "a"
    model.reset_index()
    model.index(POINTS)
    with pytest.raises(NotCalibratedError, match="has none"):
        model.match(QUERIES)


def test_metrics_alone_are_lists_of_one(model: Any) -> None:
    model.calibrate(QUERIES, ["a", "b", "unknown", 7], extra_metrics="fpr")
    assert "fpr" in model.evaluate_classification(QUERIES, ["a", "b", "b", 7], extra_metrics="fpr")["optimal"]
    assert list(model.evaluate_retrieval(POINTS, ["a"] * 5, "map@k")) == ["map@5"]
    assert list(model.evaluate_retrieval(POINTS, ["a"] * 5, RecallAtK(k=1))) == ["recall@1"]


def test_retrieval_of_indexed_examples_without_themselves(model: Any) -> None:
    metrics = [PrecisionAtK(k=1, drop_closest_lookup=True), RecallAtK(k=2, drop_closest_lookup=True), MapAtK(k=2)]
    results = model.evaluate_retrieval(POINTS[:3], ["a", "b", "a"], metrics)
    # neighbours of a: b 3, a 4, None 5; of b: a 3, None 4; of the second a: None 3, a 4
    assert results == {"precision@1": 0.0, "recall@2": pytest.approx(2 / 3), "map@2": pytest.approx(0.5)}


# -- real digits ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> Any:
    images, labels = digits()
    model = digits_model()
    model.compile(keras.optimizers.Adam(2e-3), loss=losses.MultiSimilarityLoss())
    model.fit(batches(images[:1200], labels[:1200]), epochs=8, verbose=0)
    model.index(images[:1200], labels[:1200])
    return model


def test_digits_are_recognised(trained: Any) -> None:
    images, labels = digits()
    assert trained.evaluate_retrieval(images[1200:], labels[1200:], [RecallAtK(k=1)])["recall@1"] > 0.95
    results = trained.calibrate(images[1200:1500], labels[1200:1500], {"keeps_95": 0.95}, calibration_metric="recall")
    matches = trained.match(images[1500:], "keeps_95")
    accepted = [i for i, label in enumerate(matches) if label != -1]
    assert len(accepted) > 0.88 * len(matches)
    assert np.mean([matches[i] == labels[1500 + i] for i in accepted]) > 0.97
    assert results.cutpoints["keeps_95"]["recall"] >= 0.95


def test_a_trained_model_is_saved_and_loaded(trained: Any, tmp_path: Path) -> None:
    images, labels = digits()
    trained.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded) is SimilarityModel
    np.testing.assert_array_equal(loaded.predict(images[:50], verbose=0), trained.predict(images[:50], verbose=0))
    assert loaded.embedder().spec.fingerprint == trained.embedder().spec.fingerprint
    assert int(loaded.optimizer.iterations) == int(trained.optimizer.iterations)
    loaded.index(images[:10], labels[:10])
    assert loaded.index_summary().distance == "cosine"
    loaded.fit(batches(images[:1200], labels[:1200]), epochs=1, verbose=0)  # goes on training


@pytest.mark.parametrize(
    "loss",
    [
        lambda: losses.ProxyAnchorLoss(num_classes=10),
        lambda: losses.ArcFaceLoss(num_classes=10),
        lambda: losses.XBM(losses.MultiSimilarityLoss(), memory_size=100),
    ],
)
def test_losses_with_weights_of_their_own_are_trained_and_saved(loss: Any, tmp_path: Path) -> None:
    images, labels = digits()
    model = digits_model()
    model.compile(keras.optimizers.Adam(1e-2), loss=loss())
    before = [values(weight) for weight in model.loss.layer.weights]
    history = model.fit(batches(images[:640], labels[:640]), epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    learned = [values(weight) for weight in model.loss.layer.weights]
    assert not np.array_equal(before[0], learned[0])
    model.evaluate(batches(images[640:768], labels[640:768]), verbose=0)  # what is evaluated is not remembered
    for now, then in zip(model.loss.layer.weights, learned, strict=True):
        np.testing.assert_array_equal(values(now), then)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for now, then in zip(loaded.loss.layer.weights, learned, strict=True):
        np.testing.assert_array_equal(values(now), then)
    assert loaded.embedder().spec.fingerprint == model.embedder().spec.fingerprint
    assert loaded.fit(batches(images[:640], labels[:640]), epochs=1, verbose=0).history["loss"][0] < history[0]
    model.index(images[:100], labels[:100])
    assert model.index_size() == 100
