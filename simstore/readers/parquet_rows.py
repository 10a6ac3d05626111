"""Parquet: read as a stream, so that a file with one huge row group takes no more memory than one with many."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from simstore.errors import PackageMissingError, RejectedError
from simstore.readers.columns import ColumnType, number_type
from simstore.readers.compression import reading
from simstore.readers.files import open_regular, shown
from simstore.readers.json_rows import Row

__all__ = ["open_parquet", "parquet_columns", "parquet_length", "parquet_rows", "record_batches"]

_BUFFER = 1 << 20
_ROWS = 1024


def _import_pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as err:
        raise PackageMissingError.of("Parquet files", "pyarrow", "parquet") from err
    return pyarrow


@contextmanager
def open_parquet(path: str) -> Iterator[Any]:
    """A pyarrow ParquetFile.

    Raises:
        RejectedError: It cannot be read, or pyarrow finds it damaged, now or while it is read.
        PackageMissingError: pyarrow is not installed.
    """
    pyarrow = _import_pyarrow()
    with open_regular(path) as stream, reading(path):
        try:
            with pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER) as file:
                yield file
        except (pyarrow.ArrowException, UnicodeDecodeError) as err:
            if not isinstance(err, MemoryError):
                raise RejectedError("damaged", f"{shown(path)} cannot be read as Parquet: {err}") from err
            raise


def parquet_columns(path: str) -> tuple[dict[str, ColumnType], set[str]]:
    """What the columns hold, by name; and those of floats, which cannot be keys.

    Raises:
        RejectedError: It cannot be read.
    """
    pyarrow = _import_pyarrow()
    with open_parquet(path) as file:
        types = {field.name: _type(pyarrow, field.type) for field in file.schema_arrow}
        floats = [field.name for field in file.schema_arrow if pyarrow.types.is_floating(field.type)]
        types.update({name: number_type(values) for name, values in _first(file, floats).items()})
    return types, set(floats)


def _first(file: Any, names: list[str]) -> dict[str, list[Any]]:
    """The first values of columns."""
    batches = file.iter_batches(batch_size=_ROWS, columns=names, use_threads=False) if names else ()
    return next((batch.to_pydict() for batch in batches), {})


def parquet_length(path: str) -> int:
    """The number of rows.

    Raises:
        RejectedError: It cannot be read.
    """
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _type(pyarrow: Any, held: Any) -> ColumnType:
    types = pyarrow.types
    if types.is_dictionary(held):
        return _type(pyarrow, held.value_type)
    if types.is_string(held) or types.is_large_string(held) or types.is_string_view(held):
        return "text"
    if types.is_integer(held) or types.is_floating(held) or types.is_boolean(held):
        return "number"
    if types.is_list(held) or types.is_large_list(held) or types.is_fixed_size_list(held):
        inner = held.value_type
        return "vector" if types.is_integer(inner) or types.is_floating(inner) else "other"
    if types.is_struct(held) and held.get_field_index("bytes") >= 0:
        return "bytes"
    return "bytes" if types.is_binary(held) or types.is_large_binary(held) else "other"


def record_batches(path: str, needed: Sequence[str], size: int) -> Iterator[Any]:
    """The rows of a file as pyarrow's record batches of at most size rows.

    Args:
        needed: Columns without which the file is refused.

    Raises:
        RejectedError: The rest cannot be read.
    """
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        for name in needed:
            if name not in names:
                raise RejectedError(
                    "unknown column", f"{shown(path)} has no column {name!r}; it has {', '.join(map(repr, names))}"
                )
        yield from file.iter_batches(batch_size=size, use_threads=False)


def parquet_rows(path: str, *, needed: Sequence[str]) -> Iterator[Row | RejectedError]:
    """The rows of a Parquet file, as dicts.

    Raises:
        RejectedError: The rest cannot be read.
    """
    for batch in record_batches(path, needed, _ROWS):
        yield from _dicts(batch)


def _dicts(batch: Any) -> Iterator[Row | RejectedError]:
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError, UnicodeDecodeError):  # a time that Python does not have, bytes that are no UTF-8
        pass
    for i in range(batch.num_rows):
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except (ValueError, OverflowError, UnicodeDecodeError) as err:
            yield RejectedError("wrong type", f"a value cannot be read: {err}")
