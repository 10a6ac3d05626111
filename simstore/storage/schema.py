"""What a store is: the settings that seldom change."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import msgpack

from simstore.errors import FormatVersionError
from simstore.storage.records import sealed, unsealed

__all__ = ["FORMAT_VERSION", "Epoch", "IndexedField", "Schema"]

FORMAT_VERSION = 1
_DAMAGED = "is damaged (its checksum does not match), without which nothing can be read: restore the store from a backup"


class IndexedField(NamedTuple):
    """A field with postings: its path, and the number that stands for it in the table ``fields``."""

    path: tuple[str | int, ...]
    number: int


class Epoch(NamedTuple):
    """Rows from first_row on, up to the next epoch's, have vectors of one width, made by one embedder."""

    first_row: int
    dim: int | None


@dataclass(frozen=True, slots=True)
class Schema:
    """What does not change from one transaction to the next.

    Attributes:
        dim, embedder: Those of the newest rows.
        indexed: The fields with postings.
        epoch_row: The first row of the present epoch.
        past: The epochs before it; only snapshots still see their rows.
    """

    format: int
    uuid: str
    dim: int | None
    metric: str
    M: int
    ef_construction: int
    embedder: dict[str, Any] | None
    indexed: tuple[IndexedField, ...] = ()
    epoch_row: int = 0
    past: tuple[Epoch, ...] = ()

    @property
    def fingerprint(self) -> str | None:
        """The embedder's fingerprint; None without an embedder."""
        return None if self.embedder is None else str(self.embedder["fingerprint"])

    def value(self) -> bytes:
        """The stored value."""
        return sealed(msgpack.packb(asdict(self)))

    @classmethod
    def of(cls, value: bytes) -> "Schema":
        """The schema of a stored value.

        Raises:
            FormatVersionError: A newer simstore wrote it.
        """
        fields = msgpack.unpackb(unsealed(value, "the store's schema", remedy=_DAMAGED))
        if fields["format"] > FORMAT_VERSION:
            raise FormatVersionError(
                f"the store has format {fields['format']}; this simstore reads up to {FORMAT_VERSION}: upgrade simstore"
            )
        fields["indexed"] = tuple(IndexedField(tuple(path), number) for path, number in fields.get("indexed", ()))
        fields["past"] = tuple(Epoch(*epoch) for epoch in fields.get("past", ()))
        return cls(**fields)

    def epoch_at(self, next_row: int) -> Epoch:
        """The epoch of the newest of next_row rows."""
        for epoch in ((self.epoch_row, self.dim), *reversed(self.past)):
            if epoch[0] < next_row or not epoch[0]:
                return Epoch(*epoch)
        return Epoch(0, self.dim)
