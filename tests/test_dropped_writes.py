"""Power cuts: what was not synced is gone, in part or in whole; what was acknowledged is there all the same."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crash_model import DIM, NOTHING, OPTIONS, Op, World, after, call, deleting, naming, updating, verify, writing
from lossy_files import LossyFiles
from test_crash import steps_in_source

import simstore
from simstore import Store
from simstore.storage import LocalFiles, steps
from simstore.store import maintenance, models, opening
from simstore.store.entry import open_through


def open_with(path: Path, files: LocalFiles, *, metric: str = "l2") -> Store:
    return open_through(
        files, path, metric=metric, background=False, M=OPTIONS["M"], ef_construction=OPTIONS["ef_construction"]
    )


@pytest.fixture(autouse=True)
def small_thresholds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 8)
    yield
    steps.set_observer(None)


class Life:
    """The life of a store, with images of what a crash would leave at each step and after each operation on its files."""

    def __init__(self, directory: Path, n_random: int, *, forgets: Callable[[Path], bool] = lambda path: False) -> None:
        self.directory, self.n_random = directory, n_random
        self.disk = directory / "disk"
        self.disk.mkdir()
        self.files = LossyFiles(self.disk, directory / "shadow", self.crash, forgets=forgets)
        self.world = NOTHING
        self.pending: list[Op] = []
        self.images: list[tuple[str, Path, World, list[Op]]] = []

    def crash(self, name: str) -> None:
        if name == "backup.database":  # LMDB copies without a sync
            (copy,) = self.disk.glob("tmp-*/data.mdb")
            self.files.copied(copy)
        for i in range(1 + self.n_random):
            path = self.directory / f"image-{len(self.images)}"
            self.files.crash(path, None if i == 0 else np.random.default_rng([len(self.images), 3]))
            self.images.append((name, path / "s.sim", self.world, list(self.pending)))

    def call(self, store: Store, op: Op) -> None:
        self.pending = [op]
        result = call(store, op)
        self.world, self.pending = after(self.world, op, result), []
        self.crash("acknowledged")

    def live(self) -> None:
        """As crash_child.scripted does, and reopened on the way."""
        steps.set_observer(self.crash)
        path, files = self.disk / "s.sim", self.files
        store = open_with(path, files)
        self.call(store, writing("add", [f"k{i}" for i in range(30)], 100))
        store.optimize()
        self.call(store, naming("snapshot", "one"))
        self.call(store, writing("upsert", [f"k{i}" for i in range(20, 40)], 300))
        store.close()
        store = open_with(path, files)
        self.call(store, updating(["k1", "k25"], 400))
        store.optimize()
        self.call(store, deleting([f"k{i}" for i in range(5, 30)]))
        self.call(store, writing("add", [f"m{i}" for i in range(9)], 500))
        store.close()
        store = open_with(path, files)
        self.call(store, naming("restore", "one"))
        self.call(store, naming("backup", "first.backup"))
        self.call(store, naming("delete_snapshot", "before-restore-one"))
        self.call(store, {"kind": "compact"})
        self.call(store, deleting(["k1"]))
        store.close()
        open_with(path, files).close()
        steps.set_observer(None)

    def verify(self, *, rebuilds: bool = False) -> int:
        """Opens each image, of equal ones the first; how many there were."""
        seen: list[tuple[dict[str, bytes], World, list[Op]]] = []
        for at, (name, path, world, pending) in enumerate(self.images):
            if (image := (digests(path.parent), world, pending)) in seen:
                continue
            seen.append(image)
            try:
                verify(path, world, pending, seed=at, rebuilds=rebuilds)
            except Exception as err:
                raise AssertionError(f"image {at}, at {name}: {err}") from err
        return len(self.images)


def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path) -> None:
    life = Life(tmp_path, n_random=1)
    life.live()
    names = {name for name, *_ in life.images}
    assert steps_in_source() | {"write", "sync", "rename", "sync_dir", "make_dir", "remove"} <= names
    assert life.verify() > 200


@pytest.mark.slow
def test_no_power_cut_loses_what_was_acknowledged_many_images(tmp_path: Path) -> None:
    life = Life(tmp_path, n_random=12)
    life.live()
    assert life.verify() > 1000


def test_segments_that_a_disk_lost_though_it_said_they_were_synced_are_rebuilt(tmp_path: Path) -> None:
    life = Life(tmp_path, n_random=1, forgets=lambda path: path.parent.name == "segments")
    life.live()
    n_damaged = 0
    for _, path, _, _ in life.images[::7]:
        with simstore.open(path, background=False, **OPTIONS) as store:
            n_damaged += bool(store.check(deep=True))
            store._core.maintenance.run = lambda **_: None  # type: ignore[method-assign]  # close() rebuilds nothing
    assert n_damaged > 5  # so that the next line has something to rebuild
    assert life.verify(rebuilds=True) > 200


def test_the_files_of_these_tests_do_forget(tmp_path: Path) -> None:
    """LossyFiles against what is done by hand: a rename before any sync leaves the old file, or nothing."""
    root = tmp_path / "s.sim"
    root.mkdir()
    (root / "old").write_bytes(b"old")
    files = LossyFiles(root, tmp_path / "shadow")
    files.write(root / "tmp-1", [b"new"])
    files.crash(tmp_path / "written", None)
    assert contents(tmp_path / "written") == {"old": b"old"}
    files.rename(root / "tmp-1", root / "old")
    files.crash(tmp_path / "renamed", None)
    assert contents(tmp_path / "renamed") == {"old": b"old"}
    files.sync_dir(root)
    files.crash(tmp_path / "name-synced", None)
    assert contents(tmp_path / "name-synced") == {"old": b""}
    files.sync(root / "old")
    files.crash(tmp_path / "synced", None)
    assert contents(tmp_path / "synced") == {"old": b"new"}
    files.remove(root / "old")
    files.crash(tmp_path / "removed", None)
    assert contents(tmp_path / "removed") == {"old": b"new"}
    files.sync_dir(root)
    files.crash(tmp_path / "removal-synced", None)
    assert contents(tmp_path / "removal-synced") == {}
    seen = set()
    files.write(root / "tmp-2", [b"x" * 9000])
    for i in range(60):
        files.crash(tmp_path / f"random-{i}", np.random.default_rng(i))
        seen |= {"whole" if content == b"x" * 9000 else "not" for content in contents(tmp_path / f"random-{i}").values()}
        seen |= {"missing"} if not contents(tmp_path / f"random-{i}") else set()
    assert seen == {"whole", "not", "missing"}


def test_lmdb_syncs_each_commit(tmp_path: Path) -> None:
    """What LMDB does with these flags is its own promise; that it is asked for them is ours."""
    with open_with(tmp_path / "s.sim", LocalFiles()) as store:
        flags = store._core.environment._env.flags()
    assert flags["sync"] and flags["metasync"] and flags["lock"] and not flags["writemap"] and not flags["map_async"]


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def digests(directory: Path) -> dict[str, bytes]:
    """What each file below a directory holds."""
    return {
        str(path.relative_to(directory)): sha256(path.read_bytes()).digest() for path in directory.rglob("*") if path.is_file()
    }


def test_an_embedder_that_is_remembered_is_there(tmp_path: Path) -> None:
    """The model's file, and the directory that holds it, are on the disk before the database names them."""
    path = tmp_path / "s.sim"
    open_with(path, LocalFiles()).close()
    images: list[Path] = []

    def crash(name: str) -> None:
        for rng in (None, np.random.default_rng(len(images))):
            images.append(tmp_path / f"image-{len(images)}.sim")
            files.crash(images[-1], rng)

    files = LossyFiles(path, tmp_path / "shadow", crash)
    steps.set_observer(crash)
    record = {"name": "a model", "dim": DIM, "fingerprint": "0123", "kind": "keras"}
    opened = opening.open_directory(path, "a", opening.Settings(None, None, None, None), files)
    models.save_embedder(opened, files, record, b"the model" * 1000)
    opened.environment.close()
    crash("acknowledged")
    n_named = 0
    for image in images:
        opened = opening.open_directory(image, "a", opening.Settings(None, None, None, None), LocalFiles())
        remembered: Any = opened.schema.embedder
        opened.environment.close()
        if remembered is not None:
            n_named += 1
            assert (image / "embedder" / "0123.keras").read_bytes() == b"the model" * 1000
    assert n_named >= 2
