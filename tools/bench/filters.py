"""How fast and how complete a search under a filter is, beside hnswlib's own, which asks a Python function about each item."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, islice
from statistics import median

import numpy as np
from numpy.typing import NDArray

import simstore
from bench.context import Context
from bench.datasets import near
from bench.filtered import Filter, Filters, FilterTruth
from bench.peers import found_by_hnsw
from bench.progress import progress
from bench.report import Row, Target, at_least, row_of
from bench.settings import FILTERED_RECALL, K
from bench.stores import found_by_store
from bench.timing import interleave, seconds
from bench.truth import smallest_ef
from simstore.where import Where

__all__ = ["far_case", "indexed_case", "random_case"]

Queries = NDArray[np.float32]

_SPEEDS = {50.0: 2.0, 10.0: 2.0, 1.0: 100.0, 0.1: 100.0}  # what is asked for, of random filters
_PEER_QUERIES = {50.0: 1_000, 10.0: 300, 1.0: 50, 0.1: 20}  # hnswlib takes up to 0.2 s for one
_FAR_PEER_QUERIES = 10
_REPEATS, _FAR_REPEATS, _FIRST_REPEATS = 5, 3, 7
_SHIFT = 1e-6
_USUAL_EF = 128


def random_case(context: Context) -> Iterator[Row]:
    """Filters that choose items at random."""
    queries = context.dataset.queries
    with _opened(context) as (filters, store):
        for percent, speed in _SPEEDS.items():
            case = _Case(context, store, filters.of("r", percent), queries, _PEER_QUERIES[percent])
            yield case.recall_row(f"filter {percent:g} %: recall@{K}")
            repeats = context.settings.repeats_or(_REPEATS)
            yield case.speed_row("  speed, to hnswlib's filter= at that recall", case.recall, repeats)
            yield case.speed_row(f"  and where it need only reach {FILTERED_RECALL:.0%}", FILTERED_RECALL, repeats)
            yield case.same_ef_row(f"  and both at ef {_USUAL_EF}", repeats, at_least(speed))
            yield case.twin_row()
            yield case.first_use_row()


def far_case(context: Context) -> Iterator[Row]:
    """Filters that choose what lies near one item; asked from far away, and from among the chosen."""
    with _opened(context) as (filters, store):
        far = filters.queries_far_away()
        for percent in _SPEEDS:
            chosen = filters.of("near", percent)
            among = near(context.dataset.base[chosen.rows], len(far), context.settings.seed + 22)
            for what, queries in (("far away", far), ("among them", among)):
                case = _Case(context, store, chosen, queries, _FAR_PEER_QUERIES)
                yield case.recall_row(f"{percent:g} % around an item, asked {what}: recall")
                repeats = context.settings.repeats_or(_FAR_REPEATS)
                yield case.speed_row("  speed, to hnswlib's filter= at that recall", case.recall, repeats)


def indexed_case(context: Context) -> Iterator[Row]:
    """The first use of a filter, of which nothing is remembered: on a field with an index, beside its twin without."""
    query, repeats = context.dataset.queries[0], context.settings.repeats_or(_FIRST_REPEATS)
    with _opened(context) as (filters, store):
        for percent in _SPEEDS:
            new = _NewConditions(filters.of("r", percent))
            for what, work in (("count", store.count), ("search", partial(_search_under, store, query))):
                plain, indexed = partial(_work_on, work, new.plain), partial(_work_on, work, new.indexed)
                plain(), indexed()  # so that the pages have been read
                ratio = interleave(plain, indexed, repeats=repeats)
                note = f"{ratio.second_s * 1e3:.2f} ms with an index, {ratio.first_s * 1e3:.1f} ms without"
                target = at_least(20.0) if percent == 1.0 else None
                yield row_of(f"filter {percent:g} %, first use: {what}()", ratio, note, target)
        yield _between_row(store, filters.of("r", 1.0), repeats)


class _Case:
    """One filter, and the queries under it.

    Args:
        context, store: The run, and the store that has the filter's fields.
        chosen: The filter.
        queries: What simstore is asked, float32 [n_queries, dim].
        n_peer: How many of them hnswlib has the time for.

    Attributes:
        recall: What simstore reaches of these.
    """

    def __init__(self, context: Context, store: simstore.Store, chosen: Filter, queries: Queries, n_peer: int) -> None:
        self._context, self._store, self._chosen = context, store, chosen
        self._queries, self._peer_queries = queries, queries[:n_peer]
        self._truth = FilterTruth(context, chosen, queries)
        self._where = chosen.where()
        self._is_allowed = set(chosen.rows.tolist()).__contains__  # the cheapest of functions that Python has for it
        self._k = min(K, len(chosen.rows))
        self._what = f"{chosen.percent:g} % by {chosen.by}"

        with progress(f"the smallest ef of simstore for {self._what}"):
            self._ef = smallest_ef(lambda ef: self._recall(ef, queries), target=FILTERED_RECALL)
        self.recall = self._recall(self._ef, self._peer_queries)

    def recall_row(self, case: str) -> Row:
        """The recall at the smallest ef that suffices, and at the one that is used where none is given."""
        recall, usual = self._recall(self._ef, self._queries), self._recall(None, self._queries)
        plan = self._store.explain(self._queries[0], K, where=self._where, ef=self._ef)
        paths = ", ".join(sorted({part.path for part in plan.parts}))
        note = f"at ef {self._ef}, of {len(self._queries):,} queries; by {paths}; {usual:.4f} at the default ef"
        return Row(case, recall, "%", note, at_least(FILTERED_RECALL))

    def speed_row(self, case: str, recall: float, repeats: int, target: Target | None = None) -> Row:
        """One query's time of hnswlib, at the smallest ef that gives it a recall, to simstore's; both know the rows."""
        with progress(f"the smallest ef of hnswlib for {self._what} at recall {recall:.3f}"):
            ef = smallest_ef(self._recall_of_hnsw, target=recall)
        return self._beside_hnsw(case, self._ef, ef, repeats, target)

    def same_ef_row(self, case: str, repeats: int, target: Target) -> Row:
        """The same at the same ef, which is simstore's own where none is given."""
        return self._beside_hnsw(case, _USUAL_EF, _USUAL_EF, repeats, target)

    def _beside_hnsw(self, case: str, ours: int, theirs: int, repeats: int, target: Target | None) -> Row:
        index, is_allowed, n = self._context.hnsw, self._is_allowed, len(self._peer_queries)
        recalls = self._recall(ours, self._peer_queries), self._recall_of_hnsw(theirs)  # which sets the index's ef, too

        def ask_hnsw() -> None:
            for query in self._peer_queries:
                with suppress(RuntimeError):  # it found fewer than k
                    index.knn_query(query, self._k, num_threads=1, filter=is_allowed)

        with progress(f"searches for {self._what}"):
            ratio = interleave(
                ask_hnsw, partial(_search_each, self._store, self._queries, ours, self._where), repeats=repeats
            ).each(n, len(self._queries))
        times = f"simstore {ratio.second_s * 1e6:.0f} µs, hnswlib {ratio.first_s * 1e6:,.0f} µs a query"
        both = "of {:,} queries recall {:.4f} and {:.4f}".format(n, *recalls)
        return row_of(case, ratio, f"{times} at ef {ours} and {theirs}; {both}", target)

    def twin_row(self) -> Row:
        """The time where the field has no index, to that where it has one."""
        plain, indexed = (self._chosen.where(is_indexed=is_indexed) for is_indexed in (False, True))
        self._store.count(plain)
        ratio = interleave(
            partial(_search_each, self._store, self._queries, self._ef, plain),
            partial(_search_each, self._store, self._queries, self._ef, indexed),
            repeats=self._context.settings.repeats_or(_REPEATS),
        )
        return row_of("  time without an index, to that with one", ratio, "the filter's rows are known to both")

    def first_use_row(self) -> Row:
        """The first search under the filter, where nothing is remembered of it."""
        new = _NewConditions(self._chosen)
        queries = islice(self._queries, self._context.settings.repeats_or(_FIRST_REPEATS))
        times = [seconds(partial(_search_under, self._store, query, new.indexed())) * 1e3 for query in queries]
        low, high = np.percentile(times, [10, 90])
        return Row("  first use of the filter", median(times), "ms", "with an index", None, float(low), float(high))

    def _recall(self, ef: int | None, queries: Queries) -> float:
        return self._truth.recall(found_by_store(self._store, queries, ef, where=self._where))

    def _recall_of_hnsw(self, ef: int) -> float:
        return self._truth.recall(found_by_hnsw(self._context.hnsw, self._peer_queries, ef, self._k, self._is_allowed))


class _NewConditions:
    """Conditions that have never been used, all for the same items."""

    _used = count(1)

    def __init__(self, chosen: Filter) -> None:
        self._chosen = chosen

    def indexed(self) -> Where:
        """One on the field with an index."""
        return self._chosen.where(less=next(self._used) * _SHIFT)

    def plain(self) -> Where:
        """One on its twin without."""
        return self._chosen.where(is_indexed=False, less=next(self._used) * _SHIFT)


def _between_row(store: simstore.Store, chosen: Filter, repeats: int) -> Row:
    """Two bounds in the middle of the values: each alone lets half of the items through."""
    times = [seconds(partial(store.count, chosen.between(400 + at))) * 1e3 for at in range(repeats)]
    low, high = np.percentile(times, [10, 90])
    case = f"filter {chosen.percent:g} %, by two bounds: count()"
    return Row(case, median(times), "ms", "first use, with an index", None, float(low), float(high))


@contextmanager
def _opened(context: Context) -> Iterator[tuple[Filters, simstore.Store]]:
    filters = Filters(context)
    path = filters.store_path
    with simstore.open(path, mode="r") as store:
        yield filters, store


def _work_on(work: Callable[[Where], object], condition: Callable[[], Where]) -> None:
    work(condition())


def _search_under(store: simstore.Store, query: Queries, where: Where) -> None:
    store.search(query, K, where=where).keys  # noqa: B018  # the reading is what is timed


def _search_each(store: simstore.Store, queries: Queries, ef: int, where: Where) -> None:
    for query in queries:
        hits = store.search(query, K, ef=ef, where=where)
        hits.keys, hits.distances  # noqa: B018  # the reading is what is timed
