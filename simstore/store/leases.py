"""The databases that this process has open. LMDB can be opened once in a process: a store and its snapshots share it."""

import os
from collections.abc import Callable
from pathlib import Path

from simstore.errors import AlreadyOpenError
from simstore.storage import DATA_FILE, Environment

__all__ = ["hand_over", "lease", "release"]


class _Lease:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.n_users = 0


_leases: dict[Path, _Lease] = {}
_stores: dict[Path, Environment] = {}
"""What the one Store of each directory works with, its snapshots aside."""


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
        instead_of: What the user works with until now, and goes on with if this fails; ``hand_over`` comes afterwards.

    Raises:
        AlreadyOpenError: A store has it open, and another wants to; or it is open to be read, and is to be written.
    """
    store = _stores.get(path)
    if not for_snapshot and instead_of is None and store is not None and store.is_usable():
        raise AlreadyOpenError(f"{path} is open in this process already: use that Store object, or close it first")
    held = _leases.get(path)
    if held is None or not held.environment.is_usable() or held.environment.inode != _inode(path):
        held = _leases[path] = _Lease(open_new())
    elif held.environment.readonly and not readonly and not for_snapshot:
        raise AlreadyOpenError(
            f"a snapshot of {path} is open in this process, and this process could only read then: close the snapshot first"
        )
    held.n_users += 1
    if not for_snapshot and instead_of is None:
        _stores[path] = held.environment
    return held.environment


def hand_over(path: Path, old: Environment, new: Environment) -> None:
    """Says that the user of a leased database works with its successor from now on."""
    if _stores.get(path) is old:
        _stores[path] = new


def release(path: Path, environment: Environment, *, for_snapshot: bool) -> None:
    """Gives a leased database back; the last one closes it.

    One that has a successor closes when nobody refers to it any more: others in this process may be reading it.
    """
    if not for_snapshot and _stores.get(path) is environment:
        del _stores[path]
    held = _leases.get(path)
    if held is None or held.environment is not environment:
        return
    held.n_users -= 1
    if not held.n_users:
        del _leases[path]
        environment.close()


def _inode(path: Path) -> int:
    return os.stat(path / DATA_FILE).st_ino
