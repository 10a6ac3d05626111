"""What reading all items tells: which rows are there and sound, and which postings should lead to them."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from simstore.errors import CorruptStoreError
from simstore.storage import Database, IndexedField, Schema, Transaction
from simstore.storage.encoding import encode_key, encode_label, unpack
from simstore.storage.field_table import Postings, field_prefix
from simstore.storage.records import created_seq_of, read_record, row_key
from simstore.store.bitmap import Bitmap
from simstore.types import Progress
from simstore.where.paths import value_at
from simstore.where.postings import terms_of

__all__ = ["POSTINGS", "Comparison", "Survey", "compared", "damaged_vectors", "entries_for", "keys_leading_to", "survey"]

POSTINGS: tuple[Postings, ...] = ("keys", "labels", "fields")
_CHUNK = 4096


class Survey:
    """What the items of n_rows rows are.

    Attributes:
        there: bool [n_rows], whether there is an item.
        damaged: bool [n_rows], whether its checksum does not match.
        odd: Why sound items could not be understood, by row.
        strays: Rows beyond the last, under which there is something.
        late: Rows that say that they were written after the newest transaction.
        expected: For each table of postings uint64 [n_rows], the sum of the hashes of the entries that should lead to a row.
        next_number: The lowest number above all int keys.
    """

    def __init__(self, schema: Schema, n_rows: int, seq: int) -> None:
        self.there, self.damaged = np.zeros(n_rows, bool), np.zeros(n_rows, bool)
        self.odd: dict[int, str] = {}
        self.strays: list[int] = []
        self.late: list[int] = []
        self.expected = {which: np.zeros(n_rows, np.uint64) for which in POSTINGS}
        self.next_number = 0
        self._indexed, self._seq = schema.indexed, seq

    @property
    def sound(self) -> NDArray[np.bool_]:
        """bool [n_rows], whether there is an item that can be read."""
        return self.there & ~self.damaged

    def superseded(self) -> NDArray[np.bool_]:
        """bool [n_rows], whether a row's key has a newer row: then it is dead."""
        rows = np.flatnonzero(self.sound)
        order = np.argsort(self.expected["keys"][rows], kind="stable")
        hashes, rows = self.expected["keys"][rows][order], rows[order]
        older = np.zeros(len(self.there), bool)
        older[rows[:-1][hashes[:-1] == hashes[1:]]] = True
        return older

    def enter(self, row: int, value: bytes) -> None:
        """Notes the item of a row."""
        if row >= len(self.there):
            self.strays.append(row)
            return
        self.there[row] = True
        try:
            entries = entries_for(value, row, self._indexed)
        except CorruptStoreError:
            self.damaged[row] = True
            return
        except Exception as err:  # a checksum that matches: whatever this is, it was written
            self.odd[row] = f"{type(err).__name__}: {err}"
            return
        self.damaged[row] = False
        if created_seq_of(value) > self._seq:
            self.late.append(row)
        key = read_record(value, row)[0]
        if type(key) is int:
            self.next_number = max(self.next_number, key + 1)
        for which, listed in entries.items():
            self.expected[which][row] = sum(map(xxh3_64_intdigest, listed)) % (1 << 64)

    def leave(self, rows: NDArray[np.uint64]) -> None:
        """Notes that the items of rows are gone."""
        self.there[rows] = self.damaged[rows] = False
        for expected in self.expected.values():
            expected[rows] = 0


def entries_for(value: bytes, row: int, indexed: Iterable[IndexedField]) -> dict[Postings, list[bytes]]:
    """The entries that lead to an item.

    Raises:
        CorruptStoreError: It is damaged.
    """
    key, label, packed = read_record(value, row)
    encoded = encode_label(label)
    data = unpack(packed)
    fields = [field_prefix(field.number) + term for field in indexed for term in terms_of(value_at(data, field.path))]
    return {"keys": [encode_key(key)], "labels": [] if encoded is None else [encoded], "fields": fields}


def survey(txn: Transaction, database: Database, n_rows: int, seq: int, tell: Progress) -> Survey:
    """Reads all items."""
    found = Survey(database.schema(txn), n_rows, seq)
    for key, value in database.raw(txn, "items"):
        if len(key) != len(row_key(0)):
            continue  # it is in nobody's place: see n_unfindable
        row = int.from_bytes(key, "big")
        if row % _CHUNK == 0 and row < n_rows:
            tell("items", row, n_rows)
        found.enter(row, value)
    tell("items", n_rows, n_rows)
    return found


class Comparison(NamedTuple):
    """What is wrong with a table of postings.

    Attributes:
        wrong: bool [n_rows], the rows that other entries lead to than should.
        foreign: Entries and the rows beyond the last that they lead to.
    """

    wrong: NDArray[np.bool_]
    foreign: list[tuple[bytes, int]]


def compared(txn: Transaction, database: Database, which: Postings, found: Survey) -> Comparison:
    """Compares a table of postings with the items. Of a damaged item it is known only that one key leads to it.

    Raises:
        CorruptStoreError: The table cannot be read.
    """
    n_rows = len(found.there)
    sums, counts = np.zeros(n_rows, np.uint64), np.zeros(n_rows, np.uint32)
    foreign = []
    for entry, rows in database.postings(txn, which):
        inside = rows[rows < np.uint64(n_rows)]
        if len(inside) < len(rows):
            foreign += [(entry, row) for row in rows[rows >= np.uint64(n_rows)].tolist()]
        sums[inside] += np.uint64(xxh3_64_intdigest(entry))
        counts[inside] += np.uint32(1)
    wrong = sums != found.expected[which]
    wrong[found.damaged] = counts[found.damaged] != 1 if which == "keys" else False
    wrong[list(found.odd)] = False
    wrong[~found.there] = counts[~found.there] > 0
    return Comparison(wrong, foreign)


def damaged_vectors(
    txn: Transaction, database: Database, kept: Bitmap, n_rows: int, tell: Progress
) -> Iterator[tuple[int, int]]:
    """The kept rows whose vector is missing or damaged, ascending; and the width that it should have."""
    schema = database.schema(txn)
    firsts = [*(epoch.first_row for epoch in schema.past), schema.epoch_row, n_rows]
    for first_row, end in pairwise(firsts):
        dim: Any = schema.epoch_at(first_row + 1).dim
        for first in range(first_row, end if dim is not None else first_row, _CHUNK):
            tell("vectors", first, n_rows)
            stop = min(first + _CHUNK, end)
            needed = kept.mask(first, stop)
            if needed.any():
                _, damaged = database.vectors_and_damage(txn, first, stop, dim)
                yield from ((first + i, dim) for i in np.flatnonzero(damaged & needed).tolist())
    tell("vectors", n_rows, n_rows)


def keys_leading_to(txn: Transaction, database: Database, rows: NDArray[Any]) -> dict[int, list[bytes]]:
    """The encoded keys that lead to rows."""
    names: dict[int, list[bytes]] = {}
    for encoded, listed in database.postings(txn, "keys"):
        for row in np.intersect1d(listed, rows).tolist():
            names.setdefault(row, []).append(encoded)
    return names
