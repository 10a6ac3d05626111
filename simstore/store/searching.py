"""Searching: one query, or many."""

from typing import Any

from simstore.errors import InvalidArgumentError
from simstore.index import prepared_queries
from simstore.metrics import METRICS
from simstore.storage import MovedError
from simstore.store import arguments
from simstore.store.base import StoreBase
from simstore.store.request import request_of
from simstore.store.searcher import thread_count
from simstore.types import BatchHits, Hits, Plan
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
            exact: Compare with every item.
            max_distance: Leave out what is farther.
            with_vectors: Give the hits their vectors.

        Returns:
            Hits, nearest first.

        Raises:
            InvalidArgumentError, InvalidVectorError, DimensionError, InvalidFilterError: The query or an argument is wrong.
        """
        request = request_of(k, ef, exact, max_distance, with_vectors, where)
        schema = self._schema()
        vector = arguments.vector_of(self._query(query, input, schema.dim), schema.dim)
        ready = prepared_queries(vector, METRICS[schema.metric])
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
        exact: bool = False,
    ) -> Plan:
        """How a search is done, by doing it: what the filter lets through, which path each part takes, what it costs.

        Arguments and errors as in search. ``print(store.explain(query, where=…))`` shows it.
        """
        request = request_of(k, ef, exact, None, False, where)
        schema = self._schema()
        vector = arguments.vector_of(self._query(query, input, schema.dim), schema.dim)
        ready = prepared_queries(vector, METRICS[schema.metric])
        return self._run(lambda core: core.searcher.explain(ready, request))

    def search_many(
        self,
        queries: Any = None,
        k: int | None = 10,
        *,
        inputs: Any = None,
        where: Where | dict[str, Any] | None = None,
        ef: int | None = None,
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
        request = request_of(k, ef, exact, max_distance, with_vectors, where)
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
        return self._run(lambda core: core.searcher.search_many(ready, request, thread_count(threads, len(ready))))

    def _query(self, query: Any, input: Any, dim: int | None) -> Any:
        if (query is None) == (input is None):
            raise InvalidArgumentError("give a query, or an input for the store's embedder: one of them, not both")
        if input is None:
            return query
        return arguments.embedded(self._required_embedder().embed([input]), 1, dim)[0]
