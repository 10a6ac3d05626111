"""Snapshots against what the store held then; restore, diff, compact and backup, alone and while everything else goes on."""

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from golden_stores import FOLDER
from golden_stores import content as golden_content
from naive import assert_nearest
from numpy.typing import NDArray
from second_process import SecondProcess
from test_growing_map import map_size_of, open_growing
from test_properties import same

import simstore
from simstore import Store, field, key, label
from simstore.errors import (
    AlreadyOpenError,
    CorruptStoreError,
    InvalidArgumentError,
    ReadOnlyStoreError,
    SnapshotExistsError,
    SnapshotNotFoundError,
    StorageError,
    StorageFullError,
    StoreClosedError,
    StoreExistsError,
    StoreNotFoundError,
)
from simstore.storage import steps
from simstore.store import core as cores
from simstore.store import guard, maintenance

Model = dict[Any, tuple[Any, Any, NDArray[np.float32]]]
"""Label, data and vector of each key, in the order of writing."""

DIM = 6


def vectors_of(numbers: Any) -> NDArray[np.float32]:
    out = np.array([np.random.default_rng(i % 997).standard_normal(DIM) for i in numbers]).reshape(-1, DIM)
    return np.round(out, 1).astype(np.float32) + np.float32(0.05)


def upsert(store: Store, model: Model, numbers: Any, *, shift: int = 0) -> None:
    keys = [i if i % 3 == 0 else f"k{i}" for i in numbers]
    content = [i + shift for i in numbers]
    labels = [("x", "y", 0, None)[i % 4] for i in content]
    data = [{"n": i, "t": [str(i % 5)]} for i in content]
    vectors = vectors_of(content)
    store.upsert(keys, vectors, labels=labels, data=data)
    for row in zip(keys, labels, data, vectors, strict=True):
        model.pop(row[0], None)
        model[row[0]] = row[1:]


def delete(store: Store, model: Model, keys: list[Any]) -> None:
    store.delete(keys)
    for one in keys:
        del model[one]


def assert_holds(store: Store, model: Model, *, in_order: bool = True) -> None:
    """Every read call answers as a store that holds the model, in the order of writing."""
    keys = list(model)
    assert len(store) == store.count() == store.info().count == len(model)
    info = store.info()
    assert info.n_rows - info.n_dead == info.count and 0 <= info.n_tail <= info.n_rows
    found = {item.key: item for item in store.scan()}
    assert list(found) == keys if in_order else set(found) == set(keys)
    for one, item in zip(keys, store.get_many(keys), strict=True):
        its_label, data, vector = model[one]
        for got in (item, found[one]):
            assert got is not None and (got.key, got.label) == (one, its_label) and same(got.data, data)
            assert got.vector.tobytes() == vector.tobytes()
    assert [item.key for item in store] == list(found)
    for one in (*keys[::9], "k1", "k2", 0, 3, "missing", 10**6, "k901"):
        assert (one in store) == (one in model)
        assert (store.get_many([one])[0] is not None) == (one in model)
    labels = [row[0] for row in model.values()]
    assert store.labels() == {one: labels.count(one) for one in labels}
    assert info.n_labels == len({one for one in labels if one is not None})
    some = {one: row for one, row in model.items() if row[1]["n"] % 2 == 0 and row[1]["n"] < 300}
    where = field("n").is_in(range(0, 300, 2))
    assert store.count(where) == len(some)
    assert {item.key for item in store.scan(where)} == set(some)
    if not model:
        assert info.dim is None or store.search(np.ones(DIM), 3).keys == []
        return
    vectors, chosen = ({one: row[2] for one, row in rows.items()} for rows in (model, some))
    queries = vectors_of([500, 501])
    for k, exact in ((1, False), (7, False), (7, True), (len(model) + 2, False)):
        for query, hits in zip(queries, store.search_many(queries, k, exact=exact, ef=400, threads=2), strict=True):
            assert_nearest(hits.keys, hits.distances, query, vectors, "l2", k)
            alone = store.search(query, k, exact=exact, ef=400, with_vectors=True)
            assert_nearest(alone.keys, alone.distances, query, vectors, "l2", k)
            assert all(hit.vector is not None and hit.vector.tobytes() == vectors[hit.key].tobytes() for hit in alone)
            assert all((hit.label, hit.data) == model[hit.key][:2] for hit in alone)
    hits = store.search(queries[0], None, max_distance=2.5)
    assert_nearest(hits.keys, hits.distances, queries[0], vectors, "l2", None, 2.5)
    hits = store.search(queries[0], 5, where=where, ef=400)
    assert_nearest(hits.keys, hits.distances, queries[0], chosen, "l2", 5)
    plan = store.explain(queries[0], 5, where=where)
    assert plan.count == len(some) and sum(part.n_allowed for part in plan.parts) == len(some)


def holding(model: Model) -> Model:
    return dict(model)


# -- a snapshot while the store goes on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["tail", "segment", "both"])
def test_a_snapshot_stays_as_it_was(stores: OpenStore, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 20)
    store = stores(metric="l2", M=8, ef_construction=60)
    model: Model = {}
    upsert(store, model, range(150))
    if start != "tail":
        store.optimize()
    if start == "both":
        upsert(store, model, range(150, 190))
    delete(store, model, [0, "k1", "k100"])
    info = store.snapshot("then", "why")
    then = dict(model)
    assert (info.name, info.note, info.count, info.dim) == ("then", "why", len(then), DIM)
    past = stores(store.info().path, snapshot="then")

    def right() -> None:
        assert_holds(past, then)
        assert_holds(store, model)

    right()
    upsert(store, model, range(400, 440))
    right()
    upsert(store, model, range(20, 60), shift=1000)
    right()
    delete(store, model, [one for one in model if isinstance(one, int)][:40])
    right()
    store._core.maintenance.run()  # with more than 30 % dead
    right()
    upsert(store, model, range(600, 900))
    store.optimize()  # one segment, most of whose rows the snapshot does not see
    right()
    delete(store, model, list(model)[: len(model) // 2])
    right()
    store.compact()
    right()
    upsert(store, model, [0, 1, 2, 100])  # keys that were gone before
    store._core.maintenance.run()
    right()
    undo = store.restore("then").undo
    assert_holds(past, then)
    assert_holds(store, then, in_order=False)
    store.restore(undo)
    assert_holds(past, then)
    assert_holds(store, model, in_order=False)
    delete(store, model, list(model))
    store.compact()
    right()
    store.delete_snapshot("then")
    for call in (
        lambda: past.search(np.ones(DIM)), lambda: past.get("k2"), lambda: len(past), lambda: "k2" in past, past.scan,
        past.labels, past.info, lambda: past.search_many(np.ones((2, DIM))), lambda: past.count(key == 3),
        lambda: past.explain(np.ones(DIM)), past.refresh,
    ):  # fmt: skip
        with pytest.raises(SnapshotNotFoundError, match="the snapshot 'then' was deleted"):
            call()
    past.close()
    with pytest.raises(SnapshotNotFoundError, match=r"no snapshot 'then'; it has: .*'before-restore-then'"):
        stores(store.info().path, snapshot="then")
    assert_holds(store, model)


def test_a_snapshot_that_is_taken_anew_is_another_one(stores: OpenStore) -> None:
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(10))
    store.snapshot("s")
    past = stores(store.info().path, snapshot="s")
    assert len(past) == 10
    upsert(store, model, range(10, 20))
    store.delete_snapshot("s")
    store.snapshot("s")
    with pytest.raises(SnapshotNotFoundError, match="the snapshot 's' was deleted"):
        past.search(np.ones(DIM))
    with stores(store.info().path, snapshot="s") as new:
        assert_holds(new, model)
    store.compact()
    with pytest.raises(SnapshotNotFoundError):
        len(past)
    past.close()


def test_many_snapshots(stores: OpenStore) -> None:
    store = stores(metric="l2", index_fields=["n"])
    rng = np.random.default_rng(3)
    model: Model = {}
    kept: dict[str, Model] = {}
    for i in range(40):
        upsert(store, model, rng.choice(90, 25, replace=False).tolist(), shift=int(rng.integers(3)) * 100)
        if i % 3 == 1:
            delete(store, model, [list(model)[j] for j in rng.choice(len(model), 10, replace=False)])
        store.snapshot(f"s{i}")
        kept[f"s{i}"] = dict(model)
        if i % 9 == 4:
            store.optimize()
        if i % 13 == 5:
            for name in [name for name in kept if rng.random() < 0.3]:
                store.delete_snapshot(name)
                del kept[name]
        if i % 15 == 8:
            store.compact()
    assert [(one.name, one.count) for one in store.snapshots()] == [(name, len(then)) for name, then in kept.items()]
    names = list(kept)
    for name in names[::3]:
        with stores(store.info().path, snapshot=name) as past:
            assert_holds(past, kept[name])
    for a, b in zip(names[::4], names[5::4], strict=False):
        assert_difference(store, a, b, kept[a], kept[b])
        assert_difference(store, b, a, kept[b], kept[a])
        assert_difference(store, a, "now", kept[a], model)
    store.restore(names[2])
    assert_holds(store, kept[names[2]], in_order=False)
    for name in (*names, "before-restore-" + names[2]):
        store.delete_snapshot(name)
    assert store.snapshots() == []
    store.compact()
    assert_holds(store, kept[names[2]], in_order=False)
    assert store.info().n_dead == store.info().n_rows - store.info().count


def test_a_snapshot_of_an_empty_store(stores: OpenStore) -> None:
    store = stores(metric="l2")
    store.snapshot("empty")
    path = store.info().path
    past = stores(path, snapshot="empty")
    assert_holds(past, {})
    model: Model = {}
    upsert(store, model, range(30))
    store.optimize()
    assert_holds(past, {})
    assert store.diff("empty").added == list(model)
    result = store.restore("empty")
    assert (result.n_restored, result.n_removed) == (0, 30) and len(store) == 0
    assert_holds(past, {})
    store.compact()
    store.restore(result.undo)
    assert_holds(store, model)
    store.compact()
    assert_holds(past, {})


def test_a_snapshot_of_itself(stores: OpenStore) -> None:
    """Snapshots change nothing but the list of them; equal ones side by side are well."""
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(20))
    seqs = [store.snapshot(name).seq for name in ("a", "b", "c")]
    assert seqs == sorted(set(seqs))
    for name in "abc":
        difference = store.diff(name)
        assert (difference.added, difference.changed, difference.deleted) == ([], [], [])
    delete(store, model, ["k1"])
    store.delete_snapshot("b")
    assert [one.name for one in store.snapshots()] == ["a", "c"]
    assert store.diff("a").deleted == store.diff("c").deleted == ["k1"]
    store.compact()
    assert store.restore("c").n_restored == 1


def test_a_snapshot_that_another_process_takes_and_deletes(stores: OpenStore) -> None:
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(60))
    path = Path(store.info().path)
    with SecondProcess(path) as other:
        other.call("snapshot", "theirs", "a note")
        then = dict(model)
        assert [(one.name, one.note) for one in store.snapshots()] == [("theirs", "a note")]
        past = stores(path, snapshot="theirs")
        with SecondProcess(path, snapshot="theirs") as theirs:
            upsert(store, model, range(30, 90), shift=5)
            store.optimize()
            assert_holds(past, then)
            assert [one for one, *_ in theirs.call("scan")] == list(then)
            assert other.call("__len__") == len(model) and theirs.call("__len__") == len(then)
            other.call("compact")
            assert_holds(past, then)
            assert_holds(store, model)
            assert [one for one, *_ in theirs.call("scan")] == list(then)
            upsert(store, model, range(100, 110))
            store.compact()
            assert other.call("count", field("n") < 1000) == len(model)
            assert [one for one, *_ in theirs.call("scan")] == list(then)
            other.call("restore", "theirs")
            assert_holds(store, then, in_order=False)
            other.call("delete_snapshot", "theirs")
            for call in (lambda: past.get("k1"), lambda: theirs.call("get", "k1")):
                with pytest.raises(SnapshotNotFoundError):
                    call()
            past.close()


# -- beside the open store -----------------------------------------------------------------------------------------------


@pytest.fixture
def with_snapshot(stores: OpenStore) -> tuple[Path, Model, Model]:
    """A closed store with a snapshot: its path, the snapshot's model, the present one."""
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(40))
    store.optimize()
    store.snapshot("s")
    then = dict(model)
    upsert(store, model, range(30, 80), shift=3)
    path = Path(store.info().path)
    store.close()
    return path, then, model


@pytest.mark.parametrize("first_closed", ["store", "snapshot"])
@pytest.mark.parametrize("first_opened", ["store", "snapshot"])
@pytest.mark.parametrize("mode", ["a", "r"])
def test_both_orders(with_snapshot: Any, stores: OpenStore, first_opened: str, first_closed: str, mode: str) -> None:
    path, then, model = with_snapshot
    if first_opened == "store":
        store = stores(path, mode=mode)
        past = stores(path, snapshot="s")
    else:
        past = stores(path, snapshot="s")
        store = stores(path, mode=mode)
    another = stores(path, snapshot="s", mode="r")
    assert_holds(store, model)
    assert_holds(past, then)
    if mode == "a":
        upsert(store, model, range(80, 90))
    assert_holds(another, then)
    with pytest.raises(AlreadyOpenError, match="is open in this process already"):
        stores(path)
    if first_closed == "store":
        store.close()
        closed = store
        assert_holds(past, then)
    else:
        past.close()
        closed = past
        assert_holds(store, model)
    for call in (
        lambda: closed.add("new", np.ones(DIM)), lambda: closed.delete("k1"), lambda: len(closed), closed.scan,
        lambda: closed.search(np.ones(DIM)), lambda: closed.search_many(np.ones((99, DIM))), closed.info, closed.snapshots,
        lambda: closed.get("k1"), closed.compact, closed.optimize, lambda: closed.snapshot("x"),
        lambda: closed.count(key == 1), lambda: closed.create_index("n"), closed.refresh, closed.check,
        lambda: closed.backup(path.parent / "backup.sim"),
    ):  # fmt: skip
        with pytest.raises(StoreClosedError):
            call()
    closed.close()
    assert_holds(another, then)
    if first_closed == "store":  # it can be opened again beside its snapshots
        again = stores(path, mode=mode)
        if mode == "a":
            upsert(again, model, range(200, 205))
        assert_holds(again, model)
        assert_holds(past, then)


def test_a_store_beside_its_snapshots_through_a_link(with_snapshot: Any, stores: OpenStore, tmp_path: Path) -> None:
    path, then, model = with_snapshot
    (tmp_path / "link").symlink_to(path)
    store = stores(path)
    with stores(tmp_path / "link", snapshot="s") as past:
        assert_holds(past, then)
        upsert(store, model, range(300, 310))
        assert_holds(past, then)
    assert_holds(store, model)
    store.close()
    past = stores(tmp_path / "link", snapshot="s")
    store = stores(path)
    assert_holds(store, model)
    assert_holds(past, then)


HOLD = """
import sys, time, simstore
store = simstore.open(sys.argv[1], background=False)
def hold(txn):
    print("holding", flush=True)
    time.sleep(2)
store._core.environment.write(hold)
store.close()
"""


def test_opening_beside_somebody_who_writes(with_snapshot: Any, stores: OpenStore) -> None:
    """py-lmdb opens a table within a transaction of its own, and holds Python's lock while it waits for the one that writes: a
    writing thread of this process was waited for for ever, and another process held up all threads of this one."""
    path, then, _ = with_snapshot
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"holding\n"
        ticks: list[float] = []
        done = threading.Event()

        def tick() -> None:
            while not done.wait(0.01):
                ticks.append(time.monotonic())

        thread = threading.Thread(target=tick)
        thread.start()
        store = stores(path)
        done.set()
        thread.join()
        assert max(np.diff(ticks)) < 0.5
    assert child.returncode == 0
    opened: list[Store] = []
    beside = threading.Event()

    def write(txn: Any) -> None:
        opener.start()
        assert beside.wait(30)

    def open_beside() -> None:
        opened.append(stores(path, snapshot="s"))
        assert_holds(opened[0], then)
        beside.set()

    opener = threading.Thread(target=open_beside)
    store._core.environment.write(write)
    opener.join()
    assert_holds(opened[0], then)


def test_an_embedder_or_arguments_beside_a_snapshot(with_snapshot: Any, stores: OpenStore) -> None:
    path, _, _ = with_snapshot
    for name, message in (
        (5, "a snapshot's name is a str, not int"), (b"s", "is a str, not bytes"), ("", "has 1 to 200 bytes"),
        ("x" * 201, "has 1 to 200 bytes"), ("é" * 101, "has 1 to 200 bytes"), ("a\0b", "no NUL"), ("now", "is not 'now'"),
        ("\ud800", "valid Unicode"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgumentError, match=message):
            stores(path, snapshot=name)
    with pytest.raises(SnapshotNotFoundError, match="has no snapshot 'other'; it has: 's'"):
        stores(path, snapshot="other")
    with pytest.raises(StoreNotFoundError):
        stores(path.parent / "missing.sim", snapshot="s")
    assert not (path.parent / "missing.sim").exists()
    with pytest.raises(ReadOnlyStoreError):
        stores(path, snapshot="s", index_fields=["n"])
    stores(path).close()  # nothing of all that has it open


# -- names ---------------------------------------------------------------------------------------------------------------


def test_names(stores: OpenStore) -> None:
    store = stores(metric="l2")
    upsert(store, {}, range(5))
    names = ["a", "ü" * 100, "x" * 200, "日本語", "before-restore-a", " ", "a/b", "..", "\n", "Now", "😀" * 50, "NOW"]
    for name in names:
        assert store.snapshot(name).name == name
    assert [one.name for one in store.snapshots()] == names
    before = [(one.name, one.seq) for one in store.snapshots()], store.info().seq
    for name in names:
        with pytest.raises(SnapshotExistsError, match="already: delete_snapshot it first"):
            store.snapshot(name)
        with pytest.raises(ValueError, match="already"):
            store.snapshot(name)
    bad: list[Any] = ["", "now", "x" * 201, "ü" * 101, "a\0", "\ud800", None, 5, b"a", ["a"]]
    for name in bad:
        for call in (store.snapshot, store.delete_snapshot, store.restore):
            with pytest.raises(InvalidArgumentError, match="a snapshot's name"):
                call(name)
        if name != "now":
            for call in (store.diff, lambda name: store.diff("a", name)):
                with pytest.raises(InvalidArgumentError, match="a snapshot's name"):
                    call(name)
    for note in (5, None, b"a", "\udfff"):
        with pytest.raises(InvalidArgumentError, match="note is"):
            store.snapshot("new", note)  # type: ignore[arg-type]
    for call in (store.delete_snapshot, store.restore, store.diff, lambda name: store.diff("a", name)):
        with pytest.raises(KeyError, match="there is no snapshot 'none'; there are: '") as caught:
            call("none")
        assert type(caught.value) is SnapshotNotFoundError
    assert ([(one.name, one.seq) for one in store.snapshots()], store.info().seq) == before
    assert store.snapshot("noted", "ein Wort\n" * 1000).note == "ein Wort\n" * 1000
    for name in names:
        with stores(store.info().path, snapshot=name) as past:
            assert len(past) == 5
        store.delete_snapshot(name)
    assert [one.name for one in store.snapshots()] == ["noted"]


def test_the_undo_of_long_and_repeated_names(stores: OpenStore) -> None:
    store = stores(metric="l2")
    upsert(store, {}, range(5))
    for name in ("x" * 200, "😀" * 50, "a", "before-restore-a", "before-restore-a-2"):
        store.snapshot(name)
    undone = []
    for name in ("x" * 200, "x" * 200, "😀" * 50, "a", "a", "before-restore-a"):
        undone.append(store.restore(name).undo)
        with stores(store.info().path, snapshot=undone[-1]) as past:
            assert len(past) == 5
    assert len({*undone}) == 6 and all(len(name.encode()) <= 200 for name in undone)
    assert undone[3:] == ["before-restore-a-3", "before-restore-a-4", "before-restore-before-restore-a"]
    assert {one.name for one in store.snapshots()} >= {*undone}
    for name in undone:
        store.delete_snapshot(name)


# -- restore -------------------------------------------------------------------------------------------------------------


def assert_difference(store: Store, a: str, b: str, then: Model, now: Model) -> None:
    difference = store.diff(a, b)
    both = then.keys() & now.keys()
    changed = {
        one
        for one in both
        if then[one][0] != now[one][0] or not same(then[one][1], now[one][1]) or then[one][2].tobytes() != now[one][2].tobytes()
    }
    for got, right in (
        (difference.added, now.keys() - then.keys()),
        (difference.changed, changed),
        (difference.deleted, then.keys() - now.keys()),
    ):
        assert len(got) == len(set(got)) and set(got) == right


def test_restore_and_undo(stores: OpenStore) -> None:
    store = stores(metric="l2", index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(80))
    store.optimize()
    store.snapshot("s")
    then = dict(model)
    delete(store, model, [0, "k1", "k2"])
    upsert(store, model, range(40, 60), shift=7)
    upsert(store, model, range(100, 120))
    store.update(["k4", "k5"], labels=["new", None])
    for one, new in (("k4", "new"), ("k5", None)):
        model[one] = (new, *model.pop(one)[1:])
    upsert(store, model, range(10, 12))  # unchanged
    now = dict(model)
    assert_difference(store, "s", "now", then, now)
    result = store.restore("s")
    assert (result.n_restored, result.n_removed) == (3 + 20 + 2, 20 + 20 + 2)
    assert result.undo == "before-restore-s"
    assert_holds(store, then, in_order=False)
    assert_difference(store, "s", "now", then, then)
    assert_difference(store, result.undo, "now", now, then)
    assert store.check(deep=True) == []
    again = store.restore("s")
    assert (again.n_restored, again.n_removed) == (0, 0)
    assert_holds(store, then, in_order=False)
    store.optimize()
    undone = store.restore(result.undo)
    assert (undone.n_restored, undone.n_removed) == (42, 25)
    assert_holds(store, now, in_order=False)
    assert_difference(store, result.undo, "now", now, now)
    store.compact()
    store.restore("s")
    assert_holds(store, then, in_order=False)
    assert_difference(store, "s", "now", then, then)
    assert store.add(None, np.ones((1, DIM))) == [118]  # numbers go on where they were


def test_restore_after_compact_and_long_after(stores: OpenStore) -> None:
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(100))
    store.snapshot("s")
    then = dict(model)
    for round_ in range(4):
        delete(store, model, list(model)[:30])
        upsert(store, model, range(50 * round_, 50 * round_ + 100), shift=round_)
        store.compact()
        assert store.check(deep=True) == []
    before = dict(model)
    undo = store.restore("s").undo
    assert_holds(store, then, in_order=False)
    assert store.compact().n_purged == 0  # the undo sees all that is gone
    store.delete_snapshot("s")
    assert_holds(store, then, in_order=False)
    store.compact()
    assert_holds(store, then, in_order=False)
    store.restore(undo)
    assert_holds(store, before, in_order=False)


def test_restore_is_all_or_nothing(stores: OpenStore) -> None:
    store = stores(metric="l2", index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(60))
    store.snapshot("s")
    delete(store, model, list(model)[:20])
    upsert(store, model, range(40, 80), shift=1)
    seq = store.info().seq
    for step in ("write.begun", "restore.appended", "restore.put"):
        with failing_at(step), pytest.raises(ZeroDivisionError):
            store.restore("s")
        assert_holds(store, model)
        assert store.info().seq == seq and [one.name for one in store.snapshots()] == ["s"]
    with failing_at("snapshot.put"), pytest.raises(ZeroDivisionError):
        store.snapshot("t")
    assert [one.name for one in store.snapshots()] == ["s"]
    with failing_at("compact.copied"), pytest.raises(ZeroDivisionError):
        store.compact()
    assert_holds(store, model)
    assert not [name for name in os.listdir(store.info().path) if name.startswith(("tmp-", "compacted-"))]
    with failing_at("backup.database"), pytest.raises(ZeroDivisionError):
        store.backup(Path(store.info().path).parent / "b.sim")
    with failing_at("backup.copied"), pytest.raises(ZeroDivisionError):
        store.backup(Path(store.info().path).parent / "b.sim")
    assert os.listdir(Path(store.info().path).parent) == [Path(store.info().path).name]
    store.restore("s")


@contextmanager
def failing_at(step: str) -> Iterator[None]:
    def fail(name: str) -> None:
        if name == step:
            raise ZeroDivisionError(name)

    steps.set_observer(fail)
    try:
        yield
    finally:
        steps.set_observer(None)


def test_restore_of_what_is_damaged(tmp_path: Path) -> None:
    store = simstore.open(tmp_path / "s.sim", metric="l2", background=False)
    model: Model = {}
    upsert(store, model, range(40))
    store.snapshot("s")
    delete(store, model, ["k7", "k8"])

    def damage(txn: Any) -> None:
        value = store._core.database.item(txn, 7)
        txn.put((7).to_bytes(8, "big"), value[:-1] + bytes([value[-1] ^ 1]), db=store._core.database._items)

    store._core.environment.write(damage)
    for call in (lambda: store.restore("s"), lambda: store.diff("s")):
        with pytest.raises(CorruptStoreError, match="row 7"):
            call()
    assert_holds(store, model)
    assert [one.name for one in store.snapshots()] == ["s"]
    store.delete_snapshot("s")
    store.compact()
    assert_holds(store, model)
    assert store.check(deep=True) == []
    store.close()


def test_restore_of_what_was_sound_then(tmp_path: Path) -> None:
    """What is damaged now, and was not there then, is no obstacle: restoring is its remedy."""
    store = simstore.open(tmp_path / "s.sim", metric="l2", background=False)
    model: Model = {}
    upsert(store, model, range(40))
    store.snapshot("s")
    then = dict(model)
    upsert(store, model, range(5, 10), shift=1)  # rows 40 to 44
    upsert(store, model, range(10, 12))  # unchanged
    upsert(store, model, range(12, 13))  # alone

    def damage(txn: Any) -> None:
        database = store._core.database
        run = txn.get((45).to_bytes(8, "big"), db=database._vectors)
        txn.put((45).to_bytes(8, "big"), run[:-9] + bytes([run[-9] ^ 1]) + run[-8:], db=database._vectors)  # of row 46
        for row in (42, 45):
            value = store._core.database.item(txn, row)
            txn.put(row.to_bytes(8, "big"), value[:-1] + bytes([value[-1] ^ 1]), db=store._core.database._items)

    store._core.environment.write(damage)
    with pytest.raises(CorruptStoreError, match="row 42"):
        list(store.scan())
    result = store.restore("s")
    assert (result.n_restored, result.n_removed) == (7, 7)
    assert_holds(store, then, in_order=False)
    store.delete_snapshot(result.undo)
    store.compact()
    assert store.check(deep=True) == []
    store.close()


def test_a_damaged_snapshot(stores: OpenStore) -> None:
    """It can be dropped; until then nothing that it may see is purged."""
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(40))
    store.snapshot("bad")
    delete(store, model, list(model)[:20])

    def damage(txn: Any) -> None:
        table = store._core.database._snapshots
        value = txn.get(b"bad", db=table)
        txn.put(b"bad", value[:-1] + bytes([value[-1] ^ 1]), db=table)

    store._core.environment.write(damage)
    for call in (store.snapshots, lambda: store.restore("bad"), lambda: store.diff("bad")):
        with pytest.raises(CorruptStoreError, match="the snapshot 'bad' is damaged"):
            call()
    with pytest.raises(CorruptStoreError, match="the snapshot 'bad' is damaged"):
        stores(store.info().path, snapshot="bad")
    upsert(store, model, range(100, 140))
    store.optimize()
    assert_holds(store, model)
    assert store.compact().n_purged == 0
    assert_holds(store, model)
    path = store.info().path
    store.close()
    store = stores(path)
    assert_holds(store, model)
    store.delete_snapshot("bad")
    assert store.snapshots() == []
    assert store.compact().n_purged == 20
    assert_holds(store, model)


# -- diff ----------------------------------------------------------------------------------------------------------------


def test_diff_is_about_content(stores: OpenStore) -> None:
    store = stores(metric="l2")
    keys = ["same", "label", "data", "vector", "gone", "back", "touched", 1, "1"]
    labels: list[Any] = ["a", "a", None, 1, "a", "a", "a", 1, "1"]
    data: list[Any] = [{"x": [1, None]}, None, {"x": 1}, None, None, b"b", np.arange(3), 1, "1"]
    vectors = vectors_of(range(9))
    store.add(keys, vectors, labels=labels, data=data)
    store.snapshot("a")
    store.upsert(["same", "touched"], vectors[[0, 6]], labels=["a", "a"], data=[{"x": [1, None]}, np.arange(3)])
    store.update("label", labels="b")
    store.update("data", data={"x": 2})
    store.upsert("vector", vectors[3] + 1, labels=1)
    store.delete(["gone", "back"])
    store.add("back", vectors[5], labels="a", data=b"b")
    store.add(["new", 2], vectors[:2])
    store.update(1, labels="1")  # not the label 1
    store.update("1", data=1)
    difference = store.diff("a")
    assert set(difference.added) == {"new", 2} and difference.deleted == ["gone"]
    assert set(difference.changed) == {"label", "data", "vector", 1, "1"}
    store.snapshot("b")
    assert store.diff("a", "b") == difference
    back = store.diff("b", "a")
    assert set(back.deleted) == {"new", 2} and back.added == ["gone"] and set(back.changed) == set(difference.changed)
    for name in ("a", "b", "now"):
        same_ones = store.diff(name, name)
        assert same_ones.added == same_ones.changed == same_ones.deleted == []
    with stores(store.info().path, snapshot="a") as past:
        assert past.diff("a", "b") == difference and past.diff("b") == store.diff("b")
        assert [one.name for one in past.snapshots()] == ["a", "b"]


def test_diff_of_random_lives(stores: OpenStore) -> None:
    rng = np.random.default_rng(8)
    store = stores(metric="l2")
    model: Model = {}
    kept: list[tuple[str, Model]] = [("now", model)]
    for i in range(12):
        upsert(store, model, rng.choice(40, 15, replace=False).tolist(), shift=int(rng.integers(2)))
        delete(store, model, [one for one in list(model) if rng.random() < 0.2])
        store.snapshot(f"s{i}")
        kept.append((f"s{i}", dict(model)))
        if i == 6:
            store.compact()
    for a, then in kept:
        for b, later in kept[::3]:
            assert_difference(store, a, b, then, later)


# -- compact -------------------------------------------------------------------------------------------------------------


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.suffix in (".mdb", ".hnsw") and file.name != "lock.mdb")


def test_compact_gives_space_back(stores: OpenStore) -> None:
    store = stores(metric="l2", index_fields=["n"])
    path = Path(store.info().path)
    model: Model = {}
    for i in range(10):
        keys = [f"k{j}" for j in range(300)]
        vectors = vectors_of(range(i, 300 + i))
        store.upsert(keys, vectors, data=[{"n": j, "blob": b"x" * 2000} for j in range(300)])
        store.optimize()
    model = {f"k{j}": (None, {"n": j, "blob": b"x" * 2000}, vectors[j]) for j in range(300)}
    before = size_of(path)
    done: list[tuple[str, int, int]] = []
    result = store.compact(progress=lambda *step: done.append(step))
    assert result.n_purged == 2700
    assert result.before_size_bytes == before and result.after_size_bytes == size_of(path) < before / 4
    assert {stage for stage, _, _ in done} >= {"compact"} and done[-1][1] == done[-1][2]
    assert_holds(store, model)
    assert store.check(deep=True) == []
    assert sorted(os.listdir(path)) == ["data.mdb", "lock.mdb", "segments", "store.json"]
    with open("/proc/self/maps") as maps:
        gc.collect()
        assert [line for line in maps if str(path) in line and "deleted" in line] == []
    again = store.compact()
    assert again.n_purged == 0 and abs(again.after_size_bytes - result.after_size_bytes) <= 16 * 4096
    for _ in range(3):
        assert store.compact().n_purged == 0
    assert_holds(store, model)
    store.close()
    store = stores(path)
    assert_holds(store, model)
    upsert(store, model, range(500, 510))
    assert_holds(store, model)


def test_compact_an_empty_store_and_one_that_lost_everything(stores: OpenStore) -> None:
    store = stores(metric="l2")
    assert store.compact().n_purged == 0
    model: Model = {}
    upsert(store, model, range(50))
    store.optimize()
    upsert(store, model, range(50, 60))
    delete(store, model, list(model))
    assert store.compact().n_purged == 60
    assert store.info().n_segments == 0 and os.listdir(Path(store.info().path) / "segments") == []
    assert_holds(store, model)
    upsert(store, model, range(10))
    assert store.add(None, np.ones((1, DIM))) == [58]  # numbers are not given twice
    model[58] = (None, None, np.ones(DIM, np.float32))
    assert [item.key for item in store.scan()] == list(model)
    store.compact()
    assert [item.key for item in store.scan()] == list(model)


def test_what_runs_across_a_compact(stores: OpenStore) -> None:
    """Iterators and handles that began before go on with what they saw."""
    store = stores(metric="l2", index_fields=["n"])
    path = Path(store.info().path)
    model: Model = {}
    upsert(store, model, range(700))
    store.optimize()
    delete(store, model, list(model)[:300])
    store.snapshot("s")
    then = dict(model)
    past, another = stores(path, snapshot="s"), stores(path, snapshot="s")
    scans = [store.scan(), store.scan(field("n") < 650), past.scan(), another.scan()]
    started = [[next(scan)] for scan in scans]
    hits = store.search(np.ones(DIM), 5)
    upsert(store, model, range(400, 500), shift=1)
    store.compact()
    another.close()  # has not gone over to the new database: the others still read the old one
    started[0].append(next(scans[0]))
    upsert(store, model, range(1000, 1010))
    store.compact()
    assert_holds(store, model)
    for i, right in enumerate((then, {one: row for one, row in then.items() if row[1]["n"] < 650}, then)):
        assert [item.key for item in (*started[i], *scans[i])] == list(right)
    with pytest.raises(StoreClosedError):
        list(scans[3])
    assert [hit.data for hit in hits] == [then[hit.key][1] for hit in hits]
    assert_holds(past, then)
    assert_holds(store, model)
    third = stores(path, snapshot="s")
    store.close()
    assert_holds(past, then)
    assert_holds(third, then)
    past.close()
    assert_holds(third, then)
    store = stores(path)
    store.compact()
    assert_holds(third, then)
    assert_holds(store, model)


def test_the_last_snapshot_of_a_replaced_database_closes(stores: OpenStore) -> None:
    """Which keeps nothing from being read by what the store began before it went over to the new one."""
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(700))
    store.snapshot("s")
    past = stores(store.info().path, snapshot="s")
    scan = store.scan()
    next(scan)
    before = dict(model)
    delete(store, model, list(model)[600:])
    store.compact()
    past.close()
    assert [item.key for item in scan] == list(before)[1:]
    assert_holds(store, model)


def test_a_store_that_lags_behind_and_another_that_opens(stores: OpenStore) -> None:
    """Another process compacts; before this one's store has noticed, a snapshot is opened here, and the store once more."""
    store = stores(metric="l2")
    path = Path(store.info().path)
    model: Model = {}
    upsert(store, model, range(80))
    store.snapshot("s")
    then = dict(model)
    upsert(store, model, range(40), shift=1)
    with SecondProcess(path) as other:
        for _ in range(2):
            other.call("compact")
            past = stores(path, snapshot="s")
            with pytest.raises(AlreadyOpenError):
                stores(path)
            assert_holds(past, then)
            assert_holds(store, model)
            upsert(store, model, range(100, 105))
            assert_holds(past, then)
            other.call("compact")
            past.close()
            assert other.call("__len__") == len(model)
            assert_holds(store, model)
            other.call("compact")
            with pytest.raises(AlreadyOpenError):
                stores(path)
            assert_holds(store, model)
        other.call("compact")
        store.close()  # it never noticed
        store = stores(path)
        assert_holds(store, model)


def guarded(failures: list[BaseException], work: Callable[..., None], *args: Any) -> threading.Thread:
    def run() -> None:
        try:
            work(*args)
        except BaseException as err:
            failures.append(err)

    return threading.Thread(target=run)


@pytest.mark.parametrize("background", [False, True])
def test_threads_search_and_write_across_compacts(tmp_path: Path, background: bool) -> None:
    path = tmp_path / "s.sim"
    store = simstore.open(path, metric="l2", background=background, index_fields=["n"])
    vectors = vectors_of(range(400))
    store.add([f"k{i}" for i in range(400)], vectors, data=[{"n": i} for i in range(400)])
    store.snapshot("s")
    store.delete([f"k{i}" for i in range(100)])
    store.optimize()
    past = simstore.open(path, snapshot="s")
    failures: list[BaseException] = []
    done = threading.Event()
    queries = vectors[200:220]
    right = store.search_many(queries, 5, where=field("n") < 400).distances
    right_then = past.search_many(queries, 5, exact=True).distances
    calls = 0

    def read() -> None:
        nonlocal calls
        while not done.is_set():
            calls += 1
            assert np.allclose(store.search_many(queries, 5, where=field("n") < 400, threads=2).distances, right)
            assert np.allclose(store.search(queries[0], 5, where=field("n") < 400).distances, right[0])
            assert np.allclose(past.search_many(queries, 5, exact=True).distances, right_then)
            assert len(list(store.scan(field("n") < 400))) == 300 and len(past) == 400
            assert store.get("k150").data == {"n": 150} and past.get("k50").data == {"n": 50}
            assert sum(past.labels().values()) == 400 and store.count(field("n") < 400) == 300
            assert past.diff("s").deleted[:1] == ["k0"] and store.snapshots()[0].name == "s"

    def write() -> None:
        i = 0
        while not done.is_set():
            i += 1
            store.upsert([f"w{i % 10}-{j}" for j in range(5)], np.full((5, DIM), 50.0 + i % 7), data=[{"n": 1000}] * 5)
            store.delete(where=key == f"w{(i + 5) % 10}-0")

    threads = [guarded(failures, work) for work in (read, read, write)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            store.compact()
            time.sleep(0.02)
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert calls > 5
    assert store.check(deep=True) == []
    past.close()
    store.close()
    assert not [name for name in os.listdir(path) if name.startswith(("tmp-", "compacted-"))]


def test_two_processes_compact_in_turns(stores: OpenStore) -> None:
    store = stores(metric="l2")
    path = Path(store.info().path)
    model: Model = {}
    with SecondProcess(path) as other:
        for i in range(6):
            upsert(store, model, range(50), shift=i)
            assert other.call("__len__") == len(model)
            other.call("compact") if i % 2 else store.compact()
            other.call("upsert", [f"o{i}"], np.ones((1, DIM)), data=[{"n": i}])
            model[f"o{i}"] = (None, {"n": i}, np.ones(DIM, np.float32))
            assert_holds(store, model)
        failures: list[BaseException] = []
        threads = [
            guarded(failures, lambda: [store.compact() for _ in range(5)]),
            guarded(failures, lambda: [other.call("compact") for _ in range(5)]),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert_holds(store, model)
        assert other.call("check") == []


def test_a_copy_that_is_missing(with_snapshot: Any, stores: OpenStore) -> None:
    """A database that says another has taken its place, where that one is not: refused, not waited for."""
    path, _, _ = with_snapshot
    store = stores(path)
    saved = path / "data.mdb"
    store.close()
    before = saved.read_bytes()
    environment = simstore.storage.Environment(path)
    environment.write(lambda txn: environment.put_moved(txn, "compacted-0.mdb"))
    environment.close()
    for options in ({}, {"mode": "r"}, {"snapshot": "s"}):
        with pytest.raises(CorruptStoreError, match=r"was replaced by compacted-0\.mdb, which is missing"):
            stores(path, **options)
    saved.write_bytes(before)
    (path / "lock.mdb").unlink()
    stores(path)


@pytest.mark.parametrize("step", ["compact.committed", "compact.unlocked", "compact.renamed"])
def test_a_compact_that_is_cut_off_late(stores: OpenStore, step: str) -> None:
    """The copy is the store as soon as the transaction has committed; whoever comes next goes over to it."""
    store = stores(metric="l2")
    path = store.info().path
    model: Model = {}
    upsert(store, model, range(60))
    store.snapshot("s")
    then = dict(model)
    past = stores(path, snapshot="s")
    delete(store, model, list(model)[:20])
    for _ in range(2):
        with failing_at(step), pytest.raises(ZeroDivisionError):
            store.compact()
        assert_holds(past, then)
        upsert(store, model, range(50, 70), shift=len(model))
        assert_holds(store, model)
    with failing_at(step), pytest.raises(ZeroDivisionError):
        store.compact()
    store.close()  # neither has noticed
    past.close()
    for mode in ("r", "a"):
        store = stores(path, mode=mode)
        assert_holds(store, model)
        assert store.check(deep=True) == []
        assert sorted(os.listdir(path)) == ["data.mdb", "lock.mdb", "segments", "store.json"]
        store.close()


def test_going_over_where_nothing_may_be_written(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(30))
    with failing_at("compact.committed"), pytest.raises(ZeroDivisionError):
        store.compact()

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(guard, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(type(store._files), "rename", refuse)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"was compacted, and this process may not put .* in place .*Permission denied"):
            store.get("k1")
    monkeypatch.undo()
    assert_holds(store, model)


def test_compact_without_space(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(100))
    delete(store, model, list(model)[:50])
    store.optimize()

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(store._files), "rename", refuse)
    with pytest.raises(StorageFullError, match="no space left while compacting"):
        store.compact()
    with pytest.raises(StorageFullError, match="no space left while writing the backup"):
        store.backup(Path(store.info().path).parent / "b.sim")
    monkeypatch.undo()
    assert_holds(store, model)
    assert sorted(os.listdir(store.info().path)) == ["data.mdb", "lock.mdb", "segments", "store.json"]
    assert store.compact().n_purged == 50
    assert_holds(store, model)


# -- backup --------------------------------------------------------------------------------------------------------------


def test_a_backup_is_a_full_store(stores: OpenStore, tmp_path: Path) -> None:
    store = stores(metric="l2", index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(100))
    store.optimize()
    store.snapshot("s", "note")
    then = dict(model)
    upsert(store, model, range(50, 130), shift=2)
    delete(store, model, list(model)[:10])
    done: list[tuple[str, int, int]] = []
    path = store.backup(str(tmp_path / "b.sim"), progress=lambda *step: done.append(step))
    assert path == tmp_path / "b.sim" and done[-1] == ("backup", 2, 2)
    assert sorted(os.listdir(path)) == ["data.mdb", "segments", "store.json"]
    now = dict(model)
    upsert(store, model, range(300))
    for mode in ("r", "a"):
        copy = stores(path, mode=mode)
        assert_holds(copy, now)
        assert copy.check(deep=True) == [] and copy.info().n_segments == 1
        assert [(one.name, one.note) for one in copy.snapshots()] == [("s", "note")]
        assert copy.info().indexed_fields == ("n",) and copy.explain(np.ones(DIM), where=field("n") < 9).is_indexed
        with stores(path, snapshot="s") as past:
            assert_holds(past, then)
        if mode == "r":
            copy.close()
    copy.restore("s")
    assert_holds(copy, then, in_order=False)
    copy.compact()
    assert_holds(copy, then, in_order=False)
    assert_holds(store, model)
    with stores(store.info().path, snapshot="s") as past:
        past.backup(tmp_path / "of a snapshot.sim")  # the whole store
    with stores(tmp_path / "of a snapshot.sim") as copy:
        assert_holds(copy, model)


def test_where_a_backup_goes(stores: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stores(metric="l2")
    upsert(store, {}, range(10))
    path = Path(store.info().path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(path)
    before = sorted(str(file) for file in tmp_path.rglob("*"))
    for dest, error, message in (
        (tmp_path / "file", StoreExistsError, "exists already: a backup goes to a new path"),
        (tmp_path / "empty", StoreExistsError, "exists already"),
        (tmp_path / "dangling", StoreExistsError, "exists already"),
        (path, StoreExistsError, "exists already"),
        (tmp_path / "no" / "b", StoreNotFoundError, "does not exist: create it first"),
        (tmp_path / "file" / "b", StoreNotFoundError, "does not exist: create it first"),
        (path / "b", InvalidArgumentError, "lies within the store itself"),
        (path / "segments" / "b", InvalidArgumentError, "lies within the store itself"),
        (tmp_path / "link" / "b", InvalidArgumentError, "lies within the store itself"),
        (path / "segments" / ".." / "b", InvalidArgumentError, "lies within the store itself"),
        (f"{tmp_path}/a\0b", InvalidArgumentError, "dest holds a NUL character"),
        (None, InvalidArgumentError, "dest is a str or a path, not NoneType"),
        (5, InvalidArgumentError, "dest is a str or a path, not int"),
        (b"b", InvalidArgumentError, "dest is a str or a path, not bytes"),
        (tmp_path / ("n" * 300), StorageError, "writing the backup"),
    ):
        with pytest.raises(error, match=message):
            store.backup(dest)
        assert sorted(str(file) for file in tmp_path.rglob("*")) == before
    monkeypatch.chdir(tmp_path)
    assert store.backup("here.sim") == tmp_path / "here.sim"
    assert len(stores("here.sim")) == 10


def test_a_backup_while_everything_goes_on(stores: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds is one state: each batch is there whole or not at all, and later batches only with all earlier ones."""
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 30)
    store = stores(metric="l2", background=True, index_fields=["n"])
    store.add(["first"], np.ones((1, DIM)), data=[{"n": -1}])
    failures: list[BaseException] = []
    done = threading.Event()

    def write() -> None:
        i = 0
        while not done.is_set():
            store.add([f"{i}-{j}" for j in range(10)], vectors_of(range(10 * i, 10 * i + 10)), data=[{"n": i}] * 10)
            if i % 10 == 9:
                store.search(np.ones(DIM))
                store.delete(where=field("n") == i - 5)
            if i % 40 == 39:
                store.optimize()
            if i % 60 == 59:
                store.compact()
            i += 1

    threads = [guarded(failures, write)]
    for thread in threads:
        thread.start()
    copies: list[Path] = []
    try:
        for i in range(8):
            copies.append(store.backup(tmp_path / f"b{i}.sim"))
            time.sleep(0.05)
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert sorted(name for name in os.listdir(tmp_path) if name.startswith("tmp-")) == []
    for path in copies:
        copy = stores(path)
        numbers = [item.data["n"] for item in copy.scan()]
        most = max(numbers)
        gone = {i - 5 for i in range(9, most, 10)}
        expected = [-1, *(i for i in range(most + 1) if i not in gone for _ in range(10))]
        assert numbers == expected or (most % 10 == 9 and numbers == [n for n in expected if n != most - 5])
        vectors = {item.key: item.vector for item in copy.scan()}
        hits = copy.search(np.ones(DIM), 10, ef=400, where=field("n") >= 0) if most >= 0 else None
        if hits is not None:
            del vectors["first"]
            assert_nearest(hits.keys, hits.distances, np.ones(DIM), vectors, "l2", 10)
        assert copy.check(deep=True) == []
        copy.close()


@pytest.mark.parametrize("damage", ["flipped", "missing", "cut"])
def test_a_backup_of_a_store_with_a_damaged_segment(tmp_path: Path, damage: str) -> None:
    """Its rows come along, and are searched exactly until the segment is built anew."""
    store = simstore.open(tmp_path / "s.sim", metric="l2", background=False)
    model: Model = {}
    upsert(store, model, range(300))
    store.optimize()
    (file,) = (tmp_path / "s.sim" / "segments").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    store.backup(tmp_path / "b.sim")
    with simstore.open(tmp_path / "b.sim", background=False) as copy:
        assert copy.info().n_segments == 0
        assert_holds(copy, model)
        assert copy.check(deep=True) == []
        copy.optimize()
        assert_holds(copy, model)
    shutil.rmtree(tmp_path / "b.sim")
    store._finalizer()


# -- places to store it --------------------------------------------------------------------------------------------------


READ_ONLY = """
import os, sys, numpy as np, simstore
from simstore.errors import StorageError
path, open_store = sys.argv[1], simstore.open  # loaded while it may read the packages
os.setgid(65534); os.setuid(65534)
for options in ({"mode": "r"}, {"snapshot": "s"}, {"snapshot": "s", "mode": "r"}):
    with open_store(path, **options) as store:
        assert len(store) == (40 if "snapshot" in options else 80), len(store)
        assert len(store.search(np.ones(6), 5, where=simstore.field("n") < 30)) == 5
        assert [one.name for one in store.snapshots()] == ["s"]
        try:
            store.backup(path + "-backup")
        except StorageError as err:
            assert "Permission denied" in str(err), err
        else:
            raise AssertionError("a backup where nothing may be written")
with simstore.open(path, snapshot="s") as past, simstore.open(path, mode="r") as store:
    assert (len(past), len(store)) == (40, 80)
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_directory_that_may_only_be_read(with_snapshot: Any) -> None:
    path, _, _ = with_snapshot
    for parent in (path, *path.parents):
        if parent.stat().st_uid == os.geteuid() and str(parent).startswith("/tmp/pytest"):
            parent.chmod(0o755)
    for file in path.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    (path / "lock.mdb").chmod(0o666)
    command = [sys.executable, "-c", READ_ONLY, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (0, "fine\n"), result.stderr


def test_a_map_that_grows(tmp_path: Path) -> None:
    """Transactions that run again because the map is full do all they do once: restore, compact, create_index, delete, snapshot."""
    path = tmp_path / "s.sim"
    store = open_growing(path, background=False, map_size=1 << 16)
    model: Model = {}

    def tight() -> int:
        """No page left but those that are free."""
        environment = store._core.environment._env
        environment.set_mapsize((environment.info()["last_pgno"] + 1) * 4096)
        return map_size_of(store)

    grown: dict[str, bool] = {}

    def growing(name: str, work: Callable[[], Any]) -> Any:
        before = tight()
        result = work()
        grown[name] = map_size_of(store) > before
        return result

    upsert(store, model, range(900))
    store.optimize()
    growing("snapshot", lambda: store.snapshot("s"))
    then = dict(model)
    growing("create_index", lambda: store.create_index("n"))
    assert store.count(field("n") < 100) == 100
    doomed = [one for one, row in model.items() if row[1]["n"] % 2]
    assert growing("delete", lambda: store.delete(where=field("n").is_in(range(1, 900, 2)))) == len(doomed)
    for one in doomed:
        del model[one]
    upsert(store, model, range(0, 100, 2), shift=5000)
    assert_holds(store, model)
    undo = growing("restore", lambda: store.restore("s")).undo
    assert_holds(store, then, in_order=False)
    with simstore.open(path, snapshot=undo) as past:
        assert_holds(past, model)
        result = growing("compact", store.compact)
        assert result.n_purged == 0
        assert_holds(past, model)
    assert_holds(store, then, in_order=False)
    growing("drop_index", lambda: store.drop_index("n"))
    store.delete_snapshot("s")
    store.delete_snapshot(undo)
    growing("compact again", store.compact)
    assert_holds(store, then, in_order=False)
    store.backup(tmp_path / "b.sim")
    assert store.check(deep=True) == []
    assert grown["create_index"] and grown["restore"] and grown["delete"], grown
    store.close()
    with simstore.open(tmp_path / "b.sim") as copy:
        assert_holds(copy, then, in_order=False)


def test_an_old_store(tmp_path: Path, stores: OpenStore) -> None:
    """One of the first format, which has no tables for what came later: read, written, snapshotted, indexed, compacted."""
    import tarfile

    with tarfile.open(FOLDER / "format-1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    path, items = tmp_path / "golden.sim", golden_content()
    reader = stores(path, mode="r")
    assert reader.snapshots() == [] and reader.info().indexed_fields == ()
    assert reader.count(label == "label 3") == reader.labels()["label 3"]
    assert reader.diff("now").added == [] and len(list(reader.scan(field("number") > 50))) > 0
    right = [item.key for item in reader.scan(field("number") > 50)]
    reader.backup(tmp_path / "b.sim")
    with pytest.raises(SnapshotNotFoundError):
        reader.diff("s")
    with SecondProcess(path) as other:  # which makes the tables that the reader had not found
        other.call("create_index", "number")
        other.call("snapshot", "s")
        assert reader.count(field("number") > 50) == len(right)
        assert [item.key for item in reader.scan(field("number") > 50)] == right
        assert [one.name for one in reader.snapshots()] == ["s"] and reader.diff("s").deleted == []
        other.call("delete", where=field("number") > 50)
        assert reader.count(field("number") > 50) == 0 and len(reader) == len(items) - len(right)
        assert set(reader.diff("s").deleted) == set(right)
        other.call("compact")
        assert reader.count(field("number") > 50) == 0 and len(reader) == len(items) - len(right)
        assert reader.info().indexed_fields == ("number",)
        other.call("restore", "s")
        assert {item.key for item in reader.scan(field("number") > 50)} == set(right)
    reader.close()
    store = stores(path)
    assert len(store) == len(items)
    store.compact()
    for one, (vector, its_label, data) in items.items():
        item = store.get(one)
        assert item.label == its_label and item.vector.tobytes() == vector.tobytes() and same(item.data, data)
    with stores(tmp_path / "b.sim") as copy:
        assert len(copy) == len(items) and copy.check(deep=True) == []
        copy.snapshot("here too")
        copy.compact()
        assert len(copy) == len(items)


def test_nothing_of_this_is_kept_when_closed(with_snapshot: Any, stores: OpenStore) -> None:
    """A process that has closed its stores holds no map, no lock and no thread of them."""
    path, _, _ = with_snapshot
    store = stores(path, background=True)
    past = stores(path, snapshot="s")
    store.compact()
    store.search_many(vectors_of(range(100)), 3, threads=2)
    past.search(np.ones(DIM))
    store.compact()
    past.close()
    store.close()
    del store, past
    gc.collect()
    with open("/proc/self/maps") as maps:
        assert [line for line in maps if str(path) in line] == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("simstore")]
    assert cores.Cores is not None


def test_no_snapshot_of_a_store_to_be_made(store: Store) -> None:
    with pytest.raises(InvalidArgumentError, match="leave mode out"):
        simstore.open(store._path, mode="w", snapshot="any")
