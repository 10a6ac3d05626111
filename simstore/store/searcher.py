"""From a query to its answer: the segments' graphs, the tail, then keys, labels and data."""

import os
from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError, StoreClosedError
from simstore.index import Found, Segment, distances_to, scan
from simstore.metrics import METRICS, Metric
from simstore.reports import Plan, RecallEstimate
from simstore.storage import Database, EngineError, Environment, Schema, Transaction
from simstore.storage.encoding import unpack
from simstore.store.explaining import explained
from simstore.store.filters import Filters, refuse_mismatch
from simstore.store.recall import Recalls, measured
from simstore.store.recent import RecentRecords
from simstore.store.request import Request, refuse_outdated
from simstore.store.sight import Sight, search_segment
from simstore.store.statistics import Statistics
from simstore.store.view import Loose, View, Views
from simstore.types import BatchHits, Hits, Progress

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Searcher", "Threads", "cpu_count", "thread_count"]

T = TypeVar("T")
_SORTED_K = 1024  # more answers than that are sorted at the end, and found exactly
_CHUNK, _LARGEST_CHUNK = 32, 1024  # queries that a thread takes at a time


class Answers(NamedTuple):
    """The answers to n queries, one query's after the other's, nearest first.

    Attributes:
        counts: int [n], how many each query has.
        distances: float32 [sum of counts], true.
        rows: uint64 [sum of counts]
    """

    counts: NDArray[np.int32]
    distances: NDArray[np.float32]
    rows: NDArray[np.uint64]


class Threads:
    """The threads that search for one Store, made when they are first needed."""

    def __init__(self) -> None:
        self.is_closed = False
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        self._lock = Lock()

    def of(self, n: int) -> "ThreadPoolExecutor":
        """At least n threads."""
        from concurrent.futures import ThreadPoolExecutor  # most processes never need it, and it takes 1 MB

        with self._lock:
            if self._pool is None or self._size < n:
                self._pool, self._size = ThreadPoolExecutor(n, "simstore-search"), n
            return self._pool

    def close(self) -> None:
        """Ends the threads."""
        self.is_closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=True)


def _nothing(view: View) -> None:
    """What is done after a search where nothing can be written."""


class Searcher:
    """Searches the newest state.

    Args:
        on_searched: Called with the view after a search: it may be time to fold its tail.
    """

    def __init__(
        self,
        environment: Environment,
        database: Database,
        views: Views,
        filters: Filters,
        threads: Threads,
        statistics: Statistics,
        on_searched: Callable[[View], None] | None,
    ) -> None:
        self._environment = environment
        self._database = database
        self._views = views
        self._threads = threads
        self._statistics = statistics
        self._on_searched = on_searched or _nothing
        self._filters = filters
        self._recalls = Recalls()
        self._recent = RecentRecords(database)

    def search(self, query: NDArray[np.float32], request: Request, schema: Schema) -> Hits:
        """The answer to one prepared query [1, dim], which was made for a schema.

        Raises:
            OutdatedError: The store has other vectors by now.
        """
        began = perf_counter_ns()
        try:
            with self._environment.read() as txn:
                sight = self._sight(txn, request, schema)
                view = sight.view
                rows, distances = self._answer(txn, sight, query, request)
                records = self._recent.read(txn, rows)
                if request.where is not None and sight.chosen is not None:
                    refuse_mismatch(request.where, rows, records, sight.chosen.checked)
                hits = Hits(records, distances, rows, unpack, self._vectors(txn, view, rows, request))
        except EngineError as err:
            raise self._environment.translated(err) from err
        self._statistics.searched(1, perf_counter_ns() - began)
        self._on_searched(view)
        return hits

    def explain(self, query: NDArray[np.float32], request: Request, schema: Schema) -> Plan:
        """How a search for one prepared query [1, dim] is done, by doing it twice: what it finds damaged is left out then."""
        with self._environment.reading() as txn:
            self._answer(txn, self._sight(txn, request, schema), query, request)
            sight = self._sight(txn, request, schema)
            return explained(sight, query, request, everything=min(request.k or 0, sight.n) > _SORTED_K)

    def measure_recall(self, request: Request, sample: int, seed: int, progress: Progress | None) -> RecallEstimate:
        """See Store.measure_recall."""
        k = request.k or 1
        return self._with_graphs(lambda view, loose: measured(view, loose, k, request.ef, sample, seed, progress))

    def with_ef(self, request: Request) -> Request:
        """The request with the ef that reaches the recall it asks for; an exact one, if no ef does."""
        recall, k = request.recall, request.k or 1
        if recall is None:
            return request
        ef = self._with_graphs(lambda view, loose: self._recalls.ef_for(view, loose, k, recall))
        return replace(request, recall=None, ef=ef or request.ef, exact=ef is None)

    def _with_graphs(self, work: Callable[[View, list[Loose]], T]) -> T:
        """work(view, loose) on sound segments, outside of any transaction: it may take seconds."""
        while True:
            with self._environment.reading() as txn:
                view = self._views.current(txn)
                loose = self._views.loose(txn, view)
            try:
                return work(view, loose)
            except CorruptStoreError:
                self._views.drop_damaged(view)

    def _sight(self, txn: Transaction, request: Request, schema: Schema) -> Sight:
        view = self._views.current(txn)
        if view.schema is not schema:
            refuse_outdated(schema, view.schema)
        chosen = None if request.where is None else self._filters.selection(txn, view, request.where)
        return Sight(view, self._views.loose(txn, view), chosen)

    def search_many(self, queries: NDArray[np.float32], request: Request, schema: Schema, threads: int) -> BatchHits:
        """The answers to prepared queries [n, dim], all of one state. Errors as in search."""
        began = perf_counter_ns()
        with self._environment.reading() as txn:
            sight = self._sight(txn, request, schema)

        def work(chunk: NDArray[np.float32]) -> BatchHits:
            with self._environment.reading() as txn:
                return self._batch(txn, sight, chunk, request)

        step = min(max(_CHUNK, -(-len(queries) // (4 * threads))), _LARGEST_CHUNK)
        chunks = [queries[at : at + step] for at in range(0, max(len(queries), 1), step)]
        try:
            parts = self._threads.of(threads).map(work, chunks) if threads > 1 and len(chunks) > 1 else map(work, chunks)
            hits = BatchHits.joined(list(parts))
        except RuntimeError:
            if self._threads.is_closed:
                raise StoreClosedError("the store was closed while it was searched: open it again") from None
            raise
        self._statistics.searched(len(queries), perf_counter_ns() - began)
        self._on_searched(sight.view)
        return hits

    # -- rows --

    def _answer(
        self, txn: Transaction, sight: Sight, query: NDArray[np.float32], request: Request
    ) -> tuple[list[int], NDArray[np.float32]]:
        """The rows and true distances of the answer to one query [1, dim]; as ``_answers``, with less between."""
        n = sight.n
        k = request.k
        if k is None or k > _SORTED_K or not n:
            _, distances, rows = self._answers(txn, sight, query, request)
            return rows.tolist(), distances
        metric = METRICS[sight.view.schema.metric]
        numbers, raw = self._nearest(txn, sight, query, k if k < n else n, request, metric).only()
        distances = metric.true_distances(raw)
        if request.max_distance is not None:
            n = int(np.count_nonzero(distances <= np.float32(request.max_distance)))
            return numbers[:n], distances[:n]
        return numbers, distances

    def _answers(self, txn: Transaction, sight: Sight, queries: NDArray[np.float32], request: Request) -> Answers:
        metric = METRICS[sight.view.schema.metric]
        k = sight.n if request.k is None else min(request.k, sight.n)
        if k == 0 or not len(queries):
            return Answers(np.zeros(len(queries), np.int32), np.empty(0, np.float32), np.empty(0, np.uint64))
        if request.k is None or k > _SORTED_K:
            everything = [self._everything(txn, sight, query, metric) for query in queries]
            return _within(
                np.stack([distances[:k] for distances, _ in everything]), np.stack([rows[:k] for _, rows in everything]),
                np.full(len(queries), k, np.int32), request.max_distance,
            )  # fmt: skip
        found = self._nearest(txn, sight, queries, k, request, metric)
        return _within(metric.true_distances(found.distances), found.rows, found.counts, request.max_distance)

    def _nearest(
        self, txn: Transaction, sight: Sight, queries: NDArray[np.float32], k: int, request: Request, metric: Metric
    ) -> Found:
        """The k nearest of each query, raw."""
        found = Found(len(queries), k)
        for segment in sight.view.segments:
            try:
                self._statistics.took(search_segment(sight, segment, queries, request, found), len(queries))
            except CorruptStoreError:
                return self._nearest(txn, self._without(txn, sight, segment), queries, k, request, metric)
        for first, vectors, coarse in sight.loose:
            scan(vectors, first, queries, metric, sight.words, found, coarse)
            self._statistics.took("tail", len(queries))
        return found

    def _without(self, txn: Transaction, sight: Sight, segment: Segment) -> Sight:
        """What is seen without a segment that turned out to be damaged."""
        view = self._views.without(sight.view, segment)
        return Sight(view, self._views.loose(txn, view), sight.chosen)

    def _everything(
        self, txn: Transaction, sight: Sight, query: NDArray[np.float32], metric: Metric
    ) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
        """True distances and rows of all rows in sight, nearest first."""
        parts = [(distances_to(vectors, query, metric), _rows_from(first, len(vectors))) for first, vectors, _ in sight.loose]
        for segment in sight.view.segments:
            try:
                parts.append(segment.distances(query))
            except CorruptStoreError:
                return self._everything(txn, self._without(txn, sight, segment), query, metric)
        distances = np.concatenate([part[0] for part in parts])
        rows = np.concatenate([part[1] for part in parts])
        visible = sight.visible
        if not visible.is_full:
            seen = visible.of_rows(rows)
            distances, rows = distances[seen], rows[seen]
        order = np.lexsort((rows, distances))
        return metric.true_distances(distances[order]), rows[order]

    # -- answers --

    def _batch(self, txn: Transaction, sight: Sight, queries: NDArray[np.float32], request: Request) -> BatchHits:
        counts, distances, rows = self._answers(txn, sight, queries, request)
        numbers = rows.tolist()
        vectors = self._vectors(txn, sight.view, numbers, request)
        records = self._recent.read(txn, numbers)
        if request.where is not None and sight.chosen is not None:
            refuse_mismatch(request.where, numbers, records, sight.chosen.checked)
        return BatchHits(records, distances, rows, counts, request.k, unpack, vectors)

    def _vectors(self, txn: Transaction, view: View, rows: list[int], request: Request) -> NDArray[np.float32] | None:
        """The vectors of rows [n, dim], if they are asked for."""
        if not request.with_vectors:
            return None
        dim = view.schema.dim or 0
        return np.array([self._database.vector(txn, row, dim) for row in rows], np.float32).reshape(len(rows), dim)


def _within(
    distances: NDArray[np.float32],
    rows: NDArray[np.uint64],
    counts: NDArray[np.int32],
    max_distance: float | None,
) -> Answers:
    """Of distances and rows [n, k] the first counts of each query that are not farther than max_distance."""
    k = distances.shape[1]
    if max_distance is not None:
        counts = np.minimum(counts, (distances <= np.float32(max_distance)).sum(axis=1, dtype=np.int32))
    chosen = np.arange(k) < counts[:, None]
    return Answers(counts, distances[chosen], rows[chosen])


def _rows_from(first: int, n: int) -> NDArray[np.uint64]:
    return np.arange(first, first + n, dtype=np.uint64)


def cpu_count() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(threads: int | None, n_queries: int) -> int:
    """How many threads to use for queries."""
    return max(1, min(threads or cpu_count(), -(-n_queries // _CHUNK)))
