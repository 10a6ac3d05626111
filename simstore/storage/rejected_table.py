"""What ingest() could not take in, and why."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgpack
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from simstore.errors import CorruptStoreError
from simstore.storage.environment import Transaction
from simstore.storage.records import sealed, unsealed
from simstore.storage.tables import Tables
from simstore.types import Key

__all__ = ["Place", "RejectedRecord", "RejectedTable"]


class Place(NamedTuple):
    """Where something stands: the source, a file of it, and the row within the file (None: the file is one example)."""

    source: str
    file: str
    row: int | None


class RejectedRecord(NamedTuple):
    """An example that was not taken in; the fields of reports.Rejected."""

    place: Place
    key: Key | None
    reason: str
    message: str
    size: int
    mtime_ns: int
    at: float


class RejectedTable(Tables):
    """Rejected examples, by the hash of their place."""

    def has_rejected(self, txn: Transaction) -> bool:
        """Whether there is any."""
        return self.n_entries(txn, "rejected") > 0

    def rejected(self, txn: Transaction) -> Iterator[RejectedRecord]:
        """All of them, in no order.

        Raises:
            CorruptStoreError: One is damaged.
        """
        for key, value in self.raw(txn, "rejected"):
            yield _record(key, value)

    def rejection(self, txn: Transaction, place: Place) -> RejectedRecord | None:
        """What is known of a place; None for nothing, and for what is damaged: it is tried again then."""
        key = _key(place)
        value = None if self._rejected is None else self.entry(txn, "rejected", key)
        try:
            return None if value is None else _record(key, value)
        except CorruptStoreError:
            return None

    def put_rejected(self, txn: Transaction, records: Iterable[RejectedRecord]) -> None:
        """Remembers rejections, each in place of an older one."""
        for record in records:
            key = _key(record.place)
            self.put_entry(txn, "rejected", key, sealed(_packed(record), xxh3_64_intdigest(key)))

    def drop_rejected(self, txn: Transaction, places: Iterable[Place]) -> None:
        """Forgets rejections."""
        for place in places:
            self.drop_entry(txn, "rejected", _key(place))

    def damaged_rejected(self, txn: Transaction) -> list[bytes]:
        """The keys of entries that are damaged."""
        damaged = []
        for key, value in self.raw(txn, "rejected"):
            try:
                _record(key, value)
            except CorruptStoreError:
                damaged.append(key)
        return damaged


def _packed(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def _key(place: Place) -> bytes:
    return xxh3_128_digest(_packed(place))


def _record(key: bytes, value: bytes) -> RejectedRecord:
    body = unsealed(value, "the note of what ingest() rejected", xxh3_64_intdigest(key))
    place, *rest = msgpack.unpackb(body, unicode_errors="surrogatepass")
    return RejectedRecord(Place(*place), *rest)
