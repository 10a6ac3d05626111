"""The databases that this process has open. LMDB can be opened once in a process: a store and its snapshots share it."""

import os
from collections.abc import Callable
from pathlib import Path

from simstore.errors import AlreadyOpenError
from simstore.storage import DATA_FILE, Environment

__all__ = ["lease", "leave", "release"]


class _Lease:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.n_snapshots = 0
        self.has_store = False
        self.was_left = False


_leases: dict[Path, list[_Lease]] = {}  # the newest last: compact() has replaced the others, which somebody still reads


def lease(
    path: Path,
    open_new: Callable[[], Environment],
    *,
    for_snapshot: bool,
    readonly: bool,
    instead_of: Environment | None = None,
) -> Environment:
    """The open database of a directory: the one that is open already, where it may be shared. The caller keeps others out.

    Args:
        instead_of: The one that the caller has leased, and that another has replaced.

    Raises:
        AlreadyOpenError: A store has it open, and another wants to; or it is open to be read, and is to be written.
    """
    path = path.resolve()
    held = [one for one in _leases.get(path, ()) if one.environment.is_usable()]
    if not for_snapshot and any(one.has_store and one.environment is not instead_of for one in held):
        raise AlreadyOpenError(f"{path} is open in this process already: use that Store object, or close it first")
    if not held or held[-1].environment.inode != _inode(path):
        held.append(_Lease(open_new()))
    elif held[-1].environment.readonly and not readonly and not for_snapshot:
        raise AlreadyOpenError(
            f"a snapshot of {path} is open in this process, and this process could only read then: close the snapshot first"
        )
    _leases[path] = held
    if for_snapshot:
        held[-1].n_snapshots += 1
    else:
        held[-1].has_store = True
    return held[-1].environment


def release(path: Path, environment: Environment, *, for_snapshot: bool) -> None:
    """Gives a leased database back; the last one closes it, unless somebody has left it and may be reading it."""
    one = _returned(path, environment, for_snapshot)
    if one is None or not (one.n_snapshots or one.has_store or one.was_left):
        environment.close()


def leave(path: Path, environment: Environment, *, for_snapshot: bool) -> None:
    """Gives back a database that was replaced. What still reads it reads on: it closes when nothing refers to it any more."""
    one = _returned(path, environment, for_snapshot)
    if one is not None:
        one.was_left = True


def _returned(path: Path, environment: Environment, for_snapshot: bool) -> _Lease | None:
    path = path.resolve()
    held = _leases.get(path, [])
    one = next((one for one in held if one.environment is environment), None)
    if one is None:
        return None
    if for_snapshot:
        one.n_snapshots -= 1
    else:
        one.has_store = False
    if not one.n_snapshots and not one.has_store:
        held.remove(one)
        if not held:
            _leases.pop(path, None)
    return one


def _inode(path: Path) -> int:
    return os.stat(path / DATA_FILE).st_ino
