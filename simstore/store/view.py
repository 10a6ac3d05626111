"""What a search sees: one state of the store, its open segments, and the vectors that no segment covers."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError, SnapshotNotFoundError
from simstore.index import Coarse, Segment, coarse_dims, prepared
from simstore.metrics import METRICS
from simstore.storage import Database, Environment, Files, Schema, SegmentRecord, SnapshotRecord, State, Transaction
from simstore.store.bitmap import Bitmap
from simstore.store.visibility import alive_at, kept_rows

__all__ = ["Loose", "View", "Views", "open_segment"]


class Loose(NamedTuple):
    """Prepared vectors [n, dim] of row ``first`` and those that follow, in memory."""

    first: int
    vectors: NDArray[np.float32]
    coarse: Coarse | None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class View:
    """One state of the store.

    Attributes:
        raw: The newest state's bytes, by which a newer one is told.
        schema: With the width and the embedder of the rows that this state sees.
        state: Of a snapshot: the one that it remembers.
        first_row: Where the epoch of its rows begins.
        records: What LMDB says of the segments over its rows, by first row.
        segments: The open segments, by first row; a damaged one is missing here.
        alive: Which rows are alive.
        kept: Which rows are alive, here or in a snapshot; the very bitmap ``alive`` if there is no snapshot.
        loose: The ranges of rows (first, stop) that no open segment covers; the tail comes last.
    """

    raw: bytes | None
    schema: Schema
    state: State
    first_row: int
    records: tuple[SegmentRecord, ...]
    segments: tuple[Segment, ...]
    alive: Bitmap
    kept: Bitmap
    loose: tuple[tuple[int, int], ...]
    _allowed: dict[int, tuple[NDArray[np.uint64] | None, int]] = field(default_factory=dict)

    @property
    def tail_first(self) -> int:
        """The first row after all segments, damaged ones included."""
        return self.records[-1].last_row + 1 if self.records else self.first_row

    @property
    def damaged(self) -> tuple[SegmentRecord, ...]:
        """The segments whose file cannot be used."""
        good = {segment.first_row for segment in self.segments}
        return tuple(record for record in self.records if record.first_row not in good)

    def record_of(self, segment: Segment) -> SegmentRecord:
        """The record of an open segment."""
        return next(record for record in self.records if record.first_row == segment.first_row)

    def n_kept(self, record: SegmentRecord) -> int:
        """How many rows in a segment are kept: all others of its range were gone when it was built."""
        return self.kept.count(record.first_row, record.last_row + 1)

    def allowed(self, segment: Segment) -> tuple[NDArray[np.uint64] | None, int]:
        """The bitmap that a search of the segment needs, None if all its rows are alive; and how many are."""
        if self.alive.is_full:
            return None, segment.n_rows
        known = self._allowed.get(segment.first_row)
        if known is None:
            n_alive = self.alive.count(segment.first_row, segment.last_row + 1)
            known = self._allowed[segment.first_row] = (
                None if n_alive == segment.n_rows else self.alive.words,
                n_alive,
            )
        return known


def _same_snapshots(view: View, state: State) -> bool:
    return view.state.snapshots_seq == state.snapshots_seq


def open_segment(files: Files, path: Path, record: SegmentRecord) -> Segment:
    """Maps a published segment file.

    Raises:
        CorruptStoreError: It is missing, or not what was written.
    """
    try:
        size = files.size(path)
        if size != record.size_bytes:
            what = "is missing" if size < 0 else f"has {size} bytes and not {record.size_bytes}"
            raise CorruptStoreError(f"the segment file {path.name} {what}")
        image = files.map(path)
    except CorruptStoreError:
        raise
    except OSError as err:
        raise CorruptStoreError(f"the segment file {path.name} cannot be read: {err}") from err
    return Segment(
        image, checksums=record.blocks, n_nodes=record.n_nodes, dim=record.dim, is_ip=METRICS[record.metric].is_ip,
        first_row=record.first_row, last_row=record.last_row, copy_nodes=record.copy_nodes,
        copy_starts=record.copy_starts, copy_rows=record.copy_rows, orphans=record.orphans,
    )  # fmt: skip


class Views:
    """Keeps the newest view, and makes the next one from what changed.

    Args:
        snapshot: The only state to be seen; None for the newest.
    """

    def __init__(self, database: Database, files: Files, segments_dir: Path, *, snapshot: SnapshotRecord | None = None) -> None:
        self._database = database
        self._files = files
        self._directory = segments_dir
        self._snapshot = snapshot
        self._lock = threading.RLock()
        self._view: View | None = None
        self._bad_files: set[str] = set()
        self._buffers: dict[int, _Buffer] = {}

    @property
    def newest(self) -> View | None:
        """The newest view made so far."""
        return self._view

    def forget(self) -> None:
        """Lets go of the mapped files, and of the vectors in memory."""
        with self._lock:
            self._view = None
            self._buffers.clear()

    def current(self, txn: Transaction) -> View:
        """The view of the transaction's state."""
        view = self._view
        raw = self._database.raw_state(txn)
        if view is not None and view.raw == raw:
            return view
        with self._lock:
            return self._refreshed(txn, raw)

    def within_write(self, txn: Transaction) -> View:
        """The view of what a write transaction sees; nobody else gets it, since that may never be committed."""
        with self._lock:
            return self._made(txn, self._database.raw_state(txn), self._view)

    def _refreshed(self, txn: Transaction, raw: bytes | None) -> View:
        old = self._view
        if old is not None and old.raw == raw:
            return old
        view = self._made(txn, raw, old)
        if old is None or old.state.seq <= view.state.seq:  # an older transaction must not take the newest view's place
            self._view = view
        return view

    def _made(self, txn: Transaction, raw: bytes | None, old: View | None) -> View:
        database = self._database
        Environment.refuse_moved(txn)
        state, schema = database.state(txn), database.schema(txn)
        if old is not None and old.state.repaired_seq != state.repaired_seq:
            old = None  # what was known of it holds no longer
        if self._snapshot is not None:
            state, schema, first_row, alive = self._remembered(txn, self._snapshot, old, state, schema)
            kept = alive
        else:
            first_row = schema.epoch_row
            is_newer = old is not None and old.state.seq <= state.seq
            buried = database.buried_since(txn, old.state.seq, state) if is_newer and old is not None else None
            if old is None or buried is None:
                alive = Bitmap.of(state.next_row, database.dead_rows(txn))
                kept = kept_rows(txn, database, state, alive)
            else:
                alive = old.alive.without(buried, state.next_row)
                kept = kept_rows(txn, database, state, alive, old.kept if _same_snapshots(old, state) else None, buried)
        records, segments = self._segments(txn, old, state, first_row)
        return View(
            raw, schema, state, first_row, records, segments, alive, kept, _uncovered(segments, first_row, state.next_row)
        )

    def _remembered(
        self, txn: Transaction, opened: SnapshotRecord, old: View | None, state: State, schema: Schema
    ) -> tuple[State, Schema, int, Bitmap]:
        """State, schema, first row and bitmap of a snapshot."""
        if old is not None and old.state.snapshots_seq == state.snapshots_seq:
            schema = replace(schema, dim=old.schema.dim, embedder=old.schema.embedder)  # its indexes are those of now
            return replace(old.state, segments_seq=state.segments_seq), schema, old.first_row, old.alive
        record = self._database.snapshot_named(txn, opened.name)
        if record is None or record.seq != opened.seq:  # or another has been taken under its name
            raise SnapshotNotFoundError(f"the snapshot {opened.name!r} was deleted: store.snapshots() lists those there are")
        remembered = replace(state, seq=record.seq, next_row=record.next_row, n_live=record.n_live)
        schema = replace(schema, dim=record.dim, embedder=record.embedder)
        return remembered, schema, record.first_row, alive_at(txn, self._database, record)

    def _segments(
        self, txn: Transaction, old: View | None, state: State, first_row: int
    ) -> tuple[tuple[SegmentRecord, ...], tuple[Segment, ...]]:
        if old is not None and old.state.segments_seq == state.segments_seq and old.first_row == first_row and not old.damaged:
            return old.records, old.segments
        records = tuple(
            record
            for record in self._database.segments(txn)
            if record.last_row >= first_row and record.first_row < state.next_row
        )
        known = {} if old is None else {old.record_of(segment).file: segment for segment in old.segments}
        segments = []
        for record in records:
            segment = None if record.file in self._bad_files else known.get(record.file) or self._open(record)
            if segment is not None:
                segments.append(segment)
        return records, tuple(segments)

    def _open(self, record: SegmentRecord) -> Segment | None:
        try:
            return open_segment(self._files, self._directory / record.file, record)
        except CorruptStoreError:
            return None

    def without(self, view: View, segment: Segment) -> View:
        """The view without a segment that turned out to be damaged: its rows are compared one by one until it is rebuilt."""
        segments = tuple(other for other in view.segments if other is not segment)
        sound = replace(view, segments=segments, loose=_uncovered(segments, view.first_row, view.state.next_row), _allowed={})
        with self._lock:
            self._bad_files.add(view.record_of(segment).file)
            if self._view is view:
                self._view = sound
        return sound

    def drop_damaged(self, view: View) -> None:
        """Compares each segment with its checksums; the next view is without those that differ."""
        for segment in view.segments:
            try:
                segment.verify()
            except CorruptStoreError:
                view = self.without(view, segment)

    def loose(self, txn: Transaction, view: View) -> list[Loose]:
        """The prepared vectors of the view's loose ranges; the transaction sees the view's state."""
        if not view.loose:
            return []
        with self._lock:
            parts = [self._buffer(first, stop, view).upto(txn, self._database, view, stop) for first, stop in view.loose]
            for first in set(self._buffers) - {first for first, _ in view.loose}:
                del self._buffers[first]
            return parts

    def _buffer(self, first: int, stop: int, view: View) -> "_Buffer":
        buffer = self._buffers.get(first)
        if buffer is None:
            buffer = self._buffers[first] = _Buffer(first)
            for other in self._buffers.values():  # after a fold, the rest of the old tail
                if other.first < first < other.first + other.n:
                    buffer.adopt(other)
                    break
        return buffer


class _Buffer:
    """Prepared vectors of rows from first on, growing with the tail."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.n = 0
        self._vectors: NDArray[np.float32] | None = None
        self._coarse: Coarse | None = None

    def adopt(self, other: "_Buffer") -> None:
        if other._vectors is not None:
            self._vectors = other._vectors[self.first - other.first : other.n].copy()
            self.n = len(self._vectors)

    def upto(self, txn: Transaction, database: Database, view: View, stop: int) -> Loose:
        n, dim = stop - self.first, view.schema.dim or 0
        if n > self.n or self._vectors is None:
            vectors = read_prepared(database, txn, view, view.alive, self.first + self.n, stop)
            room = 0 if self._vectors is None else len(self._vectors)
            self._vectors = _grown(self._vectors, self.n, max(n, 64, 2 * self.n) if n > room else room, dim)
            self._vectors[self.n : n] = vectors
            self._coarse = self._grown_coarse(self._vectors, n, view)
            self.n = n
        coarse = self._coarse
        return Loose(self.first, self._vectors[:n], None if coarse is None else Coarse(coarse.dims, coarse.vectors[:n]))

    def _grown_coarse(self, vectors: NDArray[np.float32], n: int, view: View) -> Coarse | None:
        """The coarse dimensions of the first n vectors, of which there are self.n already; None if there is no use for them."""
        known, start = self._coarse, self.n
        if known is None:
            dims = coarse_dims(vectors[:n], METRICS[view.schema.metric])
            if dims is None:
                return None
            known, start = Coarse(dims, np.empty((0, len(dims)), np.float32)), 0
        coarse = _grown(known.vectors, start, len(vectors), len(known.dims))
        coarse[start:n] = vectors[start:n, known.dims]
        return Coarse(known.dims, coarse)


def _grown(array: NDArray[np.float32] | None, n: int, room: int, width: int) -> NDArray[np.float32]:
    """An array [room, width] that starts with the first n rows of another; that one, if it is as large."""
    if array is not None and len(array) == room:
        return array
    grown = np.empty((room, width), np.float32)
    if array is not None:
        grown[:n] = array[:n]
    return grown


def read_prepared(
    database: Database, txn: Transaction, view: View, needed: Bitmap, first: int, stop: int
) -> NDArray[np.float32]:
    """The vectors of rows first … stop - 1 as they are compared, dead rows included: an older view may see them alive.

    A row that is not needed and whose vector is damaged comes back as NaN, infinitely far from everything.

    Raises:
        CorruptStoreError: The vector of a needed row is damaged.
    """
    vectors, damaged = database.vectors_and_damage(txn, first, stop, view.schema.dim or 0)
    database.refuse_damage(txn, damaged & needed.mask(first, stop), first)
    vectors[damaged] = 1.0
    out = prepared(vectors, METRICS[view.schema.metric])
    out[damaged] = np.nan
    return out


def _uncovered(segments: Iterable[Segment], first: int, stop: int) -> tuple[tuple[int, int], ...]:
    ranges, at = [], first
    for segment in segments:
        if segment.first_row > at:
            ranges.append((at, segment.first_row))
        at = segment.last_row + 1
    if at < stop:
        ranges.append((at, stop))
    return tuple(ranges)
