"""From a query to its answer: the segments' graphs, the tail, then keys, labels and data."""

import os
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError, StoreClosedError
from simstore.index import Found, Segment, distances_to, scan
from simstore.metrics import METRICS, Metric
from simstore.storage import Database, EngineError, Environment, Transaction
from simstore.storage.encoding import unpack
from simstore.store.recent import RecentRecords
from simstore.store.request import Request
from simstore.store.view import Loose, View, Views
from simstore.types import BatchHits, Hits

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Searcher", "Threads", "cpu_count", "thread_count"]

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
        threads: Threads,
        on_searched: Callable[[View], None] | None,
    ) -> None:
        self._environment = environment
        self._database = database
        self._views = views
        self._threads = threads
        self._on_searched = on_searched or _nothing
        self._recent = RecentRecords(database)

    def search(self, query: NDArray[np.float32], request: Request) -> Hits:
        """The answer to one prepared query [1, dim]."""
        try:
            with self._environment.read() as txn:
                view = self._views.current(txn)
                loose = self._views.loose(txn, view) if view.loose else []
                rows, distances = self._answer(txn, view, loose, query, request)
                records = self._recent.read(txn, rows)
                hits = Hits(records, distances, rows, unpack, self._vectors(txn, view, rows, request))
        except EngineError as err:
            raise self._environment.translated(err) from err
        self._on_searched(view)
        return hits

    def search_many(self, queries: NDArray[np.float32], request: Request, threads: int) -> BatchHits:
        """The answers to prepared queries [n, dim], all of one state."""
        with self._environment.reading() as txn:
            view = self._views.current(txn)
            loose = self._views.loose(txn, view)

        def work(chunk: NDArray[np.float32]) -> BatchHits:
            with self._environment.reading() as txn:
                return self._batch(txn, view, loose, chunk, request)

        step = min(max(_CHUNK, -(-len(queries) // (4 * threads))), _LARGEST_CHUNK)
        chunks = [queries[at : at + step] for at in range(0, max(len(queries), 1), step)]
        try:
            parts = self._threads.of(threads).map(work, chunks) if threads > 1 and len(chunks) > 1 else map(work, chunks)
            hits = BatchHits.joined(list(parts))
        except RuntimeError:
            if self._threads.is_closed:
                raise StoreClosedError("the store was closed while it was searched: open it again") from None
            raise
        self._on_searched(view)
        return hits

    # -- rows --

    def _answer(
        self, txn: Transaction, view: View, loose: list[Loose], query: NDArray[np.float32], request: Request
    ) -> tuple[list[int], NDArray[np.float32]]:
        """The rows and true distances of the answer to one query [1, dim]; as ``_answers``, with less between."""
        n_live = view.state.n_live
        k = request.k
        if k is None or k > _SORTED_K or not n_live:
            _, distances, rows = self._answers(txn, view, loose, query, request)
            return rows.tolist(), distances
        metric = METRICS[view.schema.metric]
        numbers, raw = self._nearest(txn, view, loose, query, k if k < n_live else n_live, request, metric).only()
        distances = metric.true_distances(raw)
        if request.max_distance is not None:
            n = np.count_nonzero(distances <= np.float32(request.max_distance))
            return numbers[:n], distances[:n]
        return numbers, distances

    def _answers(
        self, txn: Transaction, view: View, loose: list[Loose], queries: NDArray[np.float32], request: Request
    ) -> Answers:
        metric = METRICS[view.schema.metric]
        k = view.state.n_live if request.k is None else min(request.k, view.state.n_live)
        if k == 0 or not len(queries):
            return Answers(np.zeros(len(queries), np.int32), np.empty(0, np.float32), np.empty(0, np.uint64))
        if request.k is None or k > _SORTED_K:
            everything = [self._everything(txn, view, loose, query, metric) for query in queries]
            return _within(
                np.stack([distances[:k] for distances, _ in everything]), np.stack([rows[:k] for _, rows in everything]),
                np.full(len(queries), k, np.int32), request.max_distance,
            )  # fmt: skip
        found = self._nearest(txn, view, loose, queries, k, request, metric)
        return _within(metric.true_distances(found.distances), found.rows, found.counts, request.max_distance)

    def _nearest(
        self,
        txn: Transaction,
        view: View,
        loose: list[Loose],
        queries: NDArray[np.float32],
        k: int,
        request: Request,
        metric: Metric,
    ) -> Found:
        """The k nearest of each query, raw."""
        found = Found(len(queries), k)
        for segment in view.segments:
            try:
                self._search_segment(view, segment, queries, request, found)
            except CorruptStoreError:
                view = self._views.without(view, segment)
                return self._nearest(txn, view, self._views.loose(txn, view), queries, k, request, metric)
        alive = None if view.alive.is_full else view.alive.words
        for first, vectors, coarse in loose:
            scan(vectors, first, queries, metric, alive, found, coarse)
        return found

    def _search_segment(
        self, view: View, segment: Segment, queries: NDArray[np.float32], request: Request, found: Found
    ) -> None:
        allowed, n_alive = view.allowed(segment)
        if n_alive == 0:
            return
        if allowed is not None and not request.exact and segment.exact_is_cheaper(n_alive, max(request.ef, found.k)):
            segment.scan(queries, allowed, found, view.alive.rows(segment.first_row, segment.last_row + 1))
        elif request.exact or found.k * 4 >= n_alive:
            segment.scan(queries, allowed, found)
        elif not segment.search(queries, request.ef, allowed, found, min(found.k, n_alive)):
            segment.scan(queries, allowed, found)  # the walk met too few: islands of dead rows

    def _everything(
        self, txn: Transaction, view: View, loose: list[Loose], query: NDArray[np.float32], metric: Metric
    ) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
        """True distances and rows of all live rows, nearest first."""
        parts = [(distances_to(vectors, query, metric), _rows_from(first, len(vectors))) for first, vectors, _ in loose]
        for segment in view.segments:
            try:
                parts.append(segment.distances(query))
            except CorruptStoreError:
                view = self._views.without(view, segment)
                return self._everything(txn, view, self._views.loose(txn, view), query, metric)
        distances = np.concatenate([part[0] for part in parts])
        rows = np.concatenate([part[1] for part in parts])
        if not view.alive.is_full:
            alive = view.alive.of_rows(rows)
            distances, rows = distances[alive], rows[alive]
        order = np.lexsort((rows, distances))
        return metric.true_distances(distances[order]), rows[order]

    # -- answers --

    def _batch(
        self, txn: Transaction, view: View, loose: list[Loose], queries: NDArray[np.float32], request: Request
    ) -> BatchHits:
        counts, distances, rows = self._answers(txn, view, loose, queries, request)
        numbers = rows.tolist()
        vectors = self._vectors(txn, view, numbers, request)
        return BatchHits(self._recent.read(txn, numbers), distances, rows, counts, request.k, unpack, vectors)

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
