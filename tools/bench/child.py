"""What runs in a process of its own: ``python child.py TASK …``. Says "ready" when it has done its work, and waits.

It imports nothing but what its task is measured for.
"""

import sys
from collections.abc import Callable

_K = 10


def main() -> None:
    """Runs one task, named by the first argument."""
    task, *args = sys.argv[1:]
    kept = _TASKS[task](*args)
    print("ready", flush=True)
    sys.stdin.readline()  # whoever measures has measured
    del kept


def _numpy() -> object:
    import numpy

    return numpy


def _import() -> object:
    import numpy

    import simstore

    return numpy, simstore.open  # it loads what it needs at the first use


def _hnswlib(path: str, metric: str, query_path: str) -> object:
    import hnswlib
    import numpy as np

    query = np.load(query_path)[0]
    index = hnswlib.Index(metric, len(query))
    index.load_index(path)
    index.set_ef(64)
    return index, index.knn_query(query, _K, num_threads=1)


def _open(path: str, query_path: str, mode: str = "a", snapshot: str | None = None) -> object:
    import numpy as np

    import simstore

    query = np.load(query_path)[0]
    store = simstore.open(path, mode="r" if mode == "r" else "a", snapshot=snapshot)
    hits = store.search(query, _K, ef=64)
    return store, list(hits)


def _read(path: str, query_path: str, n_gets: str) -> object:
    import numpy as np

    import simstore

    store = simstore.open(path, mode="r")
    for query in np.load(query_path):
        for hit in store.search(query, _K, ef=64):
            hit.label, hit.data  # noqa: B018
    for key in range(int(n_gets)):
        store.get(key)
    return store


def _stream(path: str, gigabytes: str, told: str) -> object:
    import json

    import numpy as np

    import simstore
    from simstore.readers import Notes, RowBatch, SourceFile

    dim = 768
    n = int(float(gigabytes) * 1e9) // (4 * dim)
    weights: list[int] = []

    class Made:
        source, format, input_kind, n_examples = "made", "examples", "vector", n

        def batches(self, size: int) -> object:
            rng = np.random.default_rng(0)
            for first in range(0, n, size):
                rows = range(first, min(first + size, n))
                vectors = rng.standard_normal((len(rows), dim), np.float32)
                more: list[dict[str, object]] = [{}] * len(rows)
                yield RowBatch(SourceFile("", 0, 0), rows, list(rows), [None] * len(rows), more, vectors)

        def notes(self) -> Notes:
            return Notes((), ())

    def weigh(_stage: str, done: int, _total: int) -> None:
        if done > 20_000 or done == n:  # once the buffers are there
            weights.append(_anonymous_bytes())

    with simstore.open(path, background=False) as store:
        store.ingest(Made(), progress=weigh)
        store._finalizer()
    with open(told, "w", encoding="utf-8") as file:
        json.dump({"start": weights[0], "most": max(weights), "n": n}, file)
    return None


def _anonymous_bytes() -> int:
    """The process' memory, less what files are mapped to."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


_TASKS: dict[str, Callable[..., object]] = {
    "numpy": _numpy,
    "import": _import,
    "hnswlib": _hnswlib,
    "open": _open,
    "read": _read,
    "stream": _stream,
}

if __name__ == "__main__":
    main()
