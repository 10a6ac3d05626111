"""Distances beside loops, what they are of degenerate vectors, and by which names they go."""

import itertools
import json
from typing import Any

import keras
import naive_losses as naive
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity import distances
from simstore.similarity.distances import DISTANCES, Distance, pairwise_distances

every = pytest.mark.parametrize("distance", DISTANCES, ids=str)


def embeddings(seed: int, n: int, scale: float = 1.0, dim: int = 5) -> Any:
    return np.random.default_rng(seed).normal(size=(n, dim)) * scale


@every
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_it_agrees_with_a_loop(distance: Distance, scale: float) -> None:
    queries, keys = embeddings(0, 6, scale), embeddings(1, 9, scale)
    want = [[naive.distance(distance.name, q, k) for k in keys] for q in queries]
    np.testing.assert_allclose(pairwise_distances(distance, queries, keys), want, rtol=1e-9, atol=1e-9 * scale)
    assert ops.shape(distance(queries)) == (6, 6)
    rtol = 1e-3 if scale == 1e3 else 1e-4
    np.testing.assert_allclose(pairwise_distances(distance, *(x.astype("float32") for x in (queries, keys))), want, rtol=rtol, atol=1e-5 * scale)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "first", "second", "by_hand"),
    [
        ("cosine", (3, 4), (8, 6), 1 - 48 / 50),
        ("cosine", (1, 0), (-2, 0), 2),
        ("l2", (0, 0), (3, 4), 5),
        ("sql2", (1, 1), (4, 5), 25),
        ("l1", (1, 1), (4, -3), 7),
        ("ip", (1, 2), (3, 4), 1 - 11),
        ("snr", (1, 3), (2, 6), 1),  # of variances 1: the noise is (1, 3), too
    ],
)
def test_by_hand(name: str, first: Any, second: Any, by_hand: float) -> None:
    got = pairwise_distances(distances.get(name), [first], [second])
    assert float(got[0][0]) == pytest.approx(by_hand)


def test_a_similarity_is_turned_round_in_one_place() -> None:
    product = distances.get("inner_product")
    assert product.larger_is_closer and float(product([[1.0, 2.0]], [[3.0, 4.0]])[0][0]) == 11.0
    assert [d.name for d in DISTANCES if d.larger_is_closer] == ["inner_product"]


@every
def test_degenerate_vectors_have_numbers_and_gradients(distance: Distance) -> None:
    zero, constant, vector = np.zeros(5), np.ones(5), embeddings(0, 1)[0]
    for first, second in itertools.product((zero, constant, vector, 1e-7 * vector), repeat=2):
        queries, keys = (tf.constant(x[None], "float32") for x in (first, second))
        with tf.GradientTape() as tape:
            tape.watch([queries, keys])
            value = pairwise_distances(distance, queries, keys)
        found = tape.gradient(value, [queries, keys])
        assert np.isfinite(value).all() and all(np.isfinite(gradient).all() for gradient in found)
    assert float(distances.get("cosine")([zero], [vector])[0][0]) == 1.0
    assert float(distances.get("snr")([constant], [vector])[0][0]) == 0.0
    assert float(distances.get("l2")([vector], [vector])[0][0]) == pytest.approx(0, abs=1e-7)


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_does_not_overflow(distance: Distance, dtype: str) -> None:
    half = ops.cast(embeddings(0, 4, 300.0), dtype)  # of squares beyond 65504
    got = pairwise_distances(distance, half, half)
    assert got.dtype == "float32"
    np.testing.assert_allclose(got, pairwise_distances(distance, *[ops.cast(half, "float32")] * 2), rtol=1e-6)
    assert np.isfinite(got).all()


def test_every_name_and_alias_is_known() -> None:
    for distance in DISTANCES:
        for name in (distance.name, *distance.aliases, type(distance).__name__, distance.name.upper() + " "):
            assert distances.get(name) is distance
        assert distances.get(distance) is distance and distances.distance_canonicalizer(distance.name) is distance
        assert str(distance) == distance.name and repr(distance) == f"{type(distance).__name__}()"
        assert distance == type(distance)() and hash(distance) == hash(type(distance)())
    assert len(set(DISTANCES)) == 6 and distances.get("cosine") != "cosine"


@pytest.mark.parametrize("unknown", ["nearness", "", None, 3, ["cosine"]])
def test_an_unnamed_distance_is_refused(unknown: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"distance is one of 'cosine', 'euclidean'.*or a Distance object"):
        distances.get(unknown)


@every
def test_it_is_saved(distance: Distance) -> None:
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(distance)) == distance
    assert distances.get(json.loads(json.dumps(distances.to_config(distance)))) == distance


@every
def test_the_stores_distances_are_shown_as_ours(distance: Distance) -> None:
    if distance.metric is None:
        assert distance.name in ("manhattan", "snr")
        return
    queries, keys = embeddings(0, 3), embeddings(1, 4)
    name = {"l2": "euclidean", "ip": "inner_product", "cosine": "cosine"}[distance.metric]
    of_store = np.array([[naive.distance(name, q, k) for k in keys] for q in queries], "float32")
    np.testing.assert_allclose(distance.of_metric(of_store), pairwise_distances(distance, queries, keys), rtol=1e-5)
    shown = float(distance.of_metric(of_store)[0, 0])
    assert distance.to_metric(shown) == pytest.approx(of_store[0, 0])


def test_unit_vectors() -> None:
    got = ops.convert_to_numpy(distances.unit(np.array([[3.0, 4.0], [0.0, 0.0], [1e-5, 0.0]], "float32")))
    assert got.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [pytest.approx(1), 0]]
