"""Stores to measure: made, copied, weighed."""

import os
import shutil
from collections.abc import Callable
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
from simstore.where import Where

__all__ = [
    "SMALL",
    "DiskSize",
    "Payload",
    "build_store",
    "copy_store",
    "disk_size",
    "fill",
    "found_by_store",
    "made_once",
    "new_store",
    "overwrite",
]

_N_LABELS = 100


@dataclass(frozen=True, slots=True)
class Payload:
    """The dict each item carries.

    Attributes:
        name: Tells stores of other payloads apart.
        of: The dict of a row.
        index_fields: Which of its fields are indexed.
    """

    name: str
    of: Callable[[int], dict[str, Any]]
    index_fields: tuple[str, ...] = ()


SMALL = Payload("small", lambda row: {"name": f"item {row}", "year": 1990 + row % 35, "ok": row % 3 == 0})


def new_store(
    path: Path, dataset: Dataset, settings: Settings, *, background: bool = True, index_fields: tuple[str, ...] = ()
) -> simstore.Store:
    """An empty store with the run's graph parameters."""
    return simstore.open(
        path, dim=dataset.dim, metric=dataset.metric, M=settings.M, ef_construction=settings.ef_construction,
        background=background, index_fields=index_fields,
    )  # fmt: skip


def fill(
    store: simstore.Store,
    vectors: NDArray[np.float32],
    *,
    first_key: int = 0,
    batch: int = 1_000,
    payload: Payload = SMALL,
    step: Step = no_step,
) -> None:
    """Adds vectors in batches, each with its row number as key, a label and its payload."""
    for rows in batches(len(vectors), batch):
        keys = list(range(first_key + rows.start, first_key + rows.stop))
        store.add(keys, vectors[rows], labels=_labels(keys), data=[payload.of(key) for key in keys])
        step(rows.stop)


def overwrite(store: simstore.Store, keys: list[int], vectors: NDArray[np.float32]) -> None:
    """Writes items again, in one call, with the label and the small dict that they had."""
    store.upsert(keys, vectors, labels=_labels(keys), data=[SMALL.of(key) for key in keys])


def _labels(keys: list[int]) -> list[int]:
    return [key % _N_LABELS for key in keys]


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """What ``make`` makes at a path, whole or not at all; what stands there from an earlier --keep is taken as it is."""
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        make(partial)
        partial.rename(path)
    return path


def build_store(path: Path, dataset: Dataset, settings: Settings, payload: Payload = SMALL) -> None:
    """Makes a store of the whole base, in one segment."""
    with new_store(path, dataset, settings, background=False, index_fields=payload.index_fields) as store:
        with progress(f"simstore stores {dataset.name}", len(dataset.base)) as step:
            fill(store, dataset.base, batch=10_000, payload=payload, step=step)
        with progress("simstore builds its graph"):
            store.optimize()


def copy_store(source: Path, target: Path) -> Path:
    """A copy of a closed store. Never of an open one: closing lock.mdb drops LMDB's locks on it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("lock.mdb"))
    for file in target.rglob("*"):
        if file.is_file():  # else the first commit that is timed waits for the whole copy to reach the disk
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    return target


def found_by_store(
    store: simstore.Store, queries: NDArray[np.float32], ef: int | None, k: int = K, where: Where | None = None
) -> NDArray[np.int64]:
    """Keys int64 [n_queries, k], one query at a time; -1 where there are fewer."""
    found = np.full((len(queries), k), -1, np.int64)
    for row, query in zip(found, queries, strict=True):
        keys = store.search(query, k, ef=ef, where=where).keys
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
