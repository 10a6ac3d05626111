"""Readers of files by their format."""

from collections.abc import Callable, Sequence
from functools import partial

from simstore.errors import InvalidArgumentError
from simstore.readers.array_readers import known_sum, npy_reader, npz_reader, parquet_vector_reader, vecs_reader
from simstore.readers.columns import Columns, choose_columns
from simstore.readers.csv_rows import csv_columns, csv_rows, csv_shape
from simstore.readers.files import shown
from simstore.readers.image_files import ImageReader
from simstore.readers.json_rows import json_columns, json_rows, line_rows
from simstore.readers.options import ReadOptions
from simstore.readers.parquet_rows import parquet_columns, parquet_length, parquet_rows
from simstore.readers.reader import Reader
from simstore.readers.row_files import ReadRows, RowReader
from simstore.readers.tfrecord_rows import check_spec, tfrecord_columns, tfrecord_rows, tfrecord_spec
from simstore.readers.walking import FoundFile

__all__ = ["file_reader"]

Files = Sequence[FoundFile]


def file_reader(format: str, source: str, files: Files, options: ReadOptions) -> Reader:
    """A reader of files of one format; the first tells the columns of all.

    Args:
        source: The file or pattern, absolute.
        files: At least one.

    Raises:
        SourceError: A column that was asked for is not there, or none is plainly the input.
        InvalidArgumentError: Files of this format are not read from a path.
        RejectedError: The first file cannot be read.
    """
    if format not in _MAKERS:
        raise InvalidArgumentError(f"format={format!r} is for what is in memory; of files it is one of {', '.join(_MAKERS)}")
    return _MAKERS[format](source, files, options)


def _images(source: str, files: Files, options: ReadOptions) -> Reader:
    return ImageReader(source, lambda note: iter(files), options)


def _rows(source: str, files: Files, options: ReadOptions, format: str, columns: Columns, read: ReadRows) -> RowReader:
    return RowReader(source, files, columns=columns, read=read, format=format, options=options)


def _csv(source: str, files: Files, options: ReadOptions) -> Reader:
    shape = csv_shape(files[0].path)
    columns = choose_columns(csv_columns(shape), options, shown(files[0].path), no_keys=shape.no_keys)
    as_text = [name for name in (columns.input, columns.key) if name is not None]
    read = partial(csv_rows, types=shape.types, needed=columns.used(), as_text=as_text)
    return _rows(source, files, options, "csv", columns, read)


def _jsonl(source: str, files: Files, options: ReadOptions) -> Reader:
    types, no_keys = json_columns(files[0].path)
    columns = choose_columns(types, options, shown(files[0].path), no_keys=no_keys)
    return _rows(source, files, options, "jsonl", columns, json_rows)


def _lines(source: str, files: Files, options: ReadOptions) -> Reader:
    columns = choose_columns({"text": "text"}, options, shown(files[0].path))
    told = Columns("text", "text", columns.key, columns.label, ("each line is a text",))
    return _rows(source, files, options, "lines", told, line_rows)


def _tfrecord(source: str, files: Files, options: ReadOptions) -> Reader:
    if options.features is not None:
        check_spec(options.features)
    spec = options.features or tfrecord_spec(files[0].path)
    columns = choose_columns(tfrecord_columns(spec), options, shown(files[0].path))
    return _rows(source, files, options, "tfrecord", columns, partial(tfrecord_rows, spec=spec))


def _parquet(source: str, files: Files, options: ReadOptions) -> Reader:
    types, floats = parquet_columns(files[0].path)
    columns = choose_columns(types, options, shown(files[0].path), no_keys=floats)
    if columns.kind in ("vector", "array"):
        return parquet_vector_reader(source, files, options, columns)
    reader = _rows(source, files, options, "parquet", columns, partial(parquet_rows, needed=columns.used()))
    reader.n_examples = known_sum(files, parquet_length)
    return reader


_MAKERS: dict[str, Callable[[str, Files, ReadOptions], Reader]] = {
    "images": _images,
    "csv": _csv,
    "jsonl": _jsonl,
    "lines": _lines,
    "parquet": _parquet,
    "tfrecord": _tfrecord,
    "npy": npy_reader,
    "npz": npz_reader,
    "fvecs": vecs_reader,
}
