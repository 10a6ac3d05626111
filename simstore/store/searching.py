"""Searching: one query, or many."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simstore.errors import DimensionError, InvalidArgumentError
from simstore.index import prepared_queries
from simstore.metrics import METRICS
from simstore.reports import Plan, RecallEstimate
from simstore.storage import MovedError, Schema
from simstore.store import arguments
from simstore.store.base import StoreBase
from simstore.store.core import Core
from simstore.store.request import OutdatedError, request_of
from simstore.store.searcher import thread_count
from simstore.types import BatchHits, Hits, Progress
from simstore.where import Where

__all__ = ["Searching"]

T = TypeVar("T")
Vectors = NDArray[np.float32]


class Searching(StoreBase):
    """Everything that finds neighbours."""

    def search(
        self,
        query: Any = None,
        k: int | None = 10,
        *,
        input: Any = None,
        where: Where | dict[str, Any] | None = None,
        ef: int | None = None,
        recall: float | None = None,
        exact: bool = False,
        max_distance: float | None = None,
        with_vectors: bool = False,
    ) -> Hits:
        """The items nearest to a query.

        Args:
            query: Numbers [dim].
            k: How many; fewer come back when there are fewer. None: everything within max_distance.
            input: In place of query: an input for the store's embedder.
            where: Only items that match, as in ``field("year") >= 2020``; or as a dict, ``{"year": {"$gte": 2020}}``.
            ef: How many candidates the search keeps; more find better, and take longer. By default 128, with a filter 160.
            recall: In place of ef: the share of the true neighbours that is to be found. The store measures itself the first
                time (seconds), and again when its graphs have changed; 1 compares with every item.
            exact: Compare with every item.
            max_distance: Leave out what is farther.
            with_vectors: Give the hits their vectors.

        Returns:
            Hits, nearest first.

        Raises:
            InvalidArgumentError, InvalidVectorError, DimensionError, InvalidFilterError: The query or an argument is wrong.
        """
        request = request_of(k, ef, recall, exact, max_distance, with_vectors, where)
        if isinstance(query, (np.ndarray, list, tuple)) and input is None and request.recall is None:
            try:
                schema = self._schema()
                ready = prepared_queries(arguments.vector_of(query, schema.dim), METRICS[schema.metric])
                return self._cores.current.searcher.search(ready, request, schema)
            except (MovedError, OutdatedError, DimensionError):
                pass  # what was known of the store is outdated, or the query is wrong; what follows takes microseconds more
        return self._answered(
            self._query(query, input),
            lambda core, ready, schema: core.searcher.search(ready, core.searcher.with_ef(request), schema),
        )

    def explain(
        self,
        query: Any = None,
        k: int = 10,
        *,
        input: Any = None,
        where: Where | dict[str, Any] | None = None,
        ef: int | None = None,
        recall: float | None = None,
        exact: bool = False,
    ) -> Plan:
        """How a search is done, by doing it: what the filter lets through, which path each part takes, what it costs.

        Arguments and errors as in search. ``print(store.explain(query, where=…))`` shows it.
        """
        request = request_of(k, ef, recall, exact, None, False, where)
        return self._answered(
            self._query(query, input),
            lambda core, ready, schema: core.searcher.explain(ready, core.searcher.with_ef(request), schema),
        )

    def search_many(
        self,
        queries: Any = None,
        k: int | None = 10,
        *,
        inputs: Any = None,
        where: Where | dict[str, Any] | None = None,
        ef: int | None = None,
        recall: float | None = None,
        exact: bool = False,
        max_distance: float | None = None,
        with_vectors: bool = False,
        threads: int | None = None,
    ) -> BatchHits:
        """The items nearest to each of many queries, all of one state. Arguments as in search, with queries [n, dim].

        Args:
            threads: How many to use; by default one for each CPU.

        Returns:
            BatchHits: ``.keys``, ``.distances`` and ``.labels`` [n, k]; ``[i]`` is the i-th query's Hits.
        """
        request = request_of(k, ef, recall, exact, max_distance, with_vectors, where)
        arguments.check_positive("threads", threads)
        if (queries is None) == (inputs is None):
            raise InvalidArgumentError("give queries, or inputs for the store's embedder: one of them, not both")
        given = None if inputs is None else arguments.sized("inputs", inputs)
        listed = list(queries) if isinstance(queries, Iterator) else queries

        def vectors(schema: Schema) -> Vectors:
            if given is None:
                return arguments.vectors_of(listed, schema.dim, what="queries")
            return arguments.embedded(self._embedded(schema, given), len(given), schema.dim)

        def search(core: Core, ready: Vectors, schema: Schema) -> BatchHits:
            n_threads = thread_count(threads, len(ready))
            return core.searcher.search_many(ready, core.searcher.with_ef(request), schema, n_threads)

        return self._answered(vectors, search)

    def measure_recall(
        self,
        k: int = 10,
        sample: int = 200,
        *,
        ef: int | None = None,
        recall: float | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> RecallEstimate:
        """How many of the true k nearest a search finds, measured against the exact scan.

        Items of the store serve as queries, each as if it were not there itself.

        Args:
            sample: How many.
            ef, recall: As in search.
            seed: Of the draw.
            progress: Called as progress(stage, done, total) now and then.

        Returns:
            RecallEstimate(recall, low, high, k, ef, n_queries), with the 95 % confidence interval.
        """
        request = request_of(k, ef, recall, False, None, False, None)
        arguments.check_positive("sample", sample)
        return self._run(
            lambda core: core.searcher.measure_recall(core.searcher.with_ef(request), sample, seed, progress),
        )

    def _query(self, query: Any, input: Any) -> Callable[[Schema], Vectors]:
        """What makes the query [1, dim] for a schema."""
        if (query is None) == (input is None):
            raise InvalidArgumentError("give a query, or an input for the store's embedder: one of them, not both")
        listed = list(query) if isinstance(query, Iterator) else query

        def vector(schema: Schema) -> Vectors:
            if input is None:
                return arguments.vector_of(listed, schema.dim)
            return arguments.embedded(self._embedded(schema, [input]), 1, schema.dim)

        return vector

    def _answered(self, made: Callable[[Schema], Vectors], search: Callable[[Core, Vectors, Schema], T]) -> T:
        """search(core, prepared queries, their schema), with queries made for what the store is now."""
        while True:
            schema = self._view().schema
            try:
                ready = prepared_queries(made(schema), METRICS[schema.metric])
                return self._run(partial(_searched, search, ready, schema))
            except OutdatedError:
                continue


def _searched(search: Callable[[Core, Vectors, Schema], T], ready: Vectors, schema: Schema, core: Core) -> T:
    return search(core, ready, schema)
