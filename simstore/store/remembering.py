"""Snapshots, within one transaction: taking, dropping, restoring and comparing them."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, count

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError, SnapshotExistsError, SnapshotNotFoundError
from simstore.reports import Difference, Restored
from simstore.storage import Database, Schema, SnapshotRecord, State, Transaction, steps
from simstore.storage.records import Record
from simstore.store.arguments import NOW
from simstore.store.bitmap import Bitmap
from simstore.store.rewriting import append_rows, begin_epoch, bury_rows, copies
from simstore.store.visibility import alive_at
from simstore.types import Key

__all__ = ["difference", "drop", "restore", "take"]


def take(txn: Transaction, database: Database, name: str, note: str, now_s: float) -> SnapshotRecord:
    """Remembers the present state under a name.

    Raises:
        SnapshotExistsError: Another snapshot has that name.
    """
    if database.snapshot_named(txn, name) is not None:
        raise SnapshotExistsError(f"there is a snapshot {name!r} already: delete_snapshot it first, or choose another name")
    state = database.state(txn)
    snapshot = _of_now(txn, database, name, note, now_s)
    database.put_snapshot(txn, snapshot)
    database.put_state(txn, replace(state, seq=state.seq + 1, snapshots_seq=state.seq + 1))
    steps.reached("snapshot.put")
    return snapshot


def _of_now(txn: Transaction, database: Database, name: str, note: str, now_s: float) -> SnapshotRecord:
    state, schema = database.state(txn), database.schema(txn)
    return SnapshotRecord(
        name, state.seq, state.next_row, state.n_live, schema.epoch_row, now_s, note, schema.dim, schema.embedder
    )


def drop(txn: Transaction, database: Database, name: str) -> None:
    """Forgets a snapshot.

    Raises:
        SnapshotNotFoundError: There is none of that name.
    """
    if name not in dict(database.snapshot_values(txn)):  # a damaged one may be dropped
        raise not_found(txn, database, name)
    state = database.state(txn)
    database.drop_snapshot(txn, name)
    database.put_state(txn, replace(state, seq=state.seq + 1, snapshots_seq=state.seq + 1))


def not_found(txn: Transaction, database: Database, name: str) -> SnapshotNotFoundError:
    """The error for a name that no snapshot has."""
    there = ", ".join(repr(other) for other, _ in database.snapshot_values(txn)) or "none"
    return SnapshotNotFoundError(f"there is no snapshot {name!r}; there are: {there}")


def named(txn: Transaction, database: Database, name: str) -> SnapshotRecord:
    """The snapshot of that name.

    Raises:
        SnapshotNotFoundError: There is none.
    """
    snapshot = database.snapshot_named(txn, name)
    if snapshot is None:
        raise not_found(txn, database, name)
    return snapshot


# -- restore -----------------------------------------------------------------------------------------------------------


def restore(txn: Transaction, database: Database, name: str, now_s: float) -> Restored:
    """Makes a snapshot's state the present, and remembers the state before.

    Rows stay dead once they have died: what the snapshot sees and the present does not is written anew.

    Raises:
        SnapshotNotFoundError: There is none of that name.
        CorruptStoreError: What is to be written anew is damaged.
    """
    snapshot, state, schema = named(txn, database, name), database.state(txn), database.schema(txn)
    then, now = alive_at(txn, database, snapshot), _alive_now(txn, database, state)
    rows_then, rows_now = then.rows(0, snapshot.next_row), now.rows(0, state.next_row)
    is_same = _is_same_epoch(snapshot, schema)
    lost, extra = rows_then, rows_now
    if is_same:
        lost, extra = np.setdiff1d(rows_then, rows_now), np.setdiff1d(rows_now, rows_then)
        lost, extra = _without_equal(txn, database, lost, extra, snapshot.dim or 0)
    before = _of_now(txn, database, _undo_name(txn, database, name), f"what restore({name!r}) replaced", now_s)
    database.put_snapshot(txn, before)
    vectors = partial(database.vectors_of, txn, dim=snapshot.dim or 0)
    next_row = append_rows(txn, database, state, copies(txn, database, lost, vectors))
    steps.reached("restore.appended")
    log_seq = bury_rows(txn, database, state, extra)
    if not is_same:
        begin_epoch(txn, database, state, snapshot.dim, snapshot.embedder)
    seq = state.seq + 1
    database.put_state(
        txn, replace(state, seq=seq, next_row=next_row, n_live=snapshot.n_live, snapshots_seq=seq, log_seq=log_seq)
    )
    steps.reached("restore.put")
    return Restored(undo=before.name, n_restored=len(lost), n_removed=len(extra))


def _without_equal(
    txn: Transaction, database: Database, lost: NDArray[np.uint64], extra: NDArray[np.uint64], dim: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The rows without those that hold the same item: it was written anew, and stays."""
    there, equal = _by_key(txn, database, extra, sound_only=True), []
    for key, (row, record) in _by_key(txn, database, lost).items():
        if key in there and there[key][1] == record:
            with suppress(CorruptStoreError):  # a damaged vector equals none
                if _same_vector(txn, database, row, there[key][0], dim):
                    equal.append((row, there[key][0]))
    pairs = np.array(equal, np.uint64).reshape(-1, 2)
    return np.setdiff1d(lost, pairs[:, 0]), np.setdiff1d(extra, pairs[:, 1])


def _undo_name(txn: Transaction, database: Database, name: str) -> str:
    taken = {other for other, _ in database.snapshot_values(txn)}
    base = f"before-restore-{name}".encode()[:150].decode("utf-8", "ignore")
    candidates = chain([base], (f"{base}-{i}" for i in count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _is_same_epoch(snapshot: SnapshotRecord, schema: Schema) -> bool:
    """Whether the vectors of a snapshot's rows are of the present kind.

    Epochs without rows begin where the next one does, and differ in width or embedder. The first vectors settle the width, and
    an embedder may be given later: what a snapshot did not know yet is no difference.
    """
    if snapshot.first_row != schema.epoch_row or snapshot.dim not in (None, schema.dim):
        return False
    return snapshot.embedder is None or snapshot.embedder["fingerprint"] == schema.fingerprint


def _alive_now(txn: Transaction, database: Database, state: State) -> Bitmap:
    return Bitmap.of(state.next_row, database.dead_rows(txn)).closed(state.next_row)


# -- diff --------------------------------------------------------------------------------------------------------------


def difference(txn: Transaction, database: Database, a: str, b: str) -> Difference:
    """Which keys the state b has and a has not, and the other way round, and which have another label, data or vector.

    Raises:
        SnapshotNotFoundError: There is no snapshot of one of the names.
    """
    (rows_a, dim_a), (rows_b, dim_b) = _rows_at(txn, database, a), _rows_at(txn, database, b)
    only_a = _by_key(txn, database, np.setdiff1d(rows_a, rows_b))
    only_b = _by_key(txn, database, np.setdiff1d(rows_b, rows_a))
    changed = [
        key
        for key, (row, record) in only_b.items()
        if key in only_a
        and not (only_a[key][1] == record and dim_a == dim_b and _same_vector(txn, database, only_a[key][0], row, dim_a))
    ]
    return Difference(
        added=[_plain(key) for key in only_b if key not in only_a],
        changed=[_plain(key) for key in changed],
        deleted=[_plain(key) for key in only_a if key not in only_b],
    )


_Typed = tuple[type, Key]  # 1 and "1" are two keys, and so would be 1 and True


def _plain(key: _Typed) -> Key:
    return key[1]


def _rows_at(txn: Transaction, database: Database, name: str) -> tuple[NDArray[np.uint64], int]:
    """The rows that a state sees, ascending, and the width of their vectors."""
    if name == NOW:
        state = database.state(txn)
        return _alive_now(txn, database, state).rows(0, state.next_row), database.schema(txn).dim or 0
    snapshot = named(txn, database, name)
    return alive_at(txn, database, snapshot).rows(0, snapshot.next_row), snapshot.dim or 0


def _by_key(
    txn: Transaction, database: Database, rows: NDArray[np.uint64], *, sound_only: bool = False
) -> dict[_Typed, tuple[int, Record]]:
    found = {}
    for row in rows.tolist():
        try:
            (record,) = database.records(txn, [row])
        except CorruptStoreError:
            if sound_only:
                continue
            raise
        found[type(record[0]), record[0]] = row, record
    return found


def _same_vector(txn: Transaction, database: Database, row_a: int, row_b: int, dim: int) -> bool:
    return database.vector(txn, row_a, dim).tobytes() == database.vector(txn, row_b, dim).tobytes()
