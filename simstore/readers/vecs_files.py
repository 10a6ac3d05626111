"""fvecs, bvecs and ivecs: each vector behind its width, as the benchmark sets of the field come."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from simstore.errors import RejectedError
from simstore.readers.array_files import Chunk, float_vectors
from simstore.readers.compression import bare_name, open_stream, reading
from simstore.readers.files import shown

__all__ = ["VECS_SUFFIXES", "vecs_chunks", "vecs_shape"]

_TYPES: dict[str, np.dtype[Any]] = {".fvecs": np.dtype("<f4"), ".bvecs": np.dtype("u1"), ".ivecs": np.dtype("<i4")}
VECS_SUFFIXES = tuple(_TYPES)
_MAX_DIM = 1 << 20


def _element(path: str) -> np.dtype[Any]:
    return _TYPES.get(os.path.splitext(bare_name(path))[1], _TYPES[".fvecs"])


def vecs_shape(path: str) -> tuple[int, int]:
    """The number of vectors (of a compressed file -1), and their width.

    Raises:
        RejectedError: It cannot be read, or its size does not go with the width of its first vector.
    """
    with reading(path), open_stream(path) as stream:
        dim = int.from_bytes(stream.read(4), "little")
    if not 0 < dim <= _MAX_DIM:
        raise RejectedError("damaged", f"{shown(path)} begins with the width {dim}: it is no {os.path.splitext(path)[1]} file")
    if bare_name(path) != path.lower():
        return -1, dim
    size, record = os.path.getsize(path), 4 + dim * _element(path).itemsize
    if size % record:
        raise RejectedError("truncated", f"{shown(path)} has {size} bytes: no multiple of the {record} that a vector takes")
    return size // record, dim


def vecs_chunks(path: str, size: int, *, dim: int) -> Iterator[Chunk]:
    """The vectors of a file.

    Raises:
        RejectedError: The rest cannot be read: it ends within a vector, or one says that it has another width.
    """
    element = _element(path)
    record = np.dtype([("dim", "<i4"), ("vector", element, (dim,))])
    with reading(path), open_stream(path) as stream:
        row = 0
        while content := stream.read(size * record.itemsize):
            n, odd = divmod(len(content), record.itemsize)
            records = np.frombuffer(content, record, count=n)
            wrong = np.flatnonzero(records["dim"] != dim)
            whole = int(wrong[0]) if len(wrong) else n
            if whole:
                yield Chunk(float_vectors(records["vector"][:whole]), whole)
            row += whole
            if len(wrong):
                found = int(records["dim"][whole])
                raise RejectedError(
                    "wrong width", f"{shown(path)}: vector {row} says it has {found} numbers, the first had {dim}"
                )
            if odd:
                raise RejectedError("truncated", f"{shown(path)} ends within vector {row}")
