"""The state machine with all that looks at a store from the side: filters and indexes, snapshots, and a second process."""

import atexit
import gc
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import naive_where
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test
from naive import assert_nearest
from random_where import as_dict, as_expression
from second_process import SecondProcess
from test_properties import same
from test_state_machine import DIM, KS, LABELS, QUICK, SEEDS, SOME_KEYS, Row, StoreMachine

import simstore
from simstore import Store
from simstore.errors import (
    IndexExistsError,
    IndexNotFoundError,
    ReadOnlyStoreError,
    SnapshotExistsError,
    SnapshotNotFoundError,
    StoreClosedError,
)
from simstore.storage import LocalFiles
from simstore.store import filters
from simstore.store.entry import open_through

Rows = dict[Any, Row]

PATHS: tuple[Any, ...] = ((), ("k",), (0,), (1, "a"))
NAMES = ("one", "zwei", "三", "x" * 200)
_OPERANDS = st.sampled_from([0, 1, 3, 5, 30, 1.5, "text", "t", b"bytes", None])
_ORDER = st.sampled_from(["$lt", "$lte", "$gt", "$gte"])
_FIELDS = st.sampled_from(PATHS)
_LEAVES = st.one_of(
    st.tuples(_FIELDS, st.sampled_from(["$eq", "$ne", "$contains"]), _OPERANDS),
    st.tuples(_FIELDS, _ORDER, st.integers(0, 20)),
    st.tuples(_FIELDS, st.just("$in"), st.lists(_OPERANDS, max_size=4)),
    st.tuples(_FIELDS, st.just("$exists"), st.booleans()),
    st.tuples(_FIELDS, st.just("$startswith"), st.just("te")),
    st.tuples(st.just("label"), st.sampled_from(["$eq", "$ne"]), LABELS),
    st.tuples(st.just("label"), st.just("$in"), st.lists(LABELS, max_size=3)),
    st.tuples(st.just("key"), _ORDER, st.integers(-1, 60) | st.just("4")),
    st.tuples(st.just("key"), st.just("$in"), st.lists(st.sampled_from([0, 1, 2, 30, "1", "7", ""]), max_size=4)),
)
CONDITIONS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)), st.tuples(st.just("not"), inner)
    ),
    max_leaves=4,
)


@cache
def second_process() -> SecondProcess:
    """One for all runs: it takes long to start."""
    process = SecondProcess()
    atexit.register(process.end)
    return process


def equal(left: Row, right: Row) -> bool:
    return same(left[0], right[0]) and same(left[1], right[1]) and left[2].tobytes() == right[2].tobytes()


class WholeMachine(StoreMachine):
    """Beside the store: the models of its snapshots, Stores of some of them, and another process that has it open, too."""

    def __init__(self) -> None:
        super().__init__()
        self.snapshots: dict[str, Rows] = {}
        self.past: dict[str, Store] = {}
        self.indexed: set[Any] = set()
        self.other: SecondProcess | None = None
        self.map_size: int | None = None

    @initialize(few_new=st.sampled_from([5, 4096]), map_size=st.sampled_from([None, None, 1 << 18]))
    def begin_more(self, few_new: int, map_size: int | None) -> None:
        patch = pytest.MonkeyPatch()
        patch.setattr(filters, "_FEW_NEW", few_new)
        self.monkey = patch
        self.map_size = map_size

    def opened(self, mode: str) -> Store:
        if mode == "a" and self.mode == "r":  # what was opened to be read cannot be written beside it
            self.close_past()
        self.mode = mode
        options: dict[str, Any] = {} if self.model or self.ever_most >= 0 else {"metric": self.metric, "dim": DIM, "M": 4}
        return open_through(LocalFiles(), self.directory / "s", mode=mode, background=False, map_size=self.map_size, **options)

    def close_past(self) -> None:
        for past in self.past.values():
            past.close()
        self.past.clear()

    writes = precondition(lambda self: self.mode != "r")

    # -- filters ---------------------------------------------------------------------------------------------------------

    def matching(self, condition: Any, rows: Rows | None = None) -> Rows:
        rows = self.model if rows is None else rows
        return {key: row for key, row in rows.items() if naive_where.matches(condition, key, row[0], row[1])}

    def nearest(self, hits: Any, query: Any, k: int | None, rows: Rows, max_distance: float | None = None) -> None:
        vectors = {key: row[2] for key, row in rows.items()}
        assert_nearest([hit[-4] for hit in hits], [hit[-3] for hit in hits], query, vectors, self.metric, k, max_distance)
        for *_, key, _, label, data in hits:
            assert same(label, rows[key][0]) and same(data, rows[key][1])

    def agrees(self, store: Store, rows: Rows, condition: Any, k: int, seed: int, exact: bool) -> None:
        """Every call with a filter."""
        where: Any = as_expression(condition) if seed % 2 else as_dict(condition)
        right, queries = self.matching(condition, rows), self.vectors(3, seed)
        assert store.count(where) == len(right)
        found = [(item.key, item.label, item.vector.tobytes()) for item in store.scan(where)]
        assert found == [(key, row[0], row[2].tobytes()) for key, row in right.items()]
        labels = [row[0] for row in right.values()]
        assert store.labels(where) == {label: labels.count(label) for label in labels}
        for query, hits in zip(
            queries, store.search_many(queries, k, where=where, exact=exact, ef=300, threads=2), strict=True
        ):
            self.nearest([hit[1:5] for hit in hits], query, k, right)
        hits = store.search(queries[0], k, where=where, exact=exact, ef=300)
        self.nearest([hit[1:5] for hit in hits], queries[0], k, right)
        hits = store.search(queries[1], None, where=where, max_distance=1.5, ef=300)
        self.nearest([hit[1:5] for hit in hits], queries[1], None, right, 1.5)
        plan = store.explain(queries[0], k, where=where, ef=300)
        assert plan.count == sum(part.n_allowed for part in plan.parts) == len(right)

    @rule(condition=CONDITIONS, k=KS, seed=SEEDS, exact=st.booleans())
    def filters(self, condition: Any, k: int, seed: int, exact: bool) -> None:
        self.agrees(self.store, self.model, condition, k, seed, exact)

    @writes
    @precondition(lambda self: len(self.model) > 20)
    @rule(condition=CONDITIONS)
    def delete_where(self, condition: Any) -> None:
        doomed = self.matching(condition)
        if len(doomed) < len(self.model):
            assert self.store.delete(where=as_expression(condition)) == len(doomed)
            for key in doomed:
                del self.model[key]

    @writes
    @rule(path=_FIELDS)
    def index(self, path: Any) -> None:
        if path in self.indexed:
            with pytest.raises(IndexExistsError):
                self.store.create_index(path)
        else:
            self.store.create_index(path)
            self.indexed.add(path)

    @writes
    @rule(path=_FIELDS)
    def drop_index(self, path: Any) -> None:
        if path in self.indexed:
            self.store.drop_index(path)
            self.indexed.remove(path)
        else:
            with pytest.raises(IndexNotFoundError):
                self.store.drop_index(path)

    @precondition(lambda self: self.mode == "r")
    @rule()
    def more_writes_to_a_read_only_store(self) -> None:
        for call in (
            lambda: self.store.delete(where={}), lambda: self.store.create_index("n"), lambda: self.store.snapshot("new"),
            lambda: self.store.restore("one"), self.store.compact, lambda: self.store.delete_snapshot("one"),
        ):  # fmt: skip
            with pytest.raises(ReadOnlyStoreError):
                call()

    # -- snapshots -------------------------------------------------------------------------------------------------------

    @writes
    @rule(name=st.sampled_from(NAMES))
    def snapshot(self, name: str) -> None:
        if name in self.snapshots:
            with pytest.raises(SnapshotExistsError):
                self.store.snapshot(name)
        else:
            assert self.store.snapshot(name, "note").count == len(self.model)
            self.snapshots[name] = dict(self.model)

    @writes
    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def delete_snapshot(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.snapshots)))
        self.store.delete_snapshot(name)
        del self.snapshots[name]
        if name in self.past:
            past = self.past.pop(name)
            for call in (past.info, lambda: past.search([1, 1, 1]), past.scan, lambda: past.get_many([0])):
                with pytest.raises(SnapshotNotFoundError):
                    call()
            past.close()
        with pytest.raises(SnapshotNotFoundError):
            self.store.delete_snapshot(name)

    def restored(self, then: Rows) -> None:
        """What is the same stays where it is; the rest is written anew, in the order in which it was."""
        stays = {key: row for key, row in self.model.items() if key in then and equal(row, then[key])}
        self.model = stays | {key: row for key, row in then.items() if key not in stays}

    @writes
    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), undo=st.booleans(), keep=st.booleans())
    def restore(self, data: st.DataObject, undo: bool, keep: bool) -> None:
        name = data.draw(st.sampled_from(list(self.snapshots)))
        before, then = dict(self.model), self.snapshots[name]
        n_same = sum(key in then and equal(row, then[key]) for key, row in before.items())
        result = self.store.restore(name)
        assert (result.n_restored, result.n_removed) == (len(then) - n_same, len(before) - n_same)
        self.restored(then)
        self.differs(name, "now", then, then)
        if undo:
            self.store.restore(result.undo)
            self.restored(before)
        for one in self.store.snapshots():  # of each restore
            if one.name not in NAMES and not (keep and one.name == result.undo and len(self.snapshots) < 6):
                if one.name in self.snapshots and one.name != result.undo:
                    continue
                self.store.delete_snapshot(one.name)
            elif one.name == result.undo:
                self.snapshots[one.name] = before

    def differs(self, a: str, b: str, then: Rows, now: Rows) -> None:
        difference = self.store.diff(a, b)
        typed_then, typed_now = ({(type(key), key): row for key, row in rows.items()} for rows in (then, now))
        for got, right in (
            (difference.added, typed_now.keys() - typed_then.keys()),
            (difference.deleted, typed_then.keys() - typed_now.keys()),
            (difference.changed, {k for k in typed_then.keys() & typed_now.keys() if not equal(typed_then[k], typed_now[k])}),
        ):
            assert len(got) == len(right) and {(type(key), key) for key in got} == right

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def diff(self, data: st.DataObject) -> None:
        states = self.snapshots | {"now": self.model}
        a, b = data.draw(st.tuples(st.sampled_from(list(states)), st.sampled_from(list(states))))
        self.differs(a, b, states[a], states[b])

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), condition=CONDITIONS, k=KS, seed=SEEDS, exact=st.booleans(), keep=st.booleans())
    def look_back(self, data: st.DataObject, condition: Any, k: int, seed: int, exact: bool, keep: bool) -> None:
        """A snapshot, opened beside the store or open since long ago, holds what the store held."""
        name = data.draw(st.sampled_from(list(self.snapshots)))
        then = self.snapshots[name]
        past = self.past.pop(name, None) or simstore.open(self.directory / "s", snapshot=name)
        assert len(past) == past.info().count == len(then)
        found = [(item.key, item.label, item.vector.tobytes()) for item in past.scan()]
        assert found == [(key, row[0], row[2].tobytes()) for key, row in then.items()]
        for key, item in zip([*then, 0, "1", 7], past.get_many([*then, 0, "1", 7]), strict=True):
            assert (key in past) == (key in then) == (item is not None)
            assert item is None or equal((item.label, item.data, item.vector), then[key])
        if then or self.model:
            self.agrees(past, then, condition, k, seed, exact)
            for query in self.vectors(2, seed):
                self.nearest([hit[1:5] for hit in past.search(query, k, exact=exact, ef=300)], query, k, then)
        if keep and len(self.past) < 2:
            self.past[name] = past
        else:
            past.close()
            with pytest.raises(StoreClosedError):
                past.scan()

    # -- upkeep ----------------------------------------------------------------------------------------------------------

    @writes
    @rule()
    def compact(self) -> None:
        scan = self.store.scan()
        before = dict(self.model)
        result = self.store.compact()
        assert result.n_purged >= 0
        assert self.store.compact().n_purged == 0
        assert [item.key for item in scan] == list(before)
        if not self.snapshots:
            with self.store._core.environment.read() as txn:
                assert list(self.store._core.database.tombstone_values(txn)) == []
        assert not [path for path in (self.directory / "s").iterdir() if path.name.startswith(("tmp-", "compacted-"))]

    @rule(condition=CONDITIONS, k=KS, seed=SEEDS, optimize=st.booleans())
    def back_up(self, condition: Any, k: int, seed: int, optimize: bool) -> None:
        target = self.store.backup(self.directory / "backup")
        with simstore.open(target, background=False) as copy:
            if optimize:
                copy.optimize()
            if self.model:
                self.agrees(copy, self.model, condition, k, seed, exact=not seed % 3)
            assert {one.name: one.count for one in copy.snapshots()} == {name: len(s) for name, s in self.snapshots.items()}
            assert set(copy.info().indexed_fields) == set(self.store.info().indexed_fields)
            assert copy.check(deep=True) == []
        shutil.rmtree(target)

    # -- a second process ------------------------------------------------------------------------------------------------

    def process(self) -> SecondProcess:
        if self.other is None:
            self.other = second_process()
            self.other.open(self.directory / "s", **{} if self.map_size is None else {"mode": "a"})
        return self.other

    with_other = precondition(lambda self: self.map_size is None)

    @with_other
    @rule(condition=CONDITIONS, k=KS, seed=SEEDS)
    def it_reads(self, condition: Any, k: int, seed: int) -> None:
        other, where, right = self.process(), as_expression(condition), self.matching(condition)
        assert other.call("__len__") == len(self.model) and other.call("count", where) == len(right)
        scanned = other.call("scan", where)
        assert [(one[0], one[1], one[3]) for one in scanned] == [(k_, r[0], r[2].tobytes()) for k_, r in right.items()]
        (query,) = self.vectors(1, seed)
        if self.model:
            self.nearest(other.call("search", query, k, where=where, ef=300), query, k, right)
            self.nearest(other.call("search", query, k, ef=300), query, k, self.model)

    @with_other
    @rule(keys=SOME_KEYS, seed=SEEDS, data=st.data())
    def it_writes(self, keys: list[Any], seed: int, data: st.DataObject) -> None:
        rows = self.rows(keys, seed, data)
        there = sum(key in self.model for key in keys)
        assert self.process().call("upsert", keys, **self.columns(rows)) == (len(keys) - there, there)
        self.put(keys, rows)

    @with_other
    @precondition(lambda self: len(self.model) > 20)
    @rule(condition=CONDITIONS)
    def it_deletes(self, condition: Any) -> None:
        doomed = self.matching(condition)
        if len(doomed) < len(self.model):
            assert self.process().call("delete", where=as_expression(condition)) == len(doomed)
            for key in doomed:
                del self.model[key]

    @with_other
    @rule(what=st.sampled_from(["optimize", "compact", "index", "snapshot"]), path=_FIELDS, name=st.sampled_from(NAMES))
    def it_does_more(self, what: str, path: Any, name: str) -> None:
        other = self.process()
        if what == "index":
            other.call("drop_index" if path in self.indexed else "create_index", path)
            self.indexed ^= {path}
        elif what == "snapshot" and name not in self.snapshots:
            assert other.call("snapshot", name).count == len(self.model)
            self.snapshots[name] = dict(self.model)
        elif what != "snapshot":
            other.call(what)

    # -- always ----------------------------------------------------------------------------------------------------------

    @invariant()
    def lists(self) -> None:
        if self.store is not None and self.n_steps % 3 == 0:
            assert {one.name: one.count for one in self.store.snapshots()} == {n: len(s) for n, s in self.snapshots.items()}
            shown = {(part,) if isinstance(part, str) else part for part in self.store.info().indexed_fields}
            assert shown == self.indexed

    def teardown(self) -> None:
        try:
            self.close_past()
            if self.other is not None:
                self.other.call("close")
            super().teardown()
        finally:
            self.monkey.undo() if hasattr(self, "monkey") else None
            gc.collect()


def test_whole_machine() -> None:
    run_state_machine_as_test(WholeMachine, settings=settings(QUICK, max_examples=25, stateful_step_count=50))


@pytest.mark.slow
def test_whole_machine_for_long() -> None:
    longer = settings(QUICK, max_examples=150, stateful_step_count=80, derandomize=False, print_blob=True)
    run_state_machine_as_test(WholeMachine, settings=longer)


def test_the_second_process_is_another(tmp_path: Path) -> None:
    with SecondProcess(tmp_path / "s", metric="l2") as other, simstore.open(tmp_path / "s", background=False) as store:
        other.call("add", ["a"], np.ones((1, 2)))
        assert "a" in store and store.info().path == other.call("info").path
