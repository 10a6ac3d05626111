"""Opening a database and putting another in its place exclude each other, between processes too."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simstore.errors import StorageError

__all__ = ["guarded"]

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
        os.close(handle)
