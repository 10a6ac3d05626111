"""What an item remembers of where it came from, data["_source"]; and the hash of what an example holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from simstore.readers import RowBatch, SourceFile
from simstore.storage import Place, RejectedRecord
from simstore.storage.encoding import encode_key, packer
from simstore.types import Key

__all__ = ["FIELD", "Stamp", "is_of", "place_of", "rejection", "row_hashes", "stamp", "stamp_of"]

FIELD = "_source"
Stamp = dict[str, Any]
"""source, file, row (left out where the file is one example), size, mtime_ns, hash."""

_MOST_MESSAGE = 500


def stamp(source: str, file: SourceFile, row: int | None, digest: int) -> Stamp:
    """The stamp of an example."""
    path, size, mtime_ns = file
    if row is None:
        return {"source": source, "file": path, "size": size, "mtime_ns": mtime_ns, "hash": digest}
    return {"source": source, "file": path, "row": row, "size": size, "mtime_ns": mtime_ns, "hash": digest}


def stamp_of(data: Any) -> Stamp | None:
    """The stamp in an item's data; None where no ingest() wrote it."""
    found = data.get(FIELD) if isinstance(data, dict) else None
    return found if isinstance(found, dict) and isinstance(found.get("source"), str) and "hash" in found else None


def place_of(mark: Stamp) -> Place:
    """Where the example of a stamp stands."""
    return Place(mark["source"], mark.get("file", ""), mark.get("row"))


def is_of(mark: Stamp, source: str, file: SourceFile) -> bool:
    """Whether a stamp is that of this very file, as it is now."""
    return (mark.get("file"), mark.get("size"), mark.get("mtime_ns"), mark["source"]) == (*file, source)


def rejection(place: Place, file: SourceFile, key: Any, reason: str, message: str, at: float) -> RejectedRecord:
    """The note of an example that cannot be taken in. A key that is none is left out."""
    return RejectedRecord(place, _stored_key(key), reason, message[:_MOST_MESSAGE], file.size, file.mtime_ns, at)


def _stored_key(key: Any) -> Key | None:
    try:
        encode_key(key)
    except ValueError:
        return None
    return int(key) if isinstance(key, (int, np.integer)) else str(key)


# -- hashes ------------------------------------------------------------------------------------------------------------


def row_hashes(batch: RowBatch) -> list[int]:
    """For each row the hash of input, label and data: equal ones mean that nothing has changed."""
    inputs = batch.inputs
    if isinstance(inputs, np.ndarray) and not inputs.dtype.hasobject:
        return _array_hashes(inputs, _seeds(batch, _header(inputs.dtype, inputs.shape[1:])))
    with_packer = packer()
    return [_hash(one, seed, with_packer) for one, seed in zip(inputs, _seeds(batch, 0), strict=True)]


def _array_hashes(inputs: NDArray[Any], seeds: Sequence[int]) -> list[int]:
    n = len(inputs)
    flat = np.ascontiguousarray(inputs).reshape(n, -1).view(np.uint8) if inputs.size else np.empty((n, 0), np.uint8)
    return [xxh3_64_intdigest(row.data, seed) for row, seed in zip(flat, seeds, strict=True)]


def _seeds(batch: RowBatch, seed: int) -> list[int]:
    """For each row the hash of label and data, with which its input's is seeded."""
    with_packer = packer()
    plain = _packed_hash([None, {}], seed, with_packer)
    return [
        plain if label is None and not data else _packed_hash([label, data], seed, with_packer)
        for label, data in zip(batch.labels, batch.data, strict=True)
    ]


def _hash(value: Any, seed: int, with_packer: Any) -> int:
    if isinstance(value, str):
        return xxh3_64_intdigest(value.encode("utf-8", "surrogatepass"), seed)
    if isinstance(value, (bytes, bytearray)):
        return xxh3_64_intdigest(value, seed ^ 1)  # b"x" is not "x"
    array = np.asarray(value) if hasattr(value, "__array__") else None
    if array is None or array.dtype.hasobject:
        return _packed_hash(value, seed, with_packer)
    seed = xxh3_64_intdigest(seed.to_bytes(8, "big"), _header(array.dtype, array.shape))
    return xxh3_64_intdigest(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, seed)


def _packed_hash(value: Any, seed: int, with_packer: Any) -> int:
    try:
        return xxh3_64_intdigest(with_packer.pack(value), seed)
    except (ValueError, OverflowError, TypeError, RecursionError, BufferError):
        with_packer.reset()
        return seed  # no store takes it: it is refused when it is written


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return xxh3_64_intdigest(f"{dtype.str}{list(shape)}".encode())
