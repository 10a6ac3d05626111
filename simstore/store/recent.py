"""Records that were answers lately. A row never changes, so that what was read once stays right."""

from collections.abc import Iterable

from simstore.storage import Database, Transaction
from simstore.storage.records import Record, read_record

__all__ = ["RecentRecords"]

_GENERATION_BYTES = 8 << 20  # two generations are kept
_RECORD_BYTES = 250  # what Python takes for a record beside its data
_LARGEST = 1024  # bytes of data; larger ones are read anew each time


class RecentRecords:
    """Reads records through two generations of a cache: one fills up, then replaces the other."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._young: dict[int, Record] = {}
        self._old: dict[int, Record] = {}
        self._size = 0  # of the young, in bytes; threads may lose an addition, never the rows

    def read(self, txn: Transaction, rows: Iterable[int]) -> list[Record]:
        """The records of rows.

        Raises:
            CorruptStoreError: One is damaged or missing.
        """
        young, records = self._young, []
        for row in rows:
            try:
                records.append(young[row])
            except KeyError:
                records.append(self._find(txn, row, young))
        if self._size > _GENERATION_BYTES:
            self._old, self._young, self._size = young, {}, 0
        return records

    def _find(self, txn: Transaction, row: int, young: dict[int, Record]) -> Record:
        record = self._old.get(row)
        if record is None:
            record = read_record(self._database.item(txn, row), row)
        if len(record[2]) <= _LARGEST:
            young[row] = record
            self._size += _RECORD_BYTES + len(record[2])
        return record
