"""Losses that learn or remember: XBM, ArcFaceLoss, ProxyAnchorLoss, and the models that train and save them."""

import math
from pathlib import Path
from typing import Any

import keras
import naive_losses as naive
import numpy as np
import pytest
from keras import ops
from loss_cases import batch, value_of
from naive_losses import Batch

from simstore.errors import InvalidArgumentError
from simstore.similarity.losses import (
    XBM,
    ArcFaceLoss,
    CircleLoss,
    LiftedStructLoss,
    MultiSimilarityLoss,
    PNLoss,
    ProxyAnchorLoss,
    SoftNearestNeighborLoss,
    SupConLoss,
    TripletLoss,
    set_training,
    track,
)

SQUARE = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], "float32")  # of cosine distances 1 and, across, 2


@keras.saving.register_keras_serializable("tests")
class Tracking(keras.Model):
    """As a model that tracks its losses has to be written."""

    def compile(self, optimizer: Any = "sgd", loss: Any = None, **how: Any) -> None:
        track(self, loss)
        super().compile(optimizer, loss, **how)

    def get_compile_config(self) -> dict[str, Any]:
        return {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in ("optimizer", "loss")}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True) -> Any:  # fmt: skip
        set_training(self.loss, training)
        return super().compute_loss(x, y, y_pred, sample_weight, training)


def model_of(cls: type = Tracking, dim: int = 2) -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    return cls(inputs, keras.layers.Dense(dim)(inputs))


def data(n: int = 12) -> tuple[Any, Any]:
    return np.random.default_rng(0).normal(size=(n, 6)).astype("float32"), np.arange(n) % 3


def arrays(weights: Any) -> list[Any]:
    return [ops.convert_to_numpy(weight) for weight in weights]


# -- the memory


def test_past_batches_give_pairs_by_hand() -> None:
    loss = XBM(TripletLoss(negative_mining_strategy="hard", margin=0.5), memory_size=4, reduction="none")
    assert value_of(loss, [0, 1], SQUARE[[0, 3]]).tolist() == [0.0, 0.0]  # neither has a positive
    assert value_of(loss, [0, 1], SQUARE[[1, 2]]).tolist() == [0.5, 0.5]  # each has one, as far as its closest negative


@pytest.mark.parametrize(
    ("make", "oracle"),
    [
        (lambda: TripletLoss("l2", margin=0.5), lambda b: naive.triplet(b, "hard", "semi-hard", 0.5)),
        (lambda: PNLoss("l2", negative_mining_strategy="hard"), lambda b: naive.pn(b, "hard", "hard", None)),
        (lambda: MultiSimilarityLoss("l2"), lambda b: naive.multi_similarity(b, 2.0, 40.0, 0.1, 0.5, 1.0)),
        (lambda: CircleLoss("l2", gamma=2.0), lambda b: naive.circle(b, 2.0, 0.4)),
        (lambda: SoftNearestNeighborLoss("l2"), lambda b: naive.soft_nn(b, 1.0)),
        (lambda: SupConLoss("l2"), lambda b: naive.sup_con(b, 0.1)),
        (lambda: LiftedStructLoss("l2"), lambda b: naive.lifted(b, "hard", 1.0)),
    ],
)
def test_it_agrees_with_a_loop_over_batch_and_memory(make: Any, oracle: Any) -> None:
    loss = XBM(make(), memory_size=10, warmup_steps=1, reduction="none", dtype="float64")
    past: list[tuple[Any, Any]] = []  # newest first
    for seed, n in enumerate([3, 4, 4, 1, 5, 14, 3]):
        labels, embeddings = batch(seed, n)
        more = ([y for y, _ in past], [x for _, x in past])
        np.testing.assert_allclose(
            value_of(loss, labels, embeddings), oracle(Batch(labels, embeddings, "euclidean", more)), rtol=1e-7, atol=1e-9
        )
        if seed >= 1:
            past = [*zip(labels, embeddings, strict=True), *past][:10]


def test_the_warm_up_and_evaluation_remember_nothing() -> None:
    loss = XBM(TripletLoss(), memory_size=8, warmup_steps=2)
    counts = []
    for is_training in (True, False, True, True, False, True, True, True):
        loss.is_training = is_training
        loss(*batch(0, 3))
        counts.append(int(loss.layer.n_kept))
    assert counts == [0, 0, 0, 3, 3, 6, 8, 8]  # two training steps of warm-up; never more than there is room for


def test_no_gradient_flows_into_the_past() -> None:
    import tensorflow as tf

    loss = XBM(SupConLoss(), memory_size=8)
    loss(*batch(0, 4))
    labels, embeddings = batch(1, 4)
    memory = [weight.value for weight in loss.layer.weights]
    with tf.GradientTape() as tape:
        tensor = ops.convert_to_tensor(embeddings)
        tape.watch(tensor)
        tape.watch(memory)
        value = loss(labels, tensor)
    found = tape.gradient(value, [tensor, *memory])
    assert np.abs(found[0]).max() > 0
    loss(*batch(2, 4))
    assert not loss.layer.trainable_weights


def test_a_plain_model_fills_the_memory_without_being_told() -> None:
    model, loss = model_of(keras.Model), XBM(MultiSimilarityLoss(), memory_size=20)
    model.compile("sgd", loss)
    x, y = data()
    model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)
    assert int(loss.layer.n_kept) == 12
    assert ops.convert_to_numpy(loss.layer.labels)[:12].tolist() == [*y[8:], *y[4:8], *y[:4]]


def test_a_tracking_model_keeps_validation_out_of_the_memory_and_saves_it(tmp_path: Path) -> None:
    model, loss = model_of(), XBM(MultiSimilarityLoss(), memory_size=20)
    model.compile("sgd", loss)
    x, y = data()
    model.fit(x, y, batch_size=4, epochs=1, validation_data=(x, y + 7), verbose=0)
    model.evaluate(x, y + 7, verbose=0)
    assert int(loss.layer.n_kept) == 12 and ops.convert_to_numpy(loss.layer.labels).max() == 2
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.loss) is XBM and again.loss.get_config() == loss.get_config()
    for old, new in zip(arrays(loss.layer.weights), arrays(again.loss.layer.weights), strict=True):
        assert old.tolist() == new.tolist()
    assert again.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))


# -- class vectors


@pytest.mark.parametrize("cls", [ArcFaceLoss, ProxyAnchorLoss])
@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_a_tracking_model_trains_and_saves_class_vectors(cls: type, how: dict[str, bool], tmp_path: Path) -> None:
    model, loss = model_of(), cls(num_classes=3)
    model.compile(keras.optimizers.Adam(0.01), loss, **how)
    (before,) = arrays(loss.layer.weights)
    assert before.shape == (3, 2) and len(model.trainable_weights) == 3
    x, y = data()
    losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    (after,) = arrays(loss.layer.weights)
    assert (before != after).all() and losses[-1] < losses[0]
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert arrays(again.loss.layer.weights)[0].tolist() == after.tolist()
    assert len(again.optimizer.variables) == len(model.optimizer.variables)
    model.train_on_batch(x, y)
    again.train_on_batch(x, y)  # the moments of the optimizer, too
    np.testing.assert_allclose(arrays(again.trainable_weights)[2], arrays(model.trainable_weights)[2], rtol=1e-5)


def test_class_vectors_separate_the_classes() -> None:
    centres = np.random.default_rng(0).normal(size=(3, 6))
    y = np.arange(60) % 3
    x = centres[y] + np.random.default_rng(1).normal(size=(60, 6)) / 4
    for loss in (ArcFaceLoss(3), ProxyAnchorLoss(3)):
        model = model_of()
        model.compile(keras.optimizers.Adam(0.05), loss)
        model.fit(x, y, batch_size=60, epochs=40, verbose=0)
        vectors, embeddings = arrays(loss.layer.weights)[0], model.predict(x, verbose=0)
        nearest = [max(range(3), key=lambda c: naive.cosine(e, vectors[c])) for e in embeddings.astype("float64")]
        assert np.mean(nearest == y) == 1.0


def test_a_plain_model_can_be_tracked_again(tmp_path: Path) -> None:
    x, y = data()
    model, loss = model_of(keras.Model), ArcFaceLoss(3)
    track(model, loss)
    model.compile("sgd", loss)
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    with pytest.raises(InvalidArgumentError, match="no model trains these: compile it with a SimilarityModel"):
        again.evaluate(x, y, verbose=0)
    track(again, again.loss)
    again.load_weights(tmp_path / "m.keras")
    again.compile("sgd", again.loss)
    assert arrays(again.weights)[2].tolist() == arrays(model.weights)[2].tolist()
    assert again.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))


def test_recompiling_drops_the_weights_of_the_old_loss() -> None:
    model, first, second = model_of(), ArcFaceLoss(3), ProxyAnchorLoss(5)
    model.compile("sgd", first)
    model.compile("sgd", first)
    assert len(model.trainable_weights) == 3
    model.compile("sgd", second)
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [(6, 2), (2,), (5, 2)]
    model.compile("sgd", TripletLoss())
    assert len(model.weights) == 2 and model.loss_layers == []
    model.compile("sgd", [XBM(TripletLoss(), 4)])
    assert len(model.weights) == 6 and len(model.trainable_weights) == 2


def test_what_cannot_be_tracked_is_refused() -> None:
    sequential = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    with pytest.raises(InvalidArgumentError, match="ArcFaceLoss has weights: make it functional"):
        track(sequential, ArcFaceLoss(3))
    track(sequential, TripletLoss())
    track(sequential, "mse")
    inputs = keras.Input((6, 3))
    with pytest.raises(InvalidArgumentError, match=r"is \(None, 6, 3\), not \(None, dim\): call loss.build"):
        track(keras.Model(inputs, keras.layers.ReLU()(inputs)), ArcFaceLoss(3))
    with pytest.raises(InvalidArgumentError, match="made for embeddings of 7 numbers, and the model's have 2"):
        track(model_of(), ProxyAnchorLoss(3, embedding_size=7))
    unbuilt = ArcFaceLoss(3, embedding_size=4)
    with pytest.raises(InvalidArgumentError, match=r"call loss.build\(embedding_size\) and train"):
        unbuilt(*batch(0))
    unbuilt.build(4)
    with pytest.raises(InvalidArgumentError, match="made for embeddings of 4 numbers, and the model's have 3"):
        unbuilt([0], np.ones((1, 3)))


@pytest.mark.parametrize("cls", [ArcFaceLoss, ProxyAnchorLoss])
def test_a_class_that_there_is_not_is_no_number(cls: type) -> None:
    loss = cls(3, reduction="none")
    loss.build(2)
    assert [math.isnan(value) for value in value_of(loss, [0, 3, 2, -1], SQUARE)] == [False, True, False, True]
