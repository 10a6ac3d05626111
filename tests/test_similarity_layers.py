"""MetricEmbedding, generalized mean pooling, the logging layer, and the schedule."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity.layers import (
    ActivationStdLoggingLayer,
    GeneralizedMeanPooling1D,
    GeneralizedMeanPooling2D,
    MetricEmbedding,
)
from simstore.similarity.schedules import WarmupCosineDecay


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def saved(layers: Any, shape: tuple[int, ...], path: Path) -> Any:
    """A model of layers, and the same from its file."""
    inputs = outputs = keras.Input(shape)
    for layer in layers:
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    model.save(path / "m.keras")
    return model, keras.saving.load_model(path / "m.keras")


# -- MetricEmbedding


def test_embeddings_have_length_one() -> None:
    layer, x = MetricEmbedding(3), numbers(5, 4)
    got = ops.convert_to_numpy(layer(x)).astype("float64")
    dense = x.astype("float64") @ ops.convert_to_numpy(layer.kernel) + ops.convert_to_numpy(layer.bias)
    for row, want in zip(got, dense, strict=True):
        assert row.tolist() == pytest.approx((want / math.sqrt(sum(v * v for v in want))).tolist(), rel=1e-4)
    assert ops.convert_to_numpy(MetricEmbedding(3)(numbers(2, 7, 4))).shape == (2, 7, 3)
    np.testing.assert_allclose(np.square(layer(numbers(2, 7, 4))).sum(-1), 1, rtol=1e-5)  # along the last axis
    assert not np.any(MetricEmbedding(3, use_bias=False)(np.zeros((2, 4))))


def test_large_outputs_in_half_precision_have_length_one() -> None:
    for policy in ("float16", "mixed_float16"):
        layer = MetricEmbedding(3, kernel_initializer="ones", dtype=policy)
        got = layer(np.full((2, 4), 300.0))  # outputs of 1200, whose squares are beyond 65504
        assert got.dtype == "float16"
        np.testing.assert_allclose(got, 1 / math.sqrt(3), rtol=1e-3)


def test_an_embedding_of_no_number_is_none() -> None:
    outputs = ops.convert_to_numpy(MetricEmbedding(2)(np.array([[np.nan, 1.0], [3.0, 4.0]], np.float32)))
    assert np.isnan(outputs[0]).all() and np.isfinite(outputs[1]).all()


def test_embeddings_are_saved(tmp_path: Path) -> None:
    model, again = saved([MetricEmbedding(3, activation="relu", name="e")], (4,), tmp_path)
    assert type(again.get_layer("e")) is MetricEmbedding and again.output_shape == (None, 3)
    np.testing.assert_array_equal(model(numbers(5, 4)), again(numbers(5, 4)))


# -- generalized mean pooling


def naive_mean(values: list[float], p: float) -> float:
    low = min(values)
    shifted = [v - low + 1 for v in values]
    if math.isinf(p):
        return max(values) if p > 0 else low
    if p == 0:
        return math.exp(sum(math.log(v) for v in shifted) / len(shifted)) + low - 1
    return (sum(v**p for v in shifted) / len(shifted)) ** (1 / p) + low - 1


@pytest.mark.parametrize("p", [3.0, 1.0, 0.5, 0.0, -2.0, 12.0, math.inf, -math.inf])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pooling_agrees_with_a_loop(p: float, keepdims: bool, data_format: str) -> None:
    for cls, spatial in ((GeneralizedMeanPooling1D, (6,)), (GeneralizedMeanPooling2D, (3, 2))):
        x = numbers(2, *spatial, 5)
        want = np.array([[naive_mean([float(v) for v in image[..., c].ravel()], p) for c in range(5)] for image in x])
        layer = cls(p, data_format, keepdims)
        given = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
        got = ops.convert_to_numpy(layer(given))
        ones = [1] * len(spatial) if keepdims else []
        shape = (2, *ones, 5) if data_format == "channels_last" else (2, 5, *ones)
        assert got.shape == shape == layer.compute_output_shape(given.shape)
        np.testing.assert_allclose(got.reshape(2, 5), want, rtol=1e-4, atol=1e-5)


def test_pooling_by_hand() -> None:
    x = np.array([[[1.0], [2.0], [4.0]]])  # of 1 to 4 already: no shift
    assert float(GeneralizedMeanPooling1D(2.0)(x)[0][0]) == pytest.approx(math.sqrt(21 / 3))
    assert float(GeneralizedMeanPooling1D(0.0)(x)[0][0]) == pytest.approx(2.0)
    assert float(GeneralizedMeanPooling1D(-1.0)(x)[0][0]) == pytest.approx(3 / (1 + 1 / 2 + 1 / 4))
    assert float(GeneralizedMeanPooling1D(100.0)(1e3 * x)[0][0]) == pytest.approx(3957, rel=1e-2)  # 3000^100 is no float32


def test_a_power_is_learned(tmp_path: Path) -> None:
    x = numbers(64, 8, 3)
    y = x.max(axis=1)
    model, _ = saved([GeneralizedMeanPooling1D(2.0, trainable_p=True)], (8, 3), tmp_path)
    fixed = ops.convert_to_numpy(GeneralizedMeanPooling1D(2.0)(x))
    np.testing.assert_allclose(model(x), fixed, rtol=1e-6)
    model.compile(keras.optimizers.Adam(0.2), "mse")
    losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
    (power,) = model.get_weights()
    assert power > 3 and losses[-1] < losses[0] / 2  # towards the maximum
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.get_weights() == [power] and again.layers[1].p == 2.0
    assert not GeneralizedMeanPooling1D(2.0).trainable_weights


def test_a_learned_power_may_cross_zero() -> None:
    import tensorflow as tf

    layer, x = GeneralizedMeanPooling1D(1.0, trainable_p=True), numbers(2, 8, 3)
    layer(x)
    for value in (-1.0, -1e-9, 0.0, 1e-9, 1e-4, 50.0):
        layer.power.assign(value)
        with tf.GradientTape() as tape:
            got = layer(x)
        assert np.isfinite(got).all() and np.isfinite(tape.gradient(got, layer.power.value))
    layer.power.assign(0.0)
    np.testing.assert_allclose(layer(x), GeneralizedMeanPooling1D(0.0)(x), atol=1e-2)


def test_pooling_in_half_precision() -> None:
    x = 100 * numbers(2, 4, 4, 3)
    got = GeneralizedMeanPooling2D(3.0, dtype="float16")(x.astype("float16"))
    assert got.dtype == "float16"
    np.testing.assert_allclose(got, GeneralizedMeanPooling2D(3.0)(x), rtol=1e-2)


@pytest.mark.parametrize("p", [3.0, 0.0, math.inf])
def test_pooling_is_saved(p: float, tmp_path: Path) -> None:
    layer = GeneralizedMeanPooling2D(p, "channels_last", True, name="gem")
    model, again = saved([layer], (4, 4, 3), tmp_path)
    assert again.get_layer("gem").get_config() == layer.get_config()
    np.testing.assert_array_equal(model(numbers(2, 4, 4, 3)), again(numbers(2, 4, 4, 3)))


def test_wrong_arguments_of_pooling_are_refused() -> None:
    for p in (math.inf, 0.0, math.nan):
        with pytest.raises(InvalidArgumentError, match="p is a number, and finite and not 0 to be trained"):
            GeneralizedMeanPooling1D(p, trainable_p=True)
    with pytest.raises(InvalidArgumentError, match="'channels_last' or 'channels_first', not 'last'"):
        GeneralizedMeanPooling1D(data_format="last")
    with pytest.raises(ValueError, match="expected ndim=4"):
        GeneralizedMeanPooling2D()(numbers(2, 3, 4))


# -- the logging layer


def test_the_spread_of_activations_is_logged(tmp_path: Path) -> None:
    layers = [ActivationStdLoggingLayer("spread"), MetricEmbedding(2)]
    model, again = saved(layers, (3,), tmp_path)
    for one in (model, again):
        x = numbers(8, 3)
        unit = x / np.sqrt((x**2).sum(axis=1, keepdims=True))
        want = np.mean([np.std(unit[i : i + 4], axis=0).mean() for i in (0, 4)])  # of two batches
        one.compile("sgd", "mse")
        logs = one.fit(x, np.zeros((8, 2)), batch_size=4, epochs=2, shuffle=False, verbose=0).history
        assert logs["spread"] == pytest.approx([want, want], rel=1e-5)
        assert one.evaluate(x, np.zeros((8, 2)), batch_size=4, verbose=0, return_dict=True)["spread"] == pytest.approx(
            want, rel=1e-5
        )
    np.testing.assert_array_equal(ActivationStdLoggingLayer("s")(x), x)
    assert again.get_layer("spread").get_config() == layers[0].get_config()


# -- the schedule


def naive_rate(step: int, top: float, total: int, warmup: int, alpha: float) -> float:
    if step < warmup:
        return top * step / warmup
    over = (min(step, total) - warmup) / (total - warmup)
    return top * (alpha + (1 - alpha) * (1 + math.cos(math.pi * over)) / 2)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [0, 1, 500])
def test_rates(alpha: float, warmup: int) -> None:
    schedule = WarmupCosineDecay(2.0, 1000, warmup, alpha)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == schedule.get_config()
    for step in (0, 1, 250, 499, 500, 750, 999, 1000, 1500):
        want = naive_rate(step, 2.0, 1000, warmup, alpha)
        assert float(schedule(step)) == pytest.approx(want, rel=1e-5, abs=1e-6) == float(again(ops.convert_to_tensor(step)))


def test_rates_by_hand() -> None:
    schedule = WarmupCosineDecay(max_learning_rate=1.0, total_steps=300, warmup_steps=100, alpha=0.5)
    assert [float(schedule(step)) for step in (0, 50, 100, 200, 300)] == pytest.approx([0, 0.5, 1, 0.75, 0.5])


def test_an_optimizer_follows_the_schedule(tmp_path: Path) -> None:
    model, _ = saved([keras.layers.Dense(1)], (2,), tmp_path)
    model.compile(keras.optimizers.SGD(WarmupCosineDecay(1.0, 4, 2)), "mse")
    rates = []
    for _ in range(4):
        rates.append(float(model.optimizer.learning_rate))
        model.train_on_batch(np.zeros((1, 2)), np.zeros((1, 1)))
    assert rates == pytest.approx([0, 0.5, 1, 0.5])
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert float(again.optimizer.learning_rate) == pytest.approx(0)


@pytest.mark.parametrize("warmup", [-1, 4, 5])
def test_a_warm_up_as_long_as_the_whole_is_refused(warmup: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"from 0 to below total_steps, 4, not {warmup}"):
        WarmupCosineDecay(1.0, 4, warmup)
