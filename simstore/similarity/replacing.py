"""One store in the place of another: what was there stays until the new one is whole."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import simstore
from simstore.errors import NotAStoreError, StoreExistsError, StoreNotFoundError
from simstore.storage.files import LocalFiles

__all__ = ["bring_back", "check_replaceable", "put_in_place"]


def check_replaceable(target: Path) -> None:
    """Raises StoreExistsError unless there is a store at the path, and AlreadyOpenError if this process has it open."""
    try:
        simstore.open(target, mode="r").close()
    except (NotAStoreError, StoreNotFoundError, NotADirectoryError) as err:
        raise StoreExistsError(
            f"{target} is there, and no saved index: an index is saved to a path of its own ({err})"
        ) from err


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def bring_back(target: Path) -> None:
    """Gives a store its name back where the process ended while another was put in its place."""
    if not os.path.lexists(target) and _previous(target).is_dir():
        _previous(target).rename(target)


def put_in_place(aside: Path, target: Path) -> None:
    """Gives a directory its name. The old one is moved aside first: no directory can be renamed over another."""
    files, previous = LocalFiles(), _previous(target)
    shutil.rmtree(previous, ignore_errors=True)
    has_old = os.path.lexists(target)
    if has_old:
        files.rename(target, previous)
    try:
        files.rename(aside, target)
    except BaseException:
        if has_old:
            files.rename(previous, target)
        raise
    with suppress(OSError):
        files.sync_dir(target.parent)
    shutil.rmtree(previous, ignore_errors=True)
