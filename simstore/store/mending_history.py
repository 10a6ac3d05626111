"""repair(): tombstones and snapshots."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from simstore.errors import CorruptStoreError
from simstore.storage import SnapshotRecord, State
from simstore.storage.records import created_seq_of, row_key, sealed, unsealed
from simstore.store.checking import logged_burials
from simstore.store.repair_base import Repair
from simstore.store.survey import Survey
from simstore.store.visibility import alive_at

__all__ = ["mend_counts", "mend_snapshots", "mend_tombstones"]

# -- tombstones --------------------------------------------------------------------------------------------------------


def mend_tombstones(repair: Repair, state: State, found: Survey, purged: NDArray[np.bool_]) -> None:
    """Sets tombstones right, and writes those that are missing: of rows that the log names, or whose key has a newer row."""
    txn, database, n_rows = repair.txn, repair.database, state.next_row
    logged = logged_burials(txn, database)
    stored = list(database.tombstone_values(txn))
    seqs, unsure = _read(repair, stored, n_rows)
    for row in unsure:
        if row < n_rows and row not in seqs and (seq := logged.get(row) or _replaced_in(repair, found, row)):
            seqs[row] = seq
    unknown = [row for row in unsure if row < n_rows and row not in seqs]
    seqs |= {row: seq for row, seq in logged.items() if row < n_rows and row not in seqs}
    for row in _undead(repair, found, purged, seqs, unknown):
        seqs[row] = _replaced_in(repair, found, row) or state.seq
    seqs |= _told_by_snapshots(repair, purged, seqs, unknown, state.seq)
    seqs = {row: seq for row, seq in seqs.items() if not purged[row]}
    wanted = {row: sealed(row_key(seq), row) for row, seq in seqs.items()}
    for row, value in stored:
        if wanted.get(row) != value:
            database.drop_entry(txn, "tombstones", row_key(row))
            repair.note("tombstones")
    there = dict(stored)
    for row, value in wanted.items():
        if there.get(row) != value:
            database.put_entry(txn, "tombstones", row_key(row), value)
            repair.note("tombstones")
    repair.seen(max(seqs.values(), default=0))


def _read(repair: Repair, stored: list[tuple[int, bytes]], n_rows: int) -> tuple[dict[int, int], list[int]]:
    """The seqs of sound tombstones, and of those that a single bit sets right, by row; and the rows of the others."""
    seqs: dict[int, int] = {}
    unsure = []
    for row, value in stored:
        at = row
        try:
            body = unsealed(value, "", row)
        except CorruptStoreError:
            other = repair.mender.seed(value, row)
            mended = value if other is not None else repair.mender.sealed(value, row)
            if mended is None:
                unsure.append(row)
                continue
            at, body = row if other is None else other, mended[8:]
        if at < n_rows:
            seqs[at] = int.from_bytes(body, "big")
    return seqs, unsure


def _replaced_in(repair: Repair, found: Survey, row: int) -> int | None:
    """The seq in which a row's key got its next row, if it did."""
    hashes = found.expected["keys"]
    if not found.sound[row]:
        return None
    later = np.flatnonzero(hashes[row + 1 :] == hashes[row])
    return created_seq_of(repair.database.item(repair.txn, row + 1 + int(later[0]))) if len(later) else None


def _told_by_snapshots(
    repair: Repair, purged: NDArray[np.bool_], seqs: dict[int, int], unknown: list[int], newest: int
) -> dict[int, int]:
    """When rows died of which nobody else knows: before the first snapshot that has as many items without them as it should."""
    told: dict[int, int] = {}
    dead, died = np.array(list(seqs), np.int64), np.array(list(seqs.values()), np.uint64)
    sound = [_sound(name, value) for name, value in repair.database.raw(repair.txn, "snapshots")] if unknown else []
    for snapshot in sorted((record for record in sound if record is not None), key=lambda record: record.seq):
        here = [row for row in unknown if row < snapshot.next_row and row not in told]
        gone = purged[: snapshot.next_row].copy()
        gone[dead[(died <= np.uint64(snapshot.seq)) & (dead < snapshot.next_row)]] = True
        gone[[*here, *(row for row in told if row < snapshot.next_row)]] = True
        if int((~gone).sum()) == snapshot.n_live:
            told.update(dict.fromkeys(here, snapshot.seq))
    return dict.fromkeys(unknown, newest) | told


def _undead(repair: Repair, found: Survey, purged: NDArray[np.bool_], seqs: dict[int, int], unknown: list[int]) -> list[int]:
    """The rows without a tombstone that cannot be alive: their key has a newer row, or they are of a past epoch."""
    alive = ~purged
    alive[[*seqs, *unknown]] = False
    cannot = found.superseded()
    cannot[: repair.database.schema(repair.txn).epoch_row] = True
    rows: list[int] = np.flatnonzero(alive & cannot).tolist()
    return rows


# -- snapshots ---------------------------------------------------------------------------------------------------------


def mend_snapshots(repair: Repair) -> None:
    """Sets snapshots' records right where a single bit does; the others stay, since nobody knows what they see."""
    for name, value in list(repair.database.raw(repair.txn, "snapshots")):
        record = _sound(name, value)
        if record is None:
            seed = xxh3_64_intdigest(name)
            mended = _renamed(name, value) or (name, repair.mender.sealed(value, seed))
            if mended[1] is None:
                continue
            record = _sound(mended[0], mended[1])
            if record is None:
                continue
            repair.database.drop_entry(repair.txn, "snapshots", name)
            repair.database.put_snapshot(repair.txn, record)
            repair.note(f"snapshot {record.name!r}")
        repair.seen(record.seq)


def _sound(name: bytes, value: bytes) -> SnapshotRecord | None:
    try:
        return SnapshotRecord.of(value, name.decode())
    except (CorruptStoreError, UnicodeDecodeError):
        return None


def _renamed(name: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    """The name one bit from the given one under which a record is sound."""
    for at in range(len(name)):
        for bit in range(8):
            other = name[:at] + bytes([name[at] ^ 1 << bit]) + name[at + 1 :]
            if _sound(other, value) is not None:
                return other, value
    return None


def mend_counts(repair: Repair) -> None:
    """Has each snapshot know how many rows it sees, now that some have been taken out."""
    for name, value in list(repair.database.raw(repair.txn, "snapshots")):
        record = _sound(name, value)
        if record is None:
            continue
        seen = alive_at(repair.txn, repair.database, record).count(record.first_row, record.next_row)
        if seen != record.n_live:
            repair.database.put_snapshot(repair.txn, replace(record, n_live=seen))
            repair.note(f"snapshot {record.name!r}")
