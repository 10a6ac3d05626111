"""Filters to measure: fields whose values choose a known share of the items, and what the right answers under them are."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import simstore
from bench.context import Context
from bench.datasets import Dataset
from bench.settings import K
from bench.stores import Payload
from bench.truth import Truth, cached_truth, true_distances
from simstore.where import Where

__all__ = ["Filter", "FilterTruth", "Filters"]

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

_FIELDS = ("r", "near")
_STEPS = 1_000  # values of r, each of as many items


@dataclass(frozen=True, slots=True)
class Filter:
    """A share of the items.

    Attributes:
        by: The field: "r" chooses at random, "near" what lies nearest to one item.
        percent: How large the share is.
        bound: The items below it are chosen.
        rows: Which they are, ascending.
    """

    by: str
    percent: float
    bound: int
    rows: Rows = field(repr=False)

    def where(self, *, is_indexed: bool = True, less: float = 0.0) -> Where:
        """The condition, on the field that has an index or on its twin without.

        Args:
            less: From 0 up to 1: makes another condition, which nothing has been remembered of, with the same items.
        """
        name = self.by if is_indexed else f"{self.by}_plain"
        bound: float = self.bound - less if less else self.bound
        return simstore.field(name) < bound

    def between(self, lowest: int) -> Where:
        """As many items of the indexed field, but by two bounds."""
        indexed = simstore.field(self.by)
        return (indexed >= lowest) & (indexed < lowest + self.bound)


class FilterTruth:
    """The exact neighbours among the items of a filter.

    Args:
        context: The run.
        chosen: The filter.
        queries: Whose neighbours, float32 [n_queries, dim].
    """

    def __init__(self, context: Context, chosen: Filter, queries: Vectors) -> None:
        base = context.dataset
        part = Dataset(base.name, base.metric, base.base[chosen.rows], queries)
        self._rows = chosen.rows
        self._truth = cached_truth(part, context.cache, min(K, len(chosen.rows)))

    def recall(self, found: Rows) -> float:
        """The share of the neighbours of the first len(found) queries that was found; int64 [n, k], keys of the whole store."""
        at = np.minimum(np.searchsorted(self._rows, found), len(self._rows) - 1)
        local = np.where(self._rows[at] == found, at, -1)
        n, truth = len(found), self._truth
        return Truth(truth.dataset, truth.rows[:n], truth.distances[:n]).recall(local)


class Filters:
    """The fields of a run's items, the store that has them, and the filters on them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._dataset = context.dataset

    @cached_property
    def anchor(self) -> Vectors:
        """The item that "near" tells the distance to, as a rank; float32 [dim]."""
        rng = np.random.default_rng(self._context.settings.seed + 20)
        anchor: Vectors = self._dataset.base[int(rng.integers(len(self._dataset.base)))]
        return anchor

    @cached_property
    def _values(self) -> dict[str, Rows]:
        n = len(self._dataset.base)
        drawn = np.random.default_rng(self._context.settings.seed + 21).permutation(n)
        order = np.argsort(true_distances(self._dataset, self.anchor, np.arange(n)), kind="stable")
        ranks = np.empty(n, np.int64)
        ranks[order] = np.arange(n)
        return {"r": drawn * _STEPS // n, "near": ranks}

    @cached_property
    def store_path(self) -> Path:
        """The closed store: each item carries both fields twice, once for an index and once for none."""
        columns = {name: values.tolist() for name, values in self._values.items()}

        def data(row: int) -> dict[str, int]:
            return {f"{name}{kind}": column[row] for name, column in columns.items() for kind in ("", "_plain")}

        return self._context.store_of(self._dataset, Payload("filtered", data, _FIELDS))

    def of(self, by: str, percent: float) -> Filter:
        """The filter on a field that chooses a share of the items, one at least."""
        values = self._values[by]
        whole = _STEPS if by == "r" else len(values)
        bound = max(1, round(whole * percent / 100))
        return Filter(by, percent, bound, np.flatnonzero(values < bound))

    def queries_far_away(self) -> Vectors:
        """The quarter of the queries that is farthest from the anchor."""
        queries = self._dataset.queries
        around = Dataset(self._dataset.name, self._dataset.metric, queries, queries)
        far = np.argsort(true_distances(around, self.anchor, np.arange(len(queries))))[-max(1, len(queries) // 4) :]
        return np.ascontiguousarray(queries[np.sort(far)])
