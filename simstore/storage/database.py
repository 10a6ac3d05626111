"""What is read from and written to a store's tables within one transaction. FORMAT.md has the bytes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.storage.encoding import decode_key, encode_key, unpack
from simstore.storage.environment import Environment, Transaction
from simstore.storage.field_table import FieldTable
from simstore.storage.history import History
from simstore.storage.records import U64, Record, State, item_body, item_value, read_record, row_key
from simstore.storage.rejected_table import RejectedTable
from simstore.storage.schema import Schema
from simstore.storage.segment_table import SegmentTable
from simstore.storage.staging_table import StagingTable
from simstore.storage.vector_table import VectorTable
from simstore.where.paths import value_at
from simstore.where.postings import terms_of

__all__ = ["Database", "NewRows"]

_OWN_VECTOR_BYTES = 1024
_SCHEMA, _STATE = b"schema", b"state"


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows to append: an encoded key, an encoded label (or None) and a record for each vector."""

    keys: Sequence[bytes]
    labels: Sequence[bytes | None]
    records: Sequence[Record]
    vectors: NDArray[np.float32]


class Database(VectorTable, History, SegmentTable, FieldTable, StagingTable, RejectedTable):
    """The tables. Every method works within the transaction it is given."""

    def __init__(self, environment: Environment, *, create: bool = False, readonly: bool = False) -> None:
        super().__init__(environment, create=create, readonly=readonly)
        self._schema: tuple[bytes, Any] = b"", None  # the last one read, and its bytes

    # -- meta: in LMDB's unnamed database, whose page every commit writes anyway --

    def schema(self, txn: Transaction) -> Schema:
        """The store's schema."""
        value = txn.get(_SCHEMA)
        if value is None:
            raise CorruptStoreError("the database has no schema: it is no simstore database, or damaged")
        known: Schema
        raw, known = self._schema
        if value != raw:
            known = Schema.of(value)
            if not self.has_fields:  # opened to be read, before there was an index: items are looked at then
                known = replace(known, indexed=())
            self._schema = value, known
        return known

    def put_schema(self, txn: Transaction, schema: Schema) -> None:
        """Replaces the schema."""
        txn.put(_SCHEMA, schema.value())

    def change_schema(self, txn: Transaction, schema: Schema) -> None:
        """Replaces the schema as a transaction of its own."""
        state = self.state(txn)
        self.put_schema(txn, schema)
        self.put_state(txn, replace(state, seq=state.seq + 1))

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
                        raise CorruptStoreError(
                            f"the entry of key {key!r} is damaged: check(deep=True) lists all damage, repair() mends it"
                        )
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
            if row is not None:
                self.verify_row(txn, encoded, row)
        return rows

    def verify_row(self, txn: Transaction, encoded: bytes, row: int) -> None:
        """Raises CorruptStoreError if the row holds another key's item; a damaged one passes: it may be deleted or replaced."""
        try:
            key = read_record(self.item(txn, row), row)[0]
        except CorruptStoreError:
            return
        if encode_key(key) != encoded:
            raise CorruptStoreError(
                f"key {decode_key(encoded)!r} leads to the item of {key!r}: "
                "check(deep=True) lists all damage, repair() mends it"
            )

    def has_label(self, txn: Transaction, label: bytes, row: int) -> bool:
        """Whether a label's postings hold the row."""
        with txn.cursor(db=self._labels) as cursor:
            return bool(cursor.set_key_dup(label, row_key(row)))

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
                    if len(key) != len(row_key(0)):
                        raise CorruptStoreError(
                            "the size of a key is damaged: check(deep=True) lists all damage, repair() mends it"
                        )
                    yield int.from_bytes(key, "big"), value

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
        self._append_terms(txn, rows.records, row_keys)
        for table, entries in ((self._keys, list(zip(rows.keys, row_keys, strict=True))), (self._labels, labels)):
            if entries:
                with txn.cursor(db=table) as cursor:
                    cursor.putmulti(sorted(entries))

    def _append_terms(self, txn: Transaction, records: Sequence[Record], row_keys: Sequence[bytes]) -> None:
        """Lists new rows under the values of the indexed fields."""
        fields = self.schema(txn).indexed
        if not fields:
            return
        terms: dict[int, list[tuple[bytes, bytes]]] = {field.number: [] for field in fields}
        for (_, _, packed), row in zip(records, row_keys, strict=True):
            data = unpack(packed)
            for field in fields:
                terms[field.number] += ((term, row) for term in terms_of(value_at(data, field.path)))
        for number, entries in terms.items():
            if entries:
                self.add_terms(txn, number, entries)
