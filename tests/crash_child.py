"""Runs a store's workload in processes that are killed.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from crash_model import OPTIONS, Op, call, deleting, deleting_where, naming, updating, vectors_of, writing

import simstore
from simstore import Store
from simstore.storage import steps
from simstore.store import maintenance

SECONDS = 60  # until a child counts as hanging


class Log:
    """One line for each call before it, and one after it."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def line(self, **what: Any) -> None:
        os.write(self._handle, json.dumps(what).encode() + b"\n")

    def call(self, store: Store, op: Op, who: str = "") -> Any:
        self.line(op=op, who=who)
        result = call(store, op)
        self.line(done=result, who=who)
        return result


# -- what a child does --------------------------------------------------------------------------------------------------


def make(path: Path, log: Log) -> None:
    """Makes a store, and no more."""
    simstore.open(path, background=False, **OPTIONS).close()


def compact(path: Path, log: Log) -> None:
    """Compacts a store that others may have open."""
    store = simstore.open(path, background=False, **OPTIONS)
    store.compact()
    store.close()


def scripted(path: Path, log: Log) -> None:
    """One thread: a store's life from being made to being closed, through each kind of call, fold, merge and rebuild."""
    maintenance.FOLD_BYTES, maintenance.FOLD_ROWS = 1, 8
    store = simstore.open(path, background=False, **OPTIONS)
    log.call(store, writing("add", [f"k{i}" for i in range(40)], 100))
    log.call(store, writing("add", None, 200, n=5))
    store.optimize()  # a fold
    log.call(store, naming("snapshot", "one"))
    log.call(store, writing("upsert", [f"k{i}" for i in range(30, 50)], 300))
    log.call(store, updating(["k1", "k2", "k45"], 400))
    log.call(store, deleting(["k3", "k4"]))
    store.optimize()  # a merge, or a build anew
    log.call(store, writing("add", [f"m{i}" for i in range(15)], 500))
    store.optimize()  # a merge onto the graph there is
    log.call(store, naming("create_index", "n"))
    log.call(store, deleting_where(store, "m", "label 3"))
    log.call(store, naming("restore", "one"))
    log.call(store, naming("restore", "before-restore-one"))
    log.call(store, naming("backup", "first.backup"))
    log.call(store, naming("delete_snapshot", "one"))
    log.call(store, {"kind": "compact"})  # what only "one" has seen goes
    log.call(store, deleting([f"k{i}" for i in range(5, 35)]))
    log.call(store, writing("upsert", [f"k{i}" for i in range(20, 40)], 600))
    log.call(store, naming("delete_snapshot", "before-restore-before-restore-one"))
    log.call(store, {"kind": "compact"})
    log.call(store, deleting([f"m{i}" for i in range(3)]))
    log.call(store, naming("drop_index", "n"))
    store.close()  # rebuilds what is mostly dead, folds and merges


class Turns:
    """Writers go beside each other; who must know exactly what the store holds goes alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_beside = 0
        self._n_wanting = 0  # to go alone

    @contextmanager
    def beside(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._n_wanting)
            self._n_beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_beside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._n_wanting += 1
            self._changed.wait_for(lambda: not self._n_beside)
        try:
            yield
        finally:
            with self._changed:
                self._n_wanting -= 1
                self._changed.notify_all()


class Mixed:
    """Two threads that write, one that remembers and restores, one that searches, optimizes and compacts, and one in the
    background that folds; until they are killed. Each writer has keys of its own.
    """

    def __init__(self, path: Path, log: Log, seed: int) -> None:
        maintenance.FOLD_BYTES, maintenance.FOLD_ROWS = 1, 30
        self.store = simstore.open(path, **OPTIONS)
        self.log, self.seed = log, seed
        self.stop = time.monotonic() + SECONDS / 4
        self.turns = Turns()
        self.live: dict[str, dict[Any, None]] = {"a": {}, "b": {}}
        self._look()

    def run(self) -> None:
        for work, who in ((self._write, "a"), (self._write, "b"), (self._remember, "c")):
            threading.Thread(target=self._tried, args=(work, who), daemon=True).start()
        self._tried(self._search, "d")

    def _tried(self, work: Callable[[str, random.Random], None], who: str) -> None:
        rnd = random.Random(f"{self.seed}-{who}")
        try:
            while time.monotonic() < self.stop:
                work(who, rnd)
        except BaseException as err:
            self.log.line(wrong=f"{who}: {type(err).__name__}: {err}")

    def _look(self) -> None:
        """Finds out which keys are alive."""
        keys = [item.key for item in self.store.scan()]
        self.live["b"] = dict.fromkeys(key for key in keys if str(key).startswith("b"))
        self.live["a"] = dict.fromkeys(key for key in keys if key not in self.live["b"])

    def _write(self, who: str, rnd: random.Random) -> None:
        with self.turns.beside():
            live = self.live[who]
            op = _next_op(rnd, live, who)
            if rnd.random() < 0.05:
                op = deleting_where(self.store, who, f"label {rnd.randrange(5)}")
            keys = self.log.call(self.store, op, who)
            for key in op["keys"] if op["keys"] is not None else keys or []:
                live.pop(key, None) if op["kind"].startswith("delete") else live.setdefault(key)

    def _remember(self, who: str, rnd: random.Random) -> None:
        time.sleep(rnd.random() * 0.03)
        names = [snapshot.name for snapshot in self.store.snapshots()]
        chance = rnd.random()
        if chance < 0.1:
            kind = "drop_index" if self.store.info().indexed_fields else "create_index"
            self.log.call(self.store, naming(kind, "n"), who)
        elif chance < 0.2:
            with self.turns.alone():
                self.log.call(self.store, naming("backup", f"{rnd.randrange(1 << 60)}.backup"), who)
        elif not names or chance < 0.45:
            with self.turns.alone():
                self.log.call(self.store, naming("snapshot", f"snapshot {rnd.randrange(1 << 60)}"), who)
        elif len(names) > 4 or chance < 0.6:
            self.log.call(self.store, naming("delete_snapshot", rnd.choice(names)), who)
        else:
            with self.turns.alone():
                self.log.call(self.store, naming("restore", rnd.choice([name for name in names if len(name) < 90])), who)
                self._look()

    def _search(self, who: str, rnd: random.Random) -> None:
        query = vectors_of([rnd.randrange(1000)])[0]
        hits = self.store.search(query, 5, with_vectors=True) if self.store.info().dim else []
        distances = [hit.distance for hit in hits]
        true = [float(np.linalg.norm(hit.vector - query)) for hit in hits if hit.vector is not None]
        if distances != sorted(distances) or not np.allclose(distances, true, atol=1e-4):
            self.log.line(wrong=f"hits at {distances}, where {true} is right")
        chance = rnd.random()
        if chance < 0.04:
            self.store.optimize()
        elif chance < 0.16:
            self.log.call(self.store, {"kind": "compact"}, who)
        time.sleep(0.001)


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
    return updating(some, first) if kind < 0.65 else deleting(some)


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
            if count == kill_at or name == request.get("kill_at_step"):
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
        Mixed(path, log, request["seed"]).run()
    else:
        {"make": make, "scripted": scripted, "compact": compact}[request["work"]](path, log)
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
