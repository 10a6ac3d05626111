"""Searching: one query, or many."""

from typing import Any

from simstore.errors import InvalidArgumentError
from simstore.index import prepared_queries
from simstore.metrics import METRICS
from simstore.reports import Plan, RecallEstimate
from simstore.storage import MovedError
from simstore.store import arguments
from simstore.store.base import StoreBase
from simstore.store.request import Request, request_of
from simstore.store.searcher import thread_count
from simstore.types import BatchHits, Hits, Progress
from simstore.where import Where

__all__ = ["Searching"]


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
            ef: How many candidates the search keeps; more find better, and take longer.
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
        schema = self._schema()
        vector = arguments.vector_of(self._query(query, input, schema.dim), schema.dim)
        ready = prepared_queries(vector, METRICS[schema.metric])
        if request.recall is not None:
            request = self._with_ef(request)
        while True:  # as _run, which costs a microsecond more
            core = self._cores.current
            try:
                return core.searcher.search(ready, request)
            except MovedError as moved:
                self._cores.follow(core, moved.name)

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
        schema = self._schema()
        vector = arguments.vector_of(self._query(query, input, schema.dim), schema.dim)
        ready = prepared_queries(vector, METRICS[schema.metric])
        with_ef = self._with_ef(request)
        return self._run(lambda core: core.searcher.explain(ready, with_ef))

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
        schema = self._schema()
        if inputs is not None:
            given = arguments.sized("inputs", inputs)
            vectors = arguments.embedded(self._required_embedder().embed(given), len(given), schema.dim)
        else:
            vectors = arguments.vectors_of(queries, schema.dim, what="queries")
        ready = prepared_queries(vectors, METRICS[schema.metric])
        with_ef = self._with_ef(request)
        return self._run(lambda core: core.searcher.search_many(ready, with_ef, thread_count(threads, len(ready))))

    def _query(self, query: Any, input: Any, dim: int | None) -> Any:
        if (query is None) == (input is None):
            raise InvalidArgumentError("give a query, or an input for the store's embedder: one of them, not both")
        if input is None:
            return query
        return arguments.embedded(self._required_embedder().embed([input]), 1, dim)[0]

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
        with_ef = self._with_ef(request)
        return self._run(lambda core: core.searcher.measure_recall(with_ef, sample, seed, progress))

    def _with_ef(self, request: Request) -> Request:
        return self._run(lambda core: core.searcher.with_ef(request))
