"""What writes items anew in rows of their own: restore() and reembed()."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.storage import Database, LogEntry, NewRows, State, Transaction
from simstore.storage.encoding import encode_key, encode_label
from simstore.storage.schema import Epoch

__all__ = ["append_rows", "begin_epoch", "bury_rows", "copies"]

_CHUNK = 4096  # rows that are copied at a time


def copies(
    txn: Transaction,
    database: Database,
    rows: NDArray[np.uint64],
    vectors_of: Callable[[NDArray[np.uint64]], NDArray[np.float32]],
) -> Iterator[NewRows]:
    """The items in ascending rows, to be written anew with the vectors that vectors_of has for their rows.

    Raises:
        CorruptStoreError: One of them is damaged.
    """
    for at in range(0, len(rows), _CHUNK):
        part = rows[at : at + _CHUNK]
        records = database.records(txn, part.tolist())
        yield NewRows(
            [encode_key(key) for key, _, _ in records],
            [encode_label(label) for _, label, _ in records],
            records,
            vectors_of(part),
        )


def append_rows(txn: Transaction, database: Database, state: State, parts: Iterable[NewRows]) -> int:
    """Writes new rows after all that a state has; returns the next row after them."""
    next_row = state.next_row
    for rows in parts:
        database.append(txn, rows, next_row, state.seq + 1)
        next_row += len(rows.keys)
    return next_row


def bury_rows(txn: Transaction, database: Database, state: State, rows: NDArray[np.uint64]) -> int:
    """Buries rows and notes that in the log; returns the seq of the newest log entry."""
    if not len(rows):
        return state.log_seq
    dead, seq = rows.tolist(), state.seq + 1
    database.bury(txn, dead, seq)
    database.put_log(txn, seq, LogEntry(state.log_seq, tuple(dead)))
    return seq


def begin_epoch(txn: Transaction, database: Database, state: State, dim: int | None, embedder: dict[str, Any] | None) -> None:
    """Has all rows after those of a state be of another width or embedder. Only snapshots see the rows before, all dead now."""
    schema = database.schema(txn)
    is_empty = schema.epoch_row == state.next_row
    past = schema.past if is_empty else (*schema.past, Epoch(schema.epoch_row, schema.dim))
    database.put_schema(txn, replace(schema, dim=dim, embedder=embedder, epoch_row=state.next_row, past=past))
