"""Opening a database and putting another in its place exclude each other, between processes too."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simstore.errors import StorageError
from simstore.storage import DATA_FILE, Files, steps

__all__ = ["LOCK_FILE", "MARKER", "guarded", "put_in_place"]

MARKER = "store.json"
LOCK_FILE = "lock.mdb"
_PATIENCE_S = 5.0

_fcntl: Any
try:
    import fcntl as _fcntl
except ImportError:  # Windows, where a file that is mapped cannot be replaced anyway
    _fcntl = None


@contextmanager
def guarded(marker: Path, *, exclusive: bool) -> Iterator[None]:
    """Holds a lock on the store's marker: many may open the database at once, none while it is being replaced.

    Whoever opens data.mdb joins the locks in lock.mdb; were the two of different databases, readers would see neither.
    """
    try:
        handle = None if _fcntl is None else os.open(marker, os.O_RDONLY)
    except FileNotFoundError:  # a store in the making: nobody replaces anything
        handle = None
    except OSError as err:
        raise StorageError(f"{marker} cannot be read: {err}") from err
    if handle is None:
        yield
        return
    try:
        try:
            _fcntl.flock(handle, _fcntl.LOCK_EX if exclusive else _fcntl.LOCK_SH)
        except OSError as err:
            raise StorageError(f"{marker} cannot be locked: {err}") from err
        yield
    finally:
        _fcntl.flock(handle, _fcntl.LOCK_UN)  # to close it is not enough: a child forked meanwhile has it open, too
        os.close(handle)


def put_in_place(path: Path, files: Files, name: str) -> None:
    """Gives the compact copy of that name the name of the database, unless that has been done."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with guarded(path / MARKER, exclusive=True):
                if files.size(path / name) >= 0:
                    _put_in_place(path, files, name)
                return
        except PermissionError as err:  # who may only read waits for those who may write; compact() is about to do it
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{path} was compacted, and this process may not put the new database in place ({err}): have one that may "
                    "write there open the store"
                ) from err
            time.sleep(_PATIENCE_S / 100)


def _put_in_place(path: Path, files: Files, name: str) -> None:
    """The old lock.mdb goes first: it counts the readers of the old database; whoever still reads that one keeps it open."""
    lock = path / LOCK_FILE
    mode = lock.stat().st_mode if files.size(lock) >= 0 else None
    files.remove(lock)
    if mode is not None:  # LMDB would make it for its owner alone to write
        lock.touch()
        lock.chmod(mode)
    steps.reached("compact.unlocked")
    files.rename(path / name, path / DATA_FILE)
    steps.reached("compact.renamed")
    files.sync_dir(path)
