"""Postings: which rows a key, a label or a field's term leads to, dead rows included."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.storage.environment import Table, Transaction
from simstore.storage.tables import Tables

__all__ = ["FieldTable", "Postings"]

Postings = Literal["keys", "labels", "fields"]
_NUMBER_BYTES = 2
_ROW_BYTES = 8


def field_prefix(number: int) -> bytes:
    """What the terms of a field begin with in the table."""
    return number.to_bytes(_NUMBER_BYTES, "big")


class FieldTable(Tables):
    """The tables keys, labels and fields, read as postings."""

    def _postings_table(self, which: Postings) -> Table | None:
        return {"keys": self._keys, "labels": self._labels, "fields": self._fields}[which]

    def postings(self, txn: Transaction, which: Postings) -> Iterator[tuple[bytes, NDArray[np.uint64]]]:
        """Each entry with its rows, ascending.

        Raises:
            CorruptStoreError: A row is not 8 bytes long.
        """
        table = self._postings_table(which)
        if table is None:
            return
        with txn.cursor(db=table) as cursor:
            found = cursor.first()
            while found:
                entry, values = cursor.key(), list(cursor.iternext_dup())
                rows = b"".join(values)
                if len(rows) != _ROW_BYTES * len(values):
                    raise CorruptStoreError(
                        f"the table {which} is damaged: check(deep=True) lists all damage, repair() mends it"
                    )
                yield entry, np.frombuffer(rows, ">u8").astype(np.uint64)
                found = cursor.next_nodup()

    def rows_at(self, txn: Transaction, which: Postings, entries: Sequence[bytes]) -> NDArray[np.uint64]:
        """The rows of some entries, in no order."""
        table = self._postings_table(which)
        if table is None or not entries:
            return np.empty(0, np.uint64)
        parts = []
        with txn.cursor(db=table) as cursor:
            for size, group in groupby(sorted(entries, key=len), len):
                found = cursor.getmulti(list(group), dupdata=True, dupfixed_bytes=_ROW_BYTES, keyfixed=True)
                parts.append(np.frombuffer(found, np.uint8).reshape(-1, size + _ROW_BYTES)[:, size:])
        return np.ascontiguousarray(np.concatenate(parts)).view(">u8")[:, 0].astype(np.uint64)

    def entries_between(self, txn: Transaction, which: Postings, start: bytes, stop: bytes | None) -> list[bytes]:
        """The entries from start up to stop, which is not among them; None: to the end."""
        table, entries = self._postings_table(which), []
        if table is not None:
            with txn.cursor(db=table) as cursor:
                found = cursor.set_range(start)
                while found and (stop is None or cursor.key() < stop):
                    entries.append(cursor.key())
                    found = cursor.next_nodup()
        return entries

    def add_terms(self, txn: Transaction, number: int, terms: Iterable[tuple[bytes, bytes]]) -> int:
        """Lists rows under terms of a field: pairs of a term and a row's key. Returns how many."""
        prefix = field_prefix(number)
        entries = sorted((prefix + term, row) for term, row in terms)
        with txn.cursor(db=self._fields) as cursor:
            cursor.putmulti(entries)
        return len(entries)

    def drop_terms(self, txn: Transaction, number: int) -> None:
        """Forgets all terms of a field."""
        prefix = field_prefix(number)
        with txn.cursor(db=self._fields) as cursor:
            while cursor.set_range(prefix) and cursor.key()[:_NUMBER_BYTES] == prefix:
                cursor.delete(dupdata=True)
