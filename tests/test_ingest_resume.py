"""Run again, ingest() goes on: whatever happened before, the store holds what an uninterrupted run would have made."""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_child import N_ROWS, ingest, open_store, readers
from sources import FolderReader, MemoryReader, contents, write_file
from worlds import Counted, embedder

import simstore
from simstore import Store
from simstore.ingest import writing

CHILD = Path(__file__).with_name("ingest_child.py")

# -- a data set that changes between runs --------------------------------------------------------------------------------

NAMES = [f"{folder}/{i}.bin" for folder in ("a", "b") for i in range(4)]
changes = st.lists(
    st.tuples(
        st.sampled_from(["write", "touch", "delete", "rename", "bad", "relabel", "row", "drop_row", "stop", "fail"]),
        st.sampled_from(range(len(NAMES))),
        st.integers(0, 3),
    ),
    max_size=8,
)


class DataSet:
    """Files and rows, and what a store of them must hold."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.clock = 1000
        self.files: dict[str, str] = {}
        self.rows: dict[str, int] = {f"row{i}": i for i in range(5)}
        self.is_labelled = True

    def change(self, what: str, at: int, n: int) -> None:
        name, self.clock = NAMES[at], self.clock + 1
        if what in ("write", "bad"):
            self._write(name, f"{n} {at} 1" if what == "write" else "bad")
        elif what == "touch" and name in self.files:
            os.utime(self.root / name, ns=(self.clock, self.clock))
        elif what == "delete" and name in self.files:
            (self.root / name).unlink()
            del self.files[name]
        elif what == "rename" and name in self.files:
            target = NAMES[(at + n) % len(NAMES)]
            (self.root / target).parent.mkdir(exist_ok=True)
            (self.root / name).rename(self.root / target)
            self.files[target] = self.files.pop(name)
        elif what == "relabel":
            self.is_labelled = not self.is_labelled
        elif what == "row":
            self.rows[f"row{at}"] = n
        elif what == "drop_row":
            self.rows.pop(f"row{at}", None)

    def _write(self, name: str, text: str) -> None:
        write_file(self.root, name, text, mtime_ns=self.clock)
        self.files[name] = text

    def readers(self) -> list[Any]:
        inputs = np.array([[value, 1, 2] for value in self.rows.values()], np.float32).reshape(-1, 3)
        rows = MemoryReader(list(self.rows), inputs, input_kind="array", source="rows")
        return [FolderReader(self.root, labelled=self.is_labelled), rows]


def told(store: Store) -> dict[Any, Any]:
    return {item.key: (item.label, item.data, item.vector.tobytes()) for item in store.scan()}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(changes, min_size=1, max_size=4))
def test_a_store_that_follows_a_data_set_is_that_of_one_run(
    rounds: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Files and rows come, change, go, move, are touched, cannot be decoded and get other labels; runs stop and fail between."""
    folder = tmp_path_factory.mktemp("follow")
    data = DataSet(folder / "files")
    function = Counted("a")
    with simstore.open(folder / "s.sim", metric="l2", embedder=embedder("a", function), background=False) as store:
        for steps in rounds:
            for what, at, n in steps:
                data.change(what, at, n)
                if what in ("stop", "fail"):
                    run_in_part(store, data, at if what == "stop" else None, function)
            store.ingest(data.readers(), prune=True, force=True, batch_size=3)
            bad = {name for name, text in data.files.items() if text == "bad"}
            with simstore.open(folder / "once.sim", metric="l2", embedder=embedder("a"), background=False) as once:
                once.ingest(data.readers())
                expected, kept = without_numbers(told(once)), without_numbers(told(store))
                assert {
                    key: value for key, value in kept.items() if key not in bad
                } == expected  # a bad file keeps its older item
                assert kept.keys() - expected.keys() <= bad
                assert rejected(store) == rejected(once) and {key for _, key, _ in rejected(store)} == bad
            shutil.rmtree(folder / "once.sim")
            n_embedded = sum(function.sizes)
            report = store.ingest(data.readers())
            assert (
                report.unchanged == len(expected) and not report.added + report.replaced + report.relabelled + report.vanished
            )
            assert report.rejected_before == len(bad) and sum(function.sizes) == n_embedded
        assert store.check(deep=True) == []


def without_numbers(items: dict[Any, Any]) -> dict[Any, Any]:
    """A row that has moved within its source and is what it was is not written again: its number is the old one."""
    for _, data, _ in items.values():
        data["_source"].pop("row", None)
    return items


def rejected(store: Store) -> set[Any]:
    return {(one.file, one.key, one.reason) for one in store.rejected()}


def run_in_part(store: Store, data: DataSet, at: int | None, function: Counted) -> None:
    """A run that is stopped, or whose embedder is interrupted at its second batch."""
    stop = threading.Event()
    if at is not None:
        n = len(function.sizes) + at // 2
        function.before = lambda batch: stop.set() if batch >= n else None
    else:
        n = len(function.sizes) + 1

        def fail(batch: int) -> None:
            if batch == n:
                raise KeyboardInterrupt

        function.before = fail
    try:
        store.ingest(data.readers(), batch_size=2, stop=stop)
    except KeyboardInterrupt:
        assert at is None
    finally:
        function.before = None


# -- kill -9 -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("killed") / "files"
    for i in range(600):
        write_file(root, f"class{i % 3}/{i:03}.bin", f"{i} {i % 7} 1" if i % 50 else "bad")
    return root


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[Any, Any]:
    path = folder.with_name("once.sim")
    with open_store(path) as store:
        report = store.ingest(readers(folder))
        assert (report.added, report.rejected) == (588 + N_ROWS, {"no numbers": 12})
        return told(store)


def killed(path: Path, folder: Path, *, at_step: int | None = None, after_s: float | None = None) -> bool:
    """Whether the child was killed before it was done."""
    args = [sys.executable, str(CHILD), str(path), str(folder), *([] if at_step is None else [str(at_step)])]
    child = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "begins\n"
    if after_s is not None:
        time.sleep(after_s)
        child.kill()
    _, err = child.communicate(timeout=60)
    assert child.returncode in (0, -9), err
    return child.returncode == -9


def assert_resumes(path: Path, folder: Path, expected: dict[Any, Any]) -> None:
    with open_store(path) as store:
        assert store.check(deep=True) == []
        there = told(store)
        assert there.items() <= expected.items()  # whole items, and none that is not of the data set
        report = store.ingest(readers(folder))
        assert (report.unchanged, report.added) == (len(there), len(expected) - len(there))
        assert (report.replaced, report.vanished) == (0, 0)
        assert list(told(store).items()) == list(expected.items()) and len(store.rejected()) == 12
        assert store.check(deep=True) == []


@pytest.mark.parametrize("at_step", [7, 40, 77])
def test_killed_at_a_step(tmp_path: Path, folder: Path, expected: dict[Any, Any], at_step: int) -> None:
    assert killed(tmp_path / "s.sim", folder, at_step=at_step)
    assert_resumes(tmp_path / "s.sim", folder, expected)


@pytest.mark.slow
def test_thirty_random_kills(tmp_path: Path, folder: Path, expected: dict[Any, Any]) -> None:
    """Each run is killed somewhere; the last goes to the end. Then the same item by item, in the same order."""
    rnd = random.Random(7)
    start = time.monotonic()
    ingest(tmp_path / "timed.sim", folder)
    whole_s = time.monotonic() - start
    n_killed, n_done = 0, 0
    while n_killed < 30:
        path = tmp_path / f"{n_done}.sim"
        how = {"at_step": rnd.randrange(2, 40)} if n_killed % 2 else {"after_s": rnd.random() * whole_s}
        if killed(path, folder, **how):  # type: ignore[arg-type]
            n_killed += 1
            if path.exists():
                with open_store(path) as store:
                    assert store.check(deep=True) == [] and told(store).items() <= expected.items()
        else:
            assert_resumes(path, folder, expected)
            n_done += 1
    assert_resumes(path, folder, expected)


def test_a_run_beside_another(tmp_path: Path, folder: Path, expected: dict[Any, Any]) -> None:
    """Two processes that take in the same data set do not disturb each other."""
    other = threading.Thread(target=killed, args=(tmp_path / "s.sim", folder))
    with open_store(tmp_path / "s.sim") as store:
        other.start()
        store.ingest(readers(folder))
        other.join()
        assert told(store) == expected and contents(store).keys() == expected.keys()


def test_batches_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a transaction writes stands in it whole, rejections included."""
    monkeypatch.setattr(writing, "BATCH_ROWS", 1)
    for i in range(200):
        write_file(tmp_path / "f", f"{i:03}.bin", f"{i} 0 1" if i % 2 else "bad")
    with open_store(tmp_path / "s.sim") as store:
        seqs = []

        def progress(*_told: object) -> None:
            seqs.append((store.info().seq, len(store), len(store.rejected())))

        store.ingest(FolderReader(tmp_path / "f"), progress=progress, workers=1)
        assert seqs[-1][1:] == (100, 100)
        assert all(n_rejected >= n_items for _, n_items, n_rejected in seqs)
