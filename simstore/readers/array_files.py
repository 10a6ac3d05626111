"""A reader of files that hold arrays: npy, npz, fvecs and its kin, and lists in Parquet. Whole chunks, no work for each row."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.errors import RejectedError
from simstore.readers.files_reader import FilesReader, unreadable
from simstore.readers.options import ReadOptions
from simstore.readers.reader import Batch, InputKind, Refused, RowBatch, SourceFile
from simstore.readers.walking import FoundFile
from simstore.types import Key, Label

__all__ = ["ArrayReader", "Chunk", "float_vectors"]


class Chunk(NamedTuple):
    """Consecutive rows of a file.

    Attributes:
        inputs: An array [n, …] or a list of n texts.
        n_rows: How many rows of the file these are, refused ones included.
        keys, labels, data: Of the n rows; None where the file has none.
        refused: Which of the n_rows are not among the n, and why.
    """

    inputs: Any
    n_rows: int
    keys: list[Key] | None = None
    labels: list[Label] | None = None
    data: list[dict[str, Any]] | None = None
    refused: tuple[tuple[int, RejectedError], ...] = ()


ReadChunks = Callable[[str, int], Iterator[Chunk]]
"""Called as read(path, size): the rows of a file, at most size at once. Raises RejectedError where the rest cannot be read."""


class ArrayReader(FilesReader):
    """Rows that are read in whole chunks.

    Args:
        source, files, format, input_kind, options, guesses, n_examples: See FilesReader.
        read: Reads the chunks of a file.
    """

    def __init__(
        self,
        source: str,
        files: Sequence[FoundFile],
        *,
        read: ReadChunks,
        format: str,
        input_kind: InputKind,
        options: ReadOptions,
        guesses: Sequence[str],
        n_examples: int | None,
    ) -> None:
        super().__init__(
            source, files, format=format, input_kind=input_kind, options=options, guesses=guesses, n_examples=n_examples
        )
        self._read = read

    def _file_batches(self, one: FoundFile, file: SourceFile, size: int) -> Iterator[Batch]:
        row, label = 0, self._label_of(one)
        try:
            for chunk in self._read(one.path, size):
                yield _batch(chunk, file, row, one.key, label)
                row += chunk.n_rows
        except RejectedError as err:
            if row == 0:
                yield unreadable(file, one.key, err)
            else:
                text = f"{err}; nothing behind row {row - 1} was read"
                yield RowBatch(file, [], [], [], [], [], (Refused(file, row, None, err.reason, text),))


def _batch(chunk: Chunk, file: SourceFile, row: int, name: str, label: Label) -> RowBatch:
    rows: Sequence[int] = range(row, row + chunk.n_rows)
    if chunk.refused:
        left_out = {at for at, _ in chunk.refused}
        rows = [one for one in rows if one - row not in left_out]
    keys: list[Key] = chunk.keys if chunk.keys is not None else [f"{name}#{i}" for i in rows]
    labels = chunk.labels if chunk.labels is not None else [label] * len(rows)
    nothing: dict[str, Any] = {}
    data = chunk.data if chunk.data is not None else [nothing] * len(rows)
    refused = tuple(Refused(file, row + at, None, err.reason, str(err)) for at, err in chunk.refused)
    return RowBatch(file, rows, keys, labels, data, chunk.inputs, refused)


def float_vectors(array: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers [n, dim] as float32, C-contiguous; the same array where it is that already."""
    with np.errstate(over="ignore"):  # inf is refused as such, later
        return np.ascontiguousarray(array, np.float32)
