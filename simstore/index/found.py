"""The k nearest so far: what segments and the tail add to, one after the other."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Found"]


class Found:
    """Raw distances and rows, sorted by (distance, row).

    Attributes:
        distances: float32 [n_queries, k]
        rows: uint64 [n_queries, k]
        counts: int32 [n_queries], how many of the k are filled
    """

    __slots__ = ("counts", "distances", "k", "rows")

    def __init__(self, n_queries: int, k: int) -> None:
        self.k = k
        self.distances: NDArray[np.float32] = np.empty((n_queries, k), np.float32)
        self.rows: NDArray[np.uint64] = np.empty((n_queries, k), np.uint64)
        self.counts: NDArray[np.int32] = np.zeros(n_queries, np.int32)

    def copy(self) -> "Found":
        """The same, apart."""
        other = Found(0, self.k)
        other.distances, other.rows, other.counts = self.distances.copy(), self.rows.copy(), self.counts.copy()
        return other

    def become(self, other: "Found") -> None:
        """Takes over another's content, in place."""
        self.distances[:], self.rows[:], self.counts[:] = other.distances, other.rows, other.counts
