"""Simstore directories on the way. No file in one is ever opened: closing its lock.mdb would drop this process' locks."""

import os
from collections.abc import Collection

__all__ = ["STORE_NOTE", "is_store", "store_around"]

_MARKER, _DATA, _LOCK = "store.json", "data.mdb", "lock.mdb"
STORE_NOTE = "a simstore directory, in which nothing is opened: export it to index it"


def is_store(names: Collection[str]) -> bool:
    """Whether a directory that holds these names is, or may be, a store."""
    return _MARKER in names or _DATA in names or _LOCK in names


def store_around(path: str) -> str | None:
    """The simstore directory that a file or directory lies in, or is; None if it lies in none.

    Args:
        path: Links in it are followed.
    """
    real = os.path.realpath(path)
    for folder in (real, os.path.dirname(real)):
        if any(os.path.lexists(os.path.join(folder, name)) for name in (_MARKER, _DATA, _LOCK)):
            return folder
    while (folder := os.path.dirname(folder)) != os.path.dirname(folder):  # further up one stray name proves nothing
        if all(os.path.lexists(os.path.join(folder, name)) for name in (_MARKER, _DATA)):
            return folder
    return None
