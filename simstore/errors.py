"""Every error simstore raises: each is a SimstoreError and the builtin that a user would catch."""

__all__ = [
    "AlreadyOpenError",
    "BuildError",
    "CorruptStoreError",
    "DimensionError",
    "DuplicateKeyError",
    "EmbedderMismatchError",
    "EmbedderRequiredError",
    "ForkedStoreError",
    "FormatVersionError",
    "IndexExistsError",
    "IndexNotFoundError",
    "IngestError",
    "InvalidArgumentError",
    "InvalidDataError",
    "InvalidFilterError",
    "InvalidKeyError",
    "InvalidLabelError",
    "InvalidVectorError",
    "KerasMissingError",
    "KeyExistsError",
    "KeyNotFoundError",
    "NotAStoreError",
    "NotCalibratedError",
    "PackageMissingError",
    "PruneRefusedError",
    "ReadOnlyStoreError",
    "RejectedError",
    "SimstoreError",
    "SnapshotExistsError",
    "SnapshotNotFoundError",
    "SourceError",
    "StorageError",
    "StorageFullError",
    "StoreClosedError",
    "StoreExistsError",
    "StoreNotFoundError",
    "TooManyRejectedError",
]


class SimstoreError(Exception):
    """Base of every error simstore raises."""

    def __str__(self) -> str:  # KeyError would print the message as a repr
        return str(self.args[0]) if self.args else ""


# -- opening ---------------------------------------------------------------------------------------------------------


class StoreNotFoundError(SimstoreError, FileNotFoundError):
    """There is no store at the path."""


class StoreExistsError(SimstoreError, FileExistsError):
    """A store was to be created where something stands already."""


class NotAStoreError(SimstoreError, ValueError):
    """The path is there, but it is no simstore store."""


class FormatVersionError(SimstoreError, ValueError):
    """The store was written by a newer simstore."""


class CorruptStoreError(SimstoreError, OSError):
    """Bytes on disk are not what was written."""


class AlreadyOpenError(SimstoreError, RuntimeError):
    """This process has the store open already."""


class StoreClosedError(SimstoreError, ValueError):
    """The store was closed."""


class ForkedStoreError(SimstoreError, RuntimeError):
    """A store object was used in a process forked from the one that opened it."""


class ReadOnlyStoreError(SimstoreError, PermissionError):
    """A write to a store that was opened with mode="r"."""


class StorageError(SimstoreError, OSError):
    """The operating system or LMDB refused something; the store is as it was before the call."""


class StorageFullError(StorageError):
    """No space left; the store is as it was before the call, and usable."""


class BuildError(SimstoreError, RuntimeError):
    """A graph could not be built; the items are safe, and search goes on without it."""


# -- what was given --------------------------------------------------------------------------------------------------


class InvalidArgumentError(SimstoreError, ValueError):
    """An argument has a value that is not allowed."""


class InvalidVectorError(SimstoreError, ValueError):
    """Vectors of a wrong shape, type or value."""


class DimensionError(InvalidVectorError):
    """Vectors of another width than the store's."""


class InvalidKeyError(SimstoreError, ValueError):
    """A key that is no str or int, or too long."""


class InvalidLabelError(SimstoreError, ValueError):
    """A label that is no str, int or None, or too long."""


class InvalidDataError(SimstoreError, ValueError):
    """Data that msgpack cannot hold."""


class InvalidFilterError(SimstoreError, ValueError):
    """A filter that cannot be understood."""


class DuplicateKeyError(SimstoreError, ValueError):
    """The same key twice in one call."""


class KeyExistsError(SimstoreError, KeyError):
    """add() of a key that is in the store."""


class KeyNotFoundError(SimstoreError, KeyError):
    """A key that is not in the store."""


class IndexExistsError(SimstoreError, ValueError):
    """create_index() of a field that has an index."""


class IndexNotFoundError(SimstoreError, KeyError):
    """drop_index() of a field that has none."""


class SnapshotNotFoundError(SimstoreError, KeyError):
    """There is no snapshot of that name."""


class SnapshotExistsError(SimstoreError, ValueError):
    """A snapshot was to be taken under a name that another one has."""


class EmbedderRequiredError(SimstoreError, ValueError):
    """inputs= or input= without an embedder."""


class KerasMissingError(SimstoreError, ImportError):
    """Keras, or the backend that it computes with, is not installed."""


class PackageMissingError(SimstoreError, ImportError):
    """A package is not installed that one of simstore's extras brings."""

    @classmethod
    def of(cls, what: str, package: str, extra: str) -> "PackageMissingError":
        """The error where ``what`` needs a package that an extra brings: "HEIC images", "pillow-heif", "heif"."""
        return cls(f"{what} need {package}: pip install 'simstore[{extra}]'")


class EmbedderMismatchError(SimstoreError, ValueError):
    """The store was made with another embedder."""


class SourceError(SimstoreError, ValueError):
    """A data set that cannot be read as it was asked for: no such file, unknown column, of no known format."""


class RejectedError(SimstoreError, ValueError):
    """One example of a data set cannot be taken in. ``reason`` is the same for all of a kind, in a few words."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IngestError(SimstoreError, RuntimeError):
    """An ingest run cannot go on; what it has committed stays, and the next run goes on from there."""


class TooManyRejectedError(IngestError):
    """More examples were rejected than max_errors allows."""


class PruneRefusedError(SimstoreError, RuntimeError):
    """prune=True would delete too much; nothing was deleted, and the rest of the run is done.

    Attributes:
        report: The run's IngestReport.
    """

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


class NotCalibratedError(SimstoreError, ValueError):
    """A match was asked for without a calibration that holds for this model and index."""
