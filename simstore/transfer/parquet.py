"""Parquet: columns key, key_type, label, label_type, data (JSON text) and vector, with page checksums.
The metadata hold the settings under "simstore", and under "simstore.xxh3_64" their checksum and one of each column.

Types are "str", "int", "json" for a str that is no valid text, and "none" for no label.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from simstore.errors import PackageMissingError, SourceError
from simstore.transfer.file_info import Chunk, FileInfo, Lines, info_of, read_info
from simstore.transfer.json_form import from_json
from simstore.transfer.typed_text import typed, untyped

__all__ = ["ParquetContent", "write_parquet"]

_SETTINGS, _CHECKSUM = b"simstore", b"simstore.xxh3_64"
_COLUMNS = ["key", "key_type", "label", "label_type", "data", "vector"]
_N_ITEMS = 1000
_GROUP_BYTES = 64 << 20
_FORMAT = {"compression": "zstd", "write_page_checksum": True}


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as err:
        raise PackageMissingError(f"Parquet files need pyarrow ({err}): pip install 'simstore[parquet]'") from err
    return pyarrow


def write_parquet(file: BinaryIO, settings: str, lines: Iterable[Lines]) -> None:
    """Writes items.

    Raises:
        PackageMissingError: pyarrow is not installed.
    """
    pa = _pyarrow()
    dim = json.loads(settings)["dim"] or 0
    vector = pa.list_(pa.float32(), dim) if dim else pa.list_(pa.float32())
    kinds = [pa.string(), pa.string(), pa.string(), pa.string(), pa.large_string(), vector]
    schema = pa.schema(list(zip(_COLUMNS, kinds, strict=True)), metadata={_SETTINGS: settings.encode()})
    plain = {"use_dictionary": ["key_type", "label", "label_type"]}  # else 0.0 and -0.0 might become one value
    checksums = _Checksums(settings.encode())
    with pa.parquet.ParquetWriter(file, schema, **_FORMAT, **plain) as writer:
        for group in _groups(lines):
            batches = [_batch(pa, part, schema) for part in group]
            for batch in batches:
                checksums.update(batch)
            writer.write_table(pa.Table.from_batches(batches, schema))
        writer.add_key_value_metadata({_CHECKSUM: checksums.digest()})


class _Checksums:
    """One for the settings and one for each column: a footer has none, and a flip in it can hide rows."""

    def __init__(self, settings: bytes) -> None:
        self._all = [xxhash.xxh3_64(settings), *(xxhash.xxh3_64() for _ in _COLUMNS)]

    def update(self, batch: Any) -> None:
        """Takes in the next rows."""
        for checksum, column in zip(self._all[1:-1], batch.columns[:-1], strict=True):
            checksum.update("".join(f"{text or ''}\0" for text in column.to_pylist()).encode())
        self._all[-1].update(batch.column(len(_COLUMNS) - 1).flatten().to_numpy(zero_copy_only=False).tobytes())

    def digest(self) -> bytes:
        """All of them, as text."""
        return " ".join(checksum.hexdigest() for checksum in self._all).encode()


def _groups(lines: Iterable[Lines]) -> Iterator[list[Lines]]:
    """Parts that make a row group each."""
    group: list[Lines] = []
    size = 0
    for part in lines:
        group.append(part)
        size += part.vectors.nbytes + sum(map(len, part.data)) + 32 * len(part.keys)
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _batch(pa: Any, part: Lines, schema: Any) -> Any:
    (keys, key_types), (labels, label_types) = typed(part.keys), typed(part.labels)
    labels_or_null = [None if kind == "none" else text for text, kind in zip(labels, label_types, strict=True)]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.vectors.reshape(-1)), part.vectors.shape[1])
    columns = [keys, key_types, labels_or_null, label_types, part.data]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types[:-1], strict=True)]
    return pa.RecordBatch.from_arrays([*arrays, vectors], schema=schema)


class ParquetContent:
    """A file that write_parquet wrote.

    Raises:
        SourceError: It is none, or is damaged.
        PackageMissingError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        pa = _pyarrow()
        self._path = path
        self._errors = (pa.ArrowException, OSError, ValueError, TypeError, RecursionError)
        try:
            self._file = pa.parquet.ParquetFile(path, page_checksum_verification=True)
        except self._errors as err:
            raise SourceError(f"{path} is damaged, or no Parquet file: {err}") from err
        schema = self._file.schema_arrow
        settings = (schema.metadata or {}).get(_SETTINGS)
        if settings is None or schema.names != _COLUMNS:
            self.close()
            raise SourceError(f"{path} was not written by `simstore export`: `simstore index` reads other Parquet files")
        self._settings = settings
        self.info: FileInfo = info_of(path, read_info(path, "parquet", settings), self._file.metadata.num_rows)

    def close(self) -> None:
        """See Content."""
        self._file.close()

    def chunks(self, *, decoding: bool = True) -> Iterator[Chunk]:
        """See Content."""
        n = 0
        checksums = _Checksums(self._settings)
        try:
            for batch in self._file.iter_batches(batch_size=_N_ITEMS):
                checksums.update(batch)
                yield self._chunk(batch, decoding=decoding)
                n += batch.num_rows
            if checksums.digest() != (self._file.metadata.metadata or {}).get(_CHECKSUM):
                raise ValueError("its items or settings are not those that were written")
        except self._errors as err:
            raise SourceError(f"{self._path} is damaged after item {n:,}: {err}; export it anew") from err

    def _chunk(self, batch: Any, *, decoding: bool) -> Chunk:
        n_columns = 5 if decoding else 2
        columns = [batch.column(i).to_pylist() if i < n_columns else [] for i in range(5)]
        keys, key_types, labels, label_types, data = columns
        vectors = batch.column(5).flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        return Chunk(
            untyped(keys, key_types),
            untyped(labels, label_types),
            [from_json(json.loads(text)) for text in data],
            vectors.reshape(batch.num_rows, self.info.dim or 0),
        )
