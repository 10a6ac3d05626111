"""Many threads that each write one item at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import simstore
from bench.context import Context
from bench.datasets import near
from bench.machine import filesystem_of
from bench.progress import progress
from bench.report import Row, at_least, row_of
from bench.stores import copy_store, fill
from bench.timing import interleave

__all__ = ["threads_case"]

_REPEATS = 5
_MORE = 64  # times as many adds by many threads, which are as much faster: their start and end are to count little


def threads_case(context: Context) -> Iterator[Row]:
    """Durable adds of one item, by many threads and by one."""
    s = context.settings
    each = -(-_MORE * s.single_adds // s.threads)
    path = copy_store(context.store_path, context.fresh("threads.sim"))
    with simstore.open(path, background=False) as store:
        adds = _Adds(context, store)
        with progress(f"single adds by 1 thread and by {s.threads}"):
            ratio = interleave(
                lambda: adds.run(1, s.single_adds), lambda: adds.run(s.threads, each), repeats=s.repeats_or(_REPEATS)
            ).each(s.single_adds, each * s.threads)
        there = sum(key in store for key in adds.keys) / len(adds.keys)
    note = (
        f"{1 / ratio.second_s:,.0f} adds/s by {s.threads} threads, {1 / ratio.first_s:,.0f} by one, "
        f"on {filesystem_of(context.folder)}"
    )
    yield row_of(f"durable adds by {s.threads} threads, to one's", ratio, note, at_least(5.0))
    yield Row("  and all are there", there, "%", f"{len(adds.keys):,} adds", at_least(1.0))


class _Adds:
    """Adds new items, one at a time."""

    def __init__(self, context: Context, store: simstore.Store) -> None:
        self._store = store
        self._vectors = near(context.dataset.base, 1_000, context.settings.seed + 40)
        self._first = self._next = len(context.dataset.base)

    @property
    def keys(self) -> range:
        """Those that have been added."""
        return range(self._first, self._next)

    def run(self, n_threads: int, each: int) -> None:
        """Each of the threads adds so many; an error in one of them is raised."""
        first = self._next
        self._next += n_threads * each
        begin = Barrier(n_threads)

        def add(thread: int) -> None:
            begin.wait()
            for key in range(first + thread * each, first + (thread + 1) * each):
                at = key % len(self._vectors)
                fill(self._store, self._vectors[at : at + 1], first_key=key)

        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(add, range(n_threads)))
