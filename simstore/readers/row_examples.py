"""From a row of a table to an example."""

from collections.abc import Callable
from typing import Any

import numpy as np

from simstore.errors import RejectedError
from simstore.readers.columns import Columns
from simstore.readers.images import decoded_image
from simstore.readers.json_rows import Row
from simstore.readers.options import ReadOptions
from simstore.readers.reader import Example
from simstore.readers.values import array_of, key_of, label_of, plain, text_of, vector_of
from simstore.types import Key, Label

__all__ = ["RowExamples", "vectors_alike"]


class RowExamples:
    """Makes examples of rows. All vectors get the width of the first.

    Args:
        columns: What is in which column.
        options: How to decode images.
    """

    def __init__(self, columns: Columns, options: ReadOptions) -> None:
        self._columns, self._options = columns, options
        self._hidden = {columns.key, columns.label, columns.input, "_source"} - (
            {columns.input} if columns.kind == "text" else set()
        )
        self._read: Callable[[Any], Any] = {"text": text_of, "image": self._image, "array": array_of}.get(
            columns.kind, vectors_alike()
        )

    def example(self, row: Row | RejectedError, *, key: Key, label: Label) -> tuple[Key | None, Example | RejectedError]:
        """The row's key, if it is known, and the example, or why it is refused.

        Args:
            key, label: Those of a row that has no column for them.
        """
        known: Key | None = None
        columns = self._columns
        try:
            if isinstance(row, RejectedError):
                return None, row
            known = key if columns.key is None else key_of(row.get(columns.key))
            taken = self._read(row.get(columns.input))
            labelled = label if columns.label is None else label_of(row.get(columns.label))
        except RejectedError as err:
            return known, err
        data = {name: plain(held) for name, held in row.items() if name not in self._hidden}
        return known, Example(known, taken, labelled, data)

    def _image(self, value: Any) -> Any:
        if isinstance(value, dict):  # {"bytes": …, "path": …}: how data sets of the Hugging Face hub hold images
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise RejectedError("no image", f"the column holds a {type(value).__name__}, not the bytes of an image file")
        return decoded_image(value, self._options.image_input, max_pixels=self._options.max_pixels).input


def vectors_alike() -> Callable[[Any], Any]:
    """What reads vectors, and raises RejectedError for one of another width than the first."""
    dim: int | None = None

    def read(value: Any) -> np.ndarray[Any, Any]:
        nonlocal dim
        vector = vector_of(value)
        dim = len(vector) if dim is None else dim
        if len(vector) != dim:
            raise RejectedError("wrong width", f"the vector has {len(vector)} numbers, the first one had {dim}")
        return vector

    return read
