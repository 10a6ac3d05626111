"""Exact distances to vectors in memory, and vectors as they are compared."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidVectorError
from simstore.index import _kernel
from simstore.index._kernel import Found
from simstore.metrics import Metric

__all__ = ["Coarse", "coarse_dims", "distances_to", "prepared", "prepared_queries", "scan"]

_COARSE_FROM_DIM, _COARSE_FROM_ROWS = 96, 128

_WHY = {
    _kernel.NOT_FINITE: "holds NaN or infinity (or a number beyond float32): every number must be finite",
    _kernel.TOO_LARGE: "is longer than 1e18, so that float32 distances overflow: scale your vectors down",
    _kernel.ZERO: "is all zeros, which has no direction and so no cosine distance: leave it out, or use metric='l2'",
}


def prepared(vectors: NDArray[np.float32], metric: Metric, what: str = "vector") -> NDArray[np.float32]:
    """Vectors [n, dim] as they are compared: of unit length for cosine.

    Raises:
        InvalidVectorError: One of them cannot be; names the first.
    """
    out = np.empty_like(vectors)
    _prepare(vectors, metric, what, out)
    return out


def prepared_queries(queries: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Queries [n, dim] as they are compared; the very array where nothing is to be changed. Errors as in prepared."""
    out = np.empty_like(queries) if metric.normalises else None
    _prepare(queries, metric, "query", out)
    return queries if out is None else out


def _prepare(vectors: NDArray[np.float32], metric: Metric, what: str, out: NDArray[np.float32] | None) -> None:
    why, at = _kernel.prepare(vectors, metric.normalises, out)
    if why:
        raise InvalidVectorError(f"{what} {at} {_WHY[why]}" if len(vectors) > 1 else f"the {what} {_WHY[why]}")


class Coarse(NamedTuple):
    """The dimensions in which vectors differ most; most vectors are too far by these alone.

    Attributes:
        dims: int [m], which they are.
        vectors: float32 [n, m]
    """

    dims: NDArray[np.intp]
    vectors: NDArray[np.float32]


def coarse_dims(vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.intp] | None:
    """The dimensions that serve as coarse ones of vectors like these; None if comparing whole vectors costs no more."""
    dim = vectors.shape[1]
    if metric.is_ip or dim < _COARSE_FROM_DIM:
        return None
    sound = vectors[~np.isnan(vectors[:, 0])]
    if len(sound) < _COARSE_FROM_ROWS:
        return None
    m = max(32, dim // 96 * 16)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sort(np.argpartition(-sound.var(axis=0), m)[:m])


def scan(
    vectors: NDArray[np.float32],
    first_row: int,
    queries: NDArray[np.float32],
    metric: Metric,
    allowed: NDArray[np.uint64] | None,
    found: Found,
    coarse: Coarse | None = None,
) -> None:
    """Adds the exact nearest of each query among vectors [n, dim] in rows first_row, … to found."""
    if coarse is None:
        _kernel.scan_rows(vectors, first_row, queries, metric.is_ip, allowed, found)
    else:
        coarse_queries = np.ascontiguousarray(queries[:, coarse.dims])
        _kernel.scan_rows(
            vectors, first_row, queries, metric.is_ip, allowed, found, coarse=coarse.vectors, coarse_queries=coarse_queries
        )
    found.n_parts += 1


def distances_to(vectors: NDArray[np.float32], query: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """The raw distance from query [dim] to each of vectors [n, dim]."""
    out = np.empty(len(vectors), np.float32)
    _kernel.row_distances(vectors, query, metric.is_ip, out)
    return out
