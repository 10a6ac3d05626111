"""The databases that this process has open. LMDB can be opened once in a process: a store and its snapshots share it."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from simstore.errors import AlreadyOpenError
from simstore.storage import DATA_FILE, Environment

__all__ = ["lease", "leave", "release"]

_PATIENCE_S = 10.0  # for a close(), which waits for the write that is under way
_turns = threading.RLock()


def _new_turns() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _turns
    _turns = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_turns)


class _Lease:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.n_snapshots = 0
        self.has_store = False
        self.was_left = False  # who has gone over to the next database may still read this one
        self.ending: threading.Event | None = None  # it is being closed; set when that is done

    @property
    def is_needed(self) -> bool:
        return self.has_store or self.n_snapshots > 0


_leases: dict[Path, list[_Lease]] = {}  # the newest last: compact() has replaced the others, which somebody still reads


def lease(
    path: Path,
    open_new: Callable[[], Environment],
    *,
    for_snapshot: bool,
    readonly: bool,
    instead_of: Environment | None = None,
) -> Environment:
    """The open database of a directory: the one that is open already, where it may be shared.

    Args:
        instead_of: The one that the caller has leased, and that another has replaced.

    Raises:
        AlreadyOpenError: A store has it open, and another wants to; or it is open to be read, and is to be written.
    """
    path = path.resolve()
    while True:
        with _turns:
            held = [one for one in _leases.get(path, ()) if one.environment.is_usable() or one.ending is not None]
            ending = next((one.ending for one in held if one.ending is not None), None)
            if ending is None:
                return _leased(path, held, open_new, for_snapshot, readonly, instead_of)
        if not ending.wait(_PATIENCE_S):
            raise AlreadyOpenError(f"{path} is being closed by another thread of this process: open it again afterwards")


def _leased(
    path: Path,
    held: list[_Lease],
    open_new: Callable[[], Environment],
    for_snapshot: bool,
    readonly: bool,
    instead_of: Environment | None,
) -> Environment:
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
    """Gives a leased database back. The last one closes it, unless somebody has left it who may still read it."""
    with _turns:
        one = _given_back(path, environment, for_snapshot)
        if one is not None:
            if one.is_needed:
                return
            if one.was_left:
                _forget(path, one)
                return
            one.ending = threading.Event()  # who opens it again waits: to close one handle drops the file locks of all
    try:
        environment.close()
    finally:
        if one is not None and one.ending is not None:
            with _turns:
                _forget(path, one)
            one.ending.set()


def leave(path: Path, environment: Environment, *, for_snapshot: bool) -> None:
    """Gives a leased database back that another has replaced. What still reads it reads on; its last use closes it."""
    with _turns:
        one = _given_back(path, environment, for_snapshot)
        if one is not None:
            one.was_left = True
            if not one.is_needed:
                _forget(path, one)


def _given_back(path: Path, environment: Environment, for_snapshot: bool) -> _Lease | None:
    """The lease, with one user less; None if there is none."""
    for one in _leases.get(path.resolve(), ()):
        if one.environment is environment:
            if for_snapshot:
                one.n_snapshots -= 1
            else:
                one.has_store = False
            return one
    return None


def _forget(path: Path, one: _Lease) -> None:
    held = [other for other in _leases.get(path.resolve(), ()) if other is not one]
    if held:
        _leases[path.resolve()] = held
    else:
        _leases.pop(path.resolve(), None)


def _inode(path: Path) -> int:
    return os.stat(path / DATA_FILE).st_ino
