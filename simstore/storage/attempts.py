"""How a write can end: refused, gone over to another database, or committed whatever was raised."""

from simstore.errors import (
    DimensionError,
    DuplicateKeyError,
    EmbedderMismatchError,
    IndexExistsError,
    IndexNotFoundError,
    KeyExistsError,
    KeyNotFoundError,
    SnapshotExistsError,
    SnapshotNotFoundError,
)

__all__ = ["REFUSALS", "Attempt", "MovedError"]

# What a work raises only while it has put nothing, so that its transaction can be committed with what other works put in it
REFUSALS = (
    KeyExistsError,
    KeyNotFoundError,
    DuplicateKeyError,
    DimensionError,
    EmbedderMismatchError,
    IndexExistsError,
    IndexNotFoundError,
    SnapshotExistsError,
    SnapshotNotFoundError,
)


class MovedError(Exception):
    """The database has been replaced by the file of that name: it takes no more writes, and whoever reads goes over, too."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Attempt:
    """Whether a write has been committed: who is interrupted cannot tell from the exception."""

    committed = False
