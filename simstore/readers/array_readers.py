"""Readers of the files that hold arrays, by their format."""

from collections.abc import Callable, Sequence
from functools import partial

from simstore.errors import RejectedError, SourceError
from simstore.readers.array_files import ArrayReader
from simstore.readers.columns import Columns, choose_columns
from simstore.readers.files import shown
from simstore.readers.npy_files import Shape, kind_of_array, npy_chunks, npy_shape, npz_chunks, npz_members
from simstore.readers.options import ReadOptions
from simstore.readers.parquet_rows import parquet_length
from simstore.readers.parquet_vectors import parquet_vector_chunks, parquet_width
from simstore.readers.reader import InputKind
from simstore.readers.vecs_files import vecs_chunks, vecs_shape
from simstore.readers.walking import FoundFile

__all__ = ["known_sum", "npy_reader", "npz_reader", "parquet_vector_reader", "vecs_reader"]

Files = Sequence[FoundFile]
_MOST_COUNTED = 1000  # files that are opened for no more than to be counted


def known_sum(files: Files, count: Callable[[str], int]) -> int | None:
    """How many rows files have together; None if that cannot be told, or would take long."""
    if len(files) > _MOST_COUNTED:
        return None
    try:
        counts = [count(one.path) for one in files]
    except RejectedError:
        return None
    return None if min(counts) < 0 else sum(counts)


def npy_reader(source: str, files: Files, options: ReadOptions) -> ArrayReader:
    """A reader of npy files: vectors [n, dim], inputs [n, …], or texts [n]."""
    shape, dtype = npy_shape(files[0].path)
    kind = kind_of_array((shape, dtype), options, shown(files[0].path))
    read = partial(npy_chunks, kind=kind, row_shape=shape[1:])
    n = known_sum(files, lambda path: npy_shape(path)[0][0])
    return ArrayReader(
        source,
        files,
        read=read,
        format="npy",
        input_kind=kind,
        options=options,
        guesses=_rows_are(shape, kind, options),
        n_examples=n,
    )


def _rows_are(shape: tuple[int, ...], kind: InputKind, options: ReadOptions) -> list[str]:
    if options.as_vectors is not None or kind == "text":
        return []
    meaning = "the vectors themselves" if kind == "vector" else "inputs for the embedder"
    return [f"rows of an array of shape {list(shape)} are {meaning}"]


def npz_reader(source: str, files: Files, options: ReadOptions) -> ArrayReader:
    """A reader of npz files; their arrays are the columns."""
    where = shown(files[0].path)
    shapes, types = npz_members(files[0].path)
    floats = {name for name, (_, dtype) in shapes.items() if dtype.kind == "f"}
    columns = choose_columns(types, options, where, no_keys=floats)
    columns, guesses = _fitting(columns, shapes, options, where)
    n = shapes[columns.input][0][0]
    kind = kind_of_array(shapes[columns.input], options, f"{where}: {columns.input!r}")
    rest = [name for name, (shape, _) in shapes.items() if shape == (n,) and name not in columns.used()]
    left = sorted(set(shapes) - set(columns.used()) - set(rest))
    guesses += _rows_are(shapes[columns.input][0], kind, options)
    guesses += [f"{', '.join(map(repr, left))} not read: another number of rows, or no single values"] if left else []
    read = partial(npz_chunks, columns=columns, kind=kind, rest=rest)
    total = known_sum(files, lambda path: npz_members(path)[0][columns.input][0][0]) if len(files) > 1 else n
    return ArrayReader(
        source, files, read=read, format="npz", input_kind=kind, options=options, guesses=guesses, n_examples=total
    )


def _fitting(columns: Columns, shapes: dict[str, Shape], options: ReadOptions, where: str) -> tuple[Columns, list[str]]:
    """The columns, without guessed ones of another length than the input.

    Raises:
        SourceError: One that was asked for has another length.
    """
    n = shapes[columns.input][0][0]
    found = {"key": columns.key, "label": columns.label}
    guesses = list(columns.guesses)
    for role, asked in (("key", options.key_column), ("label", options.label_column)):
        name = found[role]
        if name is None or shapes[name][0] == (n,):
            continue
        if asked is not None:
            shape = list(shapes[name][0])
            raise SourceError(f"{where}: {name!r} of shape {shape} cannot be the {role} of the {n} rows of {columns.input!r}")
        found[role] = None
        guesses = [guess for guess in guesses if guess != f"column {name!r} is the {role}"]
    return Columns(columns.input, columns.kind, found["key"], found["label"], tuple(guesses)), guesses


def vecs_reader(source: str, files: Files, options: ReadOptions) -> ArrayReader:
    """A reader of fvecs, bvecs and ivecs files."""
    _, dim = vecs_shape(files[0].path)
    kind: InputKind = "array" if options.as_vectors is False else "vector"
    n = known_sum(files, lambda path: vecs_shape(path)[0])
    return ArrayReader(
        source,
        files,
        read=partial(vecs_chunks, dim=dim),
        format="fvecs",
        input_kind=kind,
        options=options,
        guesses=(),
        n_examples=n,
    )


def parquet_vector_reader(source: str, files: Files, options: ReadOptions, columns: Columns) -> ArrayReader:
    """A reader of Parquet files with a column of lists of numbers."""
    dim = parquet_width(files[0].path, columns.input)
    if not dim:
        raise SourceError(f"{shown(files[0].path)}: column {columns.input!r} holds no vector")
    read = partial(parquet_vector_chunks, columns=columns, dim=dim)
    n = known_sum(files, parquet_length)
    return ArrayReader(
        source,
        files,
        read=read,
        format="parquet",
        input_kind=columns.kind,
        options=options,
        guesses=columns.guesses,
        n_examples=n,
    )
