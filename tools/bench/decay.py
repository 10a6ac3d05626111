"""What a store must bear without becoming slow or blind: unfolded writes, copies, turnover."""

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

import simstore
from bench.context import Context
from bench.datasets import Dataset, near
from bench.peers import build_hnsw, found_by_hnsw
from bench.progress import progress
from bench.report import Row, at_least, at_most, row_of
from bench.search import search_each
from bench.settings import K
from bench.stores import copy_store, fill, found_by_store, new_store
from bench.timing import interleave
from bench.truth import Truth, exact_truth, smallest_ef

__all__ = ["copies_case", "is_found", "tail_case", "turnover_case", "wait_for_fold"]

Vectors = NDArray[np.float32]

_REPEATS = 9
_LATENCY_REPEATS = 5
_EF = 64
_EXACT = 1e-6
_TURNOVERS = 3
_LONG_TAIL = 5_000
_FOLD_S = 20.0
_ROUNDS_PER_TURNOVER = 10


def tail_case(context: Context) -> Iterator[Row]:
    """Search right after single adds that no segment covers yet."""
    s, queries = context.settings, context.dataset.queries
    new = near(context.dataset.base, s.tail, s.seed + 1)
    ef = context.efs[0]
    before_path = copy_store(context.store_path, context.fresh("before.sim"))
    after_path = copy_store(context.store_path, context.fresh("after.sim"))
    first = len(context.dataset.base)
    with (
        simstore.open(before_path, background=False) as before,
        simstore.open(after_path, background=False) as after,
    ):
        with progress(f"{s.tail:,} single adds", s.tail) as step:
            fill(after, new, first_key=first, batch=1, step=step)
        found = sum(is_found(after, first + at, vector) for at, vector in enumerate(new))
        n_tail = after.info().n_tail
        ratio = interleave(
            partial(search_each, after, queries, ef),
            partial(search_each, before, queries, ef),
            repeats=s.repeats_or(_REPEATS),
        )
    note = f"{found:,} of {s.tail:,} found first, at distance 0; {n_tail:,} rows in the tail"
    yield Row(f"after {s.tail:,} single adds: new items found", found / s.tail, "%", note, at_least(1.0))
    note = f"{ratio.first_s / len(queries) * 1e6:.0f} µs a query, {ratio.second_s / len(queries) * 1e6:.0f} µs before"
    yield row_of("  and the latency, to that before", ratio, note, at_most(1.5))


def is_found(store: simstore.Store, key: int, vector: Vectors) -> bool:
    """Whether a search for an item's own vector gives the item first, at distance zero."""
    hits = store.search(vector, K)
    return bool(
        hits.keys and hits.keys[0] == key and abs(hits.distances[0]) <= _EXACT * max(1.0, float(np.linalg.norm(vector)))
    )


def copies_case(context: Context) -> Iterator[Row]:
    """Many copies of one vector: the others must still be found."""
    s, base = context.settings, context.dataset.base
    n = min(s.copies, len(base) - 1)
    others = Dataset("copies", context.dataset.metric, np.vstack([base[:n], np.repeat(base[n : n + 1], n, axis=0)]), base[:n])
    order = np.random.default_rng(s.seed).permutation(2 * n)
    mixed = Dataset(others.name, others.metric, others.base[order], base[:n])
    own = np.argsort(order)[:n]  # the row of each of the others
    with new_store(context.fresh("copies.sim"), mixed, s) as store:
        with progress(f"simstore stores {n:,} copies among {2 * n:,} items"):
            fill(store, mixed.base)
            store.optimize()
        ours = float((found_by_store(store, mixed.queries, _EF) == own[:, None]).any(1).mean())
    theirs = float((found_by_hnsw(build_hnsw(mixed, s), mixed.queries, _EF) == own[:, None]).any(1).mean())
    note = f"of {n:,} others their own vector found among {K} at ef {_EF}; hnswlib {theirs:.2%}"
    yield Row(f"{n:,} copies among {2 * n:,} items", ours, "%", note, at_least(0.999))


def turnover_case(context: Context) -> Iterator[Row]:
    """Recall after every item was replaced three times, beside a fresh build of what is there now."""
    s = context.settings
    n = min(s.turnover_n, len(context.dataset.base) // (_TURNOVERS + 1))
    first = _TURNOVERS * n
    live = context.dataset.part(slice(first, first + n))
    truth = exact_truth(live)
    with new_store(context.fresh("fresh.sim"), live, s) as fresh, new_store(context.fresh("turned.sim"), live, s) as turned:
        with progress("a fresh build"):
            fill(fresh, live.base, first_key=first)
            fresh.optimize()
            ef = smallest_ef(lambda ef: _recall(fresh, truth, first, ef))
        _turn_over(turned, context.dataset, n)
        yield from _beside(f"three turnovers of {n:,} items", turned, fresh, truth, first, ef)
        with progress("optimize after the turnovers"):
            turned.optimize()
        yield from _beside("  and after optimize()", turned, fresh, truth, first, ef)


def _beside(what: str, turned: simstore.Store, fresh: simstore.Store, truth: Truth, first_key: int, ef: int) -> Iterator[Row]:
    """Recall and latency of a store that was turned over, and of a fresh one."""
    info = turned.info()
    state = f"{info.n_segments} segments, {info.n_dead:,} dead rows, {info.n_tail:,} in the tail"
    ours, theirs = _recall(turned, truth, first_key, ef), _recall(fresh, truth, first_key, ef)
    note = f"recall {ours:.4f}, fresh {theirs:.4f} at ef {ef}; {state}"
    yield Row(f"{what}: recall", ours - theirs, "", note, at_least(-0.005))
    queries = truth.dataset.queries
    ratio = interleave(
        partial(search_each, turned, queries, ef), partial(search_each, fresh, queries, ef), repeats=_LATENCY_REPEATS
    )
    note = f"{ratio.first_s / len(queries) * 1e6:.0f} µs a query, fresh {ratio.second_s / len(queries) * 1e6:.0f} µs"
    yield row_of("  its latency, to a fresh build's", ratio, note)


def _turn_over(store: simstore.Store, dataset: Dataset, n: int) -> None:
    """Fills the store; then deletes the oldest tenth, adds as many, searches, and so on. A key is a row of the base."""
    tenth = -(-n // _ROUNDS_PER_TURNOVER)
    last = (_TURNOVERS + 1) * n
    with progress(f"{_TURNOVERS} turnovers of {n:,} items", last) as step:
        fill(store, dataset.base[:n])
        for start in range(n, last, tenth):
            stop = min(start + tenth, last)
            store.delete(list(range(start - n, stop - n)))
            fill(store, dataset.base[start:stop], first_key=start)
            search_each(store, dataset.queries[:50], _EF)
            wait_for_fold(store, dataset.queries[0])
            step(stop)


def wait_for_fold(store: simstore.Store, query: Vectors) -> None:
    """Searches until the background has folded a long tail: else all stays tail, which is exact."""
    deadline = time.monotonic() + _FOLD_S
    while store.info().n_tail > _LONG_TAIL and time.monotonic() < deadline:
        store.search(query, K)
        time.sleep(0.01)


def _recall(store: simstore.Store, truth: Truth, first_key: int, ef: int) -> float:
    keys = found_by_store(store, truth.dataset.queries, ef)
    return truth.recall(np.where(keys < first_key, -1, keys - first_key))
