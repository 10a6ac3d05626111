"""What simstore is compared with: raw hnswlib, and a bare LMDB."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hnswlib
import lmdb
import numpy as np
from numpy.typing import NDArray

from bench.datasets import Dataset
from bench.progress import Step, no_step, progress
from bench.settings import THREADS, K, Settings

__all__ = [
    "BareLmdb",
    "TableSize",
    "add_in_batches",
    "batches",
    "build_hnsw",
    "cached_hnsw",
    "found_by_hnsw",
    "load_hnsw",
    "new_hnsw",
    "table_sizes",
]

_MAP_SIZE = 1 << 38
_BATCH = 1_000


def new_hnsw(dataset: Dataset, settings: Settings) -> hnswlib.Index:
    """An empty index of the right size."""
    index = hnswlib.Index(dataset.metric, dataset.dim)
    index.init_index(len(dataset.base), M=settings.M, ef_construction=settings.ef_construction)
    return index


def batches(n: int, size: int) -> Iterable[slice]:
    """Slices of at most size rows that cover n."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def add_in_batches(index: hnswlib.Index, dataset: Dataset, size: int = _BATCH, step: Step = no_step) -> None:
    """Adds the whole base, its row numbers as ids."""
    for rows in batches(len(dataset.base), size):
        index.add_items(dataset.base[rows], np.arange(rows.start, rows.stop), num_threads=THREADS)
        step(rows.stop)


def build_hnsw(dataset: Dataset, settings: Settings) -> hnswlib.Index:
    """An index over the whole base."""
    index = new_hnsw(dataset, settings)
    with progress(f"hnswlib builds {dataset.name}", len(dataset.base)) as step:
        add_in_batches(index, dataset, step=step)
    return index


def cached_hnsw(dataset: Dataset, settings: Settings, cache: Path) -> Path:
    """The file of an index over the whole base; from an earlier run where there is one."""
    path = cache / f"hnsw-{dataset.fingerprint}-M{settings.M}-ef{settings.ef_construction}.hnsw"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        build_hnsw(dataset, settings).save_index(str(partial))
        partial.replace(path)
    return path


def load_hnsw(path: Path, dataset: Dataset) -> hnswlib.Index:
    """The index of a file; its ef is hnswlib's 10 until it is set."""
    index = hnswlib.Index(dataset.metric, dataset.dim)
    index.load_index(str(path))
    return index


def found_by_hnsw(
    index: hnswlib.Index, queries: NDArray[np.float32], ef: int, k: int = K, is_allowed: Callable[[int], bool] | None = None
) -> NDArray[np.int64]:
    """Rows int64 [n_queries, k]; -1 throughout a query for which hnswlib raises that it has fewer than k."""
    index.set_ef(ef)
    found = np.full((len(queries), k), -1, np.int64)
    for at, query in enumerate(queries):
        try:
            found[at] = index.knn_query(query, k, num_threads=1, filter=is_allowed)[0][0]
        except RuntimeError:
            continue
    return found


class BareLmdb:
    """LMDB alone, in its default durable mode: one table, one record per commit."""

    def __init__(self, path: Path, *, records: int, size: int) -> None:
        path.mkdir(parents=True)
        self._env = lmdb.open(str(path), map_size=_MAP_SIZE)
        self._next = 0
        self._value = bytes(np.random.default_rng(0).bytes(size))
        for rows in batches(records, 10_000):
            with self._env.begin(write=True) as transaction:
                for _ in range(rows.start, rows.stop):
                    self._put(transaction)

    def commit_one(self) -> None:
        """One record more, durable on return."""
        with self._env.begin(write=True) as transaction:
            self._put(transaction)

    def _put(self, transaction: lmdb.Transaction) -> None:
        transaction.put(self._next.to_bytes(8, "big"), self._value, append=True)
        self._next += 1

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()


@dataclass(frozen=True, slots=True)
class TableSize:
    """What one LMDB table holds: the bytes of its keys and values, and those of its pages."""

    records: int
    content: int
    pages: int


def table_sizes(path: Path) -> dict[str, TableSize]:
    """The size of each named table of a closed LMDB environment."""
    with lmdb.open(str(path), readonly=True, max_dbs=64, map_size=_MAP_SIZE) as env:
        with env.begin() as transaction:
            names = list(transaction.cursor().iternext(values=False))
        sizes = {}
        for name in names:
            with contextlib.suppress(lmdb.IncompatibleError):  # a value, and no table
                sizes[name.decode()] = _table_size(env, env.open_db(name, create=False))
        return sizes


def _table_size(env: lmdb.Environment, table: Any) -> TableSize:
    with env.begin(db=table, buffers=True) as transaction:
        content = sum(len(key) + len(value) for key, value in transaction.cursor())
        stat = transaction.stat(table)
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return TableSize(stat["entries"], content, pages * stat["psize"])
