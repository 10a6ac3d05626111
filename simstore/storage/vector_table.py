"""The table of vectors, and the vectors that items carry themselves."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.storage.environment import Transaction
from simstore.storage.records import (
    own_vector,
    read_record,
    record_bytes,
    row_key,
    rows_per_run,
    split_records,
    vector_checksum,
    vector_records,
)
from simstore.storage.tables import Tables

__all__ = ["VectorTable"]

_ROWS_AT_ONCE = 4096


class VectorTable(Tables):
    """Vectors by row, exactly as they were given."""

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

    def vectors_of(self, txn: Transaction, rows: NDArray[np.uint64], dim: int) -> NDArray[np.float32]:
        """The vectors of ascending rows, [len(rows), dim].

        Raises:
            CorruptStoreError: One is missing or damaged.
        """
        out = np.empty((len(rows), dim), np.float32)
        at = 0
        while at < len(rows):
            first = int(rows[at])
            end = int(np.searchsorted(rows, first + _ROWS_AT_ONCE))
            places = (rows[at:end] - np.uint64(first)).astype(np.int64)
            needed = np.zeros(int(places[-1]) + 1, bool)
            needed[places] = True
            out[at:end] = self.vectors(txn, first, first + len(needed), dim, needed)[places]
            at = end
        return out

    def refuse_damage(self, txn: Transaction, damaged: NDArray[np.bool_], first_row: int) -> None:
        """Raises CorruptStoreError if any of the vectors from first_row on is damaged; names the first."""
        if damaged.any():
            raise CorruptStoreError(
                f"{self.damaged_vector(txn, first_row + int(np.argmax(damaged)))}: check(deep=True) lists all damage; "
                "repair(), delete that item or upsert it again, or restore the store from a backup"
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
            if len(value) % record_bytes(dim):  # an earlier epoch's, which ends before these rows; or damaged
                continue
            vectors, checksums = split_records(value, dim)
            start, end = max(first_row, run_row), min(stop, run_row + len(vectors))
            if start >= end:
                continue
            part, inside = slice(start - first_row, end - first_row), slice(start - run_row, end - run_row)
            differ = [
                vector_checksum(vector.data, start + i) != checksum
                for i, (vector, checksum) in enumerate(zip(vectors[inside], checksums[inside].tolist(), strict=True))
            ]
            if any(differ):  # it may be another run's place that a damaged key names
                good = ~np.array(differ)
                out[part][good] = vectors[inside][good]
                damaged[part] &= differ
            else:
                out[part] = vectors[inside]
                damaged[part] = False
        for i in np.flatnonzero(damaged).tolist():
            vector = self._own_vector(txn, first_row + i)
            if vector is not None and len(vector) == dim:
                out[i], damaged[i] = vector, False
        return out, damaged

    def vector_record(self, txn: Transaction, row: int, dim: int) -> bytes:
        """The record of a row's vector as it is stored in a run; empty if there is none, shorter if it is cut off."""
        size = record_bytes(dim)
        for run_row, value in self._runs(txn, row, row + 1):
            if record := value[(row - run_row) * size : (row - run_row + 1) * size]:
                return record
        return b""

    def put_vector_record(self, txn: Transaction, row: int, record: bytes) -> None:
        """Replaces the record of a row's vector, in its run; one that has no place gets a run of its own."""
        for run_row, value in list(self._runs(txn, row, row + 1)):
            at = (row - run_row) * len(record)
            if at < len(value):
                txn.put(row_key(run_row), value[:at] + record + value[at + len(record) :], db=self._vectors)
                return
        txn.put(row_key(row), record, db=self._vectors)

    def _own_vector(self, txn: Transaction, row: int) -> NDArray[np.float32] | None:
        """The vector that an item carries itself, if it does and is sound."""
        try:
            return own_vector(self.item(txn, row), row)
        except CorruptStoreError:
            return None

    def _append_vectors(self, txn: Transaction, vectors: NDArray[np.float32], first_row: int) -> None:
        records = vector_records(vectors, first_row)
        step = rows_per_run(vectors.shape[1])
        with txn.cursor(db=self._vectors) as cursor:
            cursor.putmulti(
                [(row_key(first_row + at), records[at : at + step].tobytes()) for at in range(0, len(records), step)],
                append=True,
            )
