"""repair(): the postings of keys, labels and fields, made from the items."""

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.storage.field_table import Postings
from simstore.storage.records import row_key
from simstore.store.repair_base import Repair
from simstore.store.survey import POSTINGS, Comparison, Survey, compared, entries_for

__all__ = ["mend_postings"]


def mend_postings(repair: Repair, found: Survey, taken_out: NDArray[np.int64]) -> None:
    """Has exactly the right entries lead to every row; none, to those that have been taken out."""
    for which in POSTINGS:
        try:
            comparison = compared(repair.txn, repair.database, which, found)
        except CorruptStoreError:
            repair.database.clear(repair.txn, which)
            comparison = compared(repair.txn, repair.database, which, found)
            repair.note(which)
        if comparison.wrong.any() or comparison.foreign:
            if comparison.foreign or len(np.setdiff1d(np.flatnonzero(comparison.wrong), taken_out)):
                repair.note(which)
            _mend(repair, which, found, comparison)


def _mend(repair: Repair, which: Postings, found: Survey, comparison: Comparison) -> None:
    txn, database = repair.txn, repair.database
    indexed = database.schema(txn).indexed
    rows = np.flatnonzero(comparison.wrong).astype(np.uint64)
    missing: dict[int, set[bytes]] = {
        row: set(entries_for(database.item(txn, row), row, indexed)[which]) if found.sound[row] else set()
        for row in rows.tolist()
    }
    extra = list(comparison.foreign)
    for entry, listed in database.postings(txn, which):
        for row in np.intersect1d(listed, rows).tolist():
            if entry in missing[row]:
                missing[row].discard(entry)
            else:
                extra.append((entry, row))
    for entry, row in extra:
        database.drop_entry(txn, which, entry, row_key(row))
    for entry, row in sorted((entry, row) for row, entries in missing.items() for entry in entries):
        database.put_entry(txn, which, entry, row_key(row))
