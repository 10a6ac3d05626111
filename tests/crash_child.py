"""Runs a store's workload in processes that are killed, and says afterwards what the store must hold.

Run as a script it is a fork server: a JSON request for each line of stdin, a process for each, and its end as JSON on stdout.
What a child has called and what has returned stands in a log file, which outlives a kill.
"""

import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simstore
from simstore import Store
from simstore.storage import steps
from simstore.store import maintenance

DIM = 8
SECONDS = 60  # until a child counts as hanging
OPTIONS: dict[str, Any] = {"metric": "l2", "ef_construction": 30, "M": 8}

Model = dict[str | int, tuple[int, str | None, Any]]
"""What a store holds: for each key the number of its vector, its label and its data."""

Op = dict[str, Any]


def vectors_of(numbers: list[int]) -> NDArray[np.float32]:
    """The vector of each number, always the same."""
    return np.array([np.random.default_rng([77, n]).standard_normal(DIM) for n in numbers], np.float32)


# -- operations ---------------------------------------------------------------------------------------------------------


def writing(kind: str, keys: list[Any] | None, first: int, n: int | None = None) -> Op:
    """An add or upsert of vectors first, first + 1, …; every ninth vector is one that many items have."""
    n = len(keys) if keys is not None else n or 0
    numbers = [0 if (first + i) % 9 == 0 else first + i for i in range(n)]
    labels = [None if (first + i) % 4 == 0 else f"label {(first + i) % 5}" for i in range(n)]
    return {"kind": kind, "keys": keys, "vectors": numbers, "labels": labels, "data": [{"n": first + i} for i in range(n)]}


def call(store: Store, op: Op) -> list[Any] | None:
    """Does the operation; returns the keys that an add gave."""
    if op["kind"] == "add":
        return list(store.add(op["keys"], vectors_of(op["vectors"]), labels=op["labels"], data=op["data"]))
    if op["kind"] == "upsert":
        store.upsert(op["keys"], vectors_of(op["vectors"]), labels=op["labels"], data=op["data"])
    elif op["kind"] == "update":
        store.update(op["keys"], labels=op["labels"], data=op["data"])
    elif op["kind"] == "delete":
        store.delete(op["keys"])
    else:
        raise ValueError(op["kind"])
    return None


def applied(model: Model, op: Op, keys: list[Any] | None = None) -> Model:
    """What a store with this content holds after the operation."""
    new = dict(model)
    keys = op["keys"] if op["keys"] is not None else keys or []
    for i, key in enumerate(keys):
        if op["kind"] == "delete":
            del new[key]
        else:
            vector = new[key][0] if op["kind"] == "update" else op["vectors"][i]
            new[key] = (vector, op["labels"][i], op["data"][i])
    return new


class Log:
    """One line for each call before it, and one after it."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def line(self, **what: Any) -> None:
        os.write(self._handle, json.dumps(what).encode() + b"\n")

    def call(self, store: Store, op: Op) -> None:
        self.line(op=op)
        self.line(done=call(store, op))


def read_log(path: Path, model: Model) -> tuple[Model, Op | None, list[str], list[str]]:
    """The model after all acknowledged calls, the call that was not acknowledged, steps reached, and what went wrong."""
    pending, reached, wrong = None, [], []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        entry = json.loads(line)
        if "op" in entry:
            pending = entry["op"]
        elif "done" in entry:
            assert pending is not None
            model, pending = applied(model, pending, entry["done"]), None
        elif "step" in entry:
            reached.append(entry["step"])
        else:
            wrong.append(entry["wrong"])
    return model, pending, reached, wrong


# -- what the store must hold -------------------------------------------------------------------------------------------


def verify(path: Path, model: Model, pending: list[Op], *, seed: int = 0, rebuilds: bool = False) -> Model:
    """Opens a store after a crash and compares all of it; returns what it holds, the pending calls that came through included.

    Args:
        pending: Calls that were not acknowledged: each must be there entirely, or not at all.
        rebuilds: Segments may be damaged; they are right after optimize(), and answers are right before.
    """
    with simstore.open(path, background=False, **OPTIONS) as store:
        assert_tidy(path, store)
        for op in pending:
            model = _settled(store, model, op)
        assert_holds(store, model)
        assert_finds(store, model, seed)
        if not rebuilds:
            assert store.check() == []
        else:
            store.optimize()
            assert store.check() == []
            assert_finds(store, model, seed)
        _assert_writable(store, model, seed)
        assert store.check() == []
    return model


def _settled(store: Store, model: Model, op: Op) -> Model:
    """The model with the operation, or without it: what the store has."""
    keys = op["keys"]
    if keys is None:
        found = sorted(item.key for item in store.scan() if isinstance(item.key, int) and item.key not in model)
        assert len(found) in (0, len(op["vectors"])), f"half an add: {len(found)} of {len(op['vectors'])} items"
        return applied(model, op, found) if found else model
    after = applied(model, op)
    held = [_content(item) for item in store.get_many(keys)]
    without, with_it = ([_expected(side.get(key)) for key in keys] for side in (model, after))
    assert held in (without, with_it), f"half a call: {op['kind']} of {keys}"
    return after if held == with_it else model


def _content(item: Any) -> Any:
    return None if item is None else (item.vector.tobytes(), item.label, item.data)


def _expected(entry: Any) -> Any:
    return None if entry is None else (vectors_of([entry[0]])[0].tobytes(), entry[1], entry[2])


def assert_tidy(path: Path, store: Store) -> None:
    """No file is there that does not belong to the store."""
    assert set(os.listdir(path)) == {"store.json", "data.mdb", "lock.mdb", "segments"}
    with store._core.environment.read() as txn:
        named = {record.file for record in store._core.database.segments(txn)}
    assert set(os.listdir(path / "segments")) <= named


def assert_holds(store: Store, model: Model) -> None:
    """Exactly the items of the model are there, however one asks."""
    assert len(store) == len(model)
    assert {item.key: _content(item) for item in store.scan()} == {key: _expected(entry) for key, entry in model.items()}
    assert [_content(item) for item in store.get_many(list(model))] == [_expected(entry) for entry in model.values()]
    labels: dict[Any, int] = {}
    for _, label, _ in model.values():
        labels[label] = labels.get(label, 0) + 1
    assert store.labels() == labels


def assert_finds(store: Store, model: Model, seed: int, n: int = 6) -> None:
    """Searches are right: the exact one and the one by graph (whose recall on so few items is all but perfect)."""
    if not model:
        assert store.info().dim is None or list(store.search(np.ones(DIM))) == []
        return
    keys, vectors = list(model), vectors_of([entry[0] for entry in model.values()]).astype(np.float64)
    found = 0
    for query in np.random.default_rng([seed, 5]).standard_normal((n, DIM)).astype(np.float32):
        distances = np.sqrt(((vectors - query.astype(np.float64)) ** 2).sum(axis=1))
        true = dict(zip(keys, distances.tolist(), strict=True))
        best = np.sort(distances)[:10]
        for exact in (True, False):
            hits = store.search(query, 10, exact=exact)
            assert len(set(hits.keys)) == len(hits.keys) == len(best)
            for hit in hits:
                assert abs(hit.distance - true[hit.key]) < 1e-4
                assert (hit.label, hit.data) == model[hit.key][1:]
            if exact:
                np.testing.assert_allclose(hits.distances, best, atol=1e-4)
            else:
                found += sum(hit.distance <= best[-1] + 1e-4 for hit in hits) == len(best)
    assert found >= n - 2, f"{n - found} of {n} searches missed something"


def _assert_writable(store: Store, model: Model, seed: int) -> None:
    op = writing("add", ["after the crash"], 10_000_000 + seed)
    call(store, op)
    hit = store.search(vectors_of(op["vectors"])[0], 1)[0]
    assert hit.distance == 0
    if seed % 3 == 0:
        store.optimize()
        assert_finds(store, applied(model, op), seed, n=2)
    store.delete("after the crash")
    assert len(store) == len(model)


# -- what a child does --------------------------------------------------------------------------------------------------


def make(path: Path, log: Log) -> None:
    """Makes a store, and no more."""
    simstore.open(path, background=False, **OPTIONS).close()


def scripted(path: Path, log: Log) -> None:
    """One thread: a store's life from being made to being closed, through each kind of write, fold, merge and rebuild."""
    maintenance.FOLD_BYTES, maintenance.FOLD_ROWS = 1, 8
    store = simstore.open(path, background=False, **OPTIONS)
    log.call(store, writing("add", [f"k{i}" for i in range(40)], 100))
    log.call(store, writing("add", None, 200, n=5))
    store.optimize()  # a fold
    log.call(store, writing("upsert", [f"k{i}" for i in range(30, 50)], 300))
    log.call(store, {**writing("update", ["k1", "k2", "k45"], 400), "vectors": None})
    log.call(store, {"kind": "delete", "keys": ["k3", "k4"]})
    store.optimize()  # a merge, or a build anew
    log.call(store, writing("add", [f"m{i}" for i in range(15)], 500))
    store.optimize()  # a merge onto the graph there is
    log.call(store, {"kind": "delete", "keys": [f"k{i}" for i in range(5, 35)]})
    log.call(store, writing("upsert", [f"k{i}" for i in range(20, 40)], 600))
    store.close()  # rebuilds what is mostly dead, folds and merges


def mixed(path: Path, log: Log, seed: int) -> None:
    """Two threads that write, one that searches and optimizes, one in the background that folds; until it is killed."""
    maintenance.FOLD_BYTES, maintenance.FOLD_ROWS = 1, 30
    store = simstore.open(path, **OPTIONS)
    known = [item.key for item in store.scan()]
    stop = time.monotonic() + SECONDS / 4

    def write(name: str, own: list[Any], log: Log) -> None:
        rnd = random.Random(f"{seed}-{name}")
        live = dict.fromkeys(own)
        try:
            while time.monotonic() < stop:
                op = _next_op(rnd, live, name)
                log.line(op=op)
                keys = call(store, op)
                log.line(done=keys)
                for key in op["keys"] if op["keys"] is not None else keys or []:
                    live.pop(key, None) if op["kind"] == "delete" else live.setdefault(key)
        except BaseException as err:
            log.line(wrong=f"{type(err).__name__}: {err}")

    threads = []
    for name in ("a", "b"):
        own = [key for key in known if (isinstance(key, int) and name == "a") or str(key).startswith(name)]
        log_of = Log(_log_of(path, seed, name))
        threads.append(threading.Thread(target=write, args=(name, own, log_of), daemon=True))
        threads[-1].start()
    _search(store, log, random.Random(seed), stop)


def _log_of(path: Path, seed: int, name: str) -> Path:
    return path.parent / f"{path.name}-{seed}-{name}.log"


def _next_op(rnd: random.Random, live: dict[Any, None], name: str) -> Op:
    kind, first = rnd.random(), rnd.randrange(1, 1_000_000)
    some = rnd.sample(list(live), min(len(live), rnd.choice([1, 1, 3, 20])))
    if len(live) < 20 or kind < 0.25:
        fresh = rnd.randrange(1 << 60)
        if name == "a" and kind < 0.08:
            return writing("add", None, first, n=rnd.choice([1, 7]))
        return writing("add", [f"{name}{fresh}-{i}" for i in range(rnd.choice([1, 2, 40]))], first)
    if kind < 0.5:
        return writing("upsert", [*some, *(f"{name}new{first}-{i}" for i in range(rnd.choice([0, 3])))], first)
    if kind < 0.65:
        return {**writing("update", some, first), "vectors": None}
    return {"kind": "delete", "keys": some}


def _search(store: Store, log: Log, rnd: random.Random, stop: float) -> None:
    try:
        while time.monotonic() < stop:
            query = vectors_of([rnd.randrange(1000)])[0]
            hits = store.search(query, 5, with_vectors=True) if store.info().dim else []
            distances = [hit.distance for hit in hits]
            true = [float(np.linalg.norm(hit.vector - query)) for hit in hits if hit.vector is not None]
            if distances != sorted(distances) or not np.allclose(distances, true, atol=1e-4):
                log.line(wrong=f"hits at {distances}, where {true} is right")
            if rnd.random() < 0.05:
                store.optimize()
            time.sleep(0.001)
    except BaseException as err:
        log.line(wrong=f"{type(err).__name__}: {err}")


# -- being killed -------------------------------------------------------------------------------------------------------


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(SECONDS)


def _run(request: dict[str, Any]) -> None:
    path, log = Path(request["path"]), Log(Path(request["log"]))
    count = 0
    kill_at, files = request.get("kill_at"), tuple(request.get("lines_of", ()))
    lock = threading.Lock()

    def passed(name: str) -> None:
        nonlocal count
        with lock:
            if count == kill_at:
                log.line(step=name)
                _die()
            count += 1
            if not files and request["work"] != "mixed":
                log.line(step=name)

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.endswith(files):
            return None
        if event == "line":
            passed(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        return trace

    if files:
        sys.settrace(trace)
    else:
        steps.set_observer(passed)
    if request["work"] == "mixed":
        mixed(path, log, request["seed"])
    else:
        {"make": make, "scripted": scripted}[request["work"]](path, log)
    sys.settrace(None)
    if files:
        log.line(step=count)


def _serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                _run(request)
                os._exit(0)
            except BaseException as err:
                Log(Path(request["log"])).line(wrong=f"{type(err).__name__}: {err}")
                os._exit(1)
        print(json.dumps(_end_of(pid, request.get("kill_after_s", SECONDS))), flush=True)


def _end_of(pid: int, kill_after_s: float) -> int:
    """The child's exit code, or minus the number of the signal that ended it."""
    deadline = time.monotonic() + kill_after_s
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.0005)


class Server:
    """The fork server, from the test's side."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, **request: Any) -> int:
        """Has a child do the request; returns its exit code."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in request.items()}) + "\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], 2 * SECONDS)[0], f"the child hangs: {request}"
        return int(self._process.stdout.readline())


@contextmanager
def server() -> Iterator[Server]:
    """A fork server: what is imported once serves all children."""
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(SECONDS)


if __name__ == "__main__":
    _serve()
