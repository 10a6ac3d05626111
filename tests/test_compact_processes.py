"""compact() beside other processes that have the store open, and what they do when the one that compacts is killed."""

import gc
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crash_child
import numpy as np
import pytest
from crash_child import Server
from crash_model import (
    NOTHING,
    OPTIONS,
    Model,
    Op,
    after,
    assert_holds,
    assert_remembers,
    assert_tidy,
    call,
    deleting,
    naming,
    verify,
    writing,
)  # fmt: skip
from store_agent import Agent, Board, agents

import simstore
from simstore import Store
from simstore.errors import AlreadyOpenError, CorruptStoreError, SnapshotNotFoundError, StorageError
from simstore.storage import LocalFiles, steps
from simstore.store import entry, guard, maintenance
from simstore.store.entry import open_through
from simstore.store.guard import guarded

KILLED = -signal.SIGKILL
STEPS = ("compact.copied", "compact.committed", "compact.unlocked", "compact.renamed")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here, and no kill -9")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with crash_child.server() as running:
        yield running


@pytest.fixture(scope="module")
def others() -> Iterator[list[Agent]]:
    """Other processes; what a test opens in them it closes."""
    with agents(3) as running:
        yield running


@pytest.fixture(autouse=True)
def small_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 8)


class Shared:
    """A store that this process has open, and what it holds."""

    def __init__(self, path: Path) -> None:
        self.path, self.world = path, NOTHING
        self.store = simstore.open(path, background=False, **OPTIONS)
        self.do(writing("add", [f"k{i}" for i in range(40)], 100))
        self.store.optimize()
        self.do(naming("snapshot", "one"))
        self.do(writing("upsert", [f"k{i}" for i in range(30, 50)], 300))
        self.do(deleting([f"k{i}" for i in range(20)]))
        self.do(naming("snapshot", "two"))
        self.do(naming("delete_snapshot", "one"))

    def do(self, op: Op) -> None:
        self.world = after(self.world, op, call(self.store, op))

    @property
    def items(self) -> Model:
        return self.world.items

    def do_in(self, agent: Agent, op: Op) -> None:
        self.world = after(self.world, op, agent.do("call", op=op))


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    shared = Shared(tmp_path / "s.sim")
    yield shared
    shared.store.close()
    verify(shared.path, shared.world, [])


# -- who has the store open while another compacts ----------------------------------------------------------------------


@pytest.mark.parametrize("first", ["reader", "writer", "snapshot", "here", "opener"])
@pytest.mark.parametrize("step", [None, *STEPS])
def test_who_has_the_store_open_goes_over(
    server: Server, others: list[Agent], shared: Shared, step: str | None, first: str, tmp_path: Path
) -> None:
    """Whoever calls first after the compactor has died finishes what it began; nobody notices."""
    reader, writer, remembering = others
    reader.do("open", path=shared.path, mode="r")
    writer.do("open", path=shared.path)
    remembering.do("open", path=shared.path, snapshot="two")
    for agent in (reader, writer):
        agent.do("holds", items=shared.items)
    remembering.do("holds", items=shared.world.snapshots["two"])
    old = (shared.path / "data.mdb").stat().st_ino

    request = {} if step is None else {"kill_at_step": step}
    assert server.run(work="compact", path=shared.path, log=tmp_path / "log", **request) == (KILLED if step else 0)

    def here() -> None:
        shared.do(writing("upsert", ["k1", "here"], 900))

    def opener() -> None:
        assert server.run(work="compact", path=shared.path, log=tmp_path / "log") == 0

    turns = {
        "reader": lambda: reader.do("holds", items=shared.items),
        "writer": lambda: shared.do_in(writer, writing("upsert", ["k41", "there"], 700)),
        "snapshot": lambda: remembering.do("holds", items=shared.world.snapshots["two"]),
        "here": here,
        "opener": opener,
    }
    for name in [first, *sorted(turns.keys() - {first, "opener"})]:
        turns[name]()
        reader.do("holds", items=shared.items)
    assert_remembers(shared.store, shared.world, 1)
    left = [copy.name for copy in shared.path.glob("compacted-*")]
    assert len(left) == (step == "compact.copied" and first != "opener")  # the next open removes it
    for agent in others:
        assert [problem for problem in agent.do("check") if not any(name in problem for name in left)] == []
        agent.do("close")
    assert [problem for problem in shared.store.check(deep=True) if not any(name in problem.what for name in left)] == []
    if step != "compact.copied" or first == "opener":
        assert (shared.path / "data.mdb").stat().st_ino != old
    shared.store.close()
    shared.store = simstore.open(shared.path, background=False)
    assert_tidy(shared.path, shared.store)


def test_a_snapshot_that_another_process_has_deleted_is_gone_after_the_next_compact_too(
    others: list[Agent], shared: Shared
) -> None:
    others[0].do("open", path=shared.path)
    with simstore.open(shared.path, snapshot="two") as remembered:
        assert_holds(remembered, shared.world.snapshots["two"])
        shared.do_in(others[0], naming("delete_snapshot", "two"))
        others[0].do("compact")
        with pytest.raises(SnapshotNotFoundError):
            remembered.get_many(["k1"])
    others[0].do("close")


@pytest.mark.parametrize("n", range(3))
def test_processes_that_compact_at_once(others: list[Agent], shared: Shared, n: int) -> None:
    for agent in others:
        agent.do("open", path=shared.path)
    shared.do(deleting(["k35"]))
    n_gone = 40 + 21 - len(shared.world.snapshots["two"])  # k0 … k19 and the old k30 … k39; "two" sees k35
    for agent in others:
        agent.tell("compact")
    n_purged = [shared.store.compact().n_purged, *(agent.answer() for agent in others)]
    assert sorted(n_purged)[:-1] == [0, 0, 0] and max(n_purged) == n_gone - 1
    for agent in others:
        agent.do("holds", items=shared.items)
        agent.do("close")


def run_beside_each_other(server: Server, running: list[Agent], path: Path, n: int, seed: int) -> dict[str, int]:
    """Two writers and a reader in processes of their own, and n compactors, most of which are killed; what each did."""
    rnd, board = random.Random(seed), path.parent / "board"
    for agent in running:
        agent.do("open", path=path)
    running[0].tell("write_on", board=board, place=0)
    running[1].tell("write_on", board=board, place=1)
    running[2].tell("read_on", board=board, n_writers=2)
    codes = []
    for i in range(n):
        request: dict[str, Any] = {"kill_at_step": rnd.choice(STEPS)}
        if i % 3 == 1:
            request = {"kill_after_s": rnd.random() * 0.1}
        elif i % 3 == 2:
            request = {}
        codes.append(server.run(work="compact", path=path, log=path.parent / "log", **request))
    Board(board).stop()
    n_written, n_calls = [running[0].answer(), running[1].answer()], running[2].answer()
    assert set(codes) <= {0, KILLED}, (path.parent / "log").read_text()
    with simstore.open(path, mode="r") as store:
        assert [store.get(f"writer {place}").data["n"] for place in (0, 1)] == n_written
    for agent in running:
        assert agent.do("check") == []
        agent.do("close")
    return {"written": min(n_written), "read": n_calls, "killed": codes.count(KILLED), "compacted": codes.count(0)}


def test_writers_and_a_reader_beside_compactors_that_are_killed(server: Server, others: list[Agent], tmp_path: Path) -> None:
    done = run_beside_each_other(server, others, tmp_path / "s.sim", 12, seed=1)
    assert done["killed"] >= 4 and done["compacted"] >= 4 and done["written"] and done["read"], done


@pytest.mark.slow
def test_writers_and_a_reader_beside_many_compactors_that_are_killed(
    server: Server, others: list[Agent], tmp_path: Path
) -> None:
    done = run_beside_each_other(server, others, tmp_path / "s.sim", 300, seed=2)
    assert done["killed"] >= 80 and done["compacted"] >= 100 and done["written"] > 100 and done["read"] > 100, done


def test_optimize_comes_to_an_end_beside_who_writes(others: list[Agent], tmp_path: Path) -> None:
    """There is one segment over what was there when it began: to wait for a moment without new items could take for ever."""
    path, begun = tmp_path / "s.sim", []
    for place, agent in enumerate(others[:2]):
        agent.do("open", path=path)
        agent.tell("write_on", board=tmp_path / "board", place=place)
    with simstore.open(path, background=False, **OPTIONS) as store:
        while len(store) < 2:
            time.sleep(0.01)
        steps.set_observer(lambda name: begun.append(name) if name == "fold.begun" else None)
        for _ in range(5):
            store.optimize()
        steps.set_observer(None)
        Board(tmp_path / "board").stop()
        for agent in others[:2]:
            agent.answer()
            agent.do("close")
    assert 1 <= len(begun) <= 5


# -- within one process -------------------------------------------------------------------------------------------------


def compacted(store: Store) -> None:
    """Something to purge, and its purge."""
    store.add("passing", np.ones(OPTIONS["M"]))
    store.delete("passing")
    assert store.compact().n_purged >= 1


@pytest.mark.parametrize("at_once", [False, True])
def test_a_snapshot_that_closes_leaves_the_others_the_old_database(shared: Shared, at_once: bool) -> None:
    shared.do(writing("add", [f"more {i}" for i in range(600)], 5000))  # more than a scan reads at once
    one = simstore.open(shared.path, snapshot="two")
    two = simstore.open(shared.path, snapshot="two")
    scan = shared.store.scan()
    items = {next(scan).key}
    compacted(shared.store)
    one.close()
    if not at_once:
        assert_holds(two, shared.world.snapshots["two"])
    two.close()
    assert items | {item.key for item in scan} == shared.items.keys()
    assert_holds(shared.store, shared.items)


def test_there_is_one_store_of_a_directory_in_a_process_whatever_another_one_does(server: Server, shared: Shared) -> None:
    assert server.run(work="compact", path=shared.path, log=shared.path.parent / "log") == 0
    with pytest.raises(AlreadyOpenError):
        simstore.open(shared.path)
    with simstore.open(shared.path, snapshot="two") as remembered:  # it opens the new database, and the store comes after it
        assert_holds(remembered, shared.world.snapshots["two"])
        with pytest.raises(AlreadyOpenError):
            simstore.open(shared.path)
        assert_holds(shared.store, shared.items)
    with pytest.raises(AlreadyOpenError):
        simstore.open(shared.path)
    shared.do(writing("upsert", ["k1"], 800))
    shared.store.close()
    shared.store = simstore.open(shared.path, background=False)


def test_to_open_a_store_twice_does_not_disturb_its_compaction(shared: Shared) -> None:
    """The refused one must not take the copy in the making for something that was left behind."""
    refused = []

    def try_to_open(stage: str, done: int, total: int) -> None:
        if stage == "compact":
            with pytest.raises(AlreadyOpenError):
                simstore.open(shared.path)
            refused.append(stage)

    shared.store.compact(progress=try_to_open)
    assert refused


def test_old_databases_are_let_go(shared: Shared) -> None:
    """Each would hold a terabyte of address space, and the disk space of what was purged."""
    gc.disable()
    try:
        old = [weakref.ref(shared.store._core.environment)]
        with simstore.open(shared.path, snapshot="two") as remembered:
            for _ in range(40):
                compacted(shared.store)
                old.append(weakref.ref(shared.store._core.environment))
                assert len(remembered) == len(shared.world.snapshots["two"])
            assert sum(environment() is not None for environment in old) <= 2
        assert_holds(shared.store, shared.items)
    finally:
        gc.enable()


def test_check_looks_at_the_newest_database(others: list[Agent], shared: Shared) -> None:
    """The old one names segments whose files are gone."""
    shared.do(deleting([f"k{i}" for i in range(20, 30)]))
    shared.store.optimize()
    shared.do(naming("delete_snapshot", "two"))
    shared.do(deleting(list(shared.items)))
    others[0].do("open", path=shared.path)
    others[0].do("compact")
    assert shared.store.check(deep=True) == []
    others[0].do("close")


def test_a_missing_copy_is_an_error_and_no_endless_loop(server: Server, tmp_path: Path) -> None:
    shared = Shared(tmp_path / "s.sim")
    shared.store.close()
    log = tmp_path / "log"
    assert server.run(work="compact", path=shared.path, log=log, kill_at_step="compact.committed") == KILLED
    (copy,) = shared.path.glob("compacted-*")
    os.rename(copy, tmp_path / copy.name)
    for options in ({}, {"mode": "r"}, {"snapshot": "two"}):
        with pytest.raises(CorruptStoreError, match=copy.name):
            simstore.open(shared.path, **options)  # type: ignore[arg-type]
    os.rename(tmp_path / copy.name, copy)
    verify(shared.path, shared.world, [])


def test_files_keep_their_permissions(shared: Shared) -> None:
    os.chmod(shared.path / "data.mdb", 0o640)
    os.chmod(shared.path / "lock.mdb", 0o666)
    compacted(shared.store)
    assert (shared.path / "data.mdb").stat().st_mode & 0o777 == 0o640
    assert (shared.path / "lock.mdb").stat().st_mode & 0o777 == 0o666


class Forbidden(LocalFiles):
    """LocalFiles of a process that may not write in the directory."""

    def rename(self, source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")


def test_who_may_not_put_the_copy_in_place_waits_for_who_may(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Shared(tmp_path / "s.sim")
    shared.store.close()
    reader = open_through(Forbidden(), shared.path, mode="r")
    log = tmp_path / "log"
    assert server.run(work="compact", path=shared.path, log=log, kill_at_step="compact.committed") == KILLED
    helper = threading.Timer(0.3, lambda: server.run(work="compact", path=shared.path, log=log))
    helper.start()
    assert_holds(reader, shared.items)
    helper.join()
    assert server.run(work="compact", path=shared.path, log=log, kill_at_step="compact.committed") == KILLED
    monkeypatch.setattr(guard, "_PATIENCE_S", 0.05)
    with pytest.raises(StorageError, match="may not put the new database in place"):
        len(reader)
    assert server.run(work="compact", path=shared.path, log=log) == 0
    assert_holds(reader, shared.items)
    reader.close()
    verify(shared.path, shared.world, [])


def test_a_store_that_is_compacted_while_it_is_opened(server: Server, shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the moment that it is open and its first write."""
    shared.store.close()
    require_writable = entry.opening.require_writable

    def compacted_just_now(*arguments: Any) -> None:
        monkeypatch.undo()
        assert server.run(work="compact", path=shared.path, log=shared.path.parent / "log") == 0
        require_writable(*arguments)

    monkeypatch.setattr(entry.opening, "require_writable", compacted_just_now)
    shared.store = simstore.open(shared.path, background=False, index_fields=["n"])
    assert [indexed.path for indexed in shared.store._schema().indexed] == [("n",)]


def test_a_child_that_is_forked_holds_no_lock_on_the_store(shared: Shared) -> None:
    with guarded(shared.path / "store.json", exclusive=False):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    done = threading.Event()

    def alone() -> None:
        with guarded(shared.path / "store.json", exclusive=True):
            done.set()

    threading.Thread(target=alone, daemon=True).start()
    try:
        assert done.wait(10)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_background_thread_is_quiet_about_a_database_that_was_replaced(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with simstore.open(tmp_path / "s.sim", **OPTIONS) as store:
        op = writing("add", [f"k{i}" for i in range(20)], 1000)
        world = after(NOTHING, op, call(store, op))
        old = store._core
        assert server.run(work="compact", path=tmp_path / "s.sim", log=tmp_path / "log") == 0
        with old.maintenance._wake:
            old.maintenance._wanted = True
            old.maintenance._wake.notify()
        while old.maintenance._wanted:
            time.sleep(0.01)
        assert_remembers(store, world, 1)  # which waits for the old thread
        assert store._core is not old
    assert caplog.records == []
