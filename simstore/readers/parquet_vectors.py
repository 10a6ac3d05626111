"""Vectors in a list column of Parquet files, without any work for each row."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from simstore.errors import RejectedError
from simstore.readers.array_files import Chunk, float_vectors
from simstore.readers.columns import Columns
from simstore.readers.parquet_rows import record_batches
from simstore.readers.values import key_of, label_of, plain
from simstore.types import Key, Label

__all__ = ["parquet_vector_chunks", "parquet_width"]


def parquet_width(path: str, column: str) -> int | None:
    """The width of the first vector; None if there is none."""
    for batch in record_batches(path, [column], 1024):
        lengths = _lengths(batch.column(column))
        for length in lengths[lengths >= 0]:
            return int(length)
    return None


def _lengths(column: Any) -> Any:
    """How long each list is, int64 [n]; -1 for none."""
    import pyarrow.compute

    return pyarrow.compute.list_value_length(column).cast("int64").fill_null(-1).to_numpy(zero_copy_only=False)


def parquet_vector_chunks(path: str, size: int, *, columns: Columns, dim: int) -> Iterator[Chunk]:
    """The rows of a Parquet file; those with another width, or without a key, are refused.

    Raises:
        RejectedError: The rest cannot be read.
    """
    for batch in record_batches(path, columns.used(), size):
        yield _chunk(batch, columns, dim)


def _chunk(batch: Any, columns: Columns, dim: int) -> Chunk:
    refused: dict[int, RejectedError] = {}
    lengths = _lengths(batch.column(columns.input))
    for at in np.flatnonzero(lengths != dim).tolist():
        refused[at] = _wrong_width(int(lengths[at]), dim)
    keys = _checked(batch, columns.key, key_of, refused)
    labels = _checked(batch, columns.label, label_of, refused)
    kept = batch
    if refused:
        mask = np.ones(batch.num_rows, bool)
        mask[list(refused)] = False
        import pyarrow

        kept = batch.filter(pyarrow.array(mask))
        keys, labels = (None if one is None else [one[i] for i in np.flatnonzero(mask)] for one in (keys, labels))
    flat = kept.column(columns.input).flatten().to_numpy(zero_copy_only=False)
    vectors = float_vectors(flat.reshape(kept.num_rows, dim))
    return Chunk(vectors, batch.num_rows, keys, labels, _data(kept, columns), tuple(sorted(refused.items())))


def _wrong_width(length: int, dim: int) -> RejectedError:
    if length < 0:
        return RejectedError("no vector", "the row has no vector")
    return RejectedError("wrong width", f"the vector has {length} numbers, the first one had {dim}")


def _checked(batch: Any, column: str | None, check: Any, refused: dict[int, RejectedError]) -> list[Any] | None:
    """A column's values as they are stored; those that cannot be are refused."""
    if column is None:
        return None
    values: list[Key | Label] = batch.column(column).to_pylist()
    if set(map(type, values)) <= {str, int} and "" not in values:
        return values
    for i, value in enumerate(values):
        try:
            values[i] = check(value)
        except RejectedError as err:
            refused.setdefault(i, err)
    return values


def _data(batch: Any, columns: Columns) -> list[dict[str, Any]] | None:
    rest = [name for name in batch.schema.names if name not in columns.used() and name != "_source"]
    return [plain(row) for row in batch.select(rest).to_pylist()] if rest else None
