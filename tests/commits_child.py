"""Adds from many threads until it is killed; each thread writes down what was acknowledged.

Run as: commits_child.py STORE LOGS N_THREADS
"""

import os
import sys
import threading
from pathlib import Path

import numpy as np

import simstore

DIM = 4


def vector_of(key: str) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    thread, n = key.split("-")
    return np.array([int(thread), int(n), 1, 2], np.float32)


def main(path: str, logs: str, n_threads: int) -> None:
    store = simstore.open(path, background=False, metric="l2")
    life = sum(1 for _ in Path(logs).iterdir())
    done = threading.Barrier(n_threads + 1)

    def add(thread: int) -> None:
        log = os.open(Path(logs) / f"{life}-{thread}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        done.wait()
        for n in range(life * 1_000_000, (life + 1) * 1_000_000):
            key = f"{thread}-{n}"
            os.write(log, f"{key}\n".encode())
            if n % 5:
                store.add(key, vector_of(key))
            else:
                store.upsert([key, f"{thread}-0"], np.stack([vector_of(key), vector_of(f"{thread}-{n}")]))
            os.write(log, b"+\n")

    for thread in range(n_threads):
        threading.Thread(target=add, args=(thread,), daemon=True).start()
    done.wait()
    print("begun", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
