"""The databases that this process has open. LMDB can be opened once in a process: a store and its snapshots share it."""

import os
from collections.abc import Callable
from pathlib import Path

from simstore.errors import AlreadyOpenError
from simstore.storage import DATA_FILE, Environment

__all__ = ["lease", "release"]


class _Lease:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.n_snapshots = 0
        self.has_store = False


_leases: dict[Path, _Lease] = {}


def lease(path: Path, open_new: Callable[[], Environment], *, for_snapshot: bool, readonly: bool) -> Environment:
    """The open database of a directory: the one that is open already, where it may be shared. The caller keeps others out.

    Raises:
        AlreadyOpenError: A store has it open, and another wants to; or it is open to be read, and is to be written.
    """
    held = _leases.get(path)
    if held is None or not held.environment.is_usable() or held.environment.inode != _inode(path):
        held = _leases[path] = _Lease(open_new())
    elif held.has_store and not for_snapshot:
        raise AlreadyOpenError(f"{path} is open in this process already: use that Store object, or close it first")
    elif held.environment.readonly and not readonly and not for_snapshot:
        raise AlreadyOpenError(
            f"a snapshot of {path} is open in this process, and this process could only read then: close the snapshot first"
        )
    if for_snapshot:
        held.n_snapshots += 1
    else:
        held.has_store = True
    return held.environment


def release(path: Path, environment: Environment, *, for_snapshot: bool) -> None:
    """Gives a leased database back; the last one closes it."""
    held = _leases.get(path)
    if held is None or held.environment is not environment:  # another database has taken its place
        environment.close()
        return
    if for_snapshot:
        held.n_snapshots -= 1
    else:
        held.has_store = False
    if not held.n_snapshots and not held.has_store:
        del _leases[path]
        environment.close()


def _inode(path: Path) -> int:
    return os.stat(path / DATA_FILE).st_ino
