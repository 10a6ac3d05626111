"""What ingest() asks of a reader: batches of examples, in a fixed order, with keys that stay the same from run to run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from simstore.types import Key, Label

__all__ = [
    "FORMATS",
    "Batch",
    "Decoded",
    "Example",
    "FileBatch",
    "InputKind",
    "Notes",
    "Reader",
    "Refused",
    "RowBatch",
    "SourceFile",
]

FORMATS = ("images", "csv", "jsonl", "lines", "parquet", "npy", "npz", "fvecs", "tfrecord", "dataset", "examples")

InputKind = Literal["image", "text", "array", "vector"]
"""What examples are: an image, uint8 [h, w, channels]; a str; any array for the embedder; a vector to be stored as it is."""


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a data set, for whoever yields them.

    Args:
        key: A str or int that stays the same from run to run.
        input: What the embedder turns into a vector; or the vector itself, float [dim], where the reader says so.
        label: A str, an int or None.
        data: A dict to be kept with the item, or None.
    """

    key: Key
    input: Any
    label: Label = None
    data: dict[str, Any] | None = None


class SourceFile(NamedTuple):
    """A file of a source: its absolute path, size in bytes and time of change."""

    path: str
    size: int
    mtime_ns: int


class Refused(NamedTuple):
    """An example that its reader could not make out.

    Attributes:
        file: Its file, or as much as is known of it.
        row: Its running number in the file; None if the file is one example.
        key: Its key, if that is known.
        reason: In a few words, the same for all of a kind.
        message: What was found.
    """

    file: SourceFile
    row: int | None
    key: Key | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows of one file, or of what is no file, already read.

    Attributes:
        file: Its path is "" where rows come from memory.
        rows: Their running numbers.
        keys, labels, data: Of each row; a row's data is a dict without "_source". Rows without data may share one dict:
            it is not to be changed.
        inputs: An array [n, …] or a list of n.
        refused: Rows that are not among these.
    """

    file: SourceFile
    rows: Sequence[int]
    keys: list[Key]
    labels: list[Label]
    data: list[dict[str, Any]]
    inputs: Any
    refused: tuple[Refused, ...] = ()


class Decoded(NamedTuple):
    """What a file holds: the input, and what is to be kept with the item."""

    input: Any
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FileBatch:
    """Files that are one example each, not read yet. ``read`` and ``decode`` are called from several threads at once.

    Attributes:
        files, keys, labels: Of each example.
        read: read(i) → the content of file i. Raises RejectedError.
        decode: decode(i, content) → the input and data of file i. Raises RejectedError.
        refused: Files that are not among these.
    """

    files: list[SourceFile]
    keys: list[Key]
    labels: list[Label]
    read: Callable[[int], bytes]
    decode: Callable[[int, bytes], Decoded]
    refused: tuple[Refused, ...] = ()


Batch = RowBatch | FileBatch


class Notes(NamedTuple):
    """What a reader has to tell people.

    Attributes:
        guesses: What it guessed, a sentence each: "column 'text' is the text".
        ignored: What it passed over, and why: (path, why).
    """

    guesses: tuple[str, ...]
    ignored: tuple[tuple[str, str], ...]


@runtime_checkable
class Reader(Protocol):
    """One source of examples. ``batches`` may be called again, and yields the same examples in the same order."""

    @property
    def source(self) -> str:
        """What it reads, as items carry it from run to run: an absolute path or pattern; a name for what is in memory."""
        ...

    @property
    def format(self) -> str:
        """One of FORMATS."""
        ...

    @property
    def input_kind(self) -> InputKind:
        """What its examples are."""
        ...

    @property
    def n_examples(self) -> int | None:
        """How many there are, where that is known without reading all (of images: how many files look like some); else None."""
        ...

    def batches(self, size: int) -> Iterator[Batch]:
        """The examples in their order, at most size at once.

        Raises:
            SourceError: The source as a whole cannot be read.
        """
        ...

    def notes(self) -> Notes:
        """What was guessed and what was passed over so far."""
        ...
