"""How fast items become durable and indexed."""

import shutil
import time
from collections.abc import Iterator
from itertools import count
from statistics import median

import simstore
from bench.context import Context
from bench.datasets import near
from bench.decay import is_found
from bench.machine import filesystem_of
from bench.peers import BareLmdb, add_in_batches, batches, new_hnsw, table_sizes
from bench.progress import progress
from bench.report import Row, at_least, at_most, row_of
from bench.stores import copy_store, fill, new_store
from bench.timing import interleave

__all__ = ["build_case", "single_add_case"]

_BUILDS = 3
_PROBES = 50
_KEY_BYTES = 8
_BUILT = "built.sim"


def build_case(context: Context) -> Iterator[Row]:
    """Batches, optimize, close; beside hnswlib's add_items in the same batches and save_index."""
    s, n = context.settings, len(context.dataset.base)
    parts: list[tuple[float, float, float]] = []
    ratio = interleave(
        lambda: _hnswlib_builds(context),
        lambda: parts.append(_simstore_builds(context)),
        repeats=s.repeats_or(_BUILDS),
        between=lambda: shutil.rmtree(context.folder / _BUILT),
    )
    add_s, optimize_s, close_s = (median(column) for column in zip(*parts, strict=True))
    note = (
        f"simstore {n / ratio.second_s:,.0f} items/s, hnswlib {n / ratio.first_s:,.0f} items/s; "
        f"add {add_s:.1f} s, optimize {optimize_s:.1f} s, close {close_s:.1f} s"
    )
    yield row_of(f"durable, indexed: {n:,} in batches of {s.batch:,}", ratio, note, at_least(0.85))


def single_add_case(context: Context) -> Iterator[Row]:
    """One durable add, beside a bare LMDB commit of as many bytes; and the next search sees it."""
    s, n = context.settings, len(context.dataset.base)
    size = _bytes_of_one_add(context)
    new = near(context.dataset.base, s.single_adds, s.seed + 2)
    with progress("a bare LMDB of the same size"):
        bare = BareLmdb(context.fresh("bare.lmdb"), records=n, size=size - _KEY_BYTES)
    added = count()
    seen: list[bool] = []
    with simstore.open(copy_store(context.store_path, context.fresh("single.sim")), background=False) as store:

        def add_one() -> None:
            at = next(added)
            fill(store, new[at : at + 1], first_key=n + at)

        def look() -> None:
            at = len(seen)
            seen.append(is_found(store, n + at, new[at]))

        ratio = interleave(add_one, bare.commit_one, repeats=len(new), between=look)
    bare.close()
    note = (
        f"simstore {ratio.first_s * 1e3:.2f} ms, LMDB {ratio.second_s * 1e3:.2f} ms for {size:,} bytes "
        f"on {filesystem_of(context.folder)}"
    )
    yield row_of("one durable add, to a bare LMDB commit", ratio, note, at_most(1.6))
    yield Row("  and the next search finds it", sum(seen) / len(seen), "%", f"{len(seen):,} adds", at_least(1.0))


def _hnswlib_builds(context: Context) -> None:
    dataset, s = context.dataset, context.settings
    index = new_hnsw(dataset, s)
    with progress("hnswlib builds and saves", len(dataset.base)) as step:
        add_in_batches(index, dataset, s.batch, step)
        index.save_index(str(context.folder / "built.hnsw"))


def _simstore_builds(context: Context) -> tuple[float, float, float]:
    """Seconds it took to add, to optimize and to close."""
    base, s = context.dataset.base, context.settings
    with progress("simstore builds", len(base)) as step:
        start = time.perf_counter()
        store = new_store(context.folder / _BUILT, context.dataset, s)
        for rows in batches(len(base), s.batch):
            store.add(list(range(rows.start, rows.stop)), base[rows])
            step(rows.stop)
        added = time.perf_counter()
        store.optimize()
        optimized = time.perf_counter()
        store.close()
    return added - start, optimized - added, time.perf_counter() - optimized


def _bytes_of_one_add(context: Context) -> int:
    """How many bytes of keys and values an add writes, over all tables."""
    path = copy_store(context.store_path, context.fresh("probe.sim"))
    with progress("weighs one add"):
        before = sum(table.content for table in table_sizes(path).values())
        with simstore.open(path, background=False) as store:
            fill(store, context.dataset.base[:_PROBES], first_key=len(context.dataset.base), batch=1)
        after = sum(table.content for table in table_sizes(path).values())
    shutil.rmtree(path)
    return (after - before) // _PROBES
