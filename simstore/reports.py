"""What a store tells of itself and of what it did: frozen values."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from simstore.types import EmbedderSpec, Key

__all__ = [
    "Compacted",
    "Difference",
    "Latency",
    "Plan",
    "PlanPart",
    "Problem",
    "Quarantined",
    "RecallEstimate",
    "Reembedded",
    "Rejected",
    "Repaired",
    "Restored",
    "SnapshotInfo",
    "Stats",
    "StoreInfo",
]


class Latency(NamedTuple):
    """How many searches took at most so long, and longer than the bucket before."""

    at_most_s: float
    n: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What this Store object has done since it was opened.

    Attributes:
        searches, queries: Calls, and the queries in them.
        paths: For each path of PlanPart how many queries took it through a segment.
        latencies: A histogram of the searches; a search_many counts once.
        writes, commits: Calls that wrote, and the transactions that they shared.
        items_written, items_buried: Rows that were added, and that were deleted or replaced.
        folds, merges: Segments built from the tail, and from other segments.
        item_bytes_written: Vectors and data of those items, before LMDB lays them out.
        segment_bytes_written: Sizes of the segments that were built.
    """

    searches: int
    queries: int
    paths: dict[str, int]
    latencies: tuple[Latency, ...]
    writes: int
    commits: int
    items_written: int
    items_buried: int
    folds: int
    merges: int
    item_bytes_written: int
    segment_bytes_written: int

    def latency_s(self, share: float) -> float:
        """Within which time a share of the searches ended, as 0.99: an upper bound, less than twice too much; 0 for none."""
        wanted, seen = share * self.searches, 0
        for bucket in self.latencies:
            seen += bucket.n
            if seen and seen >= wanted:
                return bucket.at_most_s
        return 0.0


@dataclass(frozen=True, slots=True)
class RecallEstimate:
    """How many of the true k nearest a search finds: the mean over n_queries, and its 95 % confidence interval."""

    recall: float
    low: float
    high: float
    k: int
    ef: int
    n_queries: int


@dataclass(frozen=True, slots=True)
class PlanPart:
    """How a part of the store was searched.

    Attributes:
        name: Which rows they are.
        path: "graph"; "rows", the allowed ones one by one; "exact", all of them; "tail", which no graph covers, likewise;
            "none", since none is allowed.
        n_rows, n_allowed: How many rows it has, and how many the filter lets through.
        cost: With how many vectors the query was compared.
        seconds: How long it took.
    """

    name: str
    path: str
    n_rows: int
    n_allowed: int
    cost: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.path}, {self.n_allowed} of {self.n_rows} rows allowed, {self.cost} compared, "
            f"{self.seconds * 1e6:.0f} µs"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search is done. ``print(plan)`` shows it.

    Attributes:
        where: The filter, None if there is none.
        k, ef: As they were used.
        estimate: How many items the postings named before any was looked at; all, where no index serves.
        is_indexed: Whether the filter was answered from postings alone.
        n_read: How many items had to be looked at, when the filter was first used.
        count: How many items match.
        parts: The segments, then the tail.
        cost: With how many vectors the query was compared.
    """

    where: str | None
    k: int | None
    ef: int
    estimate: int
    is_indexed: bool
    n_read: int
    count: int
    parts: tuple[PlanPart, ...]
    cost: int

    def __str__(self) -> str:
        head = f"search for k={self.k}, ef={self.ef}, among {self.count} items: {self.cost} compared"
        if self.where is not None:
            how = "from postings" if self.is_indexed else f"{self.n_read} items were looked at"
            head += f"\n  where {self.where}: {self.count} match (estimate {self.estimate}), {how}"
        return "\n  ".join([head, *map(str, self.parts)])


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A state that the store remembers: when it was taken, and how many items it sees."""

    name: str
    created: datetime
    note: str
    count: int
    dim: int | None
    seq: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What happened from one state to another, as keys: an item has changed if its label, its data or its vector has."""

    added: list[Key]
    changed: list[Key]
    deleted: list[Key]


@dataclass(frozen=True, slots=True)
class Restored:
    """What restore() did: ``undo`` is the snapshot of the state before; how many items came back, and how many went."""

    undo: str
    n_restored: int
    n_removed: int


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compact() did; sizes in bytes, of database and segments together."""

    n_purged: int
    before_size_bytes: int
    after_size_bytes: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of check(): where ("segment 0-99", "items", …), what, and what can be done."""

    where: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An item that repair() took out of the store, or out of snapshots: its key (None if it is unknown), its row, and why."""

    key: Key | None
    row: int
    what: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """An example that ingest() could not take in.

    Attributes:
        source: What was to be ingested, as it was given, absolute.
        file: Its file, absolute; "" if it has none.
        row: Its running number within the file; None if the file is one example.
        key: The key it would have had; None if that is not known.
        reason: In a few words, the same for all of a kind: "no image", "truncated", "too many pixels", …
        message: What was found.
        size, mtime_ns: Of the file, as it was then: it is tried again when they have changed.
        at: When.
    """

    source: str
    file: str
    row: int | None
    key: Key | None
    reason: str
    message: str
    size: int
    mtime_ns: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Repaired:
    """What repair() did: nothing, if the store was sound.

    Attributes:
        rebuilt: What has been set right: "keys", "state", "snapshot 'monday'", "segment 0-99", …
        quarantined: The items that could not be.
        quarantine: The file that holds their bytes, as msgpack; None if there are none.
        unrepaired: What check(deep=True) still finds, with what can be done.
    """

    rebuilt: list[str]
    quarantined: list[Quarantined]
    quarantine: Path | None
    unrepaired: list[Problem]


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
    indexed_fields: tuple[str | tuple[str | int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Reembedded:
    """What reembed() did: how many items have new vectors, how wide these are, and how many an interrupted run had left."""

    n_items: int
    dim: int
    n_resumed: int
