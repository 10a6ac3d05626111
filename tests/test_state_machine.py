"""A store against a dict and an exact search: whatever is done to it, in whatever order, both hold and find the same."""

import gc
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from naive import assert_nearest
from numpy.typing import NDArray

import simstore
from simstore import Hits, Store
from simstore.errors import KeyExistsError, KeyNotFoundError, ReadOnlyStoreError
from simstore.index import Segment
from simstore.storage import history
from simstore.store import maintenance, searcher

DIM = 3
POOL = [*range(24), *map(str, range(8)), -1, "long" * 100, ""]
SOME_KEYS = st.lists(st.sampled_from(POOL), unique_by=lambda key: (type(key), key), min_size=1, max_size=10)
LABELS = st.sampled_from([None, "x", "y", 0, 1, "0"])
VALUES = st.sampled_from([None, 0, "text", b"bytes", [1, {"a": None}], {"k": [1.5]}])
SEEDS = st.integers(0, 2**32 - 1)
KS = st.integers(1, 4) | st.integers(1, 12) | st.integers(1, 80)

Row = tuple[Any, Any, NDArray[np.float32]]
"""Label, data, vector."""


class StoreMachine(RuleBasedStateMachine):
    """The model is a dict in order of writing: a replaced or updated item moves to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="simstore-machine-"))
        self.model: dict[Any, Row] = {}
        self.ever_most = -1  # the largest int key ever
        self.mode = "a"
        self.n_steps = 0
        self.patches: list[Any] = []
        self.store: Store | None = None

    @initialize(
        metric=st.sampled_from(["cosine", "l2", "ip"]),
        fold_rows=st.sampled_from([3, 8, 20]),
        walk_always=st.booleans(),
        sorted_k=st.sampled_from([4, 1024]),
        log_kept=st.sampled_from([3, 4096]),
        n=st.sampled_from([0, 30, 60, 120]),
        seed=SEEDS,
    )
    def begin(self, metric: str, fold_rows: int, walk_always: bool, sorted_k: int, log_kept: int, n: int, seed: int) -> None:
        """Sizes so small that a few rows are folded, merged and rebuilt, as thousands are elsewhere."""
        self.metric = metric
        self.patches = [
            mock.patch.object(maintenance, "FOLD_ROWS", fold_rows),
            mock.patch.object(maintenance, "FOLD_BYTES", 1),
            mock.patch.object(maintenance, "MERGE_RATIO", 2),
            mock.patch.object(searcher, "_SORTED_K", sorted_k),
            mock.patch.object(history, "LOG_KEPT", log_kept),
        ]
        if walk_always:  # along the graph and past the dead, where a scan would do for so few
            self.patches.append(mock.patch.object(Segment, "exact_is_cheaper", return_value=False))
        for patch in self.patches:
            patch.start()
        self.store = self.opened("a")
        for at in range(0, n, 30):
            rows: list[Row] = [(at, i, vector) for i, vector in enumerate(self.vectors(30, seed + at))]
            self.put(self.store.add(None, **self.columns(rows)), rows)

    def opened(self, mode: str) -> Store:
        self.mode = mode
        options: dict[str, Any] = {} if self.model or self.ever_most >= 0 else {"metric": self.metric, "dim": DIM, "M": 4}
        return simstore.open(self.directory / "s", mode=mode, background=False, **options)  # type: ignore[arg-type]

    def vectors(self, n: int, seed: int) -> NDArray[np.float32]:
        """Some on a coarse grid, so that many are equal or equally far; never zero."""
        rng = np.random.default_rng(seed)
        grid = rng.integers(-2, 3, (n, DIM)).astype(np.float32)
        free = rng.standard_normal((n, DIM)).astype(np.float32)
        out = np.where(rng.random((n, 1)) < 0.6, grid, free)
        out[~out.any(axis=1)] = (1, 0, -1)
        return out

    # -- writing --

    def put(self, keys: list[Any], rows: list[Row]) -> None:
        for key, row in zip(keys, rows, strict=True):
            self.model.pop(key, None)
            self.model[key] = row
            if isinstance(key, int):
                self.ever_most = max(self.ever_most, key)

    def rows(self, keys: list[Any], seed: int, data: st.DataObject) -> list[Row]:
        label, value = data.draw(st.tuples(LABELS, VALUES))
        return [
            (label if i % 3 else None, value if i % 2 else i, vector) for i, vector in enumerate(self.vectors(len(keys), seed))
        ]

    @staticmethod
    def columns(rows: list[Row]) -> dict[str, Any]:
        return {
            "vectors": np.array([row[2] for row in rows]), "labels": [row[0] for row in rows], "data": [row[1] for row in rows],
        }  # fmt: skip

    writes = precondition(lambda self: self.mode != "r")

    @writes
    @rule(keys=SOME_KEYS, seed=SEEDS, data=st.data())
    def add(self, keys: list[Any], seed: int, data: st.DataObject) -> None:
        rows = self.rows(keys, seed, data)
        if any(key in self.model for key in keys):
            with pytest.raises(KeyExistsError):
                self.store.add(keys, **self.columns(rows))
            new = [i for i, key in enumerate(keys) if key not in self.model]
            keys, rows = [keys[i] for i in new], [rows[i] for i in new]
        if keys:
            assert self.store.add(keys, **self.columns(rows)) == keys
            self.put(keys, rows)

    @writes
    @rule(n=st.integers(1, 20), seed=SEEDS, data=st.data())
    def add_numbered(self, n: int, seed: int, data: st.DataObject) -> None:
        if len(self.model) > 150:
            return
        keys = list(range(self.ever_most + 1, self.ever_most + 1 + n))
        rows = self.rows(keys, seed, data)
        assert self.store.add(None, **self.columns(rows)) == keys
        self.put(keys, rows)

    @writes
    @rule(keys=SOME_KEYS, seed=SEEDS, data=st.data())
    def upsert(self, keys: list[Any], seed: int, data: st.DataObject) -> None:
        rows = self.rows(keys, seed, data)
        there = sum(key in self.model for key in keys)
        assert self.store.upsert(keys, **self.columns(rows)) == (len(keys) - there, there)
        self.put(keys, rows)

    @writes
    @precondition(lambda self: self.model)
    @rule(data=st.data(), label=LABELS, value=VALUES, what=st.sampled_from(["labels", "data", "both"]))
    def update(self, data: st.DataObject, label: Any, value: Any, what: str) -> None:
        keys = data.draw(
            st.lists(st.sampled_from(list(self.model)), unique_by=lambda key: (type(key), key), min_size=1, max_size=6)
        )
        given: dict[str, Any] = {}
        if what != "data":
            given["labels"] = [label] * len(keys)
        if what != "labels":
            given["data"] = [value] * len(keys)
        self.store.update(keys, **given)
        old = [self.model[key] for key in keys]
        self.put(keys, [(label if what != "data" else row[0], value if what != "labels" else row[1], row[2]) for row in old])

    @writes
    @precondition(lambda self: self.model)
    @rule(data=st.data(), share=st.sampled_from([0.05, 0.1, 0.2, 0.5, 1.0]))
    def delete(self, data: st.DataObject, share: float) -> None:
        live = list(self.model)
        n = max(1, int(share * len(live)))
        first = data.draw(st.integers(0, len(live) - n))
        keys = live[first : first + n]
        missing = [key for key in POOL if key not in self.model][:2]
        if missing:
            with pytest.raises(KeyNotFoundError):
                self.store.delete([*keys, *missing])
        assert self.store.delete([*keys, *missing], missing="ignore") == n
        for key in keys:
            del self.model[key]

    @writes
    @precondition(lambda self: self.model)
    @rule(seed=SEEDS, n=st.integers(1, 8))
    def replace_some(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        live = list(self.model)
        keys = [live[i] for i in sorted(set(rng.integers(0, len(live), n).tolist()))]
        rows: list[Row] = [("replaced", [seed], vector) for vector in self.vectors(len(keys), seed)]
        assert self.store.upsert(keys, **self.columns(rows)) == (0, len(keys))
        self.put(keys, rows)

    @writes
    @precondition(lambda self: self.model and self.store.info().n_segments >= 2)
    @rule()
    def delete_everything(self) -> None:
        assert self.store.delete(list(self.model)) == len(self.model)
        self.model.clear()
        self.store._core.maintenance.run()

    @precondition(lambda self: self.mode == "r")
    @rule()
    def write_to_a_read_only_store(self) -> None:
        for call in (
            lambda: self.store.add("new", [1, 1, 1]), lambda: self.store.upsert("new", [1, 1, 1]),
            lambda: self.store.delete([], missing="ignore"), self.store.optimize,
        ):  # fmt: skip
            with pytest.raises(ReadOnlyStoreError):
                call()

    # -- upkeep --

    @writes
    @rule()
    def optimize(self) -> None:
        self.store.optimize()
        info = self.store.info()
        assert info.n_segments <= 1 or not self.model
        assert info.n_tail == 0 or not self.model or not self.live_tail()

    def live_tail(self) -> bool:
        current = self.store._view()
        return bool(current.alive.count(current.tail_first, current.state.next_row))

    @writes
    @rule()
    def fold(self) -> None:
        self.store._core.maintenance.run()

    @rule(mode=st.sampled_from(["a", "a", "r"]), how=st.sampled_from(["close", "close", "drop"]))
    def reopen(self, mode: str, how: str) -> None:
        if how == "close":
            self.store.close()
        self.store = None  # dropped, it closes without folding
        gc.collect()
        self.store = self.opened(mode)

    # -- reading --

    def compare(self, hits: Hits, query: Any, k: int | None, max_distance: float | None = None) -> None:
        vectors = {key: row[2] for key, row in self.model.items()}
        assert_nearest(hits.keys, hits.distances, query, vectors, self.metric, k, max_distance)
        for hit in hits:
            label, value, _ = self.model[hit.key]
            assert (hit.label, hit.data) == (label, value)
            assert hit.vector is None or hit.vector.tobytes() == self.model[hit.key][2].tobytes()

    @rule(k=KS, seed=SEEDS, exact=st.booleans(), with_vectors=st.booleans())
    def search(self, k: int, seed: int, exact: bool, with_vectors: bool) -> None:
        for query in self.vectors(2, seed):
            self.compare(self.store.search(query, k, exact=exact, with_vectors=with_vectors, ef=300), query, k)

    @rule(k=KS, seed=SEEDS, n=st.integers(1, 70), exact=st.booleans())
    def search_many(self, k: int, seed: int, n: int, exact: bool) -> None:
        queries = self.vectors(n, seed)
        batch = self.store.search_many(queries, k, exact=exact, ef=300, threads=2)
        assert len(batch) == n and batch.keys.shape == batch.distances.shape == batch.labels.shape == (n, k)
        for i in range(0, n, 9):
            self.compare(batch[i], queries[i], k)
            count = len(batch[i])
            assert batch.keys[i].tolist() == batch[i].keys + [None] * (k - count)

    @rule(seed=SEEDS, max_distance=st.sampled_from([0.0, 0.3, 1.0, 2.5, 100.0]), k=st.none() | KS)
    def search_within(self, seed: int, max_distance: float, k: int | None) -> None:
        (query,) = self.vectors(1, seed)
        self.compare(self.store.search(query, k, max_distance=max_distance, ef=300), query, k, max_distance)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def find_oneself(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.model)))
        vector = self.model[key][2]
        equal = [other for other, row in self.model.items() if np.array_equal(row[2], vector)]
        hits = self.store.search(vector, len(equal), ef=300)
        if self.metric != "ip":
            assert abs(hits.distances).max() <= 1e-5
        if self.metric == "l2":
            assert set(hits.keys) == set(equal)

    @rule(keys=SOME_KEYS)
    def get(self, keys: list[Any]) -> None:
        for key, item in zip(keys, self.store.get_many(keys), strict=True):
            assert (key in self.store) == (key in self.model) == (item is not None)
            if item is not None:
                label, value, vector = self.model[key]
                assert (item.key, item.label, item.data) == (key, label, value) and item.vector.tobytes() == vector.tobytes()

    @rule()
    def scan(self) -> None:
        found = [(item.key, item.label, item.data, item.vector.tobytes()) for item in self.store.scan()]
        assert found == [(key, label, value, vector.tobytes()) for key, (label, value, vector) in self.model.items()]

    @rule()
    def labels(self) -> None:
        labels = [row[0] for row in self.model.values()]
        assert self.store.labels() == {label: labels.count(label) for label in labels}

    @invariant()
    def counts(self) -> None:
        if self.store is not None:
            assert len(self.store) == len(self.model)
            info = self.store.info()
            assert info.count == info.n_rows - info.n_dead == len(self.model)

    @invariant()
    def is_sound(self) -> None:
        self.n_steps += 1
        if self.store is not None and self.n_steps % 6 == 0:
            assert self.store.check(deep=True) == []
            self.has_no_stray_files()

    def has_no_stray_files(self) -> None:
        with self.store._core.environment.read() as txn:
            named = {record.file for record in self.store._core.database.segments(txn)}
        assert {path.name for path in (self.directory / "s" / "segments").iterdir()} == named

    def teardown(self) -> None:
        try:
            if self.store is not None and "(closed)" not in repr(self.store):
                assert self.store.check(deep=True) == []
                self.scan()
                self.store.close()
        finally:
            self.store = None
            for patch in self.patches:
                patch.stop()
            shutil.rmtree(self.directory, ignore_errors=True)


QUICK = settings(
    max_examples=40, stateful_step_count=50, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


def test_store_machine() -> None:
    run_state_machine_as_test(StoreMachine, settings=QUICK)


@pytest.mark.slow
def test_store_machine_for_long() -> None:
    run_state_machine_as_test(
        StoreMachine, settings=settings(QUICK, max_examples=200, stateful_step_count=80, derandomize=False, print_blob=True)
    )
