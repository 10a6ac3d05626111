"""Copying a database without the rows that are gone: table by table, in the order of the keys, so that pages are full."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from simstore.storage.database import Database
from simstore.storage.environment import Environment, Transaction
from simstore.storage.field_table import Postings
from simstore.storage.records import record_bytes, row_key
from simstore.storage.tables import STAGING

__all__ = ["copy_database"]

Entry = tuple[bytes, bytes]
_BYTES_AT_ONCE = 32 << 20
_ENTRIES_AT_ONCE = 20_000


def copy_database(
    txn: Transaction,
    source: Database,
    environment: Environment,
    kept: NDArray[np.bool_],
    spent: set[int],
    progress: Callable[[int, int], None],
) -> None:
    """Writes all that a transaction sees into a new database, without the rows that are not kept.

    Args:
        environment: The new database.
        kept: For each row of the source whether it goes along.
        spent: The first rows of segments that have nothing to show any more.
        progress: Called as progress(rows done, rows in all).

    Raises:
        StorageError: It could not be written.
    """
    target = Database(environment, create=True)
    state, schema = source.state(txn), source.schema(txn)
    n_rows = state.next_row

    def keeps(row: int) -> bool:
        return row >= n_rows or bool(kept[row])  # what does not exist is damage: check() is to find it there, too

    def counted() -> Iterator[Entry]:
        for key, value in source.raw(txn, "items"):
            row = int.from_bytes(key, "big")
            if row % 4096 == 0:
                progress(row, n_rows)
            if keeps(row):
                yield key, value

    _put(environment, target, "items", counted())
    _put(environment, target, "vectors", _vectors(txn, source, kept))
    _put(environment, target, "tombstones", ((k, v) for k, v in source.raw(txn, "tombstones") if keeps(_row(k))))
    _put(environment, target, "segments", ((k, v) for k, v in source.raw(txn, "segments") if _row(k) not in spent))
    for table in ("snapshots", "rejected"):
        _put(environment, target, table, source.raw(txn, table))
    _put(environment, target, "staged", ((k, v) for k, v in source.raw(txn, "staged") if keeps(_row(k))))
    which: Postings
    for which in ("keys", "labels", "fields"):
        entries = ((entry, row_key(row)) for entry, rows in source.postings(txn, which) for row in rows.tolist() if keeps(row))
        _put(environment, target, which, entries)

    def finish(new: Transaction) -> None:
        target.put_schema(new, schema)
        target.put_purged(new, np.flatnonzero(~kept).astype(np.uint64))
        target.put_state(new, replace(state, seq=state.seq + 1, segments_seq=state.seq + 1, log_seq=0))
        target.put_mark(new, STAGING, source.mark(txn, STAGING))

    environment.write(finish)
    progress(n_rows, n_rows)


def _row(key: bytes) -> int:
    return int.from_bytes(key, "big")


def _put(environment: Environment, target: Database, table: str, entries: Iterable[Entry]) -> None:
    """Appends entries, in a transaction for each part of them."""
    entries = iter(entries)
    while part := _part(entries):
        environment.write(lambda new, part=part: target.put_raw(new, table, part))  # type: ignore[misc]


def _part(entries: Iterator[Entry]) -> list[Entry]:
    part, size = [], 0
    for entry in islice(entries, _ENTRIES_AT_ONCE):
        part.append(entry)
        size += len(entry[0]) + len(entry[1])
        if size > _BYTES_AT_ONCE:
            break
    return part


def _vectors(txn: Transaction, source: Database, kept: NDArray[np.bool_]) -> Iterator[Entry]:
    """The runs of vectors, cut where rows are missing."""
    schema = source.schema(txn)
    for key, value in source.raw(txn, "vectors"):
        first = _row(key)
        size = record_bytes(schema.epoch_at(first + 1).dim or 0)
        n = len(value) // size
        mask = kept[first : first + n]
        if len(value) % size or len(mask) < n or mask.all():  # damaged, or whole
            yield key, value
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2).tolist():
            yield row_key(first + start), value[start * size : stop * size]
