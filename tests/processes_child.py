"""A process that has a store open and does what it is asked to; and what it is asked by.

Run as a script it opens the store that its first request names, then answers requests (pickled: a name, and arguments) until
its stdin ends. A request is one of the functions in TASKS, or a method of the Store.
"""

import faulthandler
import gc
import json
import os
import pickle
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import serial_model
import told_model
from numpy.typing import NDArray

import simstore
from simstore import Store
from simstore.errors import SimstoreError
from simstore.storage import Transaction
from simstore.storage.records import State
from simstore.store import maintenance
from simstore.store.commits import Commits
from simstore.types import Item
from simstore.where import where_of

SECONDS = 60  # until a process counts as hanging
OPTIONS: dict[str, Any] = {"metric": "l2", "ef_construction": 30, "M": 8}


# -- the asking side ----------------------------------------------------------------------------------------------------


class Child:
    """A process started afresh, from the test's side."""

    def __init__(self, path: Path | None, *, pass_fds: tuple[int, ...] = (), **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=pass_fds
        )
        self._n_asked = 0
        if path is not None:
            self.ask("open", path, **options)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, name: str, *args: Any, **options: Any) -> None:
        """Asks, without waiting for the answer."""
        assert self._process.stdin is not None
        pickle.dump((name, args, options), self._process.stdin)
        self._process.stdin.flush()
        self._n_asked += 1

    def has_answered(self) -> bool:
        """Whether there is an answer, or the process has gone."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def answer(self, seconds: float = SECONDS) -> Any:
        """The answer to the oldest request; raises what was raised there."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], seconds)[0], "the process hangs"
        self._n_asked -= 1
        error, value = pickle.load(self._process.stdout)
        if error is not None:
            print(error, file=sys.stderr)
            raise value
        return value

    def ask(self, name: str, *args: Any, **options: Any) -> Any:
        """Asks and waits."""
        self.send(name, *args, **options)
        return self.answer()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait_until_stopped(self) -> None:
        """Until it has stopped itself."""
        deadline = time.monotonic() + SECONDS
        while Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert time.monotonic() < deadline, "the process goes on"
            time.sleep(0.001)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait(SECONDS)

    def end(self) -> None:
        """Has it close the store and exit, if it has not gone yet."""
        if self._process.poll() is None:
            try:
                self.signal(signal.SIGCONT)
                assert self._n_asked == 0, "an answer that nobody has fetched"
                self.ask("close")
            finally:
                assert self._process.stdin is not None and self._process.stdout is not None
                self._process.stdin.close()
                try:
                    assert self._process.wait(SECONDS) == 0
                finally:
                    self._process.kill()
                    self._process.stdout.close()

    def end_anyhow(self) -> None:
        """Ends it after a test that failed."""
        self._process.kill()
        self._process.wait(SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                with suppress(BrokenPipeError):
                    pipe.close()


# -- the answering side -------------------------------------------------------------------------------------------------

_store: Store


def open_store(path: Path, *, folds: bool = False, **options: Any) -> None:
    """Opens the store; folds has it build graphs over a few rows."""
    global _store
    if folds:
        maintenance.FOLD_BYTES, maintenance.FOLD_ROWS = 1, 30
    options.setdefault("background", False)
    if not (path / "data.mdb").exists():
        options = {**OPTIONS, **options}
    _store = simstore.open(path, **options)


def hold_transaction() -> None:
    """Begins a read transaction, and never ends it."""
    transaction = _store._core.environment.read()
    assert transaction.__enter__().get(b"state")
    globals()["_held"] = transaction


def hold_write() -> None:
    """Begins a write, and is stuck in it."""

    def work(txn: Transaction) -> None:
        txn.put(b"junk", b"half a write")
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(SECONDS)

    _store._core.writer.write(work)


def stopped_within(name: str, *args: Any, nth: int = 1, **options: Any) -> Any:
    """Calls a method, and stops itself (SIGSTOP) when it has looked for the n-th time which state it is to see."""
    views, n = _store._core.views, 0
    current = views.current

    def stopping(txn: Transaction) -> Any:
        nonlocal n
        view, n = current(txn), n + 1
        if n == nth:
            os.kill(os.getpid(), signal.SIGSTOP)
        return view

    views.current = stopping  # type: ignore[method-assign]
    answer = getattr(_store, name)(*args, **options)
    assert n == nth
    return answer


_iterator: Iterator[Item]


def begin_scan(*args: Any) -> None:
    """Begins a scan."""
    global _iterator
    _iterator = _store.scan(*args)


def next_items(n: int) -> list[Any]:
    """The next n items of the scan that was begun."""
    return [plain(item) for item in islice(_iterator, n)]


def called(name: str, *args: Any) -> Any:
    """What a method returns; a request can also name the method, if it has no name of a task."""
    return getattr(_store, name)(*args)


def contains(key: Any) -> bool:
    """key in store"""
    return key in _store


def count_items() -> int:
    """len(store)"""
    return len(_store)


def interleaved(seed: int, n: int, threads: int) -> list[tuple[int, serial_model.Op, Any]]:
    """Does n operations in each of several threads; the seq of the state that each left, which it was, what came of it."""
    write, own = Commits.write, threading.local()
    log: list[tuple[int, serial_model.Op, Any]] = []

    def noted(self: Commits, work: Callable[[Transaction], Any]) -> Any:
        seqs = own.seqs  # the work may run in another thread, and more than once

        def noting(txn: Transaction) -> Any:
            try:
                return work(txn)
            finally:
                seqs.append(State.of(txn.get(b"state")).seq)

        return write(self, noting)

    def work(thread: int) -> None:
        rnd = random.Random(f"{seed}-{thread}")
        for i in range(n):
            op = serial_model.random_op(rnd, (seed * threads + thread) * n + i)
            own.seqs = []
            result = serial_model.done(_store, op)
            log.append((own.seqs[-1], op, result))

    Commits.write = noted  # type: ignore[method-assign, assignment]
    run_all([lambda thread=thread: work(thread) for thread in range(threads)])  # type: ignore[misc]
    Commits.write = write  # type: ignore[method-assign]
    return log


def run_all(works: list[Callable[[], None]], seconds: float = 4 * SECONDS) -> None:
    """Each in a thread of its own; raises what one of them raised, or if one hangs."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as err:
            errors.append(err)

    threads, stop = [threading.Thread(target=run, args=(work,), daemon=True) for work in works], time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, stop - time.monotonic()))
        if thread.is_alive():
            faulthandler.dump_traceback()
            raise AssertionError("a thread hangs")
    if errors:
        raise errors[0]


def tell(seed: int, seconds: float, pipes: list[int]) -> tuple[int, list[int]]:
    """Writes for some seconds, and tells after each call how many calls have returned; how many there were, and the sizes of
    the database after each compact().
    """
    rnd, stop, n, sizes = random.Random(seed), time.monotonic() + seconds, 0, []
    for op in told_model.operations(seed):
        if time.monotonic() > stop:
            break
        told_model.do(_store, op)
        n += 1
        os.write(rnd.choice(pipes), n.to_bytes(8, "little"))
        if n % 300 == 0:
            _store.compact()
            sizes.append(_store.info().database_size_bytes)
        elif n % 50 == 0:
            _store.search(told_model.QUERY)  # has the background look
    for pipe in pipes:
        os.close(pipe)
    return n, sizes


def hear(seed: int, pipe: int) -> tuple[int, int]:
    """Asks the store something each time it is told of a call; how many answers were compared, and how many calls it heard of."""
    rnd, model, n_asked, n_told = random.Random(f"{seed}-{pipe}"), told_model.States(seed), 0, 0
    while heard := os.read(pipe, 8000):
        n_told = int.from_bytes(heard[-8:], "little")  # the newest
        model.have_seen(n_told)
        n_asked += model.ask(_store, rnd)
    os.close(pipe)
    return n_asked, n_told


def churn(name: str, n: int, *, compacts: bool) -> None:
    """Writes to keys of its own and builds graphs all the time; compares each answer with what it has written."""
    rnd, own = random.Random(name), {}
    for turn in range(n):
        keys = [f"{name}-{rnd.randrange(120)}" for _ in range(rnd.choice([1, 5, 40]))]
        keys = list(dict.fromkeys(keys))
        if rnd.random() < 0.25:
            _store.delete(keys, missing="ignore")
            for key in keys:
                own.pop(key, None)
        else:
            vectors = np.random.default_rng(rnd.randrange(1 << 60)).standard_normal((len(keys), 8)).astype(np.float32)
            _store.upsert(keys, vectors, labels=[name] * len(keys))
            own.update(zip(keys, vectors, strict=True))
        if turn % 3 == 0:
            _store.optimize()
        if compacts and turn % 20 == 19:
            _store.compact()
        check_own(name, own, rnd)


def check_own(name: str, own: dict[str, NDArray[np.float32]], rnd: random.Random) -> None:
    """A process' own keys are as it left them, by whatever path they are found."""
    query = np.random.default_rng(rnd.randrange(1 << 60)).standard_normal(8).astype(np.float32)
    where = where_of({"$label": name})
    true = sorted((float(np.linalg.norm(vector - query)), key) for key, vector in own.items())
    exact = _store.search(query, 10, where=where, exact=True)
    assert exact.keys == [key for _, key in true[:10]], "an exact search missed something"
    np.testing.assert_allclose(exact.distances, [distance for distance, _ in true[:10]], atol=1e-5)
    hits = _store.search(query, 10, with_vectors=True)
    assert len(set(hits.keys)) == len(hits)
    for hit in hits:
        assert hit.vector is not None and abs(np.linalg.norm(hit.vector - query) - hit.distance) < 1e-5
        assert hit.label != name or np.array_equal(hit.vector, own[str(hit.key)])
    batch = _store.search_many(np.stack([query, -query]), 5, where=where, ef=200)
    assert batch.keys[0].tolist() == [*exact.keys[:5], *[None] * (5 - len(exact.keys[:5]))]
    assert _store.count(where) == _store.labels().get(name, 0) == len(own)


def deleted_files() -> int:
    """How many files this process keeps open or mapped that have no name any more."""
    held = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")}
    mapped = {
        line.split(maxsplit=5)[5].strip()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if len(line.split(maxsplit=5)) > 5
    }
    return sum(name.endswith(" (deleted)") and ".sim" in name for name in held | mapped)


TASKS: dict[str, Callable[..., Any]] = {
    "open": open_store,
    "hold_transaction": hold_transaction,
    "hold_write": hold_write,
    "stopped_within": stopped_within,
    "begin_scan": begin_scan,
    "next_items": next_items,
    "called": called,
    "contains": contains,
    "len": count_items,
    "interleaved": interleaved,
    "tell": tell,
    "hear": hear,
    "churn": churn,
    "deleted_files": deleted_files,
}


def plain(value: Any) -> Any:
    """An answer of the store's, so that it can be pickled and compared."""
    if isinstance(value, Item):
        return value.key, value.label, json.dumps(value.data), value.vector.tolist()
    if isinstance(value, simstore.Hits):
        return [(hit.key, hit.label, hit.distance) for hit in value]
    if isinstance(value, simstore.BatchHits):
        return [plain(hits) for hits in value]
    if isinstance(value, (list, Iterator)):
        return [plain(one) for one in value]
    return value


def serve() -> None:
    gc.disable()  # what is done with is to go at once: a cycle would keep files that were replaced
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, prints elsewhere
    while True:
        try:
            name, args, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            work = TASKS.get(name) or getattr(_store, name)
            answer = None, plain(work(*args, **options))
        except BaseException as err:
            kept = err if isinstance(err, SimstoreError) else RuntimeError(f"{type(err).__name__}: {err}")
            answer = traceback.format_exc(), kept  # type: ignore[assignment]
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    serve()
