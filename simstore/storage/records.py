"""The values in LMDB: each carries a checksum that is seeded with its key's number, so that neither a flipped bit nor a value
that strayed to another place passes for good."""

import struct
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from simstore.errors import CorruptStoreError
from simstore.storage.encoding import unpack
from simstore.types import Key, Label

__all__ = [
    "LogEntry",
    "Record",
    "SegmentRecord",
    "SnapshotRecord",
    "State",
    "item_body",
    "item_value",
    "own_vector",
    "read_item",
    "read_record",
    "sealed",
    "unsealed",
]

U64 = struct.Struct(">Q")
_CHECKSUM_BYTES = 8
_DAMAGED = "is damaged (its checksum does not match): check(deep=True) lists what else is; repair(), or restore a backup"


def row_key(row: int) -> bytes:
    """The key of a row or seq in a table."""
    return U64.pack(row)


def sealed(body: bytes, seed: int = 0) -> bytes:
    """A body behind its checksum."""
    return xxh3_64_digest(body, seed) + body


def unsealed(value: bytes, what: str, seed: int = 0, remedy: str = "") -> bytes:
    """The body of a sealed value.

    Raises:
        CorruptStoreError: The checksum does not match; names what.
    """
    body = value[_CHECKSUM_BYTES:]
    if xxh3_64_digest(body, seed) != value[:_CHECKSUM_BYTES]:
        raise CorruptStoreError(f"{what} {remedy or _DAMAGED}")
    return body


# -- items: created_seq, msgpack [key, label, data as msgpack] or [key, label, data, vector] ---------------------------

Record = tuple[Key, Label, bytes]
"""An item's key and label, and its data as msgpack."""

_BODY_AT = 2 * _CHECKSUM_BYTES


def item_body(record: Record, vector: NDArray[np.float32] | None = None) -> bytes:
    """What an item's value ends with; a vector [dim] that stands in no run comes along."""
    parts = record if vector is None else (*record, vector.astype("<f4", copy=False).tobytes())
    body: bytes = msgpack.packb(parts, unicode_errors="surrogatepass")
    return body


def item_value(body: bytes, created_seq: bytes, row: int) -> bytes:
    """The stored value of an item: checksum, created_seq, body."""
    return sealed(created_seq + body, row)


def read_record(value: bytes, row: int) -> Record:
    """Key, label and packed data of a stored item.

    Raises:
        CorruptStoreError: The checksum does not match.
    """
    parts: Record = _item_parts(value, row)
    return parts if len(parts) == 3 else parts[:3]


def own_vector(value: bytes, row: int) -> NDArray[np.float32] | None:
    """The vector [dim] that a stored item carries itself, read-only; None if it stands in a run.

    Raises:
        CorruptStoreError: The checksum does not match.
    """
    parts = _item_parts(value, row)
    return np.frombuffer(parts[3], "<f4") if len(parts) > 3 else None


def _item_parts(value: bytes, row: int) -> Any:
    if xxh3_64_digest(value[_CHECKSUM_BYTES:], row) != value[:_CHECKSUM_BYTES]:
        raise CorruptStoreError(f"the item in row {row} {_DAMAGED}")
    return msgpack.unpackb(value[_BODY_AT:], use_list=False, unicode_errors="surrogatepass")


def read_item(value: bytes, row: int) -> tuple[Key, Label, Any]:
    """Key, label and data of a stored item.

    Raises:
        CorruptStoreError: The checksum does not match.
    """
    key, label, packed = read_record(value, row)
    return key, label, unpack(packed)


def created_seq_of(value: bytes) -> int:
    """The seq that an item was written in."""
    return int.from_bytes(value[_CHECKSUM_BYTES : 2 * _CHECKSUM_BYTES], "big")


# -- vectors: runs of records, each float32 [dim], padded to 8 bytes, and its checksum ---------------------------------

RUN_BYTES = 16 * 4096 - 16  # a value of 16 LMDB pages, less their header


def record_bytes(dim: int) -> int:
    """The size of one vector's record."""
    return (4 * dim + 7) // 8 * 8 + _CHECKSUM_BYTES


def rows_per_run(dim: int) -> int:
    """How many records one value holds at most."""
    return max(1, RUN_BYTES // record_bytes(dim))


def vector_checksum(content: bytes | memoryview, row: int) -> int:
    """The checksum of one vector's bytes."""
    return xxh3_64_intdigest(content, row)


def vector_records(vectors: NDArray[np.float32], first_row: int) -> NDArray[np.uint8]:
    """The records of vectors [n, dim] in rows first_row, …: uint8 [n, record_bytes]."""
    n, dim = vectors.shape
    records = np.zeros((n, record_bytes(dim)), np.uint8)
    records[:, : 4 * dim] = vectors.astype("<f4", copy=False).view(np.uint8)
    checksums = [vector_checksum(vector.data, first_row + i) for i, vector in enumerate(vectors)]
    records[:, -_CHECKSUM_BYTES:] = np.array(checksums, "<u8").view(np.uint8).reshape(n, _CHECKSUM_BYTES)
    return records


def split_records(value: bytes | memoryview, dim: int) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """The vectors [n, dim] in a value, and their checksums [n]; both views of it. What is cut off at its end is left out."""
    size = record_bytes(dim)
    n = len(value) // size
    records = np.frombuffer(value, np.uint8)[: n * size].reshape(n, size)
    return records[:, : 4 * dim].view("<f4"), records[:, -_CHECKSUM_BYTES:].view("<u8")[:, 0]


# -- what the store knows of itself ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """The newest transaction: its seq; the next row; live items; the number keys=None gives next; the seqs of the newest change
    of the list of segments, of the newest log entry, of the newest change of the snapshots, and of the newest repair: what was
    known of a state before that holds no longer."""

    seq: int = 0
    next_row: int = 0
    n_live: int = 0
    next_number: int = 0
    segments_seq: int = 0
    log_seq: int = 0
    snapshots_seq: int = 0
    repaired_seq: int = 0

    _FORM = struct.Struct(">8Q")

    def value(self) -> bytes:
        """The stored value."""
        numbers = self.seq, self.next_row, self.n_live, self.next_number, self.segments_seq, self.log_seq
        return sealed(self._FORM.pack(*numbers, self.snapshots_seq, self.repaired_seq))

    @classmethod
    def of(cls, value: bytes) -> "State":
        """The state of a stored value; the first stores had six numbers."""
        body = unsealed(value, "the store's state")
        return cls(*cls._FORM.unpack(body.ljust(cls._FORM.size, b"\0")))


@dataclass(frozen=True, slots=True)
class LogEntry:
    """The rows that one transaction buried, and the seq of the entry before. What it added, the state's next_row tells."""

    previous: int
    dead_rows: tuple[int, ...]

    def value(self, seq: int) -> bytes:
        """The stored value."""
        return sealed(msgpack.packb([self.previous, np.array(self.dead_rows, "<u8").tobytes()]), seq)

    @classmethod
    def of(cls, value: bytes, seq: int) -> "LogEntry":
        """The entry of a stored value."""
        previous, dead = msgpack.unpackb(unsealed(value, f"log entry {seq}", seq))
        return cls(previous, tuple(np.frombuffer(dead, "<u8").tolist()))


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A state to be remembered.

    Attributes:
        seq, next_row, n_live: Those of the state.
        first_row: Where the epoch of its rows begins.
        created_s: When, in seconds since 1970.
        dim, embedder: Those of the schema then.
    """

    name: str
    seq: int
    next_row: int
    n_live: int
    first_row: int
    created_s: float
    note: str
    dim: int | None
    embedder: dict[str, Any] | None

    def value(self) -> bytes:
        """The stored value."""
        parts = [self.seq, self.next_row, self.n_live, self.first_row, self.created_s, self.note, self.dim, self.embedder]
        return sealed(msgpack.packb(parts), xxh3_64_intdigest(self.name.encode()))

    @classmethod
    def of(cls, value: bytes, name: str) -> "SnapshotRecord":
        """The snapshot of a stored value."""
        return cls(name, *msgpack.unpackb(unsealed(value, f"the snapshot {name!r}", xxh3_64_intdigest(name.encode()))))


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRecord:
    """What LMDB knows of a segment file.

    Attributes:
        first_row, last_row: The rows the segment stands for.
        n_rows: How many of them are in it; the others were dead when it was built.
        blocks: uint64, the xxh3 of each 64 KB of the file.
        copy_nodes, copy_starts, copy_rows: Nodes that stand for several rows, and those rows but the first.
        orphans: Nodes that no walk reaches.
    """

    file: str
    first_row: int
    last_row: int
    n_rows: int
    n_nodes: int
    dim: int
    metric: str
    size_bytes: int
    blocks: NDArray[np.uint64]
    copy_nodes: NDArray[np.uint32]
    copy_starts: NDArray[np.uint64]
    copy_rows: NDArray[np.uint64]
    orphans: NDArray[np.uint32]

    def value(self) -> bytes:
        """The stored value."""
        head = [self.file, self.first_row, self.last_row, self.n_rows, self.n_nodes, self.dim, self.metric, self.size_bytes]
        arrays = [
            self.blocks.astype("<u8").tobytes(),
            self.copy_nodes.astype("<u4").tobytes(),
            self.copy_starts.astype("<u8").tobytes(),
            self.copy_rows.astype("<u8").tobytes(),
            self.orphans.astype("<u4").tobytes(),
        ]
        return sealed(msgpack.packb(head + arrays), self.first_row)

    @classmethod
    def of(cls, value: bytes, first_row: int) -> "SegmentRecord":
        """The record of a stored value."""
        parts = msgpack.unpackb(unsealed(value, f"the record of the segment from row {first_row}", first_row))
        kinds = ("<u8", "<u4", "<u8", "<u8", "<u4")
        arrays = (np.frombuffer(part, kind) for part, kind in zip(parts[8:], kinds, strict=True))
        return cls(*parts[:8], *arrays)
