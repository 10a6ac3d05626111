"""The tables of a store in LMDB, and what is read from and written to them within one transaction. FORMAT.md has the bytes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError, FormatVersionError
from simstore.storage.encoding import decode_key, encode_key
from simstore.storage.environment import Environment, Transaction
from simstore.storage.records import (
    U64,
    LogEntry,
    Record,
    SegmentRecord,
    State,
    item_body,
    item_value,
    own_vector,
    read_record,
    row_key,
    rows_per_run,
    sealed,
    split_records,
    unsealed,
    vector_checksum,
    vector_records,
)

__all__ = ["FORMAT_VERSION", "Database", "NewRows", "Schema"]

FORMAT_VERSION = 1
LOG_KEPT = 4096  # transactions that another process may lag behind before it reads everything anew
_OWN_VECTOR_BYTES = 1024
_SCHEMA, _STATE = b"schema", b"state"


@dataclass(frozen=True, slots=True)
class Schema:
    """What does not change from one transaction to the next."""

    format: int
    uuid: str
    dim: int | None
    metric: str
    M: int
    ef_construction: int
    embedder: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows to append: an encoded key, an encoded label (or None) and a record for each vector."""

    keys: Sequence[bytes]
    labels: Sequence[bytes | None]
    records: Sequence[Record]
    vectors: NDArray[np.float32]


class Database:
    """The tables. Every method works within the transaction it is given."""

    def __init__(self, environment: Environment, *, create: bool = False) -> None:
        self._schema: tuple[bytes, Any] = b"", None  # the last one read, and its bytes
        table = environment.table
        self._vectors = table("vectors", create=create)
        self._items = table("items", create=create)
        self._keys = table("keys", create=create, duplicates=True)
        self._labels = table("labels", create=create, duplicates=True)
        self._tombstones = table("tombstones", create=create)
        self._log = table("log", create=create)
        self._segments = table("segments", create=create)

    # -- meta: in LMDB's unnamed database, whose page every commit writes anyway --

    def schema(self, txn: Transaction) -> Schema:
        """The store's schema."""
        value = txn.get(_SCHEMA)
        if value is None:
            raise CorruptStoreError("the database has no schema: it is no simstore database, or damaged")
        known: Schema
        raw, known = self._schema
        if value == raw:
            return known
        fields = msgpack.unpackb(unsealed(value, "the store's schema"))
        if fields["format"] > FORMAT_VERSION:
            raise FormatVersionError(
                f"the store has format {fields['format']}; this simstore reads up to {FORMAT_VERSION}: upgrade simstore"
            )
        known = Schema(**fields)
        self._schema = value, known
        return known

    def put_schema(self, txn: Transaction, schema: Schema) -> None:
        """Replaces the schema."""
        txn.put(_SCHEMA, sealed(msgpack.packb(asdict(schema))))

    def begin(self, txn: Transaction, schema: Schema) -> None:
        """Writes the schema and the state of a new store."""
        self.put_schema(txn, schema)
        self.put_state(txn, State())

    def state(self, txn: Transaction) -> State:
        """The state after the newest transaction."""
        value = txn.get(_STATE)
        if value is None:
            raise CorruptStoreError("the store's state is missing: restore the store from a backup")
        return State.of(value)

    def raw_state(self, txn: Transaction) -> bytes | None:
        """The state's bytes: equal bytes are the same state."""
        value: bytes | None = txn.get(_STATE)
        return value

    def put_state(self, txn: Transaction, state: State) -> None:
        """Replaces the state."""
        txn.put(_STATE, state.value())

    # -- rows --

    def rows_of(self, txn: Transaction, key: bytes) -> list[int]:
        """All rows that a key ever had, ascending."""
        with txn.cursor(db=self._keys) as cursor:
            if not cursor.set_key(key):
                return []
            return [int.from_bytes(value, "big") for value in cursor.iternext_dup()]

    def live_rows(self, txn: Transaction, keys: Sequence[bytes]) -> list[int | None]:
        """The live row of each key, or None."""
        found: list[int | None] = []
        with txn.cursor(db=self._keys) as cursor:
            for key in keys:
                row = None
                if cursor.set_key(key) and cursor.last_dup():
                    newest = cursor.value()
                    if len(newest) != len(row_key(0)):
                        raise CorruptStoreError(f"the entry of key {key!r} is damaged: store.check() lists what else is")
                    if txn.get(newest, db=self._tombstones) is None:
                        row = int.from_bytes(newest, "big")
                found.append(row)
        return found

    def verified_rows(self, txn: Transaction, keys: Sequence[bytes]) -> list[int | None]:
        """The live row of each key, or None; as ``live_rows``, and each is seen to hold an item of that key, or a damaged one.

        Raises:
            CorruptStoreError: A key leads to another key's item.
        """
        rows = self.live_rows(txn, keys)
        for encoded, row in zip(keys, rows, strict=True):
            if row is None:
                continue
            try:
                key = read_record(self.item(txn, row), row)[0]
            except CorruptStoreError:
                continue  # it may be deleted, or replaced
            if encode_key(key) != encoded:
                raise CorruptStoreError(
                    f"key {decode_key(encoded)!r} leads to the item of {key!r}: store.check() lists what else is damaged"
                )
        return rows

    def has_label(self, txn: Transaction, label: bytes, row: int) -> bool:
        """Whether a label's postings hold the row."""
        with txn.cursor(db=self._labels) as cursor:
            return bool(cursor.set_key_dup(label, row_key(row)))

    def item(self, txn: Transaction, row: int) -> bytes:
        """The stored value of a row's item."""
        value: bytes | None = txn.get(row_key(row), db=self._items)
        if value is None:
            raise CorruptStoreError(f"the item in row {row} is missing: store.check() lists what else is")
        return value

    def records(self, txn: Transaction, rows: Iterable[int]) -> list[Record]:
        """Key, label and packed data of the items in rows.

        Raises:
            CorruptStoreError: One is damaged or missing.
        """
        get, table, key_of = txn.get, self._items, U64.pack
        records = []
        for row in rows:
            value = get(key_of(row), None, table)
            records.append(read_record(self.item(txn, row) if value is None else value, row))
        return records

    def items(self, txn: Transaction, first_row: int = 0) -> Iterator[tuple[int, bytes]]:
        """Rows and their items' stored values, ascending from first_row."""
        with txn.cursor(db=self._items) as cursor:
            if cursor.set_range(row_key(first_row)):
                for key, value in cursor:
                    yield int.from_bytes(key, "big"), value

    def _runs(self, txn: Transaction, first_row: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """The values of vectors that hold rows of first_row … stop - 1, each with its own first row."""
        with txn.cursor(db=self._vectors) as cursor:
            at = row_key(first_row)
            found = cursor.set_range(at)
            if not found:
                found = cursor.last()
            elif cursor.key() != at:  # the run before may reach this far
                found = cursor.prev() or cursor.first()
            while found:
                run_row = int.from_bytes(cursor.key(), "big")
                if run_row >= stop:
                    return
                yield run_row, cursor.value()
                found = cursor.next()

    def vector(self, txn: Transaction, row: int, dim: int) -> NDArray[np.float32]:
        """A row's vector, read-only."""
        vector: NDArray[np.float32] = self.vectors(txn, row, row + 1, dim)[0]
        vector.flags.writeable = False
        return vector

    def vectors(
        self, txn: Transaction, first_row: int, stop: int, dim: int, needed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """The vectors of rows first_row … stop - 1, [stop - first_row, dim].

        Args:
            needed: Rows that are False here may come back as anything; all are needed by default.

        Raises:
            CorruptStoreError: A needed vector is missing or damaged.
        """
        vectors, damaged = self.vectors_and_damage(txn, first_row, stop, dim)
        self.refuse_damage(txn, damaged if needed is None else damaged & needed, first_row)
        return vectors

    def refuse_damage(self, txn: Transaction, damaged: NDArray[np.bool_], first_row: int) -> None:
        """Raises CorruptStoreError if any of the vectors from first_row on is damaged; names the first."""
        if damaged.any():
            raise CorruptStoreError(
                f"{self.damaged_vector(txn, first_row + int(np.argmax(damaged)))}: store.check() lists what else is; "
                "delete that item or upsert it again, or restore the store from a backup"
            )

    def damaged_vector(self, txn: Transaction, row: int) -> str:
        """What to say of a damaged vector."""
        try:
            of = f"of key {read_record(self.item(txn, row), row)[0]!r} (row {row})"
        except CorruptStoreError:
            of = f"in row {row}"
        return f"the vector {of} is missing or damaged (its checksum does not match)"

    def vectors_and_damage(
        self, txn: Transaction, first_row: int, stop: int, dim: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The vectors of rows first_row … stop - 1, [stop - first_row, dim], and whether each is missing or damaged."""
        out = np.zeros((stop - first_row, dim), np.float32)
        damaged = np.ones(stop - first_row, bool)
        for run_row, value in self._runs(txn, first_row, stop):
            vectors, checksums = split_records(value, dim)
            start, end = max(first_row, run_row), min(stop, run_row + len(vectors))
            if start >= end:
                continue
            part = slice(start - first_row, end - first_row)
            out[part] = vectors[start - run_row : end - run_row]
            stored = checksums[start - run_row : end - run_row].tolist()
            damaged[part] = [
                vector_checksum(vector.data, start + i) != checksum
                for i, (vector, checksum) in enumerate(zip(out[part], stored, strict=True))
            ]
        for i in np.flatnonzero(damaged).tolist():
            vector = self._own_vector(txn, first_row + i)
            if vector is not None and len(vector) == dim:
                out[i], damaged[i] = vector, False
        return out, damaged

    def _own_vector(self, txn: Transaction, row: int) -> NDArray[np.float32] | None:
        """The vector that an item carries itself, if it does and is sound."""
        try:
            return own_vector(self.item(txn, row), row)
        except CorruptStoreError:
            return None

    def append(self, txn: Transaction, rows: NewRows, first_row: int, seq: int) -> None:
        """Writes new rows from first_row on."""
        n = len(rows.keys)
        carries_vector = n == 1 and rows.vectors.nbytes <= _OWN_VECTOR_BYTES
        row_keys = [row_key(row) for row in range(first_row, first_row + n)]
        created = row_key(seq)
        with txn.cursor(db=self._items) as cursor:
            cursor.putmulti(
                [
                    (key, item_value(item_body(record, rows.vectors[0] if carries_vector else None), created, first_row + i))
                    for i, (key, record) in enumerate(zip(row_keys, rows.records, strict=True))
                ],
                append=True,
            )
        if not carries_vector:
            self._append_vectors(txn, rows.vectors, first_row)
        labels = [(label, key) for label, key in zip(rows.labels, row_keys, strict=True) if label is not None]
        for table, entries in ((self._keys, list(zip(rows.keys, row_keys, strict=True))), (self._labels, labels)):
            if entries:
                with txn.cursor(db=table) as cursor:
                    cursor.putmulti(sorted(entries))

    def _append_vectors(self, txn: Transaction, vectors: NDArray[np.float32], first_row: int) -> None:
        records = vector_records(vectors, first_row)
        step = rows_per_run(vectors.shape[1])
        with txn.cursor(db=self._vectors) as cursor:
            cursor.putmulti(
                [(row_key(first_row + at), records[at : at + step].tobytes()) for at in range(0, len(records), step)],
                append=True,
            )

    # -- tombstones and log --

    def bury(self, txn: Transaction, rows: Iterable[int], seq: int) -> None:
        """Writes tombstones."""
        with txn.cursor(db=self._tombstones) as cursor:
            cursor.putmulti([(row_key(row), sealed(row_key(seq), row)) for row in sorted(rows)])

    def tombstones(self, txn: Transaction) -> NDArray[np.uint64]:
        """All rows with a tombstone, ascending."""
        with txn.cursor(db=self._tombstones) as cursor:
            return np.frombuffer(b"".join(cursor.iternext(values=False)), ">u8").astype(np.uint64)

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

    # -- labels and keys, whole --

    def postings(self, txn: Transaction, table: str) -> Iterator[tuple[bytes, NDArray[np.uint64]]]:
        """Each entry of "labels" or "keys" with its rows, ascending."""
        with txn.cursor(db=self._labels if table == "labels" else self._keys) as cursor:
            found = cursor.first()
            while found:
                key, rows = cursor.key(), b"".join(cursor.iternext_dup())
                yield key, np.frombuffer(rows, ">u8").astype(np.uint64)
                found = cursor.next_nodup()

    # -- segments --

    def segments(self, txn: Transaction) -> list[SegmentRecord]:
        """The records of all segments, by first row. A damaged one is left out: its rows are as if it had never been built."""
        records = []
        for first_row, value in self.segment_values(txn):
            with suppress(CorruptStoreError):
                records.append(SegmentRecord.of(value, first_row))
        return records

    def segment_values(self, txn: Transaction) -> Iterator[tuple[int, bytes]]:
        """First rows and the stored records of their segments, ascending."""
        with txn.cursor(db=self._segments) as cursor:
            for key, value in cursor:
                yield int.from_bytes(key, "big"), value

    def put_segment(self, txn: Transaction, record: SegmentRecord) -> None:
        """Names a segment and retires all that start within its rows."""
        with txn.cursor(db=self._segments) as cursor:
            while cursor.set_range(row_key(record.first_row)) and int.from_bytes(cursor.key(), "big") <= record.last_row:
                cursor.delete()
            cursor.put(row_key(record.first_row), record.value())
