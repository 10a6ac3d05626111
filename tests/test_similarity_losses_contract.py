"""What every loss keeps to: gradients, labels, reductions, saving, and the same in every way to run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from loss_cases import CASES, DIM, N_CLASSES, Case, arguments, batch, every, gradients, model_of, value_of, with_labels

from simstore.errors import InvalidArgumentError
from simstore.similarity import distances
from simstore.similarity.losses import (
    XBM,
    ArcFaceLoss,
    LiftedStructLoss,
    MultiNegativesRankLoss,
    MultiSimilarityLoss,
    PNLoss,
    SimCLRLoss,
    SimSiamLoss,
    SupConLoss,
    TripletLoss,
    track,
)
from simstore.similarity.losses.class_loss import ClassLoss

ODD = {
    "all of one class": (lambda y, x: (np.zeros_like(y), x)),
    "all of different classes": (lambda y, x: (np.arange(len(y)) % N_CLASSES if len(y) > N_CLASSES else np.arange(len(y)), x)),
    "identical embeddings": (lambda y, x: (y, np.ones_like(x))),
    "identical embeddings of one class": (lambda y, x: (np.zeros_like(y), np.ones_like(x))),
    "zeros": (lambda y, x: (y, np.zeros_like(x))),
    "two": (lambda y, x: (y[:2], x[:2])),
    "two of one class": (lambda y, x: (y[:1].repeat(2), x[:2])),
    "one": (lambda y, x: (y[:1], x[:1])),
    "opposite": (lambda y, x: (y, np.sign(x[:, :1]) * np.ones_like(x))),
    "long": (lambda y, x: (y, 1e4 * x)),
    "short": (lambda y, x: (y, 1e-3 * x)),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@every
def test_odd_batches_have_a_finite_gradient(case: Case, dtype: str, odd: str) -> None:
    labels, embeddings = ODD[odd](*batch(7, 5))
    embeddings = embeddings.astype(dtype)
    loss = case.make()
    value, found = gradients(loss, embeddings if case.has_views else labels, embeddings)
    assert np.isfinite(value) and (value >= 0 or case.cls is SimSiamLoss)
    if odd == "long" and dtype == "float16":
        return  # sums of its squares are beyond what a float16 gradient holds; the model's loss scale is for that
    assert all(np.isfinite(ops.convert_to_numpy(gradient)).all() for gradient in found)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@every
def test_an_embedding_that_is_no_number_has_a_loss_that_is_none(case: Case, bad: float) -> None:
    """Training with such is to be seen at once (keras.callbacks.TerminateOnNaN)."""
    labels, embeddings = batch(6, 5)
    embeddings[3, 1] = bad
    assert np.isnan(case.make()(embeddings if case.has_views else labels, embeddings))


@every
def test_it_reduces_as_keras_does(case: Case) -> None:
    given = arguments(case, 3)
    made = {how: case.make(reduction=how) for how in ("none", None, "sum", "sum_over_batch_size", "mean_with_sample_weight")}
    if getattr(made["none"], "layer", None):
        for loss in made.values():
            loss.layer.set_weights(made["none"].layer.get_weights())
            loss.is_training = False  # XBM would remember the examples
    each = value_of(made["none"], *given)
    assert each.tolist() == value_of(made[None], *given).tolist() and each.shape == (12,)
    weights = np.arange(12.0, dtype="float32")
    for how, weighted, plain in [
        ("sum", each @ weights, each.sum()),
        ("sum_over_batch_size", each @ weights / 12, each.mean()),
        ("mean_with_sample_weight", each @ weights / weights.sum(), each.mean()),
    ]:
        assert value_of(made[how], *given) == pytest.approx(plain, rel=1e-5)
        assert value_of(made[how], *given, sample_weight=weights) == pytest.approx(weighted, rel=1e-5)
        assert value_of(made[how], *given, sample_weight=weights[:, None]) == pytest.approx(weighted, rel=1e-5)


@with_labels
def test_labels_may_be_any_integers(case: Case) -> None:
    labels, embeddings = batch(4)
    loss = case.make()
    loss.is_training = False
    value = value_of(loss, labels, embeddings)
    for same in (labels[:, None], labels.tolist(), *(labels.astype(t) for t in ("int8", "uint8", "int32", "uint16", "int64"))):
        assert value_of(loss, same, embeddings) == value
    assert value_of(loss, ops.convert_to_tensor(labels[:, None]), ops.convert_to_tensor(embeddings)) == value
    if not isinstance(loss, ClassLoss):
        assert value_of(loss, 2**24 + labels, embeddings) == value  # in float32 some of these would be equal
        assert value_of(loss, labels - 7, embeddings) == value
        is_first = labels == labels[0]
        assert value_of(loss, is_first, embeddings) == value_of(loss, is_first.astype("int32"), embeddings)


@with_labels
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(12, dtype="int32"), r"not \(12, 12\): of one-hot labels take the argmax"),
        (np.zeros((12, 1, 1), "int32"), r"shape \[n\] or \[n, 1\], not \(12, 1, 1\)"),
        (np.int32(3), r"shape \[n\] or \[n, 1\], not \(\)"),
        (np.zeros(11, "int32"), "12 embeddings and 11 labels"),
        (np.zeros(12, "float32"), "labels are integers, not float32: convert"),
        (["a"] * 12, "labels are integers, not string: .*np.unique"),
        ([None] * 12, "labels are integers"),
    ],
    ids=lambda value: str(np.shape(value)) if not isinstance(value, str) else "",
)
def test_other_labels_are_refused(case: Case, labels: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        case.make()(labels, batch(4)[1])


@every
def test_other_embeddings_are_refused(case: Case) -> None:
    first, second = arguments(case, 3)
    with pytest.raises(InvalidArgumentError, match=r"of shape \[n, dim\], not \(12, 4, 1\)"):
        case.make()(first, second[:, :, None])
    if case.has_views:
        with pytest.raises(InvalidArgumentError, match=r"of one shape \[n, dim\], not \(12, 4\) and \(11, 4\)"):
            case.make()(first, second[1:])


@every
def test_it_is_rebuilt_from_its_config(case: Case) -> None:
    loss = case.make(reduction="sum", name="mine", dtype="float64")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is case.cls and again.get_config() == loss.get_config()
    assert (again.name, again.reduction, again.dtype) == ("mine", "sum", "float64")
    if not case.has_views:
        again.build(DIM)
        again.layer and again.layer.set_weights(loss.layer.get_weights())
    given = arguments(case, 6)
    assert value_of(again, *given) == value_of(loss, *given)


def test_names_and_precision() -> None:
    assert TripletLoss().name == "TripletLoss" and TripletLoss(name="t").name == "t"
    for dtype in ("float16", "bfloat16", "mixed_float16", keras.DTypePolicy("mixed_bfloat16"), None):
        assert TripletLoss(dtype=dtype).dtype == "float32"
    with pytest.raises(ValueError, match="reduction"):
        TripletLoss(reduction="average")


@keras.saving.register_keras_serializable("tests")
class HalfDistance(distances.Distance):
    name = "half"

    def call(self, query_embeddings: Any, key_embeddings: Any) -> Any:
        return distances.get("l2").call(query_embeddings, key_embeddings) / 2


def test_a_distance_of_ones_own_is_saved() -> None:
    for loss in (TripletLoss(HalfDistance()), MultiNegativesRankLoss(HalfDistance())):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
        assert isinstance(again.distance, HalfDistance)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TripletLoss("nearby"), "distance is one of 'cosine'.*not 'nearby'"),
        (lambda: TripletLoss(positive_mining_strategy="semi-hard"), "positive_mining_strategy is 'hard' or 'easy', not 'semi-hard'"),
        (lambda: PNLoss(negative_mining_strategy="soft"), "'hard', 'semi-hard' or 'easy', not 'soft'"),
        (lambda: LiftedStructLoss(positive_mining_strategy="x"), "positive_mining_strategy"),
        (lambda: MultiSimilarityLoss(beta=0), "beta is above 0, not 0"),
        (lambda: SupConLoss(temperature=-1.0), "temperature is above 0"),
        (lambda: SimCLRLoss(temperature=math.nan), "temperature is above 0"),
        (lambda: SimSiamLoss("cosine"), "projection_type is one of negative_cosine_sim"),
        (lambda: ArcFaceLoss(0), "num_classes is above 0"),
        (lambda: XBM(TripletLoss(), 0), "memory_size is above 0"),
        (lambda: XBM(ArcFaceLoss(3), 10), "XBM takes a loss of pairs"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()


# -- training


@with_labels
def test_eager_graph_and_compiled_training_are_equal(case: Case) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 16, 6)).astype("float32")
    y = random.integers(0, N_CLASSES, (2, 16))
    steps = {}
    for name, how in {"eager": {"run_eagerly": True}, "graph": {}, "jit": {"jit_compile": True}}.items():
        loss = case.make()
        if loss.layer is not None and loss.layer.trainable_weights:
            loss.layer.vectors.assign(np.random.default_rng(1).normal(size=(N_CLASSES, DIM)))
        model = model_of(loss, **how)
        before = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
        values = [float(model.train_on_batch(*both)) for both in zip(x, y, strict=True)]
        steps[name] = [values, *[ops.convert_to_numpy(weight) for weight in model.weights]]
        assert all((old != ops.convert_to_numpy(new)).any() for old, new in zip(before, model.trainable_weights, strict=True))
    for name in ("graph", "jit"):
        for got, want in zip(steps[name], steps["eager"], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


@every
def test_eager_graph_and_compiled_losses_are_equal(case: Case) -> None:
    first, second = arguments(case, 8)
    given = ops.cast(first, "float32" if case.has_views else "int32"), ops.cast(second, "float32")
    loss = case.make()
    if not case.has_views:
        loss.is_training = False
    value, found = gradients(loss, *given)
    for is_jit in (False, True):
        again, found_again = tf.function(gradients, jit_compile=is_jit)(loss, *given)
        np.testing.assert_allclose(again, value, rtol=1e-4, atol=1e-6)
        for one, other in zip(found, found_again, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if not case.has_views and not case.cls.has_weights], ids=str)
def test_it_is_saved_with_a_model(case: Case, tmp_path: Path) -> None:
    model = model_of(case.make())
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.loss) is case.cls and again.loss.get_config() == model.loss.get_config()
    x, y = np.random.default_rng(0).normal(size=(8, 6)), np.arange(8) % 3
    assert again.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))


@pytest.mark.parametrize("policy", ["float16", "mixed_float16"])
@with_labels
def test_it_trains_in_float16(case: Case, policy: str) -> None:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(DIM, dtype=policy)(inputs))
    loss = case.make()
    track(model, loss)
    model.compile(keras.optimizers.SGD(1e-3), loss, run_eagerly=True)
    x, y = np.random.default_rng(0).normal(size=(20, 6)), np.arange(20) % N_CLASSES
    history = [float(model.train_on_batch(x, y)) for _ in range(3)]
    assert np.isfinite(history).all()
    assert all(np.isfinite(ops.convert_to_numpy(weight)).all() for weight in model.weights)
