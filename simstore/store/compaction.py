"""compact(): a copy of the database without what nobody can see any more, put in the database's place.

Rows keep their numbers, so that segments stay as they are. The copy is made within a write transaction, whose last act is to
say which file takes over; from then on every process goes over to it at its next call. DESIGN.md has the order.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from simstore.errors import SimstoreError
from simstore.storage import DATA_FILE, Environment, Files, MovedError, Transaction, steps
from simstore.storage.copying import copy_database
from simstore.storage.files import discard, storage_error, temporary_name
from simstore.store.core import Core
from simstore.store.opening import COMPACTED, SEGMENTS, need_space
from simstore.types import Progress

__all__ = ["compact_database"]


def compact_database(core: Core, path: Path, files: Files, progress: Progress | None) -> tuple[str, int]:
    """Makes the copy and has it take over; the name of its file, and how many rows are in the store no more.

    Raises:
        StorageFullError, StorageError: It could not be made; the store is as it was.
    """
    aside, name = path / temporary_name(), f"{COMPACTED}{os.urandom(8).hex()}.mdb"
    spent: list[str] = []

    def work(txn: Transaction) -> int:
        view, database = core.views.within_write(txn), core.database
        kept = view.kept.mask(0, view.state.next_row)
        records = database.segments(txn)
        dropped = [record for record in records if not kept[record.first_row : record.last_row + 1].any()]
        spent[:] = [record.file for record in dropped]
        n_purged = int((~kept).sum()) - len(database.purged(txn))
        shutil.rmtree(aside, ignore_errors=True)
        try:
            files.make_dir(aside)
            need_space(aside)
            environment = Environment(aside, create=True)
            try:
                copy_database(
                    txn, database, environment, kept, {record.first_row for record in dropped},
                    lambda done, total: None if progress is None else progress("compact", done, total),
                )  # fmt: skip
            finally:
                environment.close()
            shutil.copymode(path / DATA_FILE, aside / DATA_FILE)
            files.rename(aside / DATA_FILE, path / name)
            files.sync_dir(path)
            need_space(path)  # for the new lock.mdb: once the copy has taken over, nobody could open it
        except OSError as err:
            raise err if isinstance(err, SimstoreError) else storage_error(err, f"compacting {path}") from err
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        steps.reached("compact.copied")
        core.environment.put_moved(txn, name)
        database.put_state(txn, replace(view.state, seq=view.state.seq + 1))
        return n_purged

    try:
        n_purged = core.environment.write(work)
    except BaseException:
        if not _has_moved_to(core.environment, name):  # else the copy is the store now, whatever came afterwards
            discard(files, path / name)
        raise
    steps.reached("compact.committed")
    for file in spent:
        discard(files, path / SEGMENTS / file)
    return name, n_purged


def _has_moved_to(environment: Environment, name: str) -> bool:
    try:
        with environment.reading() as txn:
            environment.refuse_moved(txn)
    except MovedError as moved:
        return moved.name == name
    return False
