"""repair(): the state, and which rows are gone for good."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.storage import SegmentRecord, SnapshotRecord, State
from simstore.storage.history import PURGED_CHUNK, purged_in
from simstore.storage.records import created_seq_of, read_record, unsealed
from simstore.store.repair_base import Repair
from simstore.store.survey import Survey, keys_leading_to

__all__ = ["mended_purged", "mended_state"]

N = TypeVar("N")
_JUMP = 1 << 32  # a lost seq is told anew this far above all that are known: no process knows a later state


def mended_state(repair: Repair) -> State:
    """The state as it is stored; where that cannot be read, what the tables tell of it."""
    raw = repair.database.raw_state(repair.txn)
    if raw is not None:
        try:
            return State.of(raw)
        except CorruptStoreError:
            repair.note("state")
            mended = repair.mender.sealed(raw, 0)
            if mended is not None:
                return State.of(mended)
    repair.note("state")
    next_row, seq = _known_rows(repair)
    has_snapshots = bool(repair.database.n_entries(repair.txn, "snapshots"))
    return State(seq=seq + _JUMP, next_row=next_row, snapshots_seq=seq + _JUMP if has_snapshots else 0)


def _known_rows(repair: Repair) -> tuple[int, int]:
    """The row after the last that anything sound names, and the newest seq."""
    txn, database = repair.txn, repair.database
    known = [(0, 0)]
    known += _sound(database.segment_values(txn), lambda row, value: (SegmentRecord.of(value, row).last_row + 1, 0))
    known += _sound(database.snapshot_values(txn), lambda name, value: _of_snapshot(SnapshotRecord.of(value, name)))
    known += _sound(
        database.tombstone_values(txn), lambda row, value: (row + 1, int.from_bytes(unsealed(value, "", row), "big"))
    )
    known += _sound(database.items(txn), _of_item)
    try:
        n_purged = len(database.purged(txn))
    except CorruptStoreError:
        n_purged = 0
    n_rows = n_purged + database.n_entries(txn, "items")  # in a sound store there are no others
    rows = [row + 1 for row, _ in database.items(txn) if row < n_rows]  # damaged ones, too
    return max([*rows[-1:], *(row for row, _ in known)]), max(seq for _, seq in known)


def _sound(entries: Iterable[tuple[N, bytes]], read: Callable[[N, bytes], tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What is read of the entries that are sound."""
    for name, value in entries:
        with suppress(CorruptStoreError):
            yield read(name, value)


def _of_snapshot(snapshot: SnapshotRecord) -> tuple[int, int]:
    return snapshot.next_row, snapshot.seq


def _of_item(row: int, value: bytes) -> tuple[int, int]:
    read_record(value, row)
    return row + 1, created_seq_of(value)


def mended_purged(repair: Repair, found: Survey) -> NDArray[np.bool_]:
    """bool [n_rows], the rows that are gone for good: where their list cannot be read, those without an item and a key."""
    n_rows = len(found.there)
    purged = np.zeros(n_rows, bool)
    for key, value in list(repair.database.raw(repair.txn, "purged")):
        first = int.from_bytes(key, "big")
        try:
            rows = purged_in(first, value)
        except CorruptStoreError:
            repair.note("purged")
            mended = repair.mender.sealed(value, first)
            rows = _without_trace(repair, found, first) if mended is None else purged_in(first, mended)
        if len(rows) and int(rows[-1]) >= n_rows:
            repair.note("purged")
        purged[rows[rows < np.uint64(n_rows)]] = True
    return purged


def _without_trace(repair: Repair, found: Survey, first: int) -> NDArray[np.uint64]:
    """The rows of a chunk that have no item, and to which no key leads."""
    rows = (np.flatnonzero(~found.there[first : first + PURGED_CHUNK]) + first).astype(np.uint64)
    try:
        missing = keys_leading_to(repair.txn, repair.database, rows)
    except CorruptStoreError:
        return rows
    return np.setdiff1d(rows, np.array(sorted(missing), np.uint64))
