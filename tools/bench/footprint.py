"""What a store weighs: on disk, in memory, at import and at open."""

from collections.abc import Iterator
from statistics import median

import numpy as np

from bench.context import Context
from bench.datasets import Dataset, clustered, near
from bench.peers import table_sizes
from bench.process import Task, pss_bytes, seconds_beyond, waiting
from bench.progress import progress
from bench.report import Row, at_most
from bench.stores import disk_size

__all__ = ["import_case", "memory_case", "open_case", "size_case"]

_SIZE_N = 100_000
_IMPORTS, _OPENS = 15, 11
_NUMPY: Task = ("numpy",)
_MB = 1e6


def size_case(context: Context) -> Iterator[Row]:
    """The bytes of a store with labels and small dicts, to those of its raw vectors."""
    s = context.settings
    n = min(_SIZE_N, s.n or _SIZE_N)
    base, queries = clustered(n, 1, s.seed)
    path = context.store_of(Dataset("clustered", "l2", base, queries))
    size = disk_size(path)
    graphs = disk_size(path / "segments").allocated
    tables = ", ".join(f"{name} {table.pages / _MB:.1f}" for name, table in table_sizes(path).items() if table.pages > _MB / 10)
    note = f"{base.nbytes / _MB:.1f} MB raw; graphs {graphs / _MB:.1f} MB; tables in MB: {tables}"
    for how, taken in (("allocated", size.allocated), ("apparent", size.apparent)):
        yield Row(f"size on disk, {how}: {n:,} x {base.shape[1]}", taken / base.nbytes, "x", note, at_most(2.6))


def import_case(context: Context) -> Iterator[Row]:
    """``import simstore`` in a new process, beyond numpy."""
    with progress("imports in new processes"):
        (beyond,) = seconds_beyond([_NUMPY, ("import",)], repeats=context.settings.repeats_or(_IMPORTS))
    yield _seconds("import simstore, beyond numpy", beyond, "new processes", 0.15)


def open_case(context: Context) -> Iterator[Row]:
    """A new process, from its start to the first answer, beyond interpreter and numpy: large store and small one."""
    s = context.settings
    small = context.dataset.part(slice(0, s.small_n))
    query = str(context.fresh("query.npy"))
    np.save(query, context.dataset.queries[:1])
    tasks: list[Task] = [
        _NUMPY,
        ("open", str(context.store_path), query),
        ("open", str(context.store_of(small)), query),
        ("hnswlib", str(context.hnsw_path), context.dataset.metric, query),
    ]
    with progress("opens in new processes"):
        large_s, small_s, hnsw_s = seconds_beyond(tasks, repeats=s.repeats_or(_OPENS))
    n = len(context.dataset.base)
    note = f"{median(large_s) / median(hnsw_s):.2f} of hnswlib's, which loads its file in {median(hnsw_s):.3f} s"
    yield _seconds(f"open to first answer: {n:,}, beyond numpy", large_s, note, 0.35)
    yield _seconds(f"  and with {len(small.base):,}", small_s, "", 0.35)
    ratio = median(large_s) / median(small_s)
    yield Row("  large to small, off 1", abs(ratio - 1.0), "%", f"{ratio:.2f}x", at_most(0.3))


def memory_case(context: Context) -> Iterator[Row]:
    """The memory of several processes that read one store, to that of one: PSS, where a shared page counts once."""
    s = context.settings
    readers = [_reader(context, at) for at in range(s.readers)]
    with progress(f"{s.readers} readers"):
        nothing, one, many = _pss([_NUMPY]), _pss(readers[:1]), _pss(readers)
        idle = _pss([_NUMPY] * s.readers)
    size = disk_size(context.store_path).allocated / _MB
    note = f"{_mb(many, one)}, after {s.searches:,} searches each; the store takes {size:.0f} MB"
    yield Row(f"memory of {s.readers} readers, to that of one", many / one, "x", note, at_most(1.3))
    note = f"{_mb(many - idle, one - nothing)}; processes that do nothing {_mb(idle, nothing)}"
    yield Row("  and beyond interpreter and numpy", (many - idle) / (one - nothing), "x", note)


def _reader(context: Context, at: int) -> Task:
    s = context.settings
    queries = str(context.fresh(f"queries-{at}.npy"))
    np.save(queries, near(context.dataset.base, s.searches, s.seed + 10 + at))
    return "read", str(context.store_path), queries, str(min(s.searches, len(context.dataset.base)))


def _pss(tasks: list[Task]) -> int:
    with waiting(tasks) as pids:
        return sum(pss_bytes(pid) for pid in pids)


def _mb(many: int, one: int) -> str:
    return f"{many / _MB:.0f} MB to {one / _MB:.0f} MB"


def _seconds(case: str, beyond: list[float], note: str, bound: float) -> Row:
    low, high = np.percentile(beyond, [10, 90])
    return Row(case, median(beyond), "s", note, at_most(bound), float(low), float(high))
