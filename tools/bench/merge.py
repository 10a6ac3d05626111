"""How long a search takes while graphs are built beside it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

import simstore
from bench.context import Context
from bench.progress import progress
from bench.report import Row, at_most
from bench.settings import K
from bench.stores import copy_store, fill, made_once, new_store

__all__ = ["merge_case"]

Times = NDArray[np.float64]

_REPEATS = 3
_EF = 64
_FIRST_PART = 0.85  # of the items lie in one segment: the rest is too little for the background to merge by itself


def merge_case(context: Context) -> Iterator[Row]:
    """One thread searches, first alone, then beside optimize() in another thread."""
    s, queries = context.settings, context.dataset.queries
    source = made_once(context.folder / context.name_of(context.dataset, "parts"), lambda path: _store_in_parts(context, path))
    alone, beside = [], []
    for repeat in range(s.repeats_or(_REPEATS)):
        path = copy_store(source, context.fresh("merging.sim"))
        with simstore.open(path, background=False) as store, ThreadPoolExecutor(1) as pool:
            info = store.info()
            _latencies(store, queries, lambda done: done >= len(queries))  # the file's blocks are verified once
            alone.append(_latencies(store, queries, lambda done: done >= s.searches))
            with progress(f"searches beside a merge, {repeat + 1}"):
                merging = pool.submit(store.optimize)
                beside.append(_latencies(store, queries, partial(_has_ended, merging)))
                merging.result()
    ratios = [_p99(during) / _p99(before) for before, during in zip(alone, beside, strict=True)]
    low, high = np.percentile(ratios, [10, 90])
    state = f"before it {info.n_segments} segments, {info.n_tail:,} rows in the tail"
    note = f"alone {_told(alone)}; beside {_told(beside)}; {state}"
    case = "p99 of searches beside a merge, to that alone"
    yield Row(case, median(ratios), "x", note, at_most(3.0), float(low), float(high))


def _has_ended(merging: "Future[None]", n_done: int) -> bool:
    return n_done > 0 and merging.done()


def _store_in_parts(context: Context, path: Path) -> None:
    """A store in two segments: most of the items, optimized; and the rest, folded when it is closed."""
    base = context.dataset.base
    first = int(_FIRST_PART * len(base))
    with new_store(path, context.dataset, context.settings, background=False) as store:
        with progress(f"simstore stores {first:,} items and builds their graph"):
            fill(store, base[:first], batch=10_000)
            store.optimize()
        with progress("and the rest"):
            fill(store, base[first:], first_key=first, batch=10_000)
            store.close()


def _latencies(store: simstore.Store, queries: NDArray[np.float32], is_enough: Callable[[int], bool]) -> Times:
    """Seconds of each search, one after the other."""
    times: list[float] = []
    while not is_enough(len(times)):
        query = queries[len(times) % len(queries)]
        start = time.perf_counter()
        store.search(query, K, ef=_EF).keys  # noqa: B018
        times.append(time.perf_counter() - start)
    return np.array(times)


def _p99(times: Times) -> float:
    return float(np.percentile(times, 99))


def _told(runs: list[Times]) -> str:
    """p50, p99 and the longest of all runs together."""
    times = np.concatenate(runs) * 1e6
    return "p50 {:,.0f} µs, p99 {:,.0f} µs, max {:,.0f} µs of {:,}".format(*np.percentile(times, [50, 99, 100]), len(times))
