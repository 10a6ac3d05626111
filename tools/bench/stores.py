"""Stores to measure: made, copied, weighed."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simstore
from bench.datasets import Dataset
from bench.peers import batches
from bench.progress import Step, no_step, progress
from bench.settings import K, Settings

__all__ = ["DiskSize", "build_store", "copy_store", "disk_size", "fill", "found_by_store", "new_store", "payload"]

_N_LABELS = 100


def payload(row: int) -> dict[str, Any]:
    """The small dict each item carries."""
    return {"name": f"item {row}", "year": 1990 + row % 35, "ok": row % 3 == 0}


def new_store(path: Path, dataset: Dataset, settings: Settings, *, background: bool = True) -> simstore.Store:
    """An empty store with the run's graph parameters."""
    return simstore.open(
        path, dim=dataset.dim, metric=dataset.metric, M=settings.M, ef_construction=settings.ef_construction,
        background=background,
    )  # fmt: skip


def fill(
    store: simstore.Store,
    vectors: NDArray[np.float32],
    *,
    first_key: int = 0,
    batch: int = 1_000,
    step: Step = no_step,
) -> None:
    """Adds vectors in batches, each with its row number as key, a label and a small dict."""
    for rows in batches(len(vectors), batch):
        keys = range(first_key + rows.start, first_key + rows.stop)
        labels = [key % _N_LABELS for key in keys]
        store.add(list(keys), vectors[rows], labels=labels, data=[payload(key) for key in keys])
        step(rows.stop)


def build_store(path: Path, dataset: Dataset, settings: Settings) -> Path:
    """A store of the whole base, in one segment; one that stands there from an earlier --keep is taken as it is."""
    if path.exists():
        return path
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with new_store(partial, dataset, settings, background=False) as store:
        with progress(f"simstore stores {dataset.name}", len(dataset.base)) as step:
            fill(store, dataset.base, batch=10_000, step=step)
        with progress("simstore builds its graph"):
            store.optimize()
    partial.rename(path)
    return path


def copy_store(source: Path, target: Path) -> Path:
    """A copy of a closed store. Never of an open one: closing lock.mdb drops LMDB's locks on it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("lock.mdb"))
    return target


def found_by_store(store: simstore.Store, queries: NDArray[np.float32], ef: int | None, k: int = K) -> NDArray[np.int64]:
    """Keys int64 [n_queries, k], one query at a time; -1 where there are fewer."""
    found = np.full((len(queries), k), -1, np.int64)
    for row, query in zip(found, queries, strict=True):
        keys = store.search(query, k, ef=ef).keys
        row[: len(keys)] = keys
    return found


@dataclass(frozen=True, slots=True)
class DiskSize:
    """What a folder weighs, in bytes: the lengths of its files, and the blocks they take."""

    apparent: int
    allocated: int


def disk_size(path: Path) -> DiskSize:
    """The size of all files under a path."""
    stats = [file.stat() for file in path.rglob("*") if file.is_file()]
    return DiskSize(sum(s.st_size for s in stats), sum(getattr(s, "st_blocks", -(-s.st_size // 512)) * 512 for s in stats))
