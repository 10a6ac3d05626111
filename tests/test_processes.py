"""Many processes and threads use one store at once, and each sees what was committed before its call."""

import contextlib
import gc
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serial_model
from conftest import OpenStore
from processes_child import OPTIONS, SECONDS, Child, plain, run_all
from serial_model import Serial

import simstore
from simstore import Store, field
from simstore.errors import (
    DimensionError,
    IndexExistsError,
    IndexNotFoundError,
    KeyExistsError,
    KeyNotFoundError,
    SnapshotExistsError,
    SnapshotNotFoundError,
    StoreClosedError,
)
from simstore.storage import steps
from simstore.storage.records import created_seq_of, read_record
from simstore.store import leases, maintenance

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGSTOP"), reason="pipes are not handed on here, and no process is stopped"
)

Processes = Callable[..., Child]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sim"  # where the fixture ``store`` is, too


@pytest.fixture
def processes(path: Path) -> Iterator[Processes]:
    """Starts processes that have the store open; at the end each closes it, and what is left is sound and tidy."""
    started: list[Child] = []

    def start(name: object = "store", **options: Any) -> Child:
        started.append(Child(path.with_name(f"{name}.sim"), **options))
        return started[-1]

    try:
        yield start
        for child in started:
            child.end()
    finally:
        for child in started:
            child.end_anyhow()
    for store in path.parent.glob("*.sim"):
        assert_sound(store)


def assert_sound(path: Path) -> None:
    """check() finds nothing, and there are no files but those that the store names."""
    with simstore.open(path, background=False, mode="r") as store:  # mode "a" would tidy up
        assert store.check(deep=True) == []
        with store._core.environment.read() as txn:
            named = {record.file for record in store._core.database.segments(txn)}
    assert set(os.listdir(path / "segments")) == named
    assert set(os.listdir(path)) <= {"store.json", "data.mdb", "lock.mdb", "segments"}


def assert_lets_go(children: list[Child]) -> None:
    """After its next call no process keeps files open that were replaced; but graphs may still be built meanwhile."""

    def keeps_files(child: Child) -> bool:
        child.ask("len")
        return bool(child.ask("deleted_files"))

    deadline = time.monotonic() + SECONDS
    while any(keeps_files(child) for child in children):
        assert time.monotonic() < deadline, "files without a name are kept open"
        time.sleep(0.1)


def size_of(path: Path) -> int:
    return (path / "data.mdb").stat().st_size


def vectors(n: int, seed: int = 0, dim: int = 8) -> Any:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def fill(store: Store, n: int = 1000) -> list[Any]:
    """Adds n items; returns what a scan is to find."""
    store.add(range(n), vectors(n), labels=[f"label {i % 3}" for i in range(n)], data=[{"n": i % 10} for i in range(n)])
    return plain(store.scan())  # type: ignore[no-any-return]


# -- writing from many processes ----------------------------------------------------------------------------------------


def replayed(log: list[tuple[int, serial_model.Op, Any]]) -> Serial:
    """A store that does in turn, in the order of their transactions, what the calls did at once; each returns the same."""
    model, last = Serial(), 0
    log.sort(key=lambda entry: (entry[0], serial_model.changes_nothing(*entry[1:])))
    for seq, op, result in log:
        assert model.apply(op, seq) == result, f"transaction {seq}: {op}"
        if not serial_model.changes_nothing(op, result):
            assert seq > last, f"two calls are transaction {seq}"
            last = seq
    return model


def assert_is(store: Store, model: Serial) -> None:
    """Content, snapshots, and each row with the transactions that wrote and buried it are the model's."""
    live = {key: model.value(key) for key in model.live}
    assert {item.key: (item.vector.tolist(), item.label, item.data) for item in store} == serial_model.contents(live)
    rows = sorted((row, key) for key, row in model.live.items())
    assert [item.key for item in store.scan()] == [key for _, key in rows], "in the order of writing"
    assert {snapshot.name: snapshot.count for snapshot in store.snapshots()} == {
        name: len(held) for name, held in model.snapshots.items()
    }
    database = store._core.database
    with store._core.environment.read() as txn:
        assert database.state(txn).next_row == len(model.rows)
        purged = set(database.purged(txn).tolist())
        written = {row: (read_record(value, row)[0], created_seq_of(value)) for row, value in database.items(txn)}
        buried = dict(zip(*(array.tolist() for array in database.burials(txn)), strict=True))
    assert written == {row: (key, seq) for row, (key, _, seq) in enumerate(model.rows) if row not in purged}
    assert buried == {row: seq for row, seq in model.buried.items() if row not in purged}
    kept = set(model.live.values()).union(*(held.values() for held in model.snapshots.values()))
    assert not purged & kept


@pytest.mark.parametrize("compacts", [False, True])
def test_some_serial_order_explains_what_three_processes_do(processes: Processes, stores: OpenStore, compacts: bool) -> None:
    """Each has two threads; all write to the same few keys, while graphs are built, and the store is compacted."""
    children = [processes(background=True, folds=True) for _ in range(3)]
    upkeep = processes()
    for seed, child in enumerate(children):
        child.send("interleaved", seed, 120, 2)
    while any(not child.has_answered() for child in children):
        upkeep.ask("optimize")
        if compacts:
            upkeep.ask("compact")
    log = [entry for child in children for entry in child.answer()]
    assert len(log) == 3 * 2 * 120
    model = replayed(log)
    assert {"KeyExistsError", "KeyNotFoundError", "SnapshotExistsError"} <= {str(result) for _, _, result in log}
    store = stores()
    assert_is(store, model)
    for name, held in model.snapshots.items():
        with simstore.open(store._path, snapshot=name) as remembered:
            expected = serial_model.contents({key: model.rows[row].value for key, row in held.items()})
            assert {item.key: (item.vector.tolist(), item.label, item.data) for item in remembered} == expected
    for item in store:
        assert item.key in store.search(item.vector, 10, exact=True).keys


def test_processes_that_make_the_store_at_once(path: Path) -> None:
    """All of them find the same one."""
    children = [Child(None) for _ in range(4)]
    try:
        for turn in range(5):
            for child in children:
                child.send("open", path.with_name(f"{turn}.sim"))
            for child in children:
                child.answer()
            for n, child in enumerate(children):
                child.send("add", [f"{n}"], [[float(n), 1.0]])
            for child in children:
                child.answer()
            for child in children:
                assert child.ask("len") == 4
                child.ask("close")
            assert_sound(path.with_name(f"{turn}.sim"))
    finally:
        for child in children:
            child.end_anyhow()


# -- seeing what others write -------------------------------------------------------------------------------------------


def mixed_load(processes: Processes, path: Path, seconds: float, seed: int) -> None:
    """A writer tells readers of each call that has returned; what they are answered then is a state from that call on."""
    pipes = [os.pipe() for _ in range(3)]
    writer = processes(background=True, folds=True, pass_fds=tuple(end for _, end in pipes))
    readers = [
        processes(mode="r", pass_fds=(pipes[0][0],)),
        processes(mode="a", background=True, folds=True, pass_fds=(pipes[1][0],)),
        processes(mode="r", pass_fds=(pipes[2][0],)),
    ]
    for reader, (end, _) in zip(readers, pipes, strict=True):
        reader.send("hear", seed, end)
    writer.send("tell", seed, seconds, [end for _, end in pipes])
    for pipe in pipes:
        for end in pipe:
            os.close(end)
    n_files = 0
    while not writer.has_answered():
        n_files = max(n_files, len(os.listdir(path / "segments")))
        time.sleep(0.02)
    n_calls, sizes = writer.answer(seconds + SECONDS)
    for reader in readers:
        n_asked, n_told = reader.answer(seconds + SECONDS)
        assert n_asked > 10 * seconds and n_calls - 300 < n_told <= n_calls
    assert n_calls > 50 * seconds and len(sizes) > seconds / 10
    assert max(sizes) < 1 << 20, "what was overwritten is not given back"
    assert n_files < 20
    assert_lets_go([writer, *readers])


def test_readers_see_what_they_were_told_of(processes: Processes, path: Path) -> None:
    mixed_load(processes, path, 5.0, seed=1)


@pytest.mark.slow
def test_readers_see_what_they_were_told_of_for_a_minute(processes: Processes, path: Path) -> None:
    mixed_load(processes, path, 60.0, seed=2)


def test_a_store_that_was_not_there_yet(processes: Processes, stores: OpenStore) -> None:
    """Another process makes the first vectors, and with them the width, while this one has the store open."""
    store, other = stores(metric="l2"), processes()
    assert store.search([1.0, 2.0]).keys == [] and store.info().dim is None and len(store) == 0
    other.ask("add", ["a", "b"], vectors(2))
    assert store.search(vectors(2)[1], 1).keys == ["b"] and store.info().dim == 8 and len(store) == 2
    with pytest.raises(DimensionError):
        store.search([1.0, 2.0])
    with pytest.raises(DimensionError):
        store.add("c", [1.0, 2.0])
    assert store.add("c", vectors(3)[2]) == ["c"] and other.ask("contains", "c")


def test_the_first_vectors_come_between_a_query_and_its_search(
    processes: Processes, stores: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another width than the query: it is refused as it would be later."""
    searches: list[Callable[[Store], Any]] = [
        lambda store: store.search([1.0, 2.0]),
        lambda store: store.search_many([[1.0, 2.0]]),
        lambda store: store.search([1.0, 2.0], None, max_distance=9.0),
        lambda store: store.explain([1.0, 2.0]),
        lambda store: store.upsert("a", [1.0, 2.0]),
    ]
    for n, search in enumerate(searches):
        store, other = stores(f"{n}.sim", metric="l2"), processes(n)
        assert len(store) == 0
        view, known = store._view, store._schema

        def view_then(view: Any = view, other: Child = other) -> Any:
            seen = view()
            with contextlib.suppress(KeyExistsError):
                other.ask("add", ["a", "b"], vectors(2))
            return seen

        monkeypatch.setattr(store, "_view", view_then)
        monkeypatch.setattr(store, "_schema", lambda known=known, view=view_then: (known(), view())[0])
        with pytest.raises(DimensionError):
            search(store)
        monkeypatch.undo()
        assert store.search(vectors(2)[0], 1).keys == ["a"]


def test_an_index_that_another_process_makes_and_drops(processes: Processes, store: Store) -> None:
    fill(store)
    other, where = processes(), field("n") == 3
    expected = plain(store.scan(where))
    assert len(expected) == store.count(where) == 100 and store.info().indexed_fields == ()
    other.ask("create_index", "n")
    assert store.info().indexed_fields == ("n",) and store.explain(vectors(1)[0], where=field("n") == 4).is_indexed
    assert store.count(field("n") == 5) == store.count(where) == 100 and plain(store.scan(where)) == expected
    other.ask("upsert", [3, "new"], vectors(2, 1), data=[{"n": 4}, {"n": 3}])
    assert store.count(where) == 100 and plain(store.scan(where)) == [*expected[1:], plain(store.get("new"))]
    other.ask("drop_index", "n")
    assert store.info().indexed_fields == () and not store.explain(vectors(1)[0], where=field("n") == 6).is_indexed
    assert store.count(where) == 100 and store.count(field("n") == 4) == 101
    with pytest.raises(IndexNotFoundError):
        store.drop_index("n")


def test_a_snapshot_that_another_process_takes_and_deletes(processes: Processes, store: Store) -> None:
    items, other = fill(store), processes()
    other.ask("snapshot", "one")
    with pytest.raises(SnapshotExistsError):
        store.snapshot("one")
    with simstore.open(store._path, snapshot="one") as one:
        store.delete(range(500))
        assert plain(one.scan()) == items and len(one) == 1000 and len(store) == 500
        scan = one.scan()
        begun = [plain(next(scan))]
        other.ask("delete_snapshot", "one")
        for call in (one.scan, lambda: len(one), lambda: one.get(1), lambda: one.search(vectors(1)[0])):
            with pytest.raises(SnapshotNotFoundError):
                call()
        assert store.snapshots() == [] and other.ask("compact").n_purged == 500
        assert [*begun, *plain(scan)] == items  # it goes on reading the state that it began with
        other.ask("snapshot", "one")  # another one of that name
        with pytest.raises(SnapshotNotFoundError):
            len(one)
    with pytest.raises(SnapshotNotFoundError):
        simstore.open(store._path, snapshot="two")


# -- readers that are killed, or stand still ----------------------------------------------------------------------------


def rewrite(store: Store, n: int) -> None:
    """Transactions that leave nothing behind, so that the file need not grow."""
    for _ in range(n):
        store.snapshot("passing")
        store.delete_snapshot("passing")


@pytest.mark.parametrize("who", ["writer", "opener", "other writer"])
def test_the_file_stops_growing_once_a_reader_was_killed(processes: Processes, store: Store, who: str) -> None:
    """Its slot is freed by whoever opens the store, and once a second by whoever writes."""
    fill(store, 100)
    reader = processes(mode="r")
    store._core.writer.commits._clear_at = float("inf")
    rewrite(store, 50)
    before = size_of(store._path)
    reader.ask("hold_transaction")
    rewrite(store, 100)
    assert size_of(store._path) > before + 100_000, "nothing held the pages"
    reader.kill()
    if who == "writer":
        store._core.writer.commits._clear_at = 0.0
    else:
        other = processes()
        if who == "other writer":
            time.sleep(1.0)  # what it does once a second
            other.ask("upsert", "a", vectors(1))
    rewrite(store, 10)
    before = size_of(store._path)
    rewrite(store, 150)
    assert size_of(store._path) <= before + 4 * 4096


def test_readers_between_their_calls_hold_nothing(processes: Processes, store: Store) -> None:
    """Whatever they have called, or hold as an iterator: the file grows no more than without them."""
    fill(store)
    readers = [processes(mode="r"), processes(background=True)]
    for reader in readers:
        reader.ask("begin_scan")
        reader.ask("next_items", 10)
        for call in (
            ("search", vectors(1)[0]),
            ("search_many", vectors(300)),
            ("labels",),
            ("info",),
            ("explain", vectors(1)[0]),
        ):
            reader.ask("called", *call)
    rewrite(store, 50)
    before = size_of(store._path)
    rewrite(store, 150)
    assert size_of(store._path) <= before + 4 * 4096
    for reader in readers:
        assert len(reader.ask("next_items", 2000)) == 990


CALLS: list[tuple[Any, ...]] = [  # method, at which look it knows its state, arguments
    ("get_many", 1, [*range(200), "no"]),
    ("get", 1, 42),
    ("labels", 1),
    ("labels", 1, {"n": 3}),
    ("count", 1, {"n": {"$gt": 3}}),
    ("scan", 1),
    ("scan", 1, {"$label": "label 1"}),
    ("search", 1, vectors(1, 1)[0], 20),
    ("search", 1, vectors(1, 1)[0], 2000),
    ("search_many", 2, vectors(50, 1), 5),
    ("snapshots", 0),
]


@pytest.mark.parametrize("call", CALLS, ids=[f"{name}-{len(args)}-{i}" for i, (name, _, *args) in enumerate(CALLS)])
@pytest.mark.parametrize("is_folded", [False, True])
def test_a_reader_that_stands_still_goes_on_in_its_state(
    processes: Processes, store: Store, call: tuple[Any, ...], is_folded: bool
) -> None:
    """It is stopped within a call, and meanwhile everything changes."""
    name, nth, *args = call
    fill(store)
    if is_folded:
        store.optimize()
    reader = processes(mode="r")
    expected = reader.ask("called", name, *args)
    if nth:
        reader.send("stopped_within", name, *args, nth=nth)
        reader.wait_until_stopped()
    change_everything(store)
    if nth:
        reader.signal(signal.SIGCONT)
        assert reader.answer() == expected
    assert reader.ask("called", name, *args) == plain(getattr(store, name)(*args)) != expected


def change_everything(store: Store) -> None:
    """No item stays what it is, and most of them go; graphs and database are built anew."""
    store.snapshot("before")
    store.upsert(range(0, 1000, 3), vectors(334, 9), labels=["other"] * 334, data=[{"n": 3}] * 334)
    store.update(range(1, 1000, 3), labels=["another"] * 333)
    store.optimize()
    store.delete(where=field("n") == 7)
    store.delete(range(600, 900), missing="ignore")
    store.delete_snapshot("before")
    store.snapshot("after")
    store.compact()
    store.add(range(2000, 2300), vectors(300, 5))
    store.optimize()


def test_a_writer_that_is_killed_in_its_write(processes: Processes, store: Store) -> None:
    """Another one waits for it, and goes on as if it had never begun."""
    items, writer = fill(store, 100), processes()
    writer.send("hold_write")
    writer.wait_until_stopped()
    adding = threading.Thread(target=lambda: store.add("after", vectors(1)[0]))
    adding.start()
    assert plain(store.scan()) == items and processes(mode="r").ask("len") == 100  # nobody who reads waits
    adding.join(0.2)
    assert adding.is_alive()
    writer.kill()
    adding.join(SECONDS)
    assert not adding.is_alive() and len(store) == 101
    with store._core.environment.read() as txn:
        assert txn.get(b"junk") is None


def test_opening_beside_a_write(processes: Processes, store: Store) -> None:
    """Who opens the store to read it, or a snapshot beside the store itself, does not wait for who writes."""
    items = fill(store, 100)
    store.snapshot("one")
    begun, go, wrong = threading.Event(), threading.Event(), []

    def stuck(stage: str, done: int, total: int) -> None:
        begun.set()
        if not go.wait(SECONDS):
            wrong.append("nobody could open it")

    compacting = threading.Thread(target=lambda: store.compact(progress=stuck))
    compacting.start()
    assert begun.wait(SECONDS)
    with simstore.open(store._path, snapshot="one") as one:
        assert plain(one.scan()) == items and plain(store.scan()) == items
    assert processes(mode="r").ask("len") == 100
    go.set()
    compacting.join(SECONDS)
    assert not compacting.is_alive() and not wrong


def test_a_backup_that_is_begun_beside_a_write_that_fails(store: Store) -> None:
    """py-lmdb undoes a write only when no copy is under way, and the copy begins when the write is over."""
    items = fill(store, 100)
    begun, go = threading.Event(), threading.Event()

    def work(txn: Any) -> None:
        txn.put(b"junk", b"half a write")
        begun.set()
        go.wait(SECONDS)
        raise ZeroDivisionError

    def write() -> None:
        with pytest.raises(ZeroDivisionError):
            store._core.writer.write(work)

    def back_up() -> None:
        begun.wait(SECONDS)
        threading.Timer(0.2, go.set).start()
        with simstore.open(store.backup(store._path.with_name("backup"))) as copy:
            assert plain(copy.scan()) == items

    run_all([write, back_up], seconds=SECONDS)
    with store._core.environment.read() as txn:
        assert txn.get(b"junk") is None


# -- maintenance in many processes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("compacts", [False, True])
def test_processes_that_build_graphs_at_once(processes: Processes, path: Path, compacts: bool) -> None:
    """Each folds, merges and optimizes, in the background as well, and compares every answer with what it has written."""
    children = [processes(background=background, folds=True) for background in (True, True, False)]
    for n, child in enumerate(children):
        child.send("churn", f"child {n}", 60, compacts=compacts)
    for child in children:
        child.answer()
    children[0].ask("optimize")
    assert children[1].ask("info").n_segments == 1
    assert all(child.ask("check", deep=True) == [] for child in children)
    assert_lets_go(children)
    assert len(os.listdir(path / "segments")) == 1


# -- iterators ----------------------------------------------------------------------------------------------------------

CHANGES: dict[str, list[tuple[Any, ...]]] = {
    "delete": [("delete", list(range(0, 1000, 2)))],
    "delete where": [("delete", None)],
    "upsert": [("upsert", list(range(1000)), vectors(1000, 3))],
    "restore": [("restore", "none of it")],
    "compact": [("delete", list(range(100, 1000))), ("compact",)],
    "everything": [
        ("upsert", list(range(500)), vectors(500, 3)), ("optimize",), ("restore", "none of it"), ("compact",),
        ("restore", "before-restore-none of it"), ("delete", list(range(300, 1000))), ("compact",), ("add", None, vectors(400)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_scan_sees_the_state_that_it_began_in(processes: Processes, stores: OpenStore, change: str) -> None:
    store = stores(metric="l2")
    store.snapshot("none of it")
    items, other = fill(store), processes()
    scans = [store.scan(), iter(store), store.scan(field("n") == 3), store.scan({"$label": "label 2"})]
    expected = [items, items, *(plain(store.scan(where)) for where in (field("n") == 3, {"$label": "label 2"}))]
    begun = [[plain(next(scan)) for _ in range(n)] for scan, n in zip(scans, (300, 1, 40, 0), strict=True)]
    other.ask("begin_scan")
    assert other.ask("next_items", 300) == items[:300]
    late = store.scan()  # nothing of it was read yet
    for name, *args in CHANGES[change]:
        other.ask(name, *args, **({"where": field("n") >= 0} if args == [None] and name == "delete" else {}))
        len(store)
    for scan, part, whole in zip([*scans, late], [*begun, []], [*expected, items], strict=True):
        assert part + plain(scan) == whole
    assert other.ask("next_items", 2000) == items[300:]
    assert plain(store.scan()) == other.ask("called", "scan") != items


def test_a_scan_while_this_process_goes_over_to_another_database(store: Store) -> None:
    """It reads the old one on, though a snapshot that was the last to have that open is closed."""
    items = fill(store)
    store.snapshot("one")
    with simstore.open(store._path, snapshot="one") as one:
        scan, of_one = store.scan(), one.scan()
        begun = [plain(next(scan)), plain(next(of_one))]
        store.upsert(range(500), vectors(500, 1))
        store.compact()
        assert len(store) == 1000
    assert [begun[0], *plain(scan)] == items
    with pytest.raises(StoreClosedError):
        list(of_one)


# -- threads ------------------------------------------------------------------------------------------------------------


class Worker:
    """A thread that does everything to one Store, and knows what its own items hold."""

    def __init__(self, store: Store, number: int, seconds: float) -> None:
        self.store, self.name, self.rnd = store, f"thread {number}", random.Random(number)
        self.seconds = seconds
        self.own: dict[str, tuple[Any, Any]] = {}
        self.n_calls = 0
        self.tasks: list[Callable[[], None]] = [
            self.upsert, self.upsert, self.upsert, self.update, self.delete, self.delete_where, self.read, self.read, self.search,
            self.search, self.search_where, self.search_many, self.filter, self.snapshot, self.index, self.look, self.maintain,
        ]  # fmt: skip

    def run(self) -> None:
        stop = time.monotonic() + self.seconds
        while time.monotonic() < stop:
            self.rnd.choice(self.tasks)()
            self.n_calls += 1
        self.read()

    def some(self) -> list[str]:
        return self.rnd.sample(sorted(self.own), min(len(self.own), self.rnd.choice([1, 3, 20])))

    def upsert(self) -> None:
        keys = [f"{self.name}-{self.rnd.randrange(60)}" for _ in range(self.rnd.choice([1, 1, 10]))]
        keys, n = list(dict.fromkeys(keys)), self.rnd.randrange(1 << 30)
        counts = self.store.upsert(
            keys, vectors(len(keys), n), labels=[self.name] * len(keys), data=[{"n": n % 10}] * len(keys)
        )
        assert counts.replaced == len(self.own.keys() & set(keys))
        self.own.update({key: (vector.tolist(), n % 10) for key, vector in zip(keys, vectors(len(keys), n), strict=True)})

    def update(self) -> None:
        keys, n = self.some(), self.rnd.randrange(10)
        if not keys:
            return
        self.store.update(keys, data=[{"n": n}] * len(keys))
        self.own.update({key: (self.own[key][0], n) for key in keys})

    def delete(self) -> None:
        keys = self.some()
        assert self.store.delete(keys) == len(keys)
        for key in keys:
            del self.own[key]
        with pytest.raises(KeyNotFoundError):
            self.store.delete([*self.some(), f"{self.name}-none"])

    def delete_where(self) -> None:
        n = self.rnd.randrange(10)
        gone = [key for key, (_, number) in self.own.items() if number == n]
        assert self.store.delete(where={"$label": self.name, "n": n}) == len(gone)
        for key in gone:
            del self.own[key]

    def read(self) -> None:
        keys = [f"{self.name}-{i}" for i in range(60)]
        items = {item.key: (item.vector.tolist(), item.data["n"]) for item in self.store.get_many(keys) if item is not None}
        assert items == self.own
        key = self.rnd.choice(keys)
        assert (key in self.store) == (key in self.own) and len(self.store) >= len(self.own)
        assert {str(item.key) for item in self.store.scan({"$label": self.name})} == self.own.keys()

    def search(self) -> None:
        for key in self.some()[:2]:
            hit = self.store.search(self.own[key][0], 1, exact=self.rnd.random() < 0.5, with_vectors=True)[0]
            assert hit.vector is not None and hit.distance >= 0
            assert hit.distance > 0 or hit.vector.tolist() == self.own[key][0]
            assert self.store.search(self.own[key][0], 1, exact=True).distances[0] == 0

    def search_where(self) -> None:
        hits = self.store.search(vectors(1)[0], 100, where={"$label": self.name}, exact=self.rnd.random() < 0.5)
        assert set(hits.keys) <= self.own.keys() and list(hits.distances) == sorted(hits.distances)
        assert len(hits) == len(self.own)  # a quarter of what matches or more is found exactly
        assert len(self.store.search(vectors(1)[0], None, max_distance=1e3, where={"$label": self.name})) == len(self.own)

    def search_many(self) -> None:
        batch = self.store.search_many(vectors(80), 3, where={"$label": self.name}, threads=2)
        assert {key for keys in batch.keys for key in keys} <= {*self.own, None}

    def filter(self) -> None:
        n = self.rnd.randrange(10)
        there = sum(number == n for _, number in self.own.values())
        where = {"$label": self.name, "n": n}
        assert self.store.count(where) == there == self.store.labels(where).get(self.name, 0)
        assert self.store.labels().get(self.name, 0) == len(self.own)

    def snapshot(self) -> None:
        name = f"{self.name} {self.rnd.randrange(2)}"
        with contextlib.suppress(SnapshotExistsError):
            self.store.snapshot(name)
            assert name in {snapshot.name for snapshot in self.store.snapshots()}
            with simstore.open(self.store._path, snapshot=name) as remembered:
                assert remembered.count({"$label": self.name}) == len(self.own)
            difference = self.store.diff(name)
            changed = {str(key) for key in (*difference.added, *difference.changed, *difference.deleted)}
            assert not any(key.startswith(f"{self.name}-") for key in changed), "nobody else changes these"
            return
        self.store.delete_snapshot(name)

    def index(self) -> None:
        with contextlib.suppress(IndexExistsError, IndexNotFoundError):
            self.rnd.choice([self.store.create_index, self.store.drop_index])("n")

    def look(self) -> None:
        assert self.store.info().count >= 0 and self.store.stats().writes > 0 and "items" in repr(self.store)
        assert self.store.explain(vectors(1)[0], where={"$label": self.name, "n": 3}).count <= len(self.own)
        self.store.refresh()

    def maintain(self) -> None:
        chance = self.rnd.random()
        if chance < 0.2:
            self.store.optimize()
        elif chance < 0.3:
            assert self.store.compact().n_purged >= 0
        elif chance < 0.4 and len(self.store):
            self.store.measure_recall(k=3, sample=20)
        elif chance < 0.5:
            assert self.store.check() == []
        elif chance < 0.55:
            backup = self.store.backup(self.store._path.with_name(f"{self.name} {self.n_calls}.backup"))
            with simstore.open(backup, background=False) as copy:
                assert copy.count({"$label": self.name}) == len(self.own) and copy.check() == []


def all_at_once(path: Path, n: int, seconds: float) -> None:
    """Threads mix all calls on one Store."""
    with simstore.open(path, index_fields=["n"], **OPTIONS) as store:
        store.add("first", vectors(1)[0], data={"n": 0})
        workers = [Worker(store, number, seconds) for number in range(n)]
        run_all([worker.run for worker in workers])
        expected = {key: value for worker in workers for key, value in worker.own.items()}
        items = {item.key: (item.vector.tolist(), (item.data or {}).get("n")) for item in store.scan()}
        own = {key: value for key, value in items.items() if str(key).startswith("thread")}
        assert own == expected and items["first"] == (vectors(1)[0].tolist(), 0)
        assert store.check(deep=True) == []
        assert sum(worker.n_calls for worker in workers) > 10 * seconds
        store.optimize()
        assert store.search(vectors(1)[0], 1).keys == ["first"] and store.check(deep=True) == []
    assert_sound(path)


@pytest.fixture
def small_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 30)


@pytest.mark.usefixtures("small_thresholds")
def test_threads_that_do_everything(path: Path) -> None:
    all_at_once(path, 16, 5.0)


@pytest.mark.slow
@pytest.mark.usefixtures("small_thresholds")
def test_threads_that_do_everything_for_a_minute(path: Path) -> None:
    all_at_once(path, 16, 60.0)


@pytest.mark.usefixtures("small_thresholds")
def test_threads_beside_other_processes(processes: Processes, path: Path) -> None:
    others = [processes(background=True, folds=True) for _ in range(2)]
    for n, other in enumerate(others):
        other.send("churn", f"child {n}", 25, compacts=n == 0)
    all_at_once(path, 6, 3.0)
    for other in others:
        other.answer()


def test_opening_and_closing_in_many_threads(path: Path) -> None:
    """Snapshots are opened and closed, and so is the store, which is compacted; nobody gets in another's way."""
    with simstore.open(path, **OPTIONS) as store:
        items = fill(store, 50)
        store.snapshot("one")
    stop = time.monotonic() + 3

    def read() -> None:
        while time.monotonic() < stop:
            with simstore.open(path, snapshot="one") as one:
                assert plain(one.scan()) == items

    def write() -> None:
        rnd = random.Random(4)
        while time.monotonic() < stop:
            with simstore.open(path, background=rnd.random() < 0.5) as store:
                store.upsert(range(20), vectors(20, 7))
                if rnd.random() < 0.3:
                    store.compact()
            time.sleep(rnd.random() * 0.01)

    run_all([read, read, read, write])
    assert_sound(path)


# -- close() ------------------------------------------------------------------------------------------------------------

EVERY_CALL: dict[str, Callable[[Store], Any]] = {
    "search": lambda s: s.search(vectors(1)[0]),
    "search where": lambda s: s.search(vectors(1)[0], where=field("n") == 1),
    "search exact": lambda s: s.search(vectors(1)[0], exact=True),
    "search recall": lambda s: s.search(vectors(1)[0], recall=0.9),
    "search everything": lambda s: s.search(vectors(1)[0], None, max_distance=99.0),
    "search_many": lambda s: s.search_many(vectors(200), threads=2),
    "get": lambda s: s.get(1),
    "get_many": lambda s: s.get_many(range(50)),
    "in": lambda s: 1 in s,
    "len": lambda s: len(s),
    "scan": lambda s: list(s.scan()),
    "scan where": lambda s: list(s.scan(field("n") == 3)),
    "count": lambda s: s.count(field("n") == 2),
    "labels": lambda s: s.labels(),
    "info": lambda s: s.info(),
    "stats": lambda s: s.stats(),
    "explain": lambda s: s.explain(vectors(1)[0]),
    "measure_recall": lambda s: s.measure_recall(sample=20),
    "upsert": lambda s: s.upsert([f"{i}-{threading.get_ident()}" for i in range(20)], vectors(20)),
    "add": lambda s: s.add(None, vectors(1)),
    "update": lambda s: s.update([1, 2], labels=["x", "y"]),
    "delete": lambda s: s.delete(["no"], missing="ignore"),
    "delete where": lambda s: s.delete(where=field("n") == 99),
    "snapshot": lambda s: s.snapshot(os.urandom(8).hex()),
    "snapshots": lambda s: s.snapshots(),
    "restore": lambda s: s.restore("one"),
    "diff": lambda s: s.diff("one"),
    "optimize": lambda s: s.optimize(),
    "compact": lambda s: s.compact(),
    "backup": lambda s: s.backup(s._path.with_name(os.urandom(8).hex())),
    "create_index": lambda s: s.create_index(os.urandom(8).hex()),
    "check": lambda s: s.check(deep=True),
    "refresh": lambda s: s.refresh(),
    "close": lambda s: s.close() or s.refresh(),  # type: ignore[func-returns-value]
}


def test_closed_in_the_middle_of_every_call(tmp_path: Path) -> None:
    """Whoever calls something meanwhile gets his answer or StoreClosedError; what is left is sound."""
    with simstore.open(tmp_path / "base.sim", background=False, index_fields=["n"], **OPTIONS) as base:
        fill(base)
        base.snapshot("one")
        base.delete(range(0, 1000, 7))
    rnd, names = random.Random(8), list(EVERY_CALL)
    rnd.shuffle(names)
    for turn in range(12):
        chosen = [names[(6 * turn + i) % len(names)] for i in range(6)]
        path = tmp_path / f"{turn}" / "s.sim"
        path.parent.mkdir()
        shutil.copytree(tmp_path / "base.sim", path, ignore=shutil.ignore_patterns("lock.mdb"))
        store = simstore.open(path, background=turn % 2 == 0)
        ends: list[str] = []

        def work(name: str, store: Store = store, ends: list[str] = ends) -> None:
            try:
                while True:
                    EVERY_CALL[name](store)
            except StoreClosedError:
                ends.append(name)

        def close(store: Store = store, seconds: float = rnd.random() ** 2 * 0.1) -> None:
            time.sleep(seconds)
            store.close()

        run_all([*(lambda name=name, work=work: work(name) for name in chosen), close])  # type: ignore[misc]
        assert sorted(ends) == sorted(chosen)
        assert_sound(path)


def test_closing_twice_at_once(stores: OpenStore) -> None:
    """Whichever returns, the store is closed then: it can be opened again."""
    for _ in range(10):
        store = stores(background=True, **OPTIONS)
        store.upsert(range(300), vectors(300))

        def close(store: Store = store) -> None:
            store.close()
            with pytest.raises(StoreClosedError):
                store.get(1)
            assert str(store._path) not in {str(path) for path in leases._leases}

        run_all([close] * 4)


@pytest.mark.parametrize("where", ["simstore-maintenance", "publish.begun", "simstore-build"])
@pytest.mark.usefixtures("small_thresholds")
def test_a_store_that_its_own_thread_finds_dead(path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Python's cycle collector runs where it likes: in the thread that close() waits for, or within its write."""
    build_graph, begun, go = maintenance.build_graph, threading.Event(), threading.Event()

    def collect() -> None:
        begun.set()
        go.wait(SECONDS)
        gc.collect()

    def building(*args: Any) -> Any:
        if where == "simstore-build":
            collect()
        return build_graph(*args)

    monkeypatch.setattr(maintenance, "build_graph", building)
    steps.set_observer(lambda name: collect() if name == {"simstore-maintenance": "fold.begun"}.get(where, where) else None)
    gc.disable()
    try:
        store = simstore.open(path, **OPTIONS)
        cycle: list[Any] = [store]
        cycle.append(cycle)
        store.add(range(100), vectors(100))
        store.search(vectors(1)[0])
        assert begun.wait(SECONDS)
        del store, cycle
        go.set()
        deadline = time.monotonic() + SECONDS
        while leases._leases.get(path.resolve()) and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        gc.enable()
        steps.set_observer(None)
    with simstore.open(path, background=False) as again:
        assert len(again) == 100 and again.check(deep=True) == []
