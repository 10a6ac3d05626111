"""EvalCallback and SplitValidationLoss."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("keras", reason="needs the extra simstore[keras]")

import keras
from similarity_models import digits, digits_model, plain_model

from simstore.errors import InvalidArgumentError, PackageMissingError
from simstore.similarity import callbacks, losses
from simstore.similarity.callbacks import EvalCallback, SplitValidationLoss
from simstore.similarity.models import SimilarityModel, create_contrastive_model
from simstore.similarity.retrieval_metrics import PrecisionAtK, RecallAtK

TARGETS = np.array([[0, 0, 0], [1, 0, 0], [5, 0, 0], [9, 0, 0]], np.float32)
TARGET_LABELS = ["a", "b", "a", "c"]
QUERIES = np.array([[0.25, 0, 0], [2, 0, 0], [6, 0, 0], [9.5, 0, 0]], np.float32)  # nearest: a, b, a, c
QUERY_LABELS = ["a", "a", "b", "c"]  # right, wrong, wrong, right
X = np.ones((8, 3), np.float32)


def fitted(model: Any, *callbacks: Any, epochs: int = 1) -> dict[str, list[float]]:
    history: dict[str, list[float]] = model.fit(X, X, epochs=epochs, verbose=0, callbacks=list(callbacks)).history
    return history


def still(distance: str = "euclidean") -> Any:
    """A model whose embedding is its input, and that does not learn."""
    model = plain_model(distance=distance)
    model.compile(keras.optimizers.SGD(0.0), loss="mse", distance=distance)
    return model


def test_results_of_a_table_are_in_the_history() -> None:
    callback = EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, metrics=["binary_accuracy", "f1score"])
    history = fitted(still(), callback, epochs=2)
    assert history["binary_accuracy"] == [0.5, 0.5]
    assert history["f1"] == [pytest.approx(2 / 3)] * 2  # 2 right, 2 wrong, all accepted


def test_thresholds_matchers_and_retrieval_metrics() -> None:
    metrics = [RecallAtK(k=2), PrecisionAtK(k=1, drop_closest_lookup=True)]
    callback = EvalCallback(
        QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, metrics=["precision"], distance_thresholds=[0.5, 1.0],
        retrieval_metrics=metrics,
    )  # fmt: skip
    history = fitted(still(), callback)
    assert history["precision_within_0.5"] == [1.0] and history["precision_within_1"] == [0.5]
    assert history["recall@2"] == [0.75]  # a of (a b), a of (b a), not b of (a c), c of (c a)
    assert history["precision@1"] == [0.25]  # without the nearest: b, a, c, a


def test_known_and_unknown_classes_are_told_apart() -> None:
    for callback in (
        EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, metrics=["binary_accuracy"], known_classes=["a"]),
        SplitValidationLoss(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, ["a"], metrics=["binary_accuracy"]),
    ):
        history = fitted(still(), callback)
        assert history["binary_accuracy_known_classes"] == [0.5]
        assert history["binary_accuracy_unknown_classes"] == [0.5]
        assert "binary_accuracy" not in history
    all_known = EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, known_classes=["a", "b", "c"])
    assert set(fitted(still(), all_known)) == {"binary_accuracy_known_classes", "loss"}


def test_the_model_s_own_index_is_not_touched(tmp_path: Path) -> None:
    """TensorFlow Similarity emptied it, filled it with the targets, and emptied it again."""
    model = still()
    store = model.attach(tmp_path / "s.sim")
    model.index(TARGETS, TARGET_LABELS, data=["mine"] * 4)
    model.calibrate(QUERIES, QUERY_LABELS)
    matches = model.match(QUERIES)
    before, searches = list(store.scan()), store.stats().searches
    fitted(model, EvalCallback(QUERIES, QUERY_LABELS, TARGETS[:1], TARGET_LABELS[:1]))
    assert list(store.scan()) == before and store.stats().searches == searches
    assert model.match(QUERIES) == matches == ["a", -1, -1, "c"]  # the weights are what they were
    store.close()


def test_it_sees_the_weights_of_each_epoch() -> None:
    images, labels = digits()
    model = digits_model()
    model.compile(keras.optimizers.Adam(3e-3), loss=losses.MultiSimilarityLoss())
    callback = EvalCallback(
        images[1200:1500], labels[1200:1500], images[:300], labels[:300], retrieval_metrics=[RecallAtK(k=1)]
    )
    history = model.fit(images[:1200], labels[:1200], batch_size=64, epochs=4, verbose=0, callbacks=[callback]).history
    assert history["recall@1"][-1] > history["recall@1"][0]
    assert history["recall@1"][-1] == callback.evaluate()["recall@1"]
    assert model.index_size() == 0


def test_callbacks_after_it_use_its_results() -> None:
    callback = EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS)
    stopping = keras.callbacks.EarlyStopping("binary_accuracy", mode="max", patience=1)
    assert len(fitted(still(), callback, stopping, epochs=9)["loss"]) == 2


def test_contrastive_models_are_evaluated_too() -> None:
    images, labels = digits()
    backbone = keras.Sequential([keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Dense(16)])
    model = create_contrastive_model(backbone, algorithm="barlow", dim=8)
    model.compile("adam", loss=losses.Barlow())
    callback = EvalCallback(images[300:400], labels[300:400], images[:300], labels[:300], known_classes=range(5))
    history = model.fit(images[:256], images[:256], epochs=1, verbose=0, callbacks=[callback]).history
    assert 0.3 < history["binary_accuracy_known_classes"][0] <= 1


def test_results_are_written_for_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "find_spec", lambda name: None)
        with pytest.raises(PackageMissingError, match="pip install tensorboard"):
            EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, tb_logdir=tmp_path)
    pytest.importorskip("tensorboard", reason="needs TensorBoard")
    fitted(still(), EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, tb_logdir=tmp_path))
    written = [file.read_bytes() for file in (tmp_path / "index").rglob("events*")]
    assert any(b"binary_accuracy" in content for content in written)


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="3 labels for 4 examples"):
        EvalCallback(QUERIES, QUERY_LABELS[:3], TARGETS, TARGET_LABELS)
    with pytest.raises(InvalidArgumentError, match="no queries, or no targets"):
        EvalCallback(QUERIES, QUERY_LABELS, TARGETS[:0], [])
    with pytest.raises(InvalidArgumentError, match="classification metric"):
        EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, metrics=["speed"])
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    plain.compile("sgd", loss="mse")
    with pytest.raises(InvalidArgumentError, match="evaluates similarity models, not a Sequential"):
        fitted(plain, EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS))
    with pytest.raises(InvalidArgumentError, match="'snr' has no index"):
        fitted(still("snr"), EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS))
    euclidean = EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, distance="l2")
    assert fitted(still("snr"), euclidean)["binary_accuracy"] == [0.5]


def test_a_model_of_several_inputs_is_evaluated() -> None:
    a, b = keras.Input((3,)), keras.Input((3,))
    model = SimilarityModel(
        [a, b], keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")(keras.layers.Add()([a, b]))
    )
    model.compile(keras.optimizers.SGD(0.0), loss="mse", distance="euclidean")
    zeros = np.zeros((4, 3), np.float32)
    callback = EvalCallback([QUERIES, zeros], QUERY_LABELS, (TARGETS, zeros), TARGET_LABELS)
    history = model.fit([X, X], X, verbose=0, callbacks=[callback]).history
    assert history["binary_accuracy"] == [0.5]
    with pytest.raises(InvalidArgumentError, match="4 labels for 2 examples"):
        EvalCallback([QUERIES, zeros[:3]], QUERY_LABELS, (TARGETS, zeros), TARGET_LABELS)


def test_k_is_at_least_1() -> None:
    with pytest.raises(InvalidArgumentError, match="k is a whole number of at least 1, not 0"):
        EvalCallback(QUERIES, QUERY_LABELS, TARGETS, TARGET_LABELS, k=0)
