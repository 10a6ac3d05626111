"""Ingests a folder in a process that is killed. Run as a script: STORE FOLDER [KILL_AT_STEP_NUMBER]."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from sources import FolderReader, MemoryReader
from worlds import embedder

import simstore
from simstore import Store
from simstore.ingest import writing
from simstore.storage import steps

N_ROWS = 900


def open_store(path: Path) -> Store:
    return simstore.open(path, metric="l2", embedder=embedder("a"), background=False)


def readers(root: Path) -> list[Any]:
    """A folder of files, and rows beside them."""
    inputs = np.random.default_rng(5).normal(size=(N_ROWS, 3)).astype(np.float32)
    return [FolderReader(root), MemoryReader([f"row{i}" for i in range(N_ROWS)], inputs, input_kind="array", source="rows")]


def ingest(path: Path, root: Path) -> None:
    """Takes the folder in, in many small transactions."""
    writing.BATCH_ROWS = 50
    with open_store(path) as store:
        print("begins", flush=True)
        store.ingest(readers(root), workers=2)


def _kill_at(n: int) -> None:
    lock, count = threading.Lock(), 0

    def reached(_name: str) -> None:
        nonlocal count
        with lock:
            count += 1
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)

    steps.set_observer(reached)


def main() -> None:
    """Does it."""
    path, root, *kill_at = sys.argv[1:]
    if kill_at:
        _kill_at(int(kill_at[0]))
    ingest(Path(path), Path(root))


if __name__ == "__main__":
    main()
