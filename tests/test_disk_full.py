"""No space left, in any step: a clear error, nothing half-written, and a store that goes on once there is space."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crash_model import (
    OPTIONS,
    Model,
    World,
    after,
    applied,
    assert_finds,
    assert_holds,
    assert_remembers,
    assert_tidy,
    call,
    deleting,
    naming,
    writing,
)  # fmt: skip
from sources import MemoryReader

import simstore
from simstore import Store
from simstore.errors import StorageError, StorageFullError
from simstore.ingest import pipeline
from simstore.ingest import writing as writing_stage
from simstore.storage import LocalFiles
from simstore.store import maintenance
from simstore.store.entry import open_through


class FullFiles(LocalFiles):
    """LocalFiles whose n-th operation, and all after it until there is space again, find no space.

    Args:
        n: How many operations find space; all if None.
        how: What a write without space does: it "refuses", no "quota" is left, it writes half ("short"), or that and says so.
    """

    def __init__(self, n: int | None, how: str = "refuses") -> None:
        self.left, self.how, self.count = n, how, 0

    def _is_full(self) -> bool:
        self.count += 1
        return self.left is not None and self.count > self.left

    def _take(self) -> None:
        if self._is_full():
            raise OSError(errno.EDQUOT if self.how == "quota" else errno.ENOSPC, "No space left on device")

    def free(self) -> None:
        self.left = None

    def make_dir(self, path: Path) -> None:
        if not path.is_dir():
            self._take()
        super().make_dir(path)

    def write(self, path: Path, chunks: Iterable[Any]) -> int:
        if not self._is_full():
            return super().write(path, chunks)
        content = b"".join(bytes(memoryview(chunk).cast("B")) for chunk in chunks)
        size = super().write(path, [content[: len(content) // 2]])
        if self.how.startswith("short"):
            self.free()  # all that follows finds space
        if self.how == "short":  # what hnswlib's save_index would do: half of it is there, and nobody is told
            return len(content)
        if self.how == "short, told":
            return size
        raise OSError(errno.EDQUOT if self.how == "quota" else errno.ENOSPC, "No space left on device")

    def sync(self, path: Path) -> None:
        self._take()
        super().sync(path)

    def sync_dir(self, path: Path) -> None:
        self._take()
        super().sync_dir(path)

    def rename(self, source: Path, target: Path) -> None:
        self._take()
        super().rename(source, target)


HOW = ("refuses", "quota", "short", "short, told")


@pytest.fixture(autouse=True)
def small_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 8)


def open_with(path: Path, files: LocalFiles) -> Store:
    return open_through(files, path, metric="l2", background=False, M=OPTIONS["M"], ef_construction=OPTIONS["ef_construction"])


def filled(store: Store, *, folded: bool) -> Model:
    model: Model = {}
    steps = [writing("add", [f"k{i}" for i in range(30)], 100), writing("upsert", [f"k{i}" for i in range(20, 40)], 300)]
    for op in steps:
        call(store, op)
        model = applied(model, op)
        if folded:
            store._core.maintenance.run()
            folded = False
    return model


def assert_sound(path: Path, store: Store, model: Model) -> None:
    assert_tidy(path, store)
    assert_holds(store, model)
    assert_finds(store, model, 1, n=3)
    assert store.check(deep=True) == []


def says_what_to_do(err: Exception) -> None:
    assert "free some space and call again" in str(err), err


def says_how_much_is_there(err: Exception, how: str) -> None:
    assert how.startswith("short") and "bytes on disk where" in str(err), err


def fails_clearly(work: Callable[[], object], how: str) -> bool:
    """Whether the work failed; that it did so clearly."""
    try:
        work()
        return False
    except StorageFullError as err:
        says_what_to_do(err)
    except StorageError as err:
        says_how_much_is_there(err, how)
    return True


@pytest.mark.parametrize("how", HOW)
def test_while_a_store_is_made(tmp_path: Path, how: str) -> None:
    n = 0
    while True:
        path, files = tmp_path / f"{n}.sim", FullFiles(n, how)
        if not fails_clearly(lambda path=path, files=files: open_with(path, files).close(), how):  # type: ignore[misc]
            break
        files.free()
        with open_with(path, files) as store:
            assert_sound(path, store, {})
            assert_sound(path, store, filled(store, folded=False))
        n += 1
    assert n >= 6
    with open_with(path, LocalFiles()) as store:
        assert_sound(path, store, {})


@pytest.mark.parametrize("folded", [False, True], ids=["fold", "merge"])
@pytest.mark.parametrize("how", HOW)
def test_while_a_segment_is_made(tmp_path: Path, how: str, folded: bool) -> None:
    files = FullFiles(None)
    path = tmp_path / "s.sim"
    store = open_with(path, files)
    model = filled(store, folded=folded)
    files.how = how
    n = 0
    while True:
        files.count, files.left = 0, n
        if not fails_clearly(store.optimize, how):
            break
        assert_sound(path, store, model)
        op = writing("upsert", ["k1", f"new {n}"], 400 + n)  # LMDB has space
        call(store, op)
        model = applied(model, op)
        n += 1
    assert n >= 3
    files.free()
    store.optimize()
    assert store.info().n_segments == 1 and store.info().n_tail == 0
    assert_sound(path, store, model)
    store.close()


@pytest.mark.parametrize("how", HOW)
def test_while_closing(tmp_path: Path, how: str) -> None:
    """close() says that the tail could not be folded, and closes; the items are there, and the next close() folds."""
    n = 0
    while True:
        path, files = tmp_path / f"{n}.sim", FullFiles(None, how)
        store = open_with(path, files)
        model = filled(store, folded=False)
        files.count, files.left = 0, n
        failed = fails_clearly(store.close, how)
        assert "(closed)" in repr(store)
        if not failed:
            break
        store.close()
        with open_with(path, LocalFiles()) as again:
            assert_sound(path, again, model)
        with simstore.open(path) as again:
            assert again.info().n_tail == 0
            assert_sound(path, again, model)
        n += 1
    assert n >= 3


def test_an_error_is_told_rather_than_that_of_closing_after_it(tmp_path: Path) -> None:
    """On a full disk both fail; that all is there but a graph would be a lie about what was not written."""
    files = FullFiles(None)
    store = open_with(tmp_path / "s.sim", files)
    model = filled(store, folded=False)
    with pytest.raises(StorageFullError, match=r"^the call found no space$"), store:  # noqa: PT012
        files.left = files.count
        raise StorageFullError("the call found no space")
    assert "(closed)" in repr(store)
    with open_with(tmp_path / "s.sim", LocalFiles()) as again:
        assert_sound(tmp_path / "s.sim", again, model)


def remembered(store: Store) -> World:
    """A store with a snapshot, and with something to purge."""
    call(store, naming("snapshot", "one"))
    world = after(World(filled(store, folded=True), {"one": {}}, {}), naming("snapshot", "two"))
    call(store, naming("snapshot", "two"))
    for op in (writing("upsert", ["k1", "k2"], 500), deleting(["k3"]), naming("delete_snapshot", "two")):
        call(store, op)
        world = after(world, op)
    return world


def assert_sound_with_snapshots(path: Path, store: Store, world: World) -> None:
    assert_tidy(path, store)
    assert_remembers(store, world, 1)
    assert store.check(deep=True) == []


@pytest.mark.parametrize("how", HOW)
def test_while_compacting(tmp_path: Path, how: str) -> None:
    """What fails before the copy takes over leaves the store as it was; what fails afterwards, the next call finishes."""
    path, files = tmp_path / "s.sim", FullFiles(None)
    store = open_with(path, files)
    world = remembered(store)
    store.optimize()
    files.how = how
    n, inodes = 0, [(path / "data.mdb").stat().st_ino]
    while True:
        files.count, files.left = 0, n
        if not fails_clearly(store.compact, how):
            break
        is_copied = any(name.startswith("compacted-") for name in os.listdir(path))
        if is_copied:  # it has taken over, and only its name is not there yet
            files.free()
        else:
            assert (path / "data.mdb").stat().st_ino == inodes[-1] or files.left is None
        assert_sound_with_snapshots(path, store, world)
        inodes.append((path / "data.mdb").stat().st_ino)
        op = writing("upsert", ["k1", f"new {n}"], 600 + n)
        call(store, op)
        world = after(world, op)
        files.free()
        store.optimize()
        n += 1
    assert n >= 4
    files.free()
    assert_sound_with_snapshots(path, store, world)
    store.close()
    with simstore.open(path, background=False) as store:
        assert_sound_with_snapshots(path, store, world)


@pytest.mark.parametrize("how", HOW)
def test_while_a_backup_is_made(tmp_path: Path, how: str) -> None:
    """Nothing is left of it beside the store, and the next one is whole."""
    path, files = tmp_path / "s.sim", FullFiles(None)
    store = open_with(path, files)
    world = remembered(store)
    files.how = how
    n = 0
    while True:
        files.count, files.left = 0, n
        if not fails_clearly(lambda: store.backup(tmp_path / "b.sim"), how):
            break
        assert os.listdir(tmp_path) == ["s.sim"]
        assert_sound_with_snapshots(path, store, world)
        n += 1
    assert n >= 6
    files.free()
    with simstore.open(tmp_path / "b.sim", background=False) as backup:
        assert_sound_with_snapshots(tmp_path / "b.sim", backup, world)
    store.close()


def test_the_background_thread_goes_on_when_there_is_space(tmp_path: Path) -> None:
    files = FullFiles(None)
    path = tmp_path / "s.sim"
    store = open_through(files, path, metric="l2", M=8, ef_construction=30)
    files.count, files.left = 0, 0
    model = filled(store, folded=False)
    assert_finds(store, model, 1)
    wait_until(lambda: files.count > 0)
    assert store.info().n_segments == 0
    files.free()
    op = writing("add", ["another"], 900)
    call(store, op)
    model = applied(model, op)
    assert_finds(store, model, 1)
    wait_until(lambda: store.info().n_segments == 1)
    store.close()
    with simstore.open(path) as store:
        assert_sound(path, store, model)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- LMDB's own file: a limit on the size of files, and a file system that is full -----------------------------------------


def in_process(function: Callable[..., None], *args: Any) -> None:
    """Runs a function of this module in a process of its own, whose limits and file systems nobody shares."""
    command = [sys.executable, __file__, function.__name__, json.dumps([str(arg) for arg in args])]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr[-6000:]}"


@contextmanager
def limited(size: int) -> Iterator[None]:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def calls_on(n: int) -> list[dict[str, Any]]:
    """Calls that make the database grow by several pages."""
    return [
        writing("add", [f"new {n}-{i}" for i in range(60)], 1000 * n),
        writing("upsert", [*(f"k{i}" for i in range(30)), *(f"up {n}-{i}" for i in range(60))], 1000 * n + 500),
        {**writing("update", [f"k{i}" for i in range(40)], 1000 * n), "vectors": None, "data": ["x" * 900] * 40},
        {"kind": "delete", "keys": [f"up {n}-{i}" for i in range(60)]},
    ]


def limit_on_writes(directory: str) -> None:
    path = Path(directory) / "s.sim"
    store = open_with(path, LocalFiles())
    model = filled(store, folded=False)
    n_failed = {"add": 0, "upsert": 0, "update": 0, "delete": 0}
    for n in range(12):
        for op in calls_on(n):
            size = (path / "data.mdb").stat().st_size
            for room in (0, 4096, 10_000, 3 * 4096 + 100, 40_000):
                with limited(size + room):
                    try:
                        call(store, op)
                        break
                    except StorageFullError as err:
                        n_failed[op["kind"]] += 1
                        says_what_to_do(err)
                assert_holds(store, model)
            else:
                call(store, op)
            model = applied(model, op)
            assert_holds(store, model)
    assert all(n_failed[kind] >= 2 for kind in ("add", "upsert", "update")), n_failed
    assert_sound(path, store, model)
    store.close()
    with simstore.open(path) as store:
        assert_sound(path, store, model)


def limit_on_publishing(directory: str) -> None:
    path = Path(directory) / "s.sim"
    store = open_with(path, LocalFiles())
    model = filled(store, folded=True)
    failed = 0
    for room in range(0, 1 << 17, 2048):
        with limited(room):
            try:
                store.optimize()
                break
            except StorageFullError as err:
                failed += 1
                says_what_to_do(err)
        assert_sound(path, store, model)
    assert failed > 3
    assert_sound(path, store, model)
    store.close()


def limit_on_making(directory: str) -> None:
    failed = 0
    for n, room in enumerate([*range(0, 1 << 16, 1500), 1 << 17]):
        path = Path(directory) / f"{n}.sim"
        with limited(room):
            try:
                open_with(path, LocalFiles()).close()
            except StorageFullError as err:
                failed += 1
                says_what_to_do(err)
        with open_with(path, LocalFiles()) as store:
            assert_sound(path, store, filled(store, folded=False))
    assert failed > 3


def limit_on_remembering(directory: str) -> None:
    """Snapshots, restores and compact()."""
    path = Path(directory) / "s.sim"
    store = open_with(path, LocalFiles())
    world = remembered(store)
    n_failed = {"snapshot": 0, "restore": 0, "delete_snapshot": 0, "compact": 0}
    for n in range(4):
        undo = f"before-restore-{n}"
        for op in (
            naming("snapshot", str(n)),
            *calls_on(n),
            naming("restore", str(n)),
            naming("restore", undo),
            *([naming("delete_snapshot", str(n))] if n % 2 else []),
            {"kind": "compact"},
        ):
            rooms = range(0, 200_000, 25_000) if op["kind"] == "compact" else (0, 4096, 40_000)
            size = 0 if op["kind"] == "compact" else (path / "data.mdb").stat().st_size
            for room in rooms:
                with limited(size + room):
                    try:
                        result = call(store, op)
                        break
                    except StorageFullError as err:
                        n_failed[op["kind"]] = n_failed.get(op["kind"], 0) + 1
                        says_what_to_do(err)
                assert_tidy(path, store)
                assert_remembers(store, world, n)
            else:
                result = call(store, op)
            world = after(world, op, result)
        assert_sound_with_snapshots(path, store, world)
    assert n_failed["restore"] >= 2 and n_failed["compact"] >= 4, n_failed
    store.close()
    with simstore.open(path, background=False) as store:
        assert_sound_with_snapshots(path, store, world)


@pytest.mark.parametrize(
    "what", [limit_on_writes, limit_on_publishing, limit_on_making, limit_on_remembering], ids=lambda f: f.__name__
)
def test_a_limit_on_the_size_of_files(tmp_path: Path, what: Callable[[str], None]) -> None:
    pytest.importorskip("resource")
    in_process(what, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def room_on(disk: Path) -> int:
    stat = os.statvfs(disk)
    return stat.f_bavail * stat.f_bsize


@contextmanager
def almost_full(disk: Path, room: int) -> Iterator[None]:
    """Leaves room bytes on the disk."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, room_on(disk) - room)))
    try:
        yield
    finally:
        ballast.unlink()


def full_on_writes(directory: str) -> None:
    disk = Path(directory)
    path = disk / "s.sim"
    store = open_with(path, LocalFiles())
    model = filled(store, folded=False)
    failed = 0
    for n in range(6):
        for op in calls_on(n)[:3]:
            for room in (0, 4096, 5 * 4096, 200_000):
                with almost_full(disk, room):
                    try:
                        call(store, op)
                        break
                    except StorageFullError as err:
                        failed += 1
                        says_what_to_do(err)
                    assert_holds(store, model)
            model = applied(model, op)
            assert_holds(store, model)
    assert failed > 6
    assert_sound(path, store, model)
    store.close()


def full_on_publishing(directory: str) -> None:
    disk = Path(directory)
    path = disk / "s.sim"
    store = open_with(path, LocalFiles())
    model = filled(store, folded=True)
    for how in ("optimize", "close"):
        failed = 0
        for room in range(0, 200_000, 4096):
            with almost_full(disk, room):
                try:
                    store.optimize() if how == "optimize" else store.close()
                    break
                except StorageFullError as err:
                    failed += 1
                    says_what_to_do(err)
            if how == "close":
                store = open_with(path, LocalFiles())
            assert_sound(path, store, model)
        assert failed >= 1, how
        if how == "optimize":
            assert_sound(path, store, model)
            op = writing("add", [f"more {i}" for i in range(30)], 700)
            call(store, op)
            model = applied(model, op)
    with simstore.open(path) as store:
        assert_sound(path, store, model)


def full_on_opening(directory: str) -> None:
    """Making and opening stores, lock.mdb included, which LMDB fills through a map."""
    disk = Path(directory)
    failed = 0
    for room in range(0, 80_000, 4096):
        path = disk / f"{room}.sim"
        with almost_full(disk, room):
            try:
                open_with(path, LocalFiles()).close()
            except StorageFullError as err:
                failed += 1
                says_what_to_do(err)
        with open_with(path, LocalFiles()) as store:
            assert_sound(path, store, {})
        (path / "lock.mdb").unlink()  # as in a copy of the store
        with almost_full(disk, room):
            try:
                open_with(path, LocalFiles()).close()
            except StorageFullError as err:
                says_what_to_do(err)
        with open_with(path, LocalFiles()) as store:
            assert_sound(path, store, {})
    assert failed > 3


def full_on_compacting(directory: str) -> None:
    disk = Path(directory)
    path = disk / "s.sim"
    store = open_with(path, LocalFiles())
    world = remembered(store)
    for how in ("compact", "backup"):
        failed = 0
        for room in range(0, 900_000, 30_000):
            with almost_full(disk, room):
                try:
                    store.compact() if how == "compact" else store.backup(disk / "b.sim")
                    break
                except StorageFullError as err:
                    failed += 1
                    says_what_to_do(err)
                assert_tidy(path, store)
                assert_holds(store, world.items)  # its snapshots would need space to be opened
            assert_sound_with_snapshots(path, store, world)
        assert failed >= 3, how
        assert_sound_with_snapshots(path, store, world)
    with simstore.open(disk / "b.sim", background=False) as backup:
        assert_sound_with_snapshots(disk / "b.sim", backup, world)
    store.close()
    with simstore.open(path, background=False) as store:
        assert_sound_with_snapshots(path, store, world)


def full_on_ingest(directory: str) -> None:
    """What was committed stays, the store is usable, and the next run goes on from there."""
    disk = Path(directory)
    path = disk / "s.sim"
    store = open_with(path, LocalFiles())
    pipeline.BATCH_ROWS = writing_stage.BATCH_ROWS = 100
    vectors = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    n_before = 0
    for room in (150_000, 200_000, 250_000):
        with almost_full(disk, room):
            try:
                store.ingest(MemoryReader(list(range(5000)), vectors))
                raise AssertionError(f"{room} bytes were enough")
            except StorageFullError as err:
                said = str(err)
        assert n_before < len(store) < 5000, (n_before, len(store))
        assert said.startswith(f"{len(store) - n_before:,} examples were added before"), said
        assert store.check(deep=True) == []
        n_before = len(store)
    report = store.ingest(MemoryReader(list(range(5000)), vectors))
    assert (report.unchanged, report.added) == (n_before, 5000 - n_before)
    assert [(item.key, item.vector.tolist()) for item in store.scan()] == list(enumerate(vectors.tolist()))
    assert store.check(deep=True) == []
    store._finalizer()


@pytest.mark.parametrize(
    "what",
    [full_on_writes, full_on_publishing, full_on_opening, full_on_compacting, full_on_ingest],
    ids=lambda f: f.__name__,
)
def test_a_full_disk(small_disk: Path, what: Callable[[str], None]) -> None:
    in_process(what, small_disk)


if __name__ == "__main__":
    maintenance.FOLD_BYTES, maintenance.FOLD_ROWS = 1, 8
    globals()[sys.argv[1]](*json.loads(sys.argv[2]))
