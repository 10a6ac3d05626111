"""Examples, one by one, gathered to batches."""

from typing import Any

import numpy as np

from simstore.errors import RejectedError
from simstore.readers.reader import Example, InputKind, Refused, RowBatch, SourceFile
from simstore.types import Key, Label

__all__ = ["MAX_BATCH_BYTES", "Gatherer"]

MAX_BATCH_BYTES = 1 << 26


class Gatherer:
    """Takes the rows of one file, or of what is in memory, and hands out batches of them.

    Args:
        file: The file.
        size: A batch has at most so many rows.
        kind: What they are.
    """

    def __init__(self, file: SourceFile, size: int, kind: InputKind) -> None:
        self._file, self._size, self._kind = file, size, kind
        self.row = 0
        self._clear()

    def _clear(self) -> None:
        self._rows: list[int] = []
        self._keys: list[Key] = []
        self._labels: list[Label] = []
        self._data: list[dict[str, Any]] = []
        self._inputs: list[Any] = []
        self._refused: list[Refused] = []
        self._n_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to take a batch."""
        return max(len(self._rows), len(self._refused)) >= self._size or self._n_bytes >= MAX_BATCH_BYTES

    def put(self, example: Example | RejectedError, key: Key | None = None) -> None:
        """Takes the next row.

        Args:
            key: That of a refused row, if it is known.
        """
        if isinstance(example, RejectedError):
            self._refused.append(Refused(self._file, self.row, key, example.reason, str(example)))
        else:
            self._rows.append(self.row)
            self._keys.append(example.key)
            self._labels.append(example.label)
            self._data.append(example.data or {})
            self._inputs.append(example.input)
            self._n_bytes += getattr(example.input, "nbytes", 0) or (4 * len(example.input) if self._kind == "text" else 0)
        self.row += 1

    def take(self) -> RowBatch:
        """The rows put in since the last batch."""
        inputs: Any = self._inputs
        if self._kind == "vector" and inputs:
            inputs = np.stack(inputs)
        batch = RowBatch(self._file, self._rows, self._keys, self._labels, self._data, inputs, tuple(self._refused))
        self._clear()
        return batch

    def end(self, err: RejectedError | None = None) -> RowBatch | None:
        """The last batch, if there is anything in it.

        Args:
            err: Why the rest of the file cannot be read.
        """
        if err is not None:
            row = self.row or None  # None: nothing of the file could be read
            text = str(err) if row is None else f"{err}; nothing behind row {self.row - 1} was read"
            self._refused.append(Refused(self._file, row, None, err.reason, text))
        return self.take() if self._rows or self._refused else None
