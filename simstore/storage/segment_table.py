"""The table that names the segments' files."""

from collections.abc import Iterator
from contextlib import suppress

from simstore.errors import CorruptStoreError
from simstore.storage.environment import Transaction
from simstore.storage.records import SegmentRecord, row_key
from simstore.storage.tables import Tables

__all__ = ["SegmentTable"]


class SegmentTable(Tables):
    """What LMDB knows of the segments."""

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

    def drop_segment(self, txn: Transaction, first_row: int) -> None:
        """Retires the segment that starts at a row."""
        txn.delete(row_key(first_row), db=self._segments)
