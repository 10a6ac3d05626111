"""What a store tells of itself and of what it did: frozen values."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from simstore.types import EmbedderSpec, Key

__all__ = [
    "Compacted",
    "Difference",
    "IngestEstimate",
    "IngestReport",
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


@dataclass(frozen=True, slots=True)
class IngestEstimate:
    """What a run would take, told by a dry run.

    Attributes:
        seconds: As long as the examples that were tried took; None where there was nothing to try.
        size_bytes: What the store would grow by, its graph included.
        n_sample: How many examples were tried.
    """

    seconds: float | None
    size_bytes: int
    n_sample: int


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What ingest() did.

    Attributes:
        added, replaced, unchanged: Items that are new; whose example has changed; that were left as they are.
        relabelled: Items of unchanged files that have another label.
        rejected: How many examples could not be taken in, by reason; store.rejected() names them.
        rejected_before: Examples that were rejected before and have not changed, so that they were not tried again.
        ignored: What the readers passed over, and why: (path, why).
        vanished: Items of these sources whose example is no longer there, those that were deleted included.
        vanished_keys: The first few of them.
        pruned: How many of them were deleted.
        n_embedded: For how many examples vectors were computed.
        seconds: How long it took.
        stage_seconds: Of "read", "decode", "embed", "write", which go on beside each other; decoding in several threads.
        guesses: What the readers guessed.
        embedder: The fingerprint of the store's embedder; None without one.
        is_interrupted: It was stopped before the end; the next run goes on from there.
        is_dry_run: Nothing was written; the counts tell what would be.
        estimate: Of a dry run.
    """

    added: int
    replaced: int
    unchanged: int
    relabelled: int
    rejected: dict[str, int]
    rejected_before: int
    ignored: tuple[tuple[str, str], ...]
    vanished: int
    vanished_keys: tuple[Key, ...]
    pruned: int
    n_embedded: int
    seconds: float
    stage_seconds: dict[str, float]
    guesses: tuple[str, ...]
    embedder: str | None
    is_interrupted: bool = False
    is_dry_run: bool = False
    estimate: IngestEstimate | None = None

    @property
    def n_examples(self) -> int:
        """How many examples were met."""
        known = self.unchanged + self.relabelled + self.rejected_before
        return self.added + self.replaced + known + sum(self.rejected.values())

    @property
    def items_per_s(self) -> float:
        """How many examples were dealt with in a second."""
        return self.n_examples / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All of it as what JSON holds."""
        lists = {"ignored": [list(one) for one in self.ignored], "vanished_keys": list(self.vanished_keys)}
        counted = {"n_examples": self.n_examples, "items_per_s": self.items_per_s, "guesses": list(self.guesses)}
        return asdict(self) | lists | counted

    def __str__(self) -> str:
        named = (
            ("added", self.added),
            ("replaced", self.replaced),
            ("relabelled", self.relabelled),
            ("unchanged", self.unchanged),
        )
        parts = [f"{n:,} {name}" for name, n in named if n or name in ("added", "unchanged")]
        parts += [f"{n:,} rejected ({reason})" for reason, n in sorted(self.rejected.items())]
        parts += [f"{self.rejected_before:,} rejected before"] if self.rejected_before else []
        parts += [f"{self.vanished:,} vanished, {self.pruned:,} deleted"] if self.vanished else []
        head = "would be: " if self.is_dry_run else "stopped before the end: " if self.is_interrupted else ""
        return f"{head}{', '.join(parts)}; {self.seconds:.1f} s, {self.items_per_s:,.0f} a second"
