"""Which rows a state sees: from tombstones, what has been purged, and the snapshots."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.storage import Database, SnapshotRecord, State, Transaction
from simstore.store.bitmap import Bitmap

__all__ = ["alive_at", "kept_rows"]


def alive_at(txn: Transaction, database: Database, snapshot: SnapshotRecord) -> Bitmap:
    """The rows that a snapshot sees: those that were there and had no tombstone yet.

    Raises:
        CorruptStoreError: A tombstone is damaged.
    """
    rows, seqs = database.burials(txn)
    dead = np.concatenate([database.purged(txn), rows[seqs <= np.uint64(snapshot.seq)]])
    n_rows = snapshot.next_row
    return Bitmap.of(n_rows, dead[dead < np.uint64(n_rows)]).closed(n_rows)


def kept_rows(
    txn: Transaction,
    database: Database,
    state: State,
    alive: Bitmap,
    old_kept: Bitmap | None = None,
    buried: Iterable[int] = (),
) -> Bitmap:
    """The rows that are alive, or that a snapshot sees; the very bitmap ``alive`` if there is no snapshot.

    Args:
        old_kept: The kept rows of an older state with the same snapshots.
        buried: What has been buried since.
    """
    if not state.snapshots_seq:
        return alive
    try:
        snapshots = database.snapshots(txn)
        if not snapshots:
            return alive
        if old_kept is not None:
            return old_kept.without((row for row in buried if row >= snapshots[-1].next_row), state.next_row)
        rows, seqs = database.burials(txn)
    except CorruptStoreError:  # nobody knows what that snapshot sees: keep all there is
        return Bitmap.of(state.next_row, database.purged(txn))
    return Bitmap.of(state.next_row, np.concatenate([database.purged(txn), rows[~_seen(rows, seqs, snapshots)]]))


def _seen(rows: NDArray[np.uint64], seqs: NDArray[np.uint64], snapshots: list[SnapshotRecord]) -> NDArray[np.bool_]:
    """Whether a snapshot sees rows that were buried in seqs: the newest one before that has the most rows."""
    at = np.searchsorted(np.array([snapshot.seq for snapshot in snapshots], np.uint64), seqs)
    n_rows = np.array([0, *(snapshot.next_row for snapshot in snapshots)], np.uint64)
    return rows < n_rows[at]
