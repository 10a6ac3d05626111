"""Making and opening the directory of a store."""

import errno
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simstore.errors import (
    CorruptStoreError,
    DimensionError,
    FormatVersionError,
    InvalidArgumentError,
    NotAStoreError,
    ReadOnlyStoreError,
    SimstoreError,
    StorageError,
    StoreExistsError,
    StoreNotFoundError,
)
from simstore.metrics import metric_named
from simstore.storage import DATA_FILE, FORMAT_VERSION, Database, Environment, Files, MovedError, Schema, check_size
from simstore.storage.files import TEMPORARY, discard, is_abandoned, publish_file, storage_error, temporary_name, write_file
from simstore.store import models
from simstore.store.guard import LOCK_FILE, MARKER, guarded, put_in_place
from simstore.store.leases import lease, release
from simstore.store.models import EMBEDDERS

__all__ = ["Opened", "Settings", "follow", "open_directory", "put_in_place"]

SEGMENTS, QUARANTINE = "segments", "quarantine"
COMPACTED = "compacted-"
_MAGIC = "simstore"
MAX_DIM = 65_536
_M_RANGE, _EF_RANGE = range(2, 513), range(1, 10_001)
_OPENING = threading.Lock()
_SPACE_NEEDED = 1 << 18  # bytes: what LMDB may fill of lock.mdb
CALIBRATION = "calibration.msgpack"  # of simstore.similarity; the store only takes it along
OURS = {MARKER, DATA_FILE, LOCK_FILE, SEGMENTS, EMBEDDERS, QUARANTINE, CALIBRATION, "lost+found"}


def _new_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _OPENING
    _OPENING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the caller asks a store to be; None where it is all the same."""

    dim: int | None
    metric: str | None
    M: int | None
    ef_construction: int | None

    def check(self) -> None:
        """Raises InvalidArgumentError for what no store can be."""
        if self.metric is not None:
            metric_named(self.metric)
        for name, value, allowed in (
            ("dim", self.dim, range(1, MAX_DIM + 1)),
            ("M", self.M, _M_RANGE),
            ("ef_construction", self.ef_construction, _EF_RANGE),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value not in allowed):
                raise InvalidArgumentError(f"{name} is a whole number from {allowed[0]} to {allowed[-1]}, not {value!r}")

    def check_against(self, schema: Schema) -> None:
        """Raises if the store that is there is another."""
        if self.dim is not None and schema.dim is not None and self.dim != schema.dim:
            raise DimensionError(f"dim={self.dim}, but this store holds vectors of {schema.dim}: leave dim out")
        for name in ("metric", "M", "ef_construction"):
            wanted, there = getattr(self, name), getattr(schema, name)
            if wanted is not None and wanted != there:
                raise InvalidArgumentError(f"{name}={wanted!r}, but this store was made with {there!r}: leave {name} out")


@dataclass(frozen=True, slots=True)
class Opened:
    """An open directory."""

    path: Path
    environment: Environment
    database: Database
    schema: Schema


def open_directory(
    path: Path, mode: str, settings: Settings, files: Files, *, map_size: int | None = None, for_snapshot: bool = False
) -> Opened:
    """Opens the store in a directory, and makes it first where the mode allows.

    Args:
        for_snapshot: One of its snapshots is to be read: nothing is made, and the store may be open in this process.

    Raises:
        StoreNotFoundError, StoreExistsError, NotAStoreError, FormatVersionError, CorruptStoreError,
        AlreadyOpenError: See there.
    """
    if mode not in ("r", "a", "w"):
        raise InvalidArgumentError(f"mode is 'r' (read), 'a' (open or create) or 'w' (create), not {mode!r}")
    settings.check()
    with _OPENING:  # py-lmdb's guard against opening twice can be passed by two threads at once
        while True:
            try:
                return _open_directory(path, "r" if for_snapshot else mode, settings, files, map_size, for_snapshot)
            except MovedError as moved:  # compacted by another process, just now
                put_in_place(path, files, moved.name)


def _open_directory(
    path: Path, mode: str, settings: Settings, files: Files, map_size: int | None, for_snapshot: bool
) -> Opened:
    try:
        _look(path, mode)
        if mode != "r" and not (path / DATA_FILE).exists() and not (path / MARKER).exists():
            _clean(path)
            _create(path, settings, files)
        check_marker(path, files)
        opened = _open(path, files, mode == "r", map_size, for_snapshot)
    except OSError as err:
        raise err if isinstance(err, SimstoreError) else storage_error(err, f"opening {path}") from err
    try:
        if not for_snapshot:
            settings.check_against(opened.schema)
        if mode != "r":
            _complete(opened, files)
    except BaseException as err:
        release(path, opened.environment, for_snapshot=for_snapshot)
        if isinstance(err, OSError) and not isinstance(err, SimstoreError):
            raise storage_error(err, f"opening {path}") from err
        raise
    return opened


def _look(path: Path, mode: str) -> None:
    """Raises unless the path is what the mode needs."""
    if path.exists() and not path.is_dir():
        raise NotAStoreError(f"{path} is a file; a simstore store is a directory")
    there = set(os.listdir(path)) if path.is_dir() else set()
    is_store = MARKER in there or DATA_FILE in there
    if mode == "w" and is_store:
        raise StoreExistsError(f"{path} holds a store already: open it with mode='a', or choose another path")
    if mode == "r" and not is_store:
        if there:
            raise NotAStoreError(f"{path} is a directory, but holds no simstore store (there is no {MARKER})")
        raise StoreNotFoundError(f"there is no store at {path}: mode='a' would create one")
    strange = {name for name in there - OURS if not name.startswith((TEMPORARY, COMPACTED))}
    if not is_store and strange:
        raise NotAStoreError(
            f"{path} is a directory with other files in it ({sorted(strange)[0]!r}) and no simstore store: choose an empty or "
            "a new one"
        )


def _clean(path: Path) -> None:
    """Removes what a process that died while creating or compacting left behind; this one does neither now."""
    for name in os.listdir(path) if path.is_dir() else []:
        if name.startswith(TEMPORARY) and is_abandoned(name):
            target = path / name
            shutil.rmtree(target, ignore_errors=True) if target.is_dir() else target.unlink(missing_ok=True)


def _create(path: Path, settings: Settings, files: Files) -> None:
    """Makes the database aside and links it in whole: a crash leaves no half of a store, and of two that create one wins."""
    if not path.parent.is_dir():
        raise StoreNotFoundError(f"the directory {path.parent} does not exist: create it first")
    is_new = not path.exists()
    files.make_dir(path)
    aside = path / temporary_name()
    try:
        files.make_dir(aside)
        need_space(aside)
        environment = Environment(aside, create=True)
        try:
            database = Database(environment, create=True)
            schema = Schema(
                FORMAT_VERSION, str(uuid.uuid4()), settings.dim, settings.metric or "cosine", settings.M or 16,
                settings.ef_construction or 200, None,
            )  # fmt: skip
            environment.write(lambda txn: database.begin(txn, schema))
        finally:
            environment.close()
        files.sync_dir(path.parent)
        try:
            os.link(aside / DATA_FILE, path / DATA_FILE)
        except FileExistsError:
            return  # another process was first: its store it is
        except OSError:  # no hard links here
            if not (path / DATA_FILE).exists():
                files.rename(aside / DATA_FILE, path / DATA_FILE)
        files.sync_dir(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                path.rmdir()  # only if nothing came of it


def check_marker(path: Path, files: Files) -> None:
    """Raises unless the marker, where there is one, says that this is a store of a format we know."""
    try:
        content = files.read(path / MARKER)
    except FileNotFoundError:
        return  # the database itself will tell; a crash while creating leaves it so
    try:
        marker: Any = json.loads(content)
        magic, version = marker["magic"], int(marker["format"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise CorruptStoreError(
            f"{path / MARKER} cannot be read: delete that file (only it) if {path} is a simstore store; it is made anew"
        ) from None
    if magic != _MAGIC:
        raise NotAStoreError(f"{path / MARKER} is not a simstore marker")
    _check_version(path, version)


def _check_version(path: Path, version: int) -> None:
    if version > FORMAT_VERSION:
        raise FormatVersionError(f"{path} has format {version}; this simstore reads up to {FORMAT_VERSION}: upgrade simstore")


def _open(
    path: Path,
    files: Files,
    readonly: bool,
    map_size: int | None,
    for_snapshot: bool,
    instead_of: Environment | None = None,
) -> Opened:
    """Opens the database; one that has been replaced by a compact copy gives way to it first.

    Raises:
        CorruptStoreError: That copy is not there.
    """
    names: list[str] = []
    while True:
        try:
            with guarded(path / MARKER, exclusive=False):
                return _open_guarded(path, readonly, map_size, for_snapshot, instead_of)
        except MovedError as moved:
            if moved.name in names:
                raise CorruptStoreError(
                    f"{path / DATA_FILE} was replaced by {moved.name}, which is missing: put that file back, or restore the "
                    "store from a backup"
                ) from None
            names.append(moved.name)
            put_in_place(path, files, moved.name)


def _open_guarded(
    path: Path, readonly: bool, map_size: int | None, for_snapshot: bool, instead_of: Environment | None
) -> Opened:
    check_size(path / DATA_FILE)
    extra: dict[str, Any] = {} if map_size is None else {"map_size": map_size, "grows": True}
    if not readonly:
        need_space(path)

    def open_new() -> Environment:
        if not for_snapshot:
            return Environment(path, readonly=readonly, **extra)
        try:  # so that a store opened later in this process may write
            return Environment(path, **extra)
        except StorageError:
            return Environment(path, readonly=True, **extra)

    environment = lease(path, open_new, for_snapshot=for_snapshot, readonly=readonly, instead_of=instead_of)
    try:
        database = Database(environment, readonly=readonly)
        with environment.read() as txn:
            environment.refuse_moved(txn)
            schema = database.schema(txn)
        _check_version(path, schema.format)
        return Opened(path, environment, database, schema)
    except BaseException:
        release(path, environment, for_snapshot=for_snapshot)
        raise


def follow(
    path: Path,
    files: Files,
    name: str,
    *,
    readonly: bool,
    map_size: int | None,
    for_snapshot: bool,
    instead_of: Environment,
) -> Opened:
    """Opens the database that has taken the place of one that this process has open."""
    with _OPENING:
        try:
            put_in_place(path, files, name)
            return _open(path, files, readonly, map_size, for_snapshot, instead_of)
        except OSError as err:
            raise err if isinstance(err, SimstoreError) else storage_error(err, f"opening {path}") from err


def need_space(path: Path) -> None:
    """LMDB fills lock.mdb through a map: without space for it the process would die."""
    if hasattr(os, "statvfs"):
        stat = os.statvfs(path)
        if stat.f_bavail * stat.f_frsize < _SPACE_NEEDED:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _complete(opened: Opened, files: Files) -> None:
    """Writes what a crash while creating kept from being written, and removes files that no transaction names."""
    path = opened.path
    _clean(path)
    files.make_dir(path / SEGMENTS)
    if not (path / MARKER).exists():
        marker = {"magic": _MAGIC, "format": FORMAT_VERSION, "uuid": opened.schema.uuid}
        content = json.dumps(marker).encode()
        temporary = write_file(files, path, [content], len(content))
        publish_file(files, temporary, path / MARKER)
    remove_left_behind(opened, files)


def left_behind(txn: Any, opened: Opened, files: Files) -> list[Path]:
    """The files that no transaction names, unless somebody is making them."""
    path = opened.path
    named = {path / SEGMENTS / record.file for record in opened.database.segments(txn)}
    named |= models.needed(txn, opened, files)
    there = [path / folder / name for folder in (SEGMENTS, EMBEDDERS) for name in files.list_dir(path / folder)]
    there += [path / name for name in files.list_dir(path) if name.startswith(COMPACTED)]
    unnamed = [file for file in there if file not in named]
    return [file for file in unnamed if not file.name.startswith(TEMPORARY) or is_abandoned(file.name)]


def remove_left_behind(opened: Opened, files: Files, among: Callable[[Path], bool] = lambda file: True) -> list[Path]:
    """Removes the files that no transaction names, those of them that are among some; returns which."""

    def unnamed(txn: Any) -> list[Path]:
        return [file for file in left_behind(txn, opened, files) if among(file)]

    def remove(txn: Any) -> list[Path]:  # within a write transaction: nobody else is publishing just now
        for file in (found := unnamed(txn)):
            discard(files, file)
        return [file for file in found if files.size(file) < 0]

    with opened.environment.reading() as txn:
        is_clean = not unnamed(txn)
    return [] if is_clean else opened.environment.write(remove)


def require_writable(path: Path, readonly: bool, snapshot: str | None) -> None:
    """Raises ReadOnlyStoreError if the store was opened to read."""
    if snapshot is not None:
        raise ReadOnlyStoreError(
            f"this is the snapshot {snapshot!r} of {path}, which does not change: open the store without snapshot= to write; "
            "restore(name) makes a snapshot the present"
        )
    if readonly:
        raise ReadOnlyStoreError(f"{path} was opened with mode='r': open it with mode='a' to write")


def directory_size(path: Path) -> int:
    """The bytes of a directory's files."""
    try:
        size = 0
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    size += entry.stat().st_size
                except FileNotFoundError:
                    continue
        return size
    except FileNotFoundError:
        return 0
    except OSError as err:
        raise StorageError(f"{path} cannot be read: {err}") from err
