"""Records that were answers lately. A row never changes, so that what was read once stays right."""

from simstore.storage import Database, Transaction
from simstore.storage.records import Record

__all__ = ["RecentRecords"]

_GENERATION_BYTES = 8 << 20  # two generations are kept
_RECORD_BYTES = 250  # what Python takes for a record beside its data
_LARGEST = 1024  # bytes of data; larger ones are read anew each time
_SLOTS = 1 << 16


class RecentRecords:
    """Reads records through two generations of a cache: one fills up, then replaces the other.

    A record enters when it is read for the second time: answers that are asked for once, as most are, would only fill
    memory. Rows share the slots that remember the first time, so that some enter at once. Threads may lose each other's
    notes: a record is read once more then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._young: dict[int, Record] = {}
        self._old: dict[int, Record] = {}
        self._size = 0  # of the young, in bytes
        self._met = bytearray(_SLOTS)
        self._n_met = 0

    def read(self, txn: Transaction, rows: list[int]) -> list[Record]:
        """The records of rows.

        Raises:
            CorruptStoreError: One is damaged or missing.
        """
        young = self._young
        try:
            return [young[row] for row in rows]
        except KeyError:
            return self._read(txn, rows, young)

    def _read(self, txn: Transaction, rows: list[int], young: dict[int, Record]) -> list[Record]:
        old = self._old
        missing = [row for row in rows if row not in young and row not in old]
        fresh = dict(zip(missing, self._database.records(txn, missing), strict=True))
        records = [young.get(row) or old.get(row) or fresh[row] for row in rows]
        for row, record in zip(rows, records, strict=True):
            if row in fresh and not self._met[row % _SLOTS]:
                self._met[row % _SLOTS] = 1
                self._n_met += 1
            elif row not in young and len(record[2]) <= _LARGEST:
                young[row] = record
                self._size += _RECORD_BYTES + len(record[2])
        if self._size > _GENERATION_BYTES:
            self._old, self._young, self._size = young, {}, 0
        if self._n_met > _SLOTS // 2:
            self._met, self._n_met = bytearray(_SLOTS), 0
        return records
