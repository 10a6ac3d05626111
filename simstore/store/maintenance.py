"""Folding the tail into segments, merging segments, rebuilding damaged ones: beside reads and writes, or on request."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError, SimstoreError
from simstore.index import Build, BuildOptions, Segment, block_checksums, build_graph, extend_graph
from simstore.metrics import METRICS
from simstore.storage import Database, Environment, Files, MovedError, SegmentRecord, Transaction, steps
from simstore.storage.files import discard, publish_file, write_file
from simstore.store.priority import giving_way
from simstore.store.searcher import cpu_count
from simstore.store.statistics import Statistics
from simstore.store.view import View, Views, open_segment, read_prepared
from simstore.types import Progress

__all__ = ["Job", "Maintenance", "next_job"]

log = logging.getLogger("simstore")

FOLD_BYTES = 1 << 20  # a tail of that size is worth a segment
FOLD_ROWS = 256
MERGE_RATIO = 4
DEAD_RATIO = 0.3
PURGED_RATIO = 0.05  # of a segment that compact() leaves as it is


@dataclass(frozen=True, slots=True)
class Job:
    """A segment to be built over rows first_row … last_row, in place of old ones.

    Attributes:
        replaces: The records of segments within that range.
        base: The one of them whose graph is taken over, or None to start anew.
    """

    first_row: int
    last_row: int
    replaces: tuple[SegmentRecord, ...]
    base: Segment | None


def next_job(view: View, *, everything: bool = False, purging: bool = False) -> Job | None:
    """What is to be done next, or None.

    First what is damaged, then what is mostly dead, then the tail, then segments that have grown alike.

    Args:
        everything: Go on until there is one segment over all rows.
        purging: And until few rows in it are gone.
    """
    if not view.records and not _tail_is_long(view, everything):
        return None
    job = _whole(view, PURGED_RATIO if purging else DEAD_RATIO) if everything else _due(view)
    return job if job is not None and view.kept.count(job.first_row, job.last_row + 1) else None


def _due(view: View) -> Job | None:
    for record in view.damaged:
        if view.n_kept(record):
            return Job(record.first_row, record.last_row, (record,), None)
    for first_row, stop in zip(
        [view.first_row, *(record.last_row + 1 for record in view.records)], _starts(view), strict=False
    ):
        if view.kept.count(first_row, stop):  # no segment has these rows: its record is damaged
            return Job(first_row, stop - 1, (), None)
    for record in view.records:
        if _is_mostly_dead(view, record) and not _is_spent(view, record):
            return Job(record.first_row, record.last_row, (record,), None)
    if _tail_is_long(view, everything=False):
        return _job(view, _mergeable(view, view.records, _tail_kept(view)), view.tail_first, view.state.next_row - 1)
    last = view.records[-1]
    merged = (*_mergeable(view, view.records[:-1], view.n_kept(last)), last)
    return _job(view, merged, merged[0].first_row, merged[-1].last_row) if len(merged) > 1 else None


def _ends(view: View) -> list[int]:
    return [view.first_row, *(record.last_row + 1 for record in view.records)]


def _starts(view: View) -> list[int]:
    return [record.first_row for record in view.records]


def tail_bytes(view: View) -> int:
    """The size of the tail's vectors."""
    return 4 * (view.schema.dim or 0) * (view.state.next_row - view.tail_first)


def _tail_kept(view: View) -> int:
    return view.kept.count(view.tail_first, view.state.next_row)


def _tail_is_long(view: View, everything: bool) -> bool:
    n_kept = _tail_kept(view)
    n_rows = view.state.next_row - view.tail_first
    return n_kept > 0 if everything else n_kept >= 2 and n_rows >= FOLD_ROWS and tail_bytes(view) >= FOLD_BYTES


def _is_mostly_dead(view: View, record: SegmentRecord, ratio: float = DEAD_RATIO) -> bool:
    return record.n_rows - view.n_kept(record) > ratio * record.n_rows


def _is_spent(view: View, record: SegmentRecord) -> bool:
    """Nothing in it is kept: it costs nothing, and there is nothing to build in its place."""
    return view.n_kept(record) == 0


def _mergeable(view: View, records: tuple[SegmentRecord, ...], size: int) -> tuple[SegmentRecord, ...]:
    """The newest of records that are not yet MERGE_RATIO times as large as all that comes after them, size included."""
    start = len(records)
    while start > 0 and (n_kept := view.n_kept(records[start - 1])) <= MERGE_RATIO * size:
        size += n_kept
        start -= 1
    return records[start:]


def _whole(view: View, ratio: float) -> Job | None:
    """One segment over everything, unless that is what there is."""
    first, last = view.first_row, view.state.next_row - 1
    if len(view.records) == 1 and not view.damaged and not _tail_kept(view):
        record = view.records[0]
        if not _is_mostly_dead(view, record, ratio) or _is_spent(view, record):
            return None
    return _job(view, view.records, first, last, ratio)


def _is_whole(view: View, n_rows: int) -> bool:
    """Whether there is one segment over the first n_rows rows."""
    return len(view.records) == 1 and not view.damaged and view.tail_first >= n_rows


def _job(view: View, merged: tuple[SegmentRecord, ...], first_row: int, last_row: int, ratio: float = DEAD_RATIO) -> Job:
    """Over rows from the merged segments, or first_row, to last_row; the largest sound one of them is the base."""
    start = min([first_row, *(record.first_row for record in merged)])
    sound = {segment.first_row: segment for segment in view.segments}
    usable = [record for record in merged if record.first_row in sound and not _is_mostly_dead(view, record, ratio)]
    largest = max(usable, key=lambda record: record.n_nodes, default=None)
    base = None if largest is None else sound[largest.first_row]
    return Job(start, last_row, merged, base)


class Maintenance:
    """Does the jobs.

    Args:
        background: Whether a thread does them as they come up.
    """

    def __init__(
        self,
        environment: Environment,
        database: Database,
        views: Views,
        files: Files,
        segments_dir: Path,
        statistics: Statistics,
        *,
        background: bool,
    ) -> None:
        self._statistics = statistics
        self._environment = environment
        self._database = database
        self._views = views
        self._files = files
        self._directory = segments_dir
        self._work = threading.Lock()  # one job at a time
        self._stop = threading.Event()
        self._wake = threading.Condition()
        self._wanted = False
        self._failed_seq: int | None = None
        self._considered: Callable[[], View | None] = lambda: None  # weak: it keeps files mapped that others have replaced
        self._thread: threading.Thread | None = None
        if background:
            self._thread = threading.Thread(target=self._loop, name="simstore-maintenance", daemon=True)
            self._thread.start()

    # -- when --

    def consider(self, view: View) -> None:
        """After a search: has the background thread look, if there may be something to do."""
        if self._thread is None or self._considered() is view or self._failed_seq == view.state.seq:
            return
        self._considered = ref(view)
        if next_job(view) is not None:
            with self._wake:
                self._wanted = True
                self._wake.notify()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._wanted or self._stop.is_set())
                self._wanted = False
            if self._stop.is_set():
                return
            try:
                self.run()
            except MovedError:
                continue  # the next call goes over to the new database, with another thread
            except Exception as err:  # whatever it is, the thread goes on: the store works without it
                log.warning("simstore: maintenance put off: %s", err)

    def stop(self) -> None:
        """Ends the thread; a build that runs is given up, and nothing of it remains."""
        with self._wake:
            self._stop.set()
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # -- what --

    def run(
        self,
        *,
        everything: bool = False,
        purging: bool = False,
        progress: Progress | None = None,
        stoppable: bool = True,
    ) -> None:
        """Does jobs until there is none; which ones, ``next_job`` tells.

        Raises:
            StorageFullError, StorageError, BuildError: A job failed; search goes on without it.
        """
        if everything:
            self._drop_damaged()
        n_rows = None  # of which there is to be one segment: who writes beside it could keep it busy for ever
        while not (stoppable and self._stop.is_set()):
            with self._work:
                view = self._view()
                job = next_job(view, everything=everything, purging=purging)
                if job is None or (everything and n_rows is not None and _is_whole(view, n_rows)):
                    return
                n_rows = n_rows or view.state.next_row
                try:
                    done = self._do(view, job, progress, stoppable)
                except SimstoreError:
                    self._failed_seq = view.state.seq
                    raise
                if not done:
                    return

    def _drop_damaged(self) -> None:
        """Compares each segment's file, as it lies there now, with its checksums; what differs is rebuilt."""
        for segment in (view := self._view()).segments:
            record = view.record_of(segment)
            try:
                open_segment(self._files, self._directory / record.file, record).verify()
            except CorruptStoreError:
                view = self._views.without(view, segment)

    def _view(self) -> View:
        with self._environment.reading() as txn:
            return self._views.current(txn)

    def _do(self, view: View, job: Job, progress: Progress | None, stoppable: bool) -> bool:
        steps.reached("fold.begun")
        stage = "merge" if job.replaces else "fold"

        def proceed(done: int, total: int) -> bool:
            if progress is not None:
                progress(stage, done, total)
            return not (stoppable and self._stop.is_set())

        build = giving_way(lambda: self._build(view, job, proceed))
        steps.reached("fold.built")
        if build is None:
            return False
        self._publish(view, job, build)
        return True

    def _build(self, view: View, job: Job, proceed: Callable[[int, int], bool]) -> Build | None:
        """The graph over the job's kept rows, those that its base holds already left out; None if told to stop."""
        schema, base = view.schema, job.base
        metric = METRICS[schema.metric]
        seed = (job.first_row * 0x9E3779B1 + job.last_row) % (1 << 31)
        options = BuildOptions(schema.M, schema.ef_construction, seed, cpu_count(), proceed)
        if base is not None:
            try:
                base.verify()
            except CorruptStoreError:
                self._views.without(view, base)
                base = None
        rows = view.kept.rows(job.first_row, job.last_row + 1)
        if base is not None:
            rows = rows[(rows < base.first_row) | (rows > base.last_row)]
        vectors = self._vectors(view, rows)
        if base is None:
            return build_graph(vectors, rows, metric.is_ip, options)
        return extend_graph(base, vectors, rows, metric.is_ip, options)

    def _vectors(self, view: View, rows: NDArray[np.uint64]) -> NDArray[np.float32]:
        """The prepared vectors of kept rows, ascending, from LMDB."""
        out = np.empty((len(rows), view.schema.dim or 0), np.float32)
        step, at = 1 << 15, 0
        while at < len(rows):
            first = int(rows[at])
            stop = first + step
            end = int(np.searchsorted(rows, stop))
            with self._environment.reading() as txn:
                last = int(rows[end - 1]) + 1
                part = read_prepared(self._database, txn, view, view.kept, first, last)
            out[at:end] = part[(rows[at:end] - np.uint64(first)).astype(np.int64)]
            at = end
        return out

    # -- publishing --

    def _publish(self, view: View, job: Job, build: Build) -> None:
        """File, then name, then transaction; what it replaces goes last."""
        expected = sum(memoryview(chunk).nbytes for chunk in build.chunks)
        temporary = write_file(self._files, self._directory, build.chunks, expected)
        build.chunks.clear()
        try:
            record = self._record(view, job, build, temporary, expected)
            named = self._environment.write(lambda txn: self._name(txn, job, record, temporary))
        except BaseException:
            discard(self._files, temporary)
            discard(self._files, self._directory / name_of(job, temporary))
            raise
        if not named:
            discard(self._files, temporary)
            discard(self._files, self._directory / name_of(job, temporary))  # published, and then the map had to grow
            return
        self._statistics.built(expected, is_merge=bool(job.replaces))
        steps.reached("publish.committed")
        for old in job.replaces:
            discard(self._files, self._directory / old.file)
            steps.reached("publish.removed")

    def _record(self, view: View, job: Job, build: Build, path: Path, size: int) -> SegmentRecord:
        """What LMDB is to know of the new file: read back, walked from its entry point."""
        image = self._files.map(path)
        name = name_of(job, path)
        record = SegmentRecord(
            file=name, first_row=job.first_row, last_row=job.last_row, n_rows=build.n_rows, n_nodes=build.n_nodes,
            dim=view.schema.dim or 0, metric=view.schema.metric, size_bytes=size, blocks=block_checksums(image),
            copy_nodes=build.copy_nodes, copy_starts=build.copy_starts, copy_rows=build.copy_rows,
            orphans=np.empty(0, np.uint32),
        )  # fmt: skip
        del image
        return replace(record, orphans=open_segment(self._files, path, record).unreachable())

    def _name(self, txn: Transaction, job: Job, record: SegmentRecord, temporary: Path) -> bool:
        """Names the file in the transaction; False if another process has changed the segments meanwhile."""
        database = self._database
        held = {other.file for other in database.segments(txn)}
        if not {old.file for old in job.replaces} <= held:
            return False
        overlapping = [
            other for other in database.segments(txn)
            if other.first_row <= record.last_row and other.last_row >= record.first_row
        ]  # fmt: skip
        if {other.file for other in overlapping} != {old.file for old in job.replaces}:
            return False
        steps.reached("publish.begun")
        if self._files.size(temporary) >= 0:  # else the map had to grow, and this is the second run
            publish_file(self._files, temporary, self._directory / record.file)
        state = database.state(txn)
        database.put_segment(txn, record)
        database.put_state(txn, replace(state, seq=state.seq + 1, segments_seq=state.seq + 1))
        steps.reached("publish.put")
        return True


def name_of(job: Job, temporary: Path) -> str:
    """The name that a new segment's file is published under."""
    return f"{job.first_row}-{job.last_row}-{temporary.name.rsplit('-', 1)[1]}.hnsw"
