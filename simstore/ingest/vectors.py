"""Rows that are vectors already, brought into one form."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import DimensionError, InvalidVectorError
from simstore.readers import RowBatch
from simstore.store import arguments

__all__ = ["VectorRows"]


class VectorRows:
    """Makes float32 [n, dim] of the vectors of batches.

    Args:
        dim: The store's width; None takes that of most vectors of the first batch.
    """

    def __init__(self, dim: int | None) -> None:
        self._dim = dim
        self._is_settled = dim is not None

    def fitting(self, batch: RowBatch, source: str) -> tuple[RowBatch, list[tuple[int, str]]]:
        """The batch with its vectors as an array, less the rows that are none; and these, with what is wrong.

        Raises:
            DimensionError: All of them have another width than the store's.
        """
        if isinstance(batch.inputs, np.ndarray) and batch.inputs.ndim == 2 and batch.inputs.dtype.kind in "fiu":
            self._check(batch.inputs.shape[1], source)
            return replace(batch, inputs=arguments.vectors_of(batch.inputs, self._dim)), []
        return self._one_by_one(batch, source)

    def _check(self, width: int, source: str) -> None:
        if self._dim is None:
            self._dim = width
        elif width != self._dim:
            what = "this store holds vectors of" if self._is_settled else "those before have"
            raise DimensionError(
                f"{source!r} has vectors of {width} numbers each, and {what} {self._dim}: give it a store of its own"
            )

    def _one_by_one(self, batch: RowBatch, source: str) -> tuple[RowBatch, list[tuple[int, str]]]:
        vectors, wrong = _vectors(batch.inputs)
        widths = Counter(one.shape[0] for one in vectors.values())
        if widths and self._dim not in widths:
            self._check(widths.most_common(1)[0][0], source)
        for i in [i for i, one in vectors.items() if one.shape[0] != self._dim]:
            wrong[i] = f"a vector of {vectors.pop(i).shape[0]} numbers, where {self._dim} are needed"
        chosen = sorted(vectors)
        array = np.stack([vectors[i] for i in chosen]) if chosen else np.empty((0, self._dim or 1), np.float32)
        columns = ([column[i] for i in chosen] for column in (batch.keys, batch.labels, batch.data))
        keys, labels, data = columns
        rows = [batch.rows[i] for i in chosen]
        fitting = replace(batch, rows=rows, keys=keys, labels=labels, data=data, inputs=array)  # type: ignore[arg-type]
        return fitting, sorted(wrong.items())


def _vectors(inputs: Any) -> tuple[dict[int, NDArray[np.float32]], dict[int, str]]:
    """What are vectors, by number; and why others are not."""
    vectors, wrong = {}, {}
    for i, one in enumerate(inputs):
        try:
            vectors[i] = arguments.vectors_of(one, None, single=True, what="this")[0]
        except (InvalidVectorError, TypeError) as err:
            wrong[i] = str(err)
    return vectors, wrong
