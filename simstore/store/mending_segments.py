"""repair(): the segments. Nothing is lost with one: it is built anew from the items."""

from dataclasses import replace

import numpy as np

from simstore.errors import CorruptStoreError, SimstoreError
from simstore.index import Segment
from simstore.metrics import METRICS
from simstore.storage import SegmentRecord, Transaction
from simstore.storage.records import row_key, vector_records
from simstore.store.checking import segment_problems
from simstore.store.core import Core
from simstore.store.findings import Look
from simstore.store.opening import SEGMENTS
from simstore.store.repair_base import Repair
from simstore.store.view import open_segment

__all__ = ["Copies", "mend_segment_records", "rebuild_segments"]


def mend_segment_records(repair: Repair, n_rows: int) -> None:
    """Sets records right where a single bit does, and drops the others, and those whose rows overlap or do not exist."""
    txn, database, last = repair.txn, repair.database, -1
    for first_row, value in list(database.segment_values(txn)):
        record = _sound(value, first_row)
        if record is None:
            database.drop_entry(txn, "segments", row_key(first_row))
            home = repair.mender.seed(value, first_row)
            mended = value if home is not None else repair.mender.sealed(value, first_row)
            record = None if mended is None else _sound(mended, first_row if home is None else home)
            repair.note(f"segment {first_row}-" if record is None else _name(record))
            if record is None or not last < record.first_row <= record.last_row < n_rows:
                continue
            database.put_entry(txn, "segments", row_key(record.first_row), record.value())
        elif not last < record.first_row <= record.last_row < n_rows:
            database.drop_entry(txn, "segments", row_key(first_row))
            repair.note(_name(record))
            continue
        last = record.last_row


def _sound(value: bytes, first_row: int) -> SegmentRecord | None:
    try:
        return SegmentRecord.of(value, first_row)
    except CorruptStoreError:
        return None


def _name(record: SegmentRecord) -> str:
    return f"segment {record.first_row}-{record.last_row}"


class Copies:
    """The vectors that the segments hold, once more: a segment is built of sound ones, and has checksums of its own.

    Those of cosine stores are scaled to unit length; such a one serves only if it was so before.
    """

    def __init__(self, repair: Repair, look: Look) -> None:
        self._look = look
        self._records = repair.database.segments(repair.txn)
        self._segments: dict[str, Segment | None] = {}

    def record(self, row: int, dim: int, stored: bytes) -> bytes | None:
        """The record of a row's vector made from the copy, or None if there is none that can be trusted."""
        for record in self._records:
            if record.first_row <= row <= record.last_row and record.dim == dim:
                segment = self._opened(record)
                if segment is not None and len(nodes := segment.nodes_of(np.array([row], np.uint64))):
                    made: bytes = vector_records(segment.vectors()[nodes], row)[0].tobytes()
                    if not METRICS[record.metric].normalises or made[-8:] == stored[-8:]:
                        return made
        return None

    def _opened(self, record: SegmentRecord) -> Segment | None:
        if record.file not in self._segments:
            try:
                segment = open_segment(self._look.files, self._look.path / SEGMENTS / record.file, record)
                segment.verify()
                self._segments[record.file] = segment
            except CorruptStoreError:
                self._segments[record.file] = None
        return self._segments[record.file]


def rebuild_segments(core: Core, look: Look, *, dropped: bool) -> list[str]:
    """Builds damaged segments anew; one that only snapshots need, or nobody, is dropped: its rows are compared one by one.

    Returns:
        Which.
    """
    bad = {first_row: problem.where for first_row, problem in segment_problems(look, deep=True) if first_row >= 0}
    if not bad and not dropped:
        return []
    view = core.view()
    for segment in view.segments:
        if segment.first_row in bad:
            view = core.views.without(view, segment)
    try:
        core.maintenance.run(progress=look.tell, stoppable=False)
    except SimstoreError as err:  # what the database holds is mended all the same
        if err is look.stopped:
            raise
    still = [first_row for first_row, _ in segment_problems(look, deep=True) if first_row >= 0]
    if still:
        look.environment.write(lambda txn: _drop(txn, look, still))
    return list(bad.values())


def _drop(txn: Transaction, look: Look, first_rows: list[int]) -> None:
    for first_row in first_rows:
        look.database.drop_segment(txn, first_row)
    state = look.database.state(txn)
    look.database.put_state(txn, replace(state, seq=state.seq + 1, segments_seq=state.seq + 1))
