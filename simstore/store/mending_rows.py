"""repair(): items and vectors. What no flipped bit explains is taken out, once its bytes are in quarantine."""

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.storage.encoding import encode_key
from simstore.storage.records import created_seq_of, read_record, record_bytes, row_key
from simstore.store.bitmap import Bitmap
from simstore.store.mending_segments import Copies
from simstore.store.quarantine import Lost
from simstore.store.repair_base import Repair
from simstore.store.survey import Survey, compared, damaged_vectors, keys_leading_to

__all__ = ["find_lost", "mend_items", "mend_rejected", "mend_staged", "mend_vectors", "take_out"]


def mend_items(repair: Repair, found: Survey, purged: NDArray[np.bool_]) -> None:
    """Sets items right in which, or in whose row, a single bit was flipped."""
    txn, database, n_rows = repair.txn, repair.database, len(found.there)
    strays = [*found.strays, *np.flatnonzero(found.damaged & purged).tolist()]
    for row in [*strays, *np.flatnonzero(found.damaged & ~purged).tolist()]:
        value = database.item(txn, row)
        home = repair.mender.seed(value, row)
        if home is not None and home < n_rows and not found.there[home]:
            database.drop_entry(txn, "items", row_key(row))
            _forget(found, row)
        elif home is None and row < n_rows and (mended := repair.mender.sealed(value, row)) is not None:
            home, value = row, mended
        else:
            continue
        database.put_entry(txn, "items", row_key(home), value)
        found.enter(home, value)
        repair.note("items")
    for row in found.late:
        repair.seen(created_seq_of(database.item(txn, row)))


def _forget(found: Survey, row: int) -> None:
    if row < len(found.there):
        found.leave(np.array([row], np.uint64))
    else:
        found.strays.remove(row)


# -- vectors -----------------------------------------------------------------------------------------------------------


def mend_vectors(repair: Repair, kept: Bitmap, found: Survey, copies: Copies) -> dict[int, int]:
    """Sets vectors right in which, or in whose run's row, a single bit was flipped, and those of which a segment has a copy.

    Returns:
        The others' rows, and their widths.
    """
    txn, database, n_rows = repair.txn, repair.database, len(found.there)
    damaged = list(damaged_vectors(txn, database, kept, n_rows, repair.tell))
    if damaged and _move_runs(repair, n_rows):
        damaged = list(damaged_vectors(txn, database, kept, n_rows, repair.tell))
    lost = {}
    for row, dim in damaged:
        record = database.vector_record(txn, row, dim)
        mended = repair.mender.vector(record, dim, row)
        if mended is None and found.sound[row]:
            mended = copies.record(row, dim, record)
        if mended is None:
            lost[row] = dim
        else:
            database.put_vector_record(txn, row, mended)
            repair.note("vectors")
    return lost


def _move_runs(repair: Repair, n_rows: int) -> bool:
    """Gives runs that stand under a row one bit from their own its place."""
    txn, database, schema = repair.txn, repair.database, repair.database.schema(repair.txn)
    moved = []
    for key, value in database.raw(txn, "vectors"):
        row = int.from_bytes(key, "big")
        dim = schema.epoch_at(min(row, n_rows) + 1).dim or 0
        if len(value) < record_bytes(dim) or not database.vectors_and_damage(txn, row, row + 1, dim)[1][0]:
            continue
        home = repair.mender.first_row(value, dim, row)
        if home is not None and home < n_rows and database.entry(txn, "vectors", row_key(home)) is None:
            moved.append((key, row_key(home), value))
    for key, home_key, value in moved:
        database.drop_entry(txn, "vectors", key)
        database.put_entry(txn, "vectors", home_key, value)
        repair.note("vectors")
    return bool(moved)


def mend_staged(repair: Repair) -> None:
    """Drops staged vectors that are damaged, or all, if nobody knows whose they are: reembed() makes them anew."""
    txn, database = repair.txn, repair.database
    try:
        staging = database.staging(txn)
    except CorruptStoreError:
        database.end_staging(txn)
        repair.note("staged")
        return
    if staging is None and database.n_entries(txn, "staged"):
        database.end_staging(txn)
        repair.note("staged")
    elif staging is not None and (damaged := list(database.damaged_staged(txn, staging.dim))):
        database.drop_staged(txn, damaged)
        repair.note("staged")


def mend_rejected(repair: Repair) -> None:
    """Drops damaged notes of what was rejected: the next ingest() looks at those examples again."""
    for key in repair.database.damaged_rejected(repair.txn):
        repair.database.drop_entry(repair.txn, "rejected", key)
        repair.note("rejected")


# -- what is lost ------------------------------------------------------------------------------------------------------


def find_lost(
    repair: Repair, found: Survey, purged: NDArray[np.bool_], kept: NDArray[np.bool_], vectors: dict[int, int]
) -> NDArray[np.uint64]:
    """Lists in repair.lost the kept rows that cannot be read; they and the dead ones of which nothing is known, as rows."""
    txn, database = repair.txn, repair.database
    unreadable = np.flatnonzero(kept & ~found.sound | found.there & purged).tolist()
    rows = sorted({*unreadable, *vectors, *found.strays})
    names = keys_leading_to(txn, database, np.array(unreadable, np.uint64)) if unreadable else {}
    schema = database.schema(txn)
    for row in rows:
        inside = row < len(found.there)
        dim = schema.epoch_at(row + 1).dim if inside else None
        if inside and found.sound[row] and not purged[row]:
            key = encode_key(read_record(database.item(txn, row), row)[0])
            repair.lost.append(Lost(row, "the vector is missing or damaged", key, dim))
        else:
            known = names[row][0] if len(names.get(row, [])) == 1 else None
            repair.lost.append(Lost(row, _what(found, purged, row, row in vectors), known, dim))
    unknown = _unknown(repair, found, purged)
    if len(np.setdiff1d(unknown, np.array(rows, np.uint64))):
        repair.note("purged")
    return np.union1d(unknown, np.array(rows, np.uint64))


def _what(found: Survey, purged: NDArray[np.bool_], row: int, vector_too: bool) -> str:
    if row >= len(found.there):
        return "an item in a row that does not exist"
    if purged[row]:
        return "an item in a row that had been purged"
    what = "the item is damaged" if found.there[row] else "the item is missing"
    return f"{what}, and so is its vector" if vector_too else what


def _unknown(repair: Repair, found: Survey, purged: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Dead rows that nobody sees: without an item, or with a damaged one to which not one key leads."""
    try:
        unnamed = compared(repair.txn, repair.database, "keys", found).wrong & found.damaged
    except CorruptStoreError:  # the table is made anew, from what can be read
        unnamed = found.damaged
    return np.flatnonzero((unnamed | ~found.there) & ~purged).astype(np.uint64)


def take_out(repair: Repair, found: Survey, purged: NDArray[np.bool_], rows: NDArray[np.uint64]) -> None:
    """Removes the items in rows; those rows that exist count as purged from now on."""
    txn, database = repair.txn, repair.database
    for row in rows.tolist():
        database.drop_entry(txn, "items", row_key(row))
        database.drop_entry(txn, "tombstones", row_key(row))
        database.drop_entry(txn, "staged", row_key(row))
    inside = rows[rows < np.uint64(len(found.there))]
    found.leave(inside)
    purged[inside] = True
    database.put_purged(txn, np.flatnonzero(purged).astype(np.uint64))
