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


_TASKS: dict[str, Callable[..., object]] = {
    "numpy": _numpy,
    "import": _import,
    "hnswlib": _hnswlib,
    "open": _open,
    "read": _read,
}

if __name__ == "__main__":
    main()
