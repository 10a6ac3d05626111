"""npz: arrays keys, key_types, labels, label_types (str), vectors (float32 [n, dim]) and data, for numpy.load to read, too.

``data`` is the JSON texts of all items in a row, uint8, and ``data_ends`` tells where each ends. Types are "str", "int", "json"
for a str that is no valid text, and "none" for no label.
"""

import json
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from simstore.errors import SourceError
from simstore.transfer.file_info import Chunk, FileInfo, Lines, info_of, read_info
from simstore.transfer.json_form import from_json
from simstore.transfer.typed_text import typed, untyped

__all__ = ["NpzContent", "write_npz"]

_TEXTS = ("keys", "key_types", "labels", "label_types")
_N_ITEMS = 1000
_COPY_BYTES = 1 << 20


def write_npz(file: BinaryIO, settings: str, lines: Iterable[Lines]) -> None:
    """Writes items. An array's size stands before it, so all go through temporary files beside the target first."""
    dim = json.loads(settings)["dim"] or 0
    with ExitStack() as stack:
        spools: dict[str, IO[bytes]] = {
            name: stack.enter_context(tempfile.TemporaryFile(dir=Path(file.name).parent))
            for name in (*_TEXTS, "vectors", "data", "data_ends")
        }
        n, widths = _spool(spools, lines)
        for spool in spools.values():
            spool.seek(0)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            _write(archive, "simstore", np.dtype(f"<U{len(settings)}"), (), [np.array(settings).tobytes()])
            for name in _TEXTS:
                kind = np.dtype(f"<U{max(1, widths[name])}")
                _write(archive, name, kind, (n,), _fixed(spools[name], kind))
            _write(archive, "data", np.dtype("u1"), (spools["data"].seek(0, 2),), _blocks(spools["data"]))
            _write(archive, "data_ends", np.dtype("<i8"), (n,), _blocks(spools["data_ends"]))
            archive.compression = zipfile.ZIP_STORED  # noise does not compress
            _write(archive, "vectors", np.dtype("<f4"), (n, dim), _blocks(spools["vectors"]))


def _spool(spools: dict[str, IO[bytes]], lines: Iterable[Lines]) -> tuple[int, dict[str, int]]:
    """Puts everything into the temporary files: how many items there were, and how wide each column of texts is."""
    n, end, widths = 0, 0, dict.fromkeys(_TEXTS, 0)
    for part in lines:
        for name, column in zip(_TEXTS, (*typed(part.keys), *typed(part.labels)), strict=True):
            spools[name].write("".join(f"{json.dumps(text)}\n" for text in column).encode("ascii"))
            widths[name] = max(widths[name], *map(len, column))
        texts = [text.encode("ascii") for text in part.data]
        ends = end + np.cumsum([len(text) for text in texts], dtype="<i8")
        end = int(ends[-1])
        spools["data"].write(b"".join(texts))
        spools["data_ends"].write(ends.tobytes())
        spools["vectors"].write(part.vectors.astype("<f4", copy=False).tobytes())
        n += len(part.keys)
    return n, widths


def _write(archive: zipfile.ZipFile, name: str, kind: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[bytes]) -> None:
    with archive.open(_entry(archive, name), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {"descr": kind.str, "fortran_order": False, "shape": shape})
        for block in blocks:
            member.write(block)


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """A member without a time, so that equal stores make equal files."""
    entry = zipfile.ZipInfo(f"{name}.npy")
    entry.compress_type = archive.compression
    return entry


def _blocks(spool: IO[bytes]) -> Iterator[bytes]:
    spool.seek(0)
    while block := spool.read(_COPY_BYTES):
        yield block


def _fixed(spool: IO[bytes], kind: np.dtype[Any]) -> Iterator[bytes]:
    """The texts of a spool at the width that all of them have."""
    texts: list[str] = []
    for line in spool:
        texts.append(json.loads(line))
        if len(texts) == _N_ITEMS:
            yield np.array(texts, kind).tobytes()
            texts = []
    yield np.array(texts, kind).tobytes()


class _Column:
    """One array of an open file, read row by row."""

    def __init__(self, archive: zipfile.ZipFile, name: str, fits: Callable[[np.dtype[Any]], bool], n_axes: int) -> None:
        self.name = name
        self._member = archive.open(f"{name}.npy")
        if np.lib.format.read_magic(self._member) != (1, 0):
            raise ValueError(f"{name} has an unknown header")
        self.shape, is_fortran, self._kind = np.lib.format.read_array_header_1_0(self._member)
        if is_fortran or len(self.shape) != n_axes or not fits(self._kind):
            raise ValueError(f"{name} is an array of {self._kind} {self.shape}")

    def read(self, n: int) -> Any:
        """The next n rows."""
        shape = (n, *self.shape[1:])
        size = int(np.prod(shape)) * self._kind.itemsize
        content = self._member.read(size)
        if len(content) != size:
            raise ValueError(f"{self.name} is cut off")
        return np.frombuffer(content, self._kind).reshape(shape)

    def close(self) -> None:
        """Reads on to the end, where the checksum is compared."""
        with self._member as member:
            while member.read(_COPY_BYTES):
                pass


_SHAPES: dict[str, tuple[Callable[[np.dtype[Any]], bool], int]] = {
    **dict.fromkeys(_TEXTS, (lambda kind: kind.kind == "U", 1)),
    "data": (lambda kind: kind == np.uint8, 1),
    "data_ends": (lambda kind: kind == np.dtype("<i8"), 1),
    "vectors": (lambda kind: kind == np.dtype("<f4"), 2),
}


class NpzContent:
    """A file that write_npz wrote.

    Raises:
        SourceError: It is none, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except _ERRORS as err:
            raise SourceError(f"{path} is damaged, or no npz file: {err}") from err
        try:
            if "simstore.npy" not in self._archive.namelist():
                raise SourceError(f"{path} was not written by `simstore export`: `simstore index` reads other npz files")
            with self._archive.open("simstore.npy") as member:
                settings = read_info(path, "npz", str(np.lib.format.read_array(member, allow_pickle=False)[()]))
            columns = self._columns()
            counts = {column.shape[0] for name, column in columns.items() if name != "data"}
            if len(counts) != 1:
                raise ValueError("its arrays have different lengths")
            self.info: FileInfo = info_of(path, settings, counts.pop())
        except SourceError:  # before the others: it is a ValueError, too
            self._archive.close()
            raise
        except _ERRORS as err:
            self._archive.close()
            raise SourceError(f"{path} is damaged: {err}") from err

    def close(self) -> None:
        """See Content."""
        self._archive.close()

    def _columns(self) -> dict[str, _Column]:
        return {name: _Column(self._archive, name, *shape) for name, shape in _SHAPES.items()}

    def chunks(self, *, decoding: bool = True) -> Iterator[Chunk]:
        """See Content."""
        n, end = 0, 0
        try:
            columns = self._columns()
            while n < self.info.count:
                size = min(_N_ITEMS, self.info.count - n)
                ends = [end, *columns["data_ends"].read(size).tolist()]
                yield self._chunk(columns, ends, size, decoding=decoding)
                n, end = n + size, ends[-1]
            for column in columns.values():
                column.close()
        except _ERRORS as err:
            raise SourceError(f"{self._path} is damaged after item {n:,}: {err}; export it anew") from err

    def _chunk(self, columns: dict[str, _Column], ends: list[int], size: int, *, decoding: bool) -> Chunk:
        keys, key_types, labels, label_types = (columns[name].read(size).tolist() for name in _TEXTS)
        if sorted(ends) != ends:
            raise ValueError("data_ends go back")
        content = columns["data"].read(ends[-1] - ends[0]).tobytes()
        texts = [content[a - ends[0] : b - ends[0]] for a, b in pairwise(ends)]
        vectors = columns["vectors"].read(size).astype(np.float32)
        named = untyped(keys, key_types)
        if not decoding:
            return Chunk(named, [], [], vectors)
        return Chunk(named, untyped(labels, label_types), [from_json(json.loads(text)) for text in texts], vectors)


_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RecursionError,
    NotImplementedError,
)
