"""What the right answer of a search is: float64, one vector at a time. Independent of simstore."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Vectors = Mapping[Any, ArrayLike]


def distance(query: ArrayLike, vector: ArrayLike, metric: str) -> float:
    q, v = np.asarray(query, np.float64), np.asarray(vector, np.float64)
    if metric == "l2":
        return float(np.sqrt(sum((a - b) ** 2 for a, b in zip(q, v, strict=True))))
    inner = float(sum(a * b for a, b in zip(q, v, strict=True)))
    if metric == "cosine":
        inner /= float(np.sqrt(sum(a * a for a in q)) * np.sqrt(sum(b * b for b in v)))
    return 1.0 - inner


def tolerance(query: ArrayLike, vector: ArrayLike, metric: str) -> float:
    """What float32 arithmetic may be off by."""
    sizes = np.linalg.norm(np.asarray(query, np.float64)), np.linalg.norm(np.asarray(vector, np.float64))
    return 4e-6 * float({"l2": sum(sizes), "ip": 1 + sizes[0] * sizes[1], "cosine": 1}[metric])


def assert_nearest(
    keys: Iterable[Any],
    distances: Iterable[float],
    query: ArrayLike,
    vectors: Vectors,
    metric: str,
    k: int | None,
    max_distance: float | None = None,
) -> None:
    """The answer holds k nearest of vectors, ascending, with true distances; of equally near ones it may hold any."""
    keys, given = list(keys), [float(distance) for distance in distances]
    true = {key: distance(query, vector, metric) for key, vector in vectors.items()}
    slack = {key: tolerance(query, vector, metric) for key, vector in vectors.items()}
    assert len(set(map(repr, keys))) == len(keys) == len(given), f"an answer twice: {keys}"
    assert set(keys) <= set(vectors), f"not in the store: {set(keys) - set(vectors)}"
    assert given == sorted(given)
    for key, one in zip(keys, given, strict=True):
        assert abs(one - true[key]) <= slack[key], f"{key!r}: {one}, but it is {true[key]} away"
    if max_distance is not None:
        assert all(one <= np.float32(max_distance) for one in given)
        surely = {key for key in vectors if true[key] < max_distance - slack[key]}
        perhaps = {key for key in vectors if true[key] <= max_distance + slack[key]}
    else:
        surely = perhaps = set(vectors)
    least, most = len(surely), len(perhaps)
    if k is not None:
        least, most = min(k, least), min(k, most)
    assert least <= len(keys) <= most, f"{len(keys)} answers, where there should be {least} to {most}"
    assert set(keys) <= perhaps
    if len(keys) < len(surely):
        farthest = max((true[key] - slack[key] for key in keys), default=-np.inf)
        missing = min(surely - set(keys), key=lambda key: true[key] + slack[key])
        assert true[missing] + slack[missing] >= farthest, f"{missing!r} is {true[missing]} away and missing"
    else:
        assert surely <= set(keys)
