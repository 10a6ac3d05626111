"""How fast a search is beside hnswlib's, at the same recall."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

import simstore
from bench.context import Context
from bench.datasets import near
from bench.peers import found_by_hnsw
from bench.report import Row, Target, at_least, row_of
from bench.settings import THREADS, K
from bench.stores import found_by_store
from bench.timing import Ratio, interleave

__all__ = ["batch_case", "columns_case", "equal_ef_case", "full_hits_case", "search_each"]

Queries = NDArray[np.float32]

_REPEATS = 9
_BATCH_REPEATS = 41  # each takes some milliseconds only
_EFS = (10, 32, 64, 128, 256)


def columns_case(context: Context) -> Iterator[Row]:
    """One query at a time, one thread: keys and distances."""
    yield from _against_hnsw(context, "search: keys + distances, 1 thread", search_each, at_least(1.0))


def full_hits_case(context: Context) -> Iterator[Row]:
    """The same, with every Hit made: label and data."""
    yield from _against_hnsw(context, "search: full hits, 1 thread", _hit_each, at_least(0.7))


def batch_case(context: Context) -> Iterator[Row]:
    """All queries in one call, two threads."""
    queries = context.dataset.queries
    ours, theirs = context.efs
    with simstore.open(context.store_path, mode="r") as store:
        context.hnsw.set_ef(theirs)

        def search_all() -> object:
            hits = store.search_many(queries, K, ef=ours, threads=THREADS)
            return hits.keys, hits.distances

        ratio = interleave(
            lambda: context.hnsw.knn_query(queries, K, num_threads=THREADS),
            search_all,
            repeats=context.settings.repeats_or(_BATCH_REPEATS),
        )
        found = store.search_many(queries, K, ef=ours, threads=THREADS).keys
        recall = context.truth.recall(np.where(found == None, -1, found).astype(np.int64))  # noqa: E711  # elementwise
    note = _note(ratio, len(queries), ours, theirs) + f"; recall {recall:.4f}"
    yield row_of(f"search_many: {len(queries):,} queries, {THREADS} threads", ratio, note, at_least(1.1))


def equal_ef_case(context: Context) -> Iterator[Row]:
    """Recall and speed at the same ef: ef means the same on both sides."""
    queries = context.dataset.queries
    with simstore.open(context.store_path, mode="r") as store:
        for ef in _EFS:
            ours = context.truth.recall(found_by_store(store, queries, ef))
            theirs = context.truth.recall(found_by_hnsw(context.hnsw, queries, ef))
            ratio = interleave(
                partial(_hnsw_each, context, queries),
                partial(search_each, store, queries, ef),
                repeats=_repeats(context),
            )
            note = f"recall {ours:.4f}, hnswlib {theirs:.4f}; {_times(ratio, len(queries))}"
            yield Row(f"recall at the same ef={ef}, less hnswlib's", ours - theirs, "", note, at_least(-0.005))
            yield row_of(f"speed at the same ef={ef}", ratio, note)


def search_each(store: simstore.Store, queries: Queries, ef: int) -> None:
    """Asks one query at a time for keys and distances."""
    for query in queries:
        hits = store.search(query, K, ef=ef)
        hits.keys, hits.distances  # noqa: B018  # the reading is what is timed


def _hit_each(store: simstore.Store, queries: Queries, ef: int) -> None:
    for query in queries:
        for hit in store.search(query, K, ef=ef):
            hit.label, hit.data  # noqa: B018


def _hnsw_each(context: Context, queries: Queries) -> None:
    index = context.hnsw
    for query in queries:
        index.knn_query(query, K, num_threads=1)


def _against_hnsw(
    context: Context, case: str, search: Callable[[simstore.Store, Queries, int], None], target: Target
) -> Iterator[Row]:
    """With the same queries again and again; then with new ones each time, so that no cache has their answers."""
    queries, (ours, theirs) = context.dataset.queries, context.efs
    seeds = range(context.settings.seed + 100, context.settings.seed + 100 + _repeats(context))
    with simstore.open(context.store_path, mode="r") as store:
        recalls = (
            context.truth.recall(found_by_store(store, queries, ours)),
            context.truth.recall(found_by_hnsw(context.hnsw, queries, theirs)),
        )
        again, new = (
            _in_turns(context, lambda queries: search(store, queries, ours), sets)
            for sets in ([queries] * len(seeds), [near(context.dataset.base, len(queries), seed) for seed in seeds])
        )
    recall = "; recall {:.4f} and {:.4f}".format(*recalls)
    yield row_of(case, again, _note(again, len(queries), ours, theirs) + recall, target)
    yield row_of("  the same with new queries each time", new, _note(new, len(queries), ours, theirs), target)


def _in_turns(context: Context, search: Callable[[Queries], None], sets: list[Queries]) -> Ratio:
    """hnswlib and simstore, each over one set of queries after the other."""
    theirs, ours = iter(sets), iter(sets)
    return interleave(lambda: _hnsw_each(context, next(theirs)), lambda: search(next(ours)), repeats=len(sets))


def _note(ratio: Ratio, n: int, ours: int, theirs: int) -> str:
    return f"{_times(ratio, n)} a query at ef {ours} and {theirs}"


def _times(ratio: Ratio, n: int) -> str:
    return f"simstore {ratio.second_s / n * 1e6:.0f} µs, hnswlib {ratio.first_s / n * 1e6:.0f} µs"


def _repeats(context: Context) -> int:
    return context.settings.repeats_or(_REPEATS)
