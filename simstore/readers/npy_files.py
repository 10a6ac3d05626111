"""npy and npz files."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import RejectedError, SourceError
from simstore.readers.array_files import Chunk, float_vectors
from simstore.readers.columns import Columns, ColumnType, number_type
from simstore.readers.compression import open_stream, reading
from simstore.readers.files import open_regular, shown
from simstore.readers.npy_stream import NpyStream
from simstore.readers.options import ReadOptions
from simstore.readers.reader import InputKind
from simstore.readers.row_batches import MAX_BATCH_BYTES
from simstore.readers.values import key_of, label_of
from simstore.types import Key

__all__ = ["kind_of_array", "npy_chunks", "npy_shape", "npz_chunks", "npz_members"]

_SAMPLE = 1_000  # values that tell whether numbers are labels

Shape = tuple[tuple[int, ...], np.dtype[Any]]


def kind_of_array(shape: Shape, options: ReadOptions, where: str) -> InputKind:
    """What the rows of an array are.

    Raises:
        SourceError: Nothing that could be embedded or stored.
    """
    (n, *rest), dtype = shape
    if dtype.kind in "US" and not rest:
        return "text"
    if dtype.kind in "biuf" and rest and (len(rest) == 1 or not options.as_vectors):
        return "vector" if len(rest) == 1 and options.as_vectors is not False else "array"
    raise SourceError(f"{where} holds an array of shape {[n, *rest]} and dtype {dtype}: vectors are numbers of shape [n, dim]")


def npy_shape(path: str) -> Shape:
    """Shape and dtype of an npy file.

    Raises:
        RejectedError: It cannot be read.
    """
    with reading(path), open_stream(path) as stream:
        array = NpyStream(stream, shown(path))
        return array.shape, array.dtype


def npy_chunks(path: str, size: int, *, kind: InputKind, row_shape: tuple[int, ...]) -> Iterator[Chunk]:
    """The rows of an npy file.

    Args:
        row_shape: The shape of a row: a file with another is refused.

    Raises:
        RejectedError: The rest cannot be read.
    """
    with reading(path), open_stream(path) as stream:
        array = NpyStream(stream, shown(path))
        if array.shape[1:] != row_shape:
            text = f"{shown(path)} has rows of shape {list(array.shape[1:])}, the first file has {list(row_shape)}"
            raise RejectedError("wrong width", text)
        step = _step(array, size)
        for first in range(0, array.shape[0], step):
            inputs = _inputs(array.read(step), kind)
            yield Chunk(inputs, min(step, array.shape[0] - first))


def _step(array: NpyStream, size: int) -> int:
    return max(1, min(size, MAX_BATCH_BYTES // max(1, array.row_bytes)))


def _inputs(array: NDArray[Any], kind: InputKind) -> Any:
    if kind == "text":
        return _values(array)
    return float_vectors(array) if kind == "vector" else array


def _values(array: NDArray[Any]) -> list[Any]:
    """The values of an array as Python's own; bytes as text."""
    if array.dtype.kind == "S":
        return [value.decode("utf-8", "surrogateescape") for value in array.tolist()]
    values: list[Any] = array.tolist()
    return values


@contextmanager
def _open_npz(path: str) -> Iterator[zipfile.ZipFile]:
    with open_regular(path) as file, reading(path):
        try:
            with zipfile.ZipFile(file) as members:
                yield members
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as err:  # the last two: compression, encryption
            raise RejectedError("damaged", f"{shown(path)} cannot be read as npz: {err}") from err


def _arrays(stack: ExitStack, members: zipfile.ZipFile, names: Sequence[str], path: str) -> dict[str, NpyStream]:
    arrays = {}
    for name in names:
        stream: Any = stack.enter_context(members.open(name + ".npy"))
        arrays[name] = NpyStream(stream, f"{name!r} in {shown(path)}")
    return arrays


def npz_members(path: str) -> tuple[dict[str, Shape], dict[str, ColumnType]]:
    """Shapes and dtypes of an npz file's arrays, and what they hold as columns.

    Raises:
        RejectedError: It cannot be read.
    """
    shapes: dict[str, Shape] = {}
    types: dict[str, ColumnType] = {}
    with _open_npz(path) as members:
        for name in [name.removesuffix(".npy") for name in members.namelist() if name.endswith(".npy")]:
            try:
                with ExitStack() as stack:
                    array = _arrays(stack, members, [name], path)[name]
                    shapes[name] = array.shape, array.dtype
                    types[name] = _column_type(array)
            except RejectedError as err:
                if err.reason != "not numbers or texts":
                    raise
    return shapes, types


def _column_type(array: NpyStream) -> ColumnType:
    n_axes = len(array.shape)
    if array.dtype.kind in "US":
        return "text" if n_axes == 1 else "other"
    if n_axes == 1:
        return _number_type(array) if array.dtype.kind == "f" else "number"
    return "vector" if n_axes == 2 else "array"


def _number_type(array: NpyStream) -> ColumnType:
    try:
        return number_type(array.read(_SAMPLE).tolist())
    except RejectedError:  # told when it is to be read
        return "number"


def npz_chunks(path: str, size: int, *, columns: Columns, kind: InputKind, rest: Sequence[str]) -> Iterator[Chunk]:
    """The rows of the arrays of an npz file, side by side.

    Args:
        columns: Which array is what.
        rest: Arrays that go into data.

    Raises:
        RejectedError: The rest cannot be read, or an array is not there.
    """
    names = [*columns.used(), *rest]
    with _open_npz(path) as members, ExitStack() as stack:
        if missing := [name for name in names if name + ".npy" not in members.namelist()]:
            raise RejectedError("unknown column", f"{shown(path)} has no array {missing[0]!r}")
        arrays = _arrays(stack, members, names, path)
        n = arrays[columns.input].shape[0]
        for name, array in arrays.items():
            if array.shape[0] != n:
                text = f"{shown(path)}: {name!r} has {array.shape[0]} rows, {columns.input!r} has {n}"
                raise RejectedError("wrong number of rows", text)
        step = _step(arrays[columns.input], size)
        for _ in range(0, n, step):
            yield _npz_chunk({name: array.read(step) for name, array in arrays.items()}, columns, kind, rest)


def _npz_chunk(arrays: dict[str, NDArray[Any]], columns: Columns, kind: InputKind, rest: Sequence[str]) -> Chunk:
    inputs = _inputs(arrays[columns.input], kind)
    keys: list[Key] | None = None if columns.key is None else [key_of(value) for value in _values(arrays[columns.key])]
    labels = None if columns.label is None else [label_of(value) for value in _values(arrays[columns.label])]
    more = {name: _values(arrays[name]) for name in rest}
    if kind == "text":
        more[columns.input] = inputs
    data = [dict(zip(more, row, strict=True)) for row in zip(*more.values(), strict=True)] if more else None
    return Chunk(inputs, len(inputs), keys, labels, data)
