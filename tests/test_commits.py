"""Group commit: many threads share transactions, and each gets what it would have got alone."""

import _thread
import ctypes
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import ref

import commits_child
import numpy as np
import pytest
from conftest import OpenStore
from test_growing_map import map_size_of, open_growing

import simstore
from simstore import Store
from simstore.errors import (
    CorruptStoreError,
    DimensionError,
    ForkedStoreError,
    KeyExistsError,
    KeyNotFoundError,
    StorageError,
    StorageFullError,
    StoreClosedError,
)
from simstore.storage import MovedError
from simstore.store import arguments, commits
from simstore.store.arguments import NewItems
from simstore.store.commits import Commits
from simstore.types import Counts

SECONDS = 20  # until a thread counts as hanging
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here, and no kill -9")


class Call:
    """A call in a thread of its own, and what came of it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as err:
            self.error = err

    def join(self) -> "Call":
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), "a call hangs"
        return self

    def value(self) -> Any:
        self.join()
        if self.error is not None:
            raise self.error
        return self.result


def commits_of(store: Store) -> Commits:
    return store._core.writer.commits


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


class Occupant:
    """Holds a transaction open until it is told to go, so that calls queue up, in the order in which they were made."""

    def __init__(self, store: Store) -> None:
        self._commits = commits_of(store)
        self._go = threading.Event()
        begun = threading.Event()
        self._call = Call(lambda: self._commits.write(lambda txn: (begun.set(), self._go.wait(SECONDS))))
        assert begun.wait(SECONDS)

    def queue(self, function: Callable[[], Any]) -> Call:
        n = len(self._commits._queue)
        call = Call(function)
        wait_until(lambda: len(self._commits._queue) > n)
        return call

    def go(self) -> None:
        self._go.set()
        self._call.join()


def grouped(store: Store, functions: list[Callable[[], Any]]) -> list[Call]:
    """Makes the calls so that they share a transaction, in this order."""
    occupant = Occupant(store)
    calls = [occupant.queue(function) for function in functions]
    occupant.go()
    return [call.join() for call in calls]


@pytest.fixture
def transactions(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """A line for each write transaction of the store: None, or why it failed."""
    ended: list[BaseException | None] = []
    write = store._core.environment.write

    def counted(*args: Any, **kwargs: Any) -> Any:
        try:
            result = write(*args, **kwargs)
        except BaseException as err:
            ended.append(err)
            raise
        ended.append(None)
        return result

    monkeypatch.setattr(store._core.environment, "write", counted)
    return ended


# -- sharing ------------------------------------------------------------------------------------------------------------


def test_adds_of_32_threads(store: Store, transactions: list[Any]) -> None:
    """No item is lost or doubled, and there are fewer transactions than calls."""
    go = threading.Barrier(32)

    def add(thread: int) -> list[Any]:
        go.wait()
        return [store.add(None, [[float(thread), float(n)]], labels=[thread], data=[n])[0] for n in range(30)]

    calls = [Call(lambda thread=thread: add(thread)) for thread in range(32)]  # type: ignore[misc]
    keys = [call.value() for call in calls]
    assert sorted(key for part in keys for key in part) == list(range(960))
    for thread, part in enumerate(keys):
        assert part == sorted(part)
        for n, item in enumerate(store.get_many(part)):
            assert item is not None and (item.label, item.data, item.vector.tolist()) == (thread, n, [thread, n])
    assert len(store) == store.info().seq == 960
    assert set(transactions) == {None} and len(transactions) < 960
    assert commits_of(store).n_commits == len(transactions) and commits_of(store).n_writes == 960


def test_each_call_gets_its_own_result(store: Store, transactions: list[Any]) -> None:
    store.add(["a", "b"], [[1.0], [2.0]])
    del transactions[:]
    calls = grouped(
        store,
        [
            lambda: store.add(None, [[3.0]]),
            lambda: store.upsert(["a", "c"], [[4.0], [5.0]]),
            lambda: store.add(None, [[6.0], [7.0]]),
            lambda: store.delete(["b", "no"], missing="ignore"),
            lambda: store.update("c", labels="label"),
            lambda: store.upsert(["b", "c"], [[8.0], [9.0]]),
            lambda: store.delete("c"),
        ],
    )
    expected = [[0], Counts(added=1, replaced=1), [1, 2], 1, None, Counts(added=1, replaced=1), 1]
    assert [call.value() for call in calls] == expected
    assert len(transactions) == 2  # the occupant's, and theirs
    assert store.info().seq == 1 + 7
    assert {item.key: item.vector.tolist() for item in store} == {0: [3], "a": [4], 1: [6], 2: [7], "b": [8]}


def test_a_group_has_a_most(store: Store, transactions: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "_MOST", 4)
    calls = grouped(store, [lambda n=n: store.add(n, [1.0]) for n in range(10)])  # type: ignore[misc]
    assert [call.value() for call in calls] == [[n] for n in range(10)]
    assert len(transactions) == 1 + 3


def test_calls_that_come_together_are_waited_for(
    store: Store, transactions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two shared a commit: the next waits for another; one that comes alone then is not waited for again."""
    grouped(store, [lambda: store.add("a", [1.0]), lambda: store.add("b", [1.0])])
    del transactions[:]
    later: list[Call] = []

    def sleep(seconds: float) -> None:
        if not later:
            later.append(Call(lambda: store.add("d", [1.0])))
            wait_until(lambda: bool(commits_of(store)._queue))

    monkeypatch.setattr(commits.time, "sleep", sleep)
    assert store.add("c", [1.0]) == ["c"] and later[0].value() == ["d"]
    assert transactions == [None]
    for key, n_sleeps in (("e", 1), ("f", 0)):
        slept: list[float] = []
        monkeypatch.setattr(commits.time, "sleep", slept.append)
        store.add(key, [1.0])
        assert len(slept) == n_sleeps
    assert transactions == [None] * 3


def test_each_call_wakes_the_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits until it looks by itself."""
    monkeypatch.setattr(commits, "_LOOK_AGAIN_S", 1000.0)
    calls = grouped(store, [lambda n=n: store.add(n, [1.0]) for n in range(20)])  # type: ignore[misc]
    assert [call.value() for call in calls] == [[n] for n in range(20)]


def test_some_serial_order_explains_everything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads upsert and delete the same few keys; replayed in the order of their seqs, each call returns what it returned."""
    store.add("other", [0.0])
    calls: list[tuple[int, bool, Any, Any]] = []  # seq, whether it changed nothing, what was called, what it returned
    write = commits_of(store).write

    def seq_too(work: Callable[[Any], Any]) -> Any:
        seqs: list[int] = []

        def noted(txn: Any) -> Any:
            result = work(txn)
            seqs.append(store._core.database.state(txn).seq)
            return result

        result = write(noted)
        seqs_of_thread.seq = seqs[-1]
        return result

    seqs_of_thread = threading.local()
    monkeypatch.setattr(commits_of(store), "write", seq_too)

    def work(thread: int) -> None:
        rnd = random.Random(thread)
        for n in range(60):
            keys = rnd.sample("abcd", rnd.choice([1, 2, 3]))
            number = float(thread * 1000 + n)
            if rnd.random() < 0.6:
                counts = store.upsert(keys, [[number]] * len(keys))
                calls.append((seqs_of_thread.seq, False, (keys, number), (counts.added, counts.replaced)))
            else:
                n_deleted = store.delete(keys, missing="ignore")
                calls.append((seqs_of_thread.seq, n_deleted == 0, (keys, None), n_deleted))

    for thread in [Call(lambda thread=thread: work(thread)) for thread in range(8)]:  # type: ignore[misc]
        thread.value()
    calls.sort(key=lambda entry: entry[:2])
    assert [seq for seq, nothing, _, _ in calls if not nothing] == list(range(2, store.info().seq + 1))
    model: dict[str, float] = {}
    for _, _, (keys, number), returned in calls:
        present = [key for key in keys if key in model]
        assert returned == (len(present) if number is None else (len(keys) - len(present), len(present)))
        for key in keys:
            if number is None:
                model.pop(key, None)
            else:
                model[key] = number
    assert {item.key: float(item.vector[0]) for item in store} == {**model, "other": 0.0}


# -- failures -----------------------------------------------------------------------------------------------------------


def test_a_refused_work_fails_its_own_call_only(store: Store, transactions: list[Any]) -> None:
    store.add("there", [1.0, 2.0])
    del transactions[:]
    three_wide = NewItems(arguments.batch_of(None, None, None, 1), np.ones((1, 3), np.float32), None)
    bad: list[tuple[type[Exception], Callable[[], Any]]] = [
        (KeyExistsError, lambda: store.add(["new", "there"], [[1.0, 2.0]] * 2)),
        (KeyNotFoundError, lambda: store.delete(["there", "missing"])),
        (KeyNotFoundError, lambda: store.update(["there", "missing"], labels=["x", "y"])),
        (DimensionError, lambda: commits_of(store).write(lambda txn: store._core.writer._begin(txn, three_wide))),
    ]
    works: list[Callable[[], Any]] = []
    for n, (_, function) in enumerate(bad):
        works += [lambda n=n: store.add(f"good {n}", [float(n), 0.0]), function]  # type: ignore[misc]
    calls = grouped(store, works)
    assert [call.result for call in calls[::2]] == [[f"good {n}"] for n in range(4)]
    assert [type(call.error) for call in calls[1::2]] == [error for error, _ in bad]
    assert transactions == [None, None]  # none was undone
    assert sorted(str(item.key) for item in store) == ["good 0", "good 1", "good 2", "good 3", "there"]
    assert store.get("there").label is None
    assert store.info().seq == 5
    assert commits_of(store).n_writes == 1 + 1 + 4  # there, the occupant, the good ones


def test_two_adds_of_one_key(store: Store) -> None:
    calls = grouped(store, [lambda n=n: store.add("key", [float(n)]) for n in range(3)])  # type: ignore[misc]
    assert calls[0].value() == ["key"]
    assert [type(call.error) for call in calls[1:]] == [KeyExistsError, KeyExistsError]
    assert store.get("key").vector.tolist() == [0]


def test_first_adds_of_two_widths(store: Store) -> None:
    """The first that is written settles the width; the other is refused, as it would be later."""
    calls = grouped(
        store, [lambda: store.add("a", [1.0, 2.0]), lambda: store.add("b", [1.0]), lambda: store.add("c", [1.0, 2.0])]
    )
    assert [call.result for call in calls] == [["a"], None, ["c"]]
    assert isinstance(calls[1].error, DimensionError)
    assert store.info().dim == 2 and len(store) == 2


def test_a_refused_first_add_does_not_settle_the_width(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store._core.database, "live_rows", lambda txn, keys: [7])
        with pytest.raises(KeyExistsError):
            store.add("a", [1.0, 2.0])
    assert store.info().dim is None
    store.add("a", [1.0, 2.0, 3.0])
    assert store.info().dim == 3


ERRORS = [RuntimeError, ValueError, MemoryError, StorageFullError, StorageError, CorruptStoreError]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_work_that_fails_midway_is_undone_alone(
    store: Store, transactions: list[Any], error: type[Exception], at: int
) -> None:
    """It has put something when it raises: nobody sees that, and the others get what they would have got."""
    store.add("there", [0.0])
    del transactions[:]
    runs = []

    def fails() -> None:
        def work(txn: Any) -> None:
            runs.append(threading.get_ident())
            txn.put(b"junk", b"x")
            store._core.database.put_state(txn, store._core.database.state(txn))
            raise error("midway")

        commits_of(store).write(work)

    works: list[Callable[[], Any]] = [lambda n=n: store.add(n, [float(n)]) for n in range(3)]  # type: ignore[misc]
    works.append(lambda: store.add("there", [1.0]))
    works.insert(at, fails)
    calls = grouped(store, works)
    failed = calls.pop(at)
    assert type(failed.error) is error and failed.error.args == ("midway",)
    assert [call.result for call in calls] == [[0], [1], [2], None]
    assert isinstance(calls[3].error, KeyExistsError)
    assert len(runs) == 2 and [type(end) for end in transactions].count(error) == 2
    assert len(transactions) == 1 + 1 + 5  # the occupant's, the group's, each alone
    assert [item.key for item in store] == ["there", 0, 1, 2]
    with store._core.environment.read() as txn:
        assert txn.get(b"junk") is None
    assert store.add("after", [1.0]) == ["after"]


def test_two_failing_works_get_their_own_errors(store: Store) -> None:
    def failing(error: Exception) -> Callable[[], None]:
        def work(txn: Any) -> None:
            txn.put(b"junk", b"x")
            raise error

        return lambda: commits_of(store).write(work)

    calls = grouped(store, [failing(ValueError("a")), lambda: store.add("good", [1.0]), failing(TypeError("b"))])
    assert [str(call.error) for call in calls] == ["a", "None", "b"] and calls[1].result == ["good"]
    assert store.add("after", [1.0]) == ["after"]


@pytest.mark.parametrize("n_calls", [0, 1, 3])
@pytest.mark.parametrize("error", [KeyExistsError, CorruptStoreError, MovedError])
def test_an_error_goes_with_who_got_it(store: Store, error: type[Exception], n_calls: int) -> None:
    """It refers to its frames, and those to the database: kept by a cycle, it would keep one that compact() has replaced."""
    errors: list[Any] = []

    def refused() -> None:
        def work(txn: Any) -> None:
            raise error("no")

        try:
            commits_of(store).write(work)
        except error as err:
            errors.append(ref(err))

    gc.disable()
    try:
        grouped(store, [refused] * n_calls) if n_calls else refused()
        assert len(errors) == max(1, n_calls) and [error() for error in errors if error() is not None] == []
    finally:
        gc.enable()


def test_a_commit_that_fails_once_is_done_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space was gone when the group committed, and is there again when each is alone."""
    write, failures = store._core.environment.write, [StorageFullError("full")]

    def full_once(work: Any, **kwargs: Any) -> Any:
        if len(commits_of(store)._queue) == 0 and failures and "attempt" in kwargs:
            raise failures.pop()
        return write(work, **kwargs)

    monkeypatch.setattr(store._core.environment, "write", full_once)
    calls = grouped(store, [lambda n=n: store.add(n, [1.0]) for n in range(3)])  # type: ignore[misc]
    assert [call.value() for call in calls] == [[0], [1], [2]] and failures == []


def test_a_write_within_a_write_is_refused_and_does_not_hang(store: Store) -> None:
    """As a finalizer might call it that runs within a work."""
    inner: list[BaseException] = []

    def work(txn: Any) -> str:
        try:
            store.add("inner", [1.0])
        except StorageError as err:
            inner.append(err)
        return "outer"

    assert Call(lambda: commits_of(store).write(work)).value() == "outer"
    assert "same thread" in str(inner[0])
    assert store.add("after", [1.0]) == ["after"]


# -- interrupts ---------------------------------------------------------------------------------------------------------


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt; pytest takes that for its own."""


class Timeout(Exception):
    """An interrupt that looks like an error."""


class Striker:
    """Raises an interrupt at the n-th place, of those where CPython can raise one, within a function of commits and environment."""

    def __init__(self, n: int, kind: type[BaseException]) -> None:
        self.left, self.kind, self.place = n, kind, ""

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in ("c_return", "call") or not frame.f_code.co_filename.endswith(("commits.py", "environment.py")):
            return
        if Path(frame.f_code.co_filename).name == "test_commits.py":
            return
        self.left -= 1
        if self.left < 0:
            self.place = f"{event} {frame.f_code.co_name}:{frame.f_lineno} {getattr(arg, '__name__', '')}"
            raise self.kind(self.place)

    def during(self, function: Callable[[], Any]) -> Any:
        sys.setprofile(self.profile)
        try:
            return function()
        finally:
            sys.setprofile(None)


def counting(store: Store, name: str) -> Callable[[], tuple[str, int]]:
    """A call that counts, in the database, how often it was done."""

    def work(txn: Any) -> tuple[str, int]:
        n = int(txn.get(name.encode()) or 0) + 1
        txn.put(name.encode(), str(n).encode())
        return name, n

    return lambda: commits_of(store).write(work)


def refused(store: Store) -> None:
    def work(txn: Any) -> None:
        raise KeyExistsError("there")

    commits_of(store).write(work)


def times_done(store: Store, name: str) -> int:
    with store._core.environment.read() as txn:
        return int(txn.get(name.encode()) or 0)


@pytest.mark.parametrize(
    ("undone", "kind"),
    [(False, Interrupt), (False, Timeout), (True, Interrupt)],  # not a Timeout where works run one by one: see Commits
    ids=["sound group", "sound group, Exception", "failing group"],
)
@pytest.mark.parametrize("victim", [0, 4], ids=["follower", "leader"])
def test_interrupted_at_every_place(stores: OpenStore, victim: int, undone: bool, kind: type[BaseException]) -> None:
    """Of five calls that share a transaction one is interrupted, once at each place: the others get what is theirs, once."""
    store = stores(metric="l2")
    places, n, n_written = set(), 0, 0
    while True:
        striker, names = Striker(n, kind), [f"{n} {i}" for i in range(5)]
        functions: list[Callable[[], Any]] = [counting(store, name) for name in names]
        functions[2] = lambda: refused(store)
        if undone:
            functions[1] = lambda: commits_of(store).write(lambda txn: 1 // 0)
        functions[victim] = lambda function=functions[victim], striker=striker: striker.during(function)  # type: ignore[misc]
        occupant = Occupant(store)
        calls = []
        for function in functions:
            before = len(commits_of(store)._queue)
            calls.append(Call(function))
            wait_until(lambda: len(commits_of(store)._queue) > before or bool(striker.place))  # noqa: B023
        occupant.go()
        for call in calls:
            call.join()
        for i in {0, 1, 3, 4} - {victim} - ({1} if undone else set()):
            assert calls[i].value() == (names[i], 1), striker.place
            assert times_done(store, names[i]) == 1, striker.place
        assert isinstance(calls[2].error, KeyExistsError), striker.place
        assert not undone or isinstance(calls[1].error, ZeroDivisionError), striker.place
        if striker.place:
            assert type(calls[victim].error) is kind, f"{striker.place}: {calls[victim].error!r}"
            assert times_done(store, names[victim]) <= 1
            n_written += times_done(store, names[victim])
            places.add(striker.place)
        else:
            assert calls[victim].value() == (names[victim], 1)
            break
        assert counting(store, f"{n} after")() == (f"{n} after", 1), striker.place
        n += 1
    assert len(places) > 5 and n_written > 0
    if victim == 4:
        assert any("__exit__" in place for place in places), "never right after the commit"
        assert len(places) > 20
    commits_ = commits_of(store)
    assert commits_._leader is None and not commits_._mutex.locked()


def test_ctrl_c_while_waiting(store: Store) -> None:
    """The main thread waits for its turn, and Ctrl-C strikes: it raises at once, and all goes on."""
    occupant = Occupant(store)
    before = occupant.queue(lambda: store.add("before", [1.0]))
    threading.Timer(0.1, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        store.add("interrupted", [1.0])
    after = occupant.queue(lambda: store.add("after", [1.0]))
    occupant.go()
    assert before.value() == ["before"] and after.value() == ["after"]
    assert store.add("more", [1.0]) == ["more"]
    assert "interrupted" not in store  # nobody had taken it


def test_a_signal_handler_that_writes_while_its_thread_waits(store: Store) -> None:
    occupant = Occupant(store)
    written = []

    def handler(*_: object) -> None:
        threading.Timer(0.1, occupant.go).start()
        written.extend(store.add("handler's", [1.0]))

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert store.add("outer", [1.0]) == ["outer"]
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert written == ["handler's"] and len(store) == 2


def test_interrupts_at_random(store: Store) -> None:
    """Eight threads add and are struck all the time, twice within a moment as well: what was acknowledged is there, once."""
    stop = time.monotonic() + 2
    acknowledged: list[list[str]] = [[] for _ in range(8)]
    n_struck = [0] * 8

    def add(thread: int) -> None:
        n = 0
        while time.monotonic() < stop:
            try:
                while time.monotonic() < stop:
                    n += 1
                    assert store.add(f"{thread}-{n}", [1.0]) == [f"{thread}-{n}"]
                    acknowledged[thread].append(f"{thread}-{n}")
            except Interrupt:
                n_struck[thread] += 1

    def guarded(thread: int) -> None:
        while time.monotonic() < stop:
            try:
                add(thread)
            except Interrupt:  # struck in the handler
                n_struck[thread] += 1

    calls = [Call(lambda thread=thread: guarded(thread)) for thread in range(8)]  # type: ignore[misc]
    rnd = random.Random(3)
    while time.monotonic() < stop - 0.2:
        time.sleep(rnd.random() * 0.002)
        victim = rnd.choice(calls).thread.ident
        for _ in range(rnd.choice([1, 1, 2])):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(victim or 0), ctypes.py_object(Interrupt))
            time.sleep(0.00005)
    for call in calls:
        call.value()
    keys = {key for part in acknowledged for key in part}
    assert keys <= {item.key for item in store} and sum(n_struck) > 50 and len(keys) > 200
    assert store.add("after", [1.0]) == ["after"]


# -- closing, forking, killing ------------------------------------------------------------------------------------------


def test_closed_while_calls_are_queued(store: Store) -> None:
    occupant = Occupant(store)
    calls = [occupant.queue(lambda n=n: store.add(n, [float(n)])) for n in range(8)]  # type: ignore[misc]
    environment = store._core.environment
    closing = Call(store.close)
    wait_until(lambda: environment._closed or not closing.thread.is_alive())
    occupant.go()
    closing.value()
    written = set()
    for n, call in enumerate(calls):
        call.join()
        assert call.result == [n] or isinstance(call.error, StoreClosedError)
        written |= {n} if call.error is None else set()
    with pytest.raises(StoreClosedError):
        store.add("late", [1.0])
    with simstore.open(store._path) as again:
        assert {item.key for item in again} == written
        assert again.check(deep=True) == []


def test_closed_in_the_middle_of_everything(tmp_path: Path) -> None:
    for n in range(15):
        store = simstore.open(tmp_path / f"{n}.sim", background=False, metric="l2")

        def add(thread: int, store: Store = store) -> list[str]:
            keys: list[str] = []
            try:
                while True:
                    keys += store.add(f"{thread}-{len(keys)}", [1.0])  # type: ignore[arg-type]
            except StoreClosedError:
                return keys

        calls = [Call(lambda thread=thread, add=add: add(thread)) for thread in range(8)]  # type: ignore[misc]
        time.sleep(0.002 * n)
        Call(store.close).value()
        keys = {key for call in calls for key in call.value()}
        with simstore.open(tmp_path / f"{n}.sim", background=False) as again:
            assert {item.key for item in again} == keys
            assert again.check(deep=True) == []


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_while_others_write(store: Store) -> None:
    store.add("first", [1.0])
    occupant = Occupant(store)
    queued = occupant.queue(lambda: store.add("queued", [1.0]))
    with commits_of(store)._mutex:  # as if another thread were just taking the lead
        pid = os.fork()
        if pid == 0:
            try:
                store.upsert("child's", [1.0])
            except ForkedStoreError:
                try:
                    commits_of(store).write(lambda txn: None)
                except ForkedStoreError:
                    os._exit(7)
            os._exit(1)
    deadline, status = time.monotonic() + SECONDS, (0, 0)
    while status[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)
    assert os.waitstatus_to_exitcode(status[1]) == 7
    occupant.go()
    assert queued.value() == ["queued"] and len(store) == 2


@needs_fork
def test_killed_in_the_middle_of_group_commits(tmp_path: Path) -> None:
    """Twelve threads write until kill -9, again and again: nothing acknowledged is lost, nothing is half there."""
    path, logs = tmp_path / "s.sim", tmp_path / "logs"
    logs.mkdir()
    rnd = random.Random(5)
    command = [sys.executable, commits_child.__file__, path, logs, "12"]
    n_acknowledged = n_pending = 0
    for _ in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stdout.readline() == b"begun\n"
            time.sleep(0.02 + rnd.random() * 0.2)
            child.kill()
        acknowledged, pending = read_logs(logs)
        n_acknowledged, n_pending = len(acknowledged), len(pending)
        with simstore.open(path, background=False) as store:
            items = {item.key: item.vector.tolist() for item in store}
            assert store.check(deep=True) == []
        shared = {key for key in items if str(key).endswith("-0")}
        assert acknowledged <= set(items)
        assert set(items) - shared <= acknowledged | pending
        for key in set(items) - shared:
            assert items[key] == commits_child.vector_of(str(key)).tolist()
        for key in shared:  # replaced together with another: that one's vector is the newest of those that came through
            newest = max((str(other) for other in items if is_fifth(str(other), str(key))), key=number_of)
            assert items[key] == commits_child.vector_of(newest).tolist()
    assert n_acknowledged > 300 and n_pending > 6


def number_of(key: str) -> int:
    return int(key.split("-")[1])


def is_fifth(key: str, shared: str) -> bool:
    return key.split("-")[0] == shared.split("-")[0] and number_of(key) % 5 == 0 and key != shared


def read_logs(logs: Path) -> tuple[set[str], set[str]]:
    acknowledged, pending = set(), set()
    for file in logs.iterdir():
        lines = file.read_text().split()
        for at, line in enumerate(lines):
            if line != "+":
                (acknowledged if lines[at + 1 : at + 2] == ["+"] else pending).add(line)
    return acknowledged, pending


# -- the map grows, readers die -----------------------------------------------------------------------------------------


def test_the_map_grows_under_groups(tmp_path: Path) -> None:
    with open_growing(tmp_path / "s.sim", background=False) as store:
        before = map_size_of(store)
        data = {"text": "x" * 1500}

        def add(thread: int) -> list[Any]:
            keys = []
            for n in range(12):
                keys += store.add([f"{thread}-{n}-{i}" for i in range(10)], [[1.0, float(n)]] * 10, data=[data] * 10)
                with pytest.raises(KeyExistsError):
                    store.add(keys[-1], [1.0, 2.0])
            return keys

        calls = [Call(lambda thread=thread: add(thread)) for thread in range(12)]  # type: ignore[misc]
        keys = [key for call in calls for key in call.value()]
        assert len(set(keys)) == 1440 and {item.key for item in store} == set(keys)
        assert map_size_of(store) >= 4 * before
        assert commits_of(store).n_writes == 144 and store.info().seq == 144
        assert store.check(deep=True) == []


def test_one_group_makes_the_map_grow(tmp_path: Path) -> None:
    """All works run again, those that fail with them, and each is done once."""
    with open_growing(tmp_path / "s.sim", background=False) as store:
        store.add("there", [1.0])
        before, runs = map_size_of(store), []

        def add(n: int) -> Any:
            runs.append(n)
            return store.add([f"{n}-{i}" for i in range(200)], [[1.0]] * 200, data=["x" * 1500] * 200)

        works: list[Callable[[], Any]] = [lambda n=n: add(n) for n in range(5)]  # type: ignore[misc]
        works.insert(2, lambda: store.add("there", [1.0]))
        calls = grouped(store, works)
        assert isinstance(calls.pop(2).error, KeyExistsError)
        assert [len(call.value()) for call in calls] == [200] * 5
        assert map_size_of(store) > before and len(store) == 1001 and store.info().seq == 6
        assert store.check(deep=True) == []


READ_IN_A_CHILD = """
import sys, time, simstore
store = simstore.open(sys.argv[1], mode="r")
with store._core.environment.read() as txn:
    store._core.database.state(txn)
    print("reading", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def dead_reader(store: Store) -> int:
    store.add("a", [1.0])
    with subprocess.Popen([sys.executable, "-c", READ_IN_A_CHILD, store._path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"reading\n"
        assert f"{child.pid} " in store._core.environment._env.readers()
        child.kill()
    return child.pid


@needs_fork
def test_dead_readers_are_cleared(store: Store, dead_reader: int) -> None:
    """A reader that was killed holds its pages for a second at most; then the file stops growing."""
    assert f"{dead_reader} " in store._core.environment._env.readers()
    commits_of(store)._clear_at = 0.0
    store.upsert("a", [2.0])
    assert f"{dead_reader} " not in store._core.environment._env.readers()
    assert store._core.environment.clear_dead_readers() == 0
    for _ in range(50):
        store.upsert("a", [2.0])
    size = (store._path / "data.mdb").stat().st_size
    for _ in range(50):
        store.upsert("a", [2.0])
    assert (store._path / "data.mdb").stat().st_size <= size + 10 * 4096


def test_dead_readers_are_looked_for_once_a_second(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[float] = []
    clock = [100.0]
    monkeypatch.setattr(commits.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(store._core.environment, "clear_dead_readers", lambda: looked.append(clock[0]))
    commits_of(store)._clear_at = 101.0
    for now in (100.0, 100.9, 101.1, 101.9, 102.0, 102.2, 200.0):
        clock[0] = now
        store.upsert("a", [1.0])
    assert looked == [101.1, 102.2, 200.0]


def test_a_search_for_dead_readers_that_fails_fails_no_call(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise StorageError("no")

    monkeypatch.setattr(store._core.environment, "clear_dead_readers", fail)
    commits_of(store)._clear_at = 0.0
    assert store.add("a", [1.0]) == ["a"]


def test_clear_dead_readers_of_a_closed_environment(store: Store) -> None:
    store.close()
    with pytest.raises(StoreClosedError):
        store._core.environment.clear_dead_readers()
