"""Tombstones, the log of burials, rows that are gone for good, and snapshots."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.storage.environment import Transaction
from simstore.storage.records import LogEntry, SnapshotRecord, State, row_key, sealed, unsealed
from simstore.storage.tables import Tables

__all__ = ["PURGED_CHUNK", "History", "purged_in"]

LOG_KEPT = 4096  # transactions that another process may lag behind before it reads everything anew
PURGED_CHUNK = 1 << 16  # rows for which one value of ``purged`` has a bit each


def purged_in(first: int, value: bytes) -> NDArray[np.uint64]:
    """The purged rows, ascending, in a value of the table ``purged``, which stands for PURGED_CHUNK rows from first on.

    Raises:
        CorruptStoreError: It is damaged.
    """
    body = np.frombuffer(unsealed(value, f"the list of purged rows from {first} on", first), np.uint8)
    return np.flatnonzero(np.unpackbits(body, bitorder="little")).astype(np.uint64) + np.uint64(first)


class History(Tables):
    """What died when, and which states are remembered."""

    # -- tombstones and log --

    def bury(self, txn: Transaction, rows: Iterable[int], seq: int) -> None:
        """Writes tombstones."""
        with txn.cursor(db=self._tombstones) as cursor:
            cursor.putmulti([(row_key(row), sealed(row_key(seq), row)) for row in sorted(rows)])

    def tombstones(self, txn: Transaction) -> NDArray[np.uint64]:
        """All rows with a tombstone, ascending."""
        with txn.cursor(db=self._tombstones) as cursor:
            return np.frombuffer(b"".join(cursor.iternext(values=False)), ">u8").astype(np.uint64)

    def burials(self, txn: Transaction) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """All rows with a tombstone, ascending, and the seqs that buried them.

        Raises:
            CorruptStoreError: A tombstone is damaged.
        """
        rows, seqs = [], []
        for row, value in self.tombstone_values(txn):
            rows.append(row)
            seqs.append(int.from_bytes(unsealed(value, f"the tombstone of row {row}", row), "big"))
        return np.array(rows, np.uint64), np.array(seqs, np.uint64)

    def tombstone_values(self, txn: Transaction) -> Iterator[tuple[int, bytes]]:
        """Rows with a tombstone and the stored values, ascending."""
        with txn.cursor(db=self._tombstones) as cursor:
            for key, value in cursor:
                yield int.from_bytes(key, "big"), value

    def put_log(self, txn: Transaction, seq: int, entry: LogEntry) -> None:
        """Writes which rows the transaction buried; now and then drops what nobody should need any more."""
        with txn.cursor(db=self._log) as cursor:
            if cursor.first() and int.from_bytes(cursor.key(), "big") <= seq - 2 * LOG_KEPT:
                while cursor.first() and int.from_bytes(cursor.key(), "big") <= seq - LOG_KEPT:
                    cursor.delete()
            cursor.put(row_key(seq), entry.value(seq), append=True)

    def buried_since(self, txn: Transaction, seq: int, state: State) -> list[int] | None:
        """The rows buried after seq, or None if an entry is gone or damaged: the tombstones know them all."""
        rows: list[int] = []
        at = state.log_seq
        while at > seq:
            value = txn.get(row_key(at), db=self._log)
            try:
                entry = None if value is None else LogEntry.of(value, at)
            except CorruptStoreError:
                entry = None
            if entry is None or entry.previous >= at:
                return None
            rows += entry.dead_rows
            at = entry.previous
        return rows

    def log_values(self, txn: Transaction) -> Iterator[tuple[int, bytes]]:
        """Seqs and the stored values of their log entries, ascending."""
        with txn.cursor(db=self._log) as cursor:
            for key, value in cursor:
                yield int.from_bytes(key, "big"), value

    # -- rows whose items are gone for good --

    def purged(self, txn: Transaction) -> NDArray[np.uint64]:
        """All rows that compact() has purged, ascending.

        Raises:
            CorruptStoreError: A chunk of them is damaged.
        """
        if self._purged is None:
            return np.empty(0, np.uint64)
        parts = [np.empty(0, np.uint64)]
        with txn.cursor(db=self._purged) as cursor:
            for key, value in cursor:
                parts.append(purged_in(int.from_bytes(key, "big"), value))
        return np.concatenate(parts)

    def put_purged(self, txn: Transaction, rows: NDArray[np.uint64]) -> None:
        """Has exactly these rows be the purged ones; rows ascend."""
        txn.drop(self._purged, delete=False)
        chunks = rows // np.uint64(PURGED_CHUNK)
        for chunk in np.unique(chunks).tolist():
            first = chunk * PURGED_CHUNK
            bits = np.zeros(PURGED_CHUNK, np.uint8)
            bits[(rows[chunks == chunk] - np.uint64(first)).astype(np.int64)] = 1
            txn.put(row_key(first), sealed(np.packbits(bits, bitorder="little").tobytes(), first), db=self._purged)

    def dead_rows(self, txn: Transaction) -> NDArray[np.uint64]:
        """All rows with a tombstone, and all that have been purged."""
        return np.concatenate([self.purged(txn), self.tombstones(txn)])

    # -- snapshots --

    def snapshots(self, txn: Transaction) -> list[SnapshotRecord]:
        """All snapshots, oldest first.

        Raises:
            CorruptStoreError: One is damaged.
        """
        found = [SnapshotRecord.of(value, name) for name, value in self.snapshot_values(txn)]
        return sorted(found, key=lambda snapshot: snapshot.seq)

    def snapshot_values(self, txn: Transaction) -> Iterator[tuple[str, bytes]]:
        """Names and the stored records of their snapshots."""
        if self._snapshots is not None:
            with txn.cursor(db=self._snapshots) as cursor:
                for key, value in cursor:
                    yield key.decode("utf-8", "replace"), value

    def snapshot_named(self, txn: Transaction, name: str) -> SnapshotRecord | None:
        """The snapshot of that name, or None."""
        value = None if self._snapshots is None else txn.get(name.encode(), db=self._snapshots)
        return None if value is None else SnapshotRecord.of(value, name)

    def put_snapshot(self, txn: Transaction, snapshot: SnapshotRecord) -> None:
        """Remembers a state."""
        txn.put(snapshot.name.encode(), snapshot.value(), db=self._snapshots)

    def drop_snapshot(self, txn: Transaction, name: str) -> None:
        """Forgets a snapshot."""
        txn.delete(name.encode(), db=self._snapshots)
