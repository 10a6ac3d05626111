"""What a store takes and gives: frozen values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ArrayInput",
    "BatchHits",
    "Counts",
    "EmbedderSpec",
    "Hit",
    "Hits",
    "ImageInput",
    "Item",
    "Key",
    "Label",
    "Progress",
    "TextInput",
]

Key = str | int
Label = str | int | None

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) while something long runs."""


@dataclass(frozen=True, slots=True)
class Item:
    """One stored item. ``vector`` is float32 [dim], exactly as it was given, and read-only."""

    key: Key
    label: Label
    data: Any
    vector: NDArray[np.float32] = field(repr=False, compare=False)


class Hit(NamedTuple):
    """One answer of a search: rank counts from 0; a smaller distance is closer.

    A tuple, since ten of them are made for each search, and a frozen dataclass takes three times as long to make.
    """

    rank: int
    key: Key
    distance: float
    label: Label
    data: Any
    vector: NDArray[np.float32] | None = None


class Hits(Sequence[Hit]):
    """The answer to one query: a sequence of Hit, closest first, and the same as columns.

    Attributes:
        keys: list of the k keys.
        distances: float32 [k], ascending.
        labels: list of the k labels.
        rows: uint64 [k], the store's internal version numbers.
    """

    __slots__ = ("_decode", "_records", "_rows", "_vectors", "distances")

    def __init__(
        self,
        records: Sequence[tuple[Key, Label, bytes]],
        distances: NDArray[np.float32],
        rows: Sequence[int] | NDArray[np.uint64],
        decode: Callable[[bytes], Any],
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        self._records = records
        self._vectors = vectors
        self._decode = decode
        self.distances = distances
        self._rows = rows

    @property
    def rows(self) -> NDArray[np.uint64]:
        """The store's internal version numbers, uint64 [k]."""
        return np.asarray(self._rows, np.uint64)

    @property
    def keys(self) -> list[Key]:
        """The keys, closest first."""
        return [record[0] for record in self._records]

    @property
    def labels(self) -> list[Label]:
        """The labels, closest first."""
        return [record[1] for record in self._records]

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, at: int) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> list[Hit]: ...
    def __getitem__(self, at: int | slice) -> Hit | list[Hit]:
        if isinstance(at, slice):
            return [self._hit(i) for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(f"hit {at} of {len(self)}")
        return self._hit(at % len(self))

    def __iter__(self) -> Iterator[Hit]:
        decode, vectors = self._decode, self._vectors
        for i, ((key, label, packed), distance) in enumerate(zip(self._records, self.distances.tolist(), strict=True)):
            yield Hit(i, key, distance, label, decode(packed), None if vectors is None else vectors[i])

    def _hit(self, i: int) -> Hit:
        key, label, packed = self._records[i]
        vector = None if self._vectors is None else self._vectors[i]
        return Hit(i, key, self.distances.item(i), label, self._decode(packed), vector)

    def __repr__(self) -> str:
        shown = zip(self.keys[:10], self.distances.tolist(), strict=False)
        inner = ", ".join(f"{key!r}: {distance:.6g}" for key, distance in shown)
        return f"<Hits {len(self)}: {inner}{', …' if len(self) > 10 else ''}>"


class BatchHits(Sequence[Hits]):
    """The answers to many queries: ``[i]`` is the i-th query's Hits; and the same as arrays.

    Where a query has fewer than k answers the arrays are filled up: keys and labels with None, distances with inf.

    Attributes:
        keys: object [n_queries, k].
        distances: float32 [n_queries, k], ascending along k.
        labels: object [n_queries, k].
        counts: int32 [n_queries], how many answers each query has.
    """

    __slots__ = ("_decode", "_distances", "_k", "_records", "_rows", "_starts", "_vectors", "counts")

    def __init__(
        self,
        records: list[tuple[Key, Label, bytes]],
        distances: NDArray[np.float32],
        rows: NDArray[np.uint64],
        counts: NDArray[np.int32],
        k: int | None,
        decode: Callable[[bytes], Any],
        vectors: NDArray[np.float32] | None,
    ) -> None:
        self._records = records
        self._distances = distances
        self._rows = rows
        self._k = k
        self._decode = decode
        self._vectors = vectors
        self._starts: list[int] | None = None
        self.counts = counts

    @classmethod
    def joined(cls, parts: "Sequence[BatchHits]") -> "BatchHits":
        """The answers of several batches, one after the other."""
        if len(parts) == 1:
            return parts[0]
        vectors = [part._vectors for part in parts if part._vectors is not None]
        return cls(
            list(chain.from_iterable(part._records for part in parts)),
            np.concatenate([part._distances for part in parts]),
            np.concatenate([part._rows for part in parts]),
            np.concatenate([part.counts for part in parts]),
            parts[0]._k,
            parts[0]._decode,
            np.concatenate(vectors) if vectors else None,
        )

    @property
    def keys(self) -> NDArray[np.object_]:
        """The keys; None where a query has fewer answers."""
        return self._filled(self._column(0), None)

    @property
    def labels(self) -> NDArray[np.object_]:
        """The labels; None where a query has fewer answers."""
        return self._filled(self._column(1), None)

    @property
    def distances(self) -> NDArray[np.float32]:
        """The distances; inf where a query has fewer answers."""
        return self._filled(self._distances, np.inf)

    def _column(self, at: int) -> NDArray[np.object_]:
        column = np.empty(len(self._records), object)
        column[:] = list(map(itemgetter(at), self._records))
        return column

    def _filled(self, column: NDArray[Any], rest: Any) -> NDArray[Any]:
        width = self._k or int(self.counts.max(initial=0))
        if len(column) == len(self) * width:
            return column.reshape(len(self), width)
        out = np.full((len(self), width), rest, column.dtype)
        out[np.arange(width) < self.counts[:, None]] = column
        return out

    def __len__(self) -> int:
        return len(self.counts)

    @overload
    def __getitem__(self, at: int) -> Hits: ...
    @overload
    def __getitem__(self, at: slice) -> list[Hits]: ...
    def __getitem__(self, at: int | slice) -> Hits | list[Hits]:
        if isinstance(at, slice):
            return [self._hits(i) for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(f"query {at} of {len(self)}")
        return self._hits(at % len(self))

    def _hits(self, i: int) -> Hits:
        if self._starts is None:
            self._starts = [0, *np.cumsum(self.counts).tolist()]
        part = slice(self._starts[i], self._starts[i + 1])
        vectors = None if self._vectors is None else self._vectors[part]
        return Hits(self._records[part], self._distances[part], self._rows[part], self._decode, vectors)

    def __repr__(self) -> str:
        return f"<BatchHits of {len(self)} queries, k={self._k}>"


class Counts(NamedTuple):
    """What an upsert did."""

    added: int
    replaced: int


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """What a store remembers of its embedder."""

    name: str
    dim: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Images that an embedder takes: uint8 [height, width, channels], 0…255; None is any size."""

    height: int | None
    width: int | None
    channels: int


@dataclass(frozen=True, slots=True)
class TextInput:
    """Texts that an embedder takes: str."""


@dataclass(frozen=True, slots=True)
class ArrayInput:
    """Arrays of numbers that an embedder takes; an axis of None has any length."""

    shape: tuple[int | None, ...]
