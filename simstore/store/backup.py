"""backup(): a consistent copy of the store while it is in use."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from simstore.errors import CorruptStoreError, InvalidArgumentError, SimstoreError, StoreExistsError, StoreNotFoundError
from simstore.storage import DATA_FILE, Database, Environment, Files, SegmentRecord, Transaction, steps
from simstore.storage.files import TEMPORARY, storage_error, temporary_name, write_file
from simstore.store import arguments
from simstore.store.core import Core
from simstore.store.guard import LOCK_FILE, MARKER
from simstore.store.models import EMBEDDERS
from simstore.store.opening import CALIBRATION, SEGMENTS, need_space
from simstore.store.view import open_segment
from simstore.types import Progress

__all__ = ["backup_store"]


def backup_store(core: Core, path: Path, files: Files, dest: Any, progress: Progress | None) -> Path:
    """Copies everything of one state to a new directory, which appears when it is whole.

    Raises:
        StoreExistsError: There is something at the path.
        StoreNotFoundError: The directory above it does not exist.
        InvalidArgumentError: The path lies within the store, or is none.
        StorageFullError, StorageError: It could not be written; nothing of it is left.
    """
    target = arguments.path_of(dest, "dest")
    if os.path.lexists(target):
        raise StoreExistsError(f"{target} exists already: a backup goes to a new path")
    if not target.parent.is_dir():
        raise StoreNotFoundError(f"the directory {target.parent} does not exist: create it first")
    if target.parent.resolve().is_relative_to(path.resolve()):
        raise InvalidArgumentError(f"{target} lies within the store itself: a backup goes to a path outside of it")
    aside = unfinished = target.parent / temporary_name()
    try:
        files.make_dir(aside)
        _copy(core, path, files, aside, progress)
        for folder in (SEGMENTS, EMBEDDERS):
            if (aside / folder).is_dir():
                files.sync_dir(aside / folder)
        files.sync_dir(aside)
        steps.reached("backup.copied")
        if os.path.lexists(target):  # a rename would replace an empty directory
            raise StoreExistsError(f"{target} exists already: a backup goes to a new path")
        files.rename(aside, target)
        unfinished = target
        files.sync_dir(target.parent)
    except BaseException as err:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not isinstance(err, OSError) or isinstance(err, SimstoreError):
            raise
        raise storage_error(err, f"writing the backup {target}") from err
    return target


def _copy(core: Core, path: Path, files: Files, aside: Path, progress: Progress | None) -> None:
    with core.environment.reading() as txn:
        core.environment.refuse_moved(txn)
        segments = _mapped(core.database.segments(txn), files, path)
    core.environment.copy_to(aside)
    steps.reached("backup.database")
    need_space(aside)
    environment = Environment(aside)
    try:
        database = Database(environment)
        with environment.reading() as txn:
            environment.refuse_moved(txn)
            records = database.segments(txn)
        segments |= _mapped([record for record in records if record.file not in segments], files, path)
        there = [record for record in records if record.file in segments]
        for i, record in enumerate(there):
            _write(files, aside / SEGMENTS / record.file, segments[record.file])
            if progress is not None:
                progress("backup", i + 1, len(there) + 1)
        environment.write(lambda txn: _retire(txn, database, [record for record in records if record.file not in segments]))
    finally:
        environment.close()
    files.sync(aside / DATA_FILE)
    (aside / LOCK_FILE).unlink(missing_ok=True)
    for name in files.list_dir(path / EMBEDDERS):  # what the copy names was there before it was made
        if name.startswith(TEMPORARY):
            continue
        with suppress(FileNotFoundError):
            _write(files, aside / EMBEDDERS / name, files.read(path / EMBEDDERS / name))
    if files.size(path / CALIBRATION) >= 0:
        _write(files, aside / CALIBRATION, files.read(path / CALIBRATION))
    _write(files, aside / MARKER, files.read(path / MARKER))
    if progress is not None:
        progress("backup", len(there) + 1, len(there) + 1)


def _mapped(records: list[SegmentRecord], files: Files, path: Path) -> dict[str, memoryview]:
    """The segments' files, mapped and sound, by name: one that is replaced while the database is copied can still be read."""
    found = {}
    for record in records:
        with suppress(CorruptStoreError):
            segment = open_segment(files, path / SEGMENTS / record.file, record)
            segment.verify()
            found[record.file] = segment.image
    return found


def _retire(txn: Transaction, database: Database, records: list[SegmentRecord]) -> None:
    """Forgets segments that could not come along: they are rebuilt from the items."""
    for record in records:
        database.drop_segment(txn, record.first_row)


def _write(files: Files, target: Path, content: Any) -> None:
    files.make_dir(target.parent)
    files.rename(write_file(files, target.parent, [content], len(content)), target)
