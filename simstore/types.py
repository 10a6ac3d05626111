"""What a store takes and gives: frozen values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BatchHits",
    "Counts",
    "EmbedderSpec",
    "Hit",
    "Hits",
    "Item",
    "Key",
    "Label",
    "Problem",
    "Progress",
    "StoreInfo",
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


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search: rank counts from 0; a smaller distance is closer."""

    rank: int
    key: Key
    distance: float
    label: Label
    data: Any
    vector: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


class Hits(Sequence[Hit]):
    """The answer to one query: a sequence of Hit, closest first, and the same as columns.

    Attributes:
        keys: list of the k keys.
        distances: float32 [k], ascending.
        labels: list of the k labels.
        rows: uint64 [k], the store's internal version numbers.
    """

    __slots__ = ("_records", "_vectors", "distances", "rows")

    def __init__(
        self,
        records: Sequence[tuple[Key, Label, Any]],
        distances: NDArray[np.float32],
        rows: NDArray[np.uint64],
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        self._records = records
        self._vectors = vectors
        self.distances = distances
        self.rows = rows

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
        return (self._hit(i) for i in range(len(self)))

    def _hit(self, i: int) -> Hit:
        key, label, data = self._records[i]
        vector = None if self._vectors is None else self._vectors[i]
        return Hit(i, key, float(self.distances[i]), label, data, vector)

    def __repr__(self) -> str:
        inner = ", ".join(f"{hit.key!r}: {hit.distance:.6g}" for hit in self[:10])
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

    __slots__ = ("_hits", "_width")

    def __init__(self, hits: Sequence[Hits], width: int) -> None:
        self._hits = hits
        self._width = width

    @property
    def counts(self) -> NDArray[np.int32]:
        """How many answers each query has."""
        return np.array([len(hits) for hits in self._hits], np.int32)

    @property
    def keys(self) -> NDArray[np.object_]:
        """The keys; None where a query has fewer answers."""
        return self._objects([hits.keys for hits in self._hits])

    @property
    def labels(self) -> NDArray[np.object_]:
        """The labels; None where a query has fewer answers."""
        return self._objects([hits.labels for hits in self._hits])

    @property
    def distances(self) -> NDArray[np.float32]:
        """The distances; inf where a query has fewer answers."""
        out = np.full((len(self._hits), self._width), np.inf, np.float32)
        for row, hits in zip(out, self._hits, strict=True):
            row[: len(hits)] = hits.distances
        return out

    def _objects(self, columns: list[Any]) -> NDArray[np.object_]:
        out = np.full((len(columns), self._width), None, object)
        for row, column in zip(out, columns, strict=True):
            row[: len(column)] = column
        return out

    def __len__(self) -> int:
        return len(self._hits)

    @overload
    def __getitem__(self, at: int) -> Hits: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Hits]: ...
    def __getitem__(self, at: int | slice) -> Hits | Sequence[Hits]:
        return self._hits[at]

    def __repr__(self) -> str:
        return f"<BatchHits of {len(self)} queries, k={self._width}>"


class Counts(NamedTuple):
    """What an upsert did."""

    added: int
    replaced: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of check(): where ("segment 0-99", "items", …), what, and what can be done."""

    where: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """What a store remembers of its embedder."""

    name: str
    dim: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """The state of a store; sizes in bytes."""

    path: str
    count: int
    n_labels: int
    dim: int | None
    metric: str
    M: int
    ef_construction: int
    embedder: EmbedderSpec | None
    seq: int
    n_rows: int
    n_dead: int
    n_segments: int
    n_tail: int
    database_size_bytes: int
    segments_size_bytes: int
    format_version: int
