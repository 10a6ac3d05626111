"""Indexes on fields: postings that filters are answered from."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from simstore.errors import CorruptStoreError, IndexExistsError, IndexNotFoundError, InvalidFilterError
from simstore.storage import Database, IndexedField, Transaction
from simstore.storage.encoding import unpack
from simstore.storage.records import read_record, row_key
from simstore.types import Progress
from simstore.where.paths import Path, path_of, path_text, value_at
from simstore.where.postings import terms_of

__all__ = ["add_index", "drop_index", "paths_of"]

_MOST = 64
_CHUNK = 4096


def paths_of(fields: Any, place: str) -> tuple[Path, ...]:
    """The paths of fields to be indexed.

    Raises:
        InvalidFilterError: One of them is no path.
    """
    if isinstance(fields, str) or not isinstance(fields, Iterable):
        raise InvalidFilterError(f'{place} is a sequence of fields, as ("year", "tags"), not {fields!r:.60}')
    return tuple(dict.fromkeys(path_of(path, place=place) for path in fields))


def add_index(
    txn: Transaction, database: Database, paths: Iterable[Path], progress: Progress | None, *, missing_only: bool = False
) -> None:
    """Lists all items, dead ones included, under the values of fields.

    Args:
        missing_only: A field that has an index already is left alone.

    Raises:
        IndexExistsError: One of the fields has one.
    """
    schema, state = database.schema(txn), database.state(txn)
    known = {indexed.path for indexed in schema.indexed}
    there = [path for path in paths if path in known]
    if there and not missing_only:
        raise IndexExistsError(f"there is an index on {path_text(there[0])} already")
    numbers = [number for number in range(_MOST) if number not in {indexed.number for indexed in schema.indexed}]
    new = [path for path in paths if path not in known]
    if len(new) > len(numbers):
        raise InvalidFilterError(f"a store has at most {_MOST} indexed fields; drop_index those that are not needed")
    if not new:
        return
    fields = [IndexedField(path, number) for path, number in zip(new, numbers, strict=False)]
    terms: dict[int, list[tuple[bytes, bytes]]] = {field.number: [] for field in fields}
    for row, value in database.items(txn):
        if row % _CHUNK == 0 and progress is not None:
            progress("index", row, state.next_row)
        try:
            data = unpack(read_record(value, row)[2])
        except CorruptStoreError:
            continue  # nobody can read it anyway
        for field in fields:
            terms[field.number] += ((term, row_key(row)) for term in terms_of(value_at(data, field.path)))
    for field in fields:
        database.add_terms(txn, field.number, terms.pop(field.number))
    database.change_schema(txn, replace(schema, indexed=(*schema.indexed, *fields)))
    if progress is not None:
        progress("index", state.next_row, state.next_row)


def drop_index(txn: Transaction, database: Database, path: Path) -> None:
    """Forgets the index on a field.

    Raises:
        IndexNotFoundError: There is none.
    """
    schema = database.schema(txn)
    found = next((indexed for indexed in schema.indexed if indexed.path == path), None)
    if found is None:
        there = ", ".join(path_text(indexed.path) for indexed in schema.indexed) or "none"
        raise IndexNotFoundError(f"there is no index on {path_text(path)}; there are: {there}")
    database.drop_terms(txn, found.number)
    database.change_schema(txn, replace(schema, indexed=tuple(other for other in schema.indexed if other is not found)))
