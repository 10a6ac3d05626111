"""What the right answer is: an exact scan in float64, and how much of it was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.datasets import Dataset
from bench.progress import progress
from bench.settings import RECALL, K

__all__ = ["Truth", "cached_truth", "exact_truth", "smallest_ef", "true_distances"]

Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]

_BLOCK = 20_000
_SLACK = 1e-9
_MAX_EF = 4_096


@dataclass(frozen=True, slots=True)
class Truth:
    """The k nearest of each query: rows int64 [n_queries, k] and distances float64 [n_queries, k], ascending."""

    dataset: Dataset = field(repr=False)
    rows: Rows = field(repr=False)
    distances: Doubles = field(repr=False)

    def recall(self, found: Sequence[Sequence[int]] | Rows) -> float:
        """The share of the k nearest that was found. What is as near as the k-th counts: ties have no order."""
        hits = 0
        for query, rows in enumerate(found):
            distinct = np.unique([row for row in rows if row >= 0]).astype(np.int64)
            distances = true_distances(self.dataset, self.dataset.queries[query], distinct)
            hits += int(np.count_nonzero(distances <= self.distances[query, -1] * (1 + _SLACK)))
        return hits / self.rows.size


def exact_truth(dataset: Dataset, k: int = K) -> Truth:
    """Scans everything, in float64."""
    queries = _prepared(dataset, dataset.queries)
    rows = np.empty((len(queries), 0), np.int64)
    distances = np.empty((len(queries), 0), np.float64)
    with progress(f"exact neighbours in {dataset.name}", len(dataset.base)) as step:
        for start in range(0, len(dataset.base), _BLOCK):
            block = _prepared(dataset, dataset.base[start : start + _BLOCK])
            distances = np.hstack([distances, _order_of(queries, block, dataset.metric)])
            rows = np.hstack([rows, np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))])
            nearest = np.argpartition(distances, min(k, distances.shape[1]) - 1, axis=1)[:, :k]
            rows, distances = np.take_along_axis(rows, nearest, 1), np.take_along_axis(distances, nearest, 1)
            step(start + len(block))
    rows = np.take_along_axis(rows, np.argsort(distances, axis=1, kind="stable"), 1)
    return Truth(dataset, rows, _distances_to(dataset, rows))


def cached_truth(dataset: Dataset, cache: Path, k: int = K) -> Truth:
    """The exact scan, or what an earlier run found."""
    path = cache / f"truth-{dataset.fingerprint}-{k}.npy"
    if path.is_file():
        rows = np.load(path)
        return Truth(dataset, rows, _distances_to(dataset, rows))
    truth = exact_truth(dataset, k)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, truth.rows)
    return truth


def true_distances(dataset: Dataset, query: NDArray[np.float32], rows: Rows) -> Doubles:
    """The true distances, as simstore defines them, of one query to these rows; float64 [len(rows)]."""
    wanted, vectors = _prepared(dataset, query[None]), _prepared(dataset, dataset.base[rows])
    if dataset.metric == "l2":
        squares: Doubles = ((vectors - wanted) ** 2).sum(1)
        return np.sqrt(squares)
    products: Doubles = vectors @ wanted[0]
    return 1.0 - products


def smallest_ef(recall_at: Callable[[int], float], *, target: float = RECALL, lowest: int = K) -> int:
    """The smallest ef whose recall reaches the target, by bisection; the largest tried where none does."""
    low, high = lowest, lowest
    while recall_at(high) < target:
        if high >= _MAX_EF:
            return _MAX_EF
        low, high = high + 1, min(high * 2, _MAX_EF)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if recall_at(middle) >= target else (middle + 1, high)
    return high


def _distances_to(dataset: Dataset, rows: Rows) -> Doubles:
    return np.array([true_distances(dataset, query, near) for query, near in zip(dataset.queries, rows, strict=True)])


def _prepared(dataset: Dataset, vectors: NDArray[np.float32]) -> Doubles:
    doubles = vectors.astype(np.float64)
    return doubles / np.linalg.norm(doubles, axis=1, keepdims=True) if dataset.metric == "cosine" else doubles


def _order_of(queries: Doubles, vectors: Doubles, metric: str) -> Doubles:
    """What sorts like the distance and is one matrix product; [n_queries, n_vectors]."""
    products = queries @ vectors.T
    return (vectors**2).sum(1) - 2.0 * products if metric == "l2" else -products
