"""The file that keeps the bytes of what repair() takes out of the store. FORMAT.md describes it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack

from simstore.errors import CorruptStoreError
from simstore.reports import Quarantined
from simstore.storage import Database, Files, Transaction
from simstore.storage.encoding import decode_key
from simstore.storage.files import publish_file, write_file
from simstore.storage.records import row_key
from simstore.store.opening import QUARANTINE
from simstore.types import Key

__all__ = ["Lost", "write_quarantine"]


@dataclass(frozen=True, slots=True)
class Lost:
    """An item that is to be taken out: its row, what is wrong, its encoded key if that is known, the width of its vector."""

    row: int
    what: str
    key: bytes | None
    dim: int | None

    def told(self) -> Quarantined:
        """What the caller of repair() learns."""
        return Quarantined(self.plain_key, self.row, self.what)

    @property
    def plain_key(self) -> Key | None:
        """The key, None if it is unknown."""
        if self.key is not None:
            with suppress(CorruptStoreError):
                return decode_key(self.key)
        return None


def write_quarantine(txn: Transaction, database: Database, files: Files, path: Path, lost: list[Lost], now: datetime) -> Path:
    """Writes what is stored of lost items, synced; the path of the file.

    Raises:
        StorageFullError, StorageError: It could not be written.
    """
    target = path / QUARANTINE / f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(6).hex()}.msgpack"
    files.make_dir(target.parent)
    temporary = write_file(files, path, _chunks(txn, database, lost, now))  # here, where the next open removes it after a crash
    publish_file(files, temporary, target)
    files.sync_dir(path)
    return target


def _chunks(txn: Transaction, database: Database, lost: list[Lost], now: datetime) -> Iterator[bytes]:
    pack, schema = msgpack.Packer(unicode_errors="backslashreplace"), database.schema(txn)
    yield pack.pack_map_header(5)
    for name, value in (("quarantine", 1), ("store", schema.uuid), ("metric", schema.metric), ("time", now.isoformat())):
        yield pack.pack(name) + pack.pack(value)
    yield pack.pack("items") + pack.pack_array_header(len(lost))
    for one in lost:
        yield pack.pack(_entry(txn, database, one))


def _entry(txn: Transaction, database: Database, lost: Lost) -> dict[str, Any]:
    vector = None if lost.dim is None else database.vector_record(txn, lost.row, lost.dim)
    return {
        "row": lost.row,
        "what": lost.what,
        "key": lost.plain_key,
        "encoded_key": lost.key,
        "dim": lost.dim,
        "item": database.entry(txn, "items", row_key(lost.row)),
        "vector": vector or None,
    }
