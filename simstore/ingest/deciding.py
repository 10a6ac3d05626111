"""What is to be done with each example: nothing, where item and source are as they were; else it is read, decoded, embedded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from simstore.errors import InvalidKeyError
from simstore.ingest.claims import Claims
from simstore.ingest.examples import Aside, Before, Examples, Update
from simstore.ingest.packing import Packing
from simstore.ingest.places import duplicate
from simstore.ingest.stamps import FIELD, Stamp, is_of, place_of, rejection, row_hashes, stamp, stamp_of
from simstore.ingest.tally import Tally
from simstore.ingest.vectors import VectorRows
from simstore.ingest.workers import Task
from simstore.readers import Batch, FileBatch, Reader, Refused, RowBatch, SourceFile
from simstore.storage import Place, RejectedRecord
from simstore.store.intake import Beginning, Found, Intake
from simstore.types import Key, Label

__all__ = ["Decider", "Work", "restamped"]


@dataclass(slots=True)
class Work:
    """A batch of which is known what is to be done: rows to be embedded, or files to be decoded; and what is written beside."""

    examples: Examples | None
    tasks: list[Task] = field(default_factory=list)
    aside: Aside = field(default_factory=Aside)


class Decider:
    """Compares examples with the store. For one thread.

    Args:
        intake: The store.
        beginning: How it was when the run began.
        retry: Whether what was rejected and has not changed is tried again.
        at: When the run began; what is rejected now is noted with it.
        sources: The sources of the run.

    Attributes:
        claims: The rows that were met.
        n_claimed: How many items of each of the run's sources were met.
        met: Hashes of the places that are rejected as before.
    """

    def __init__(
        self, intake: Intake, beginning: Beginning, tally: Tally, *, retry: bool, at: float, sources: Sequence[str]
    ) -> None:
        self._intake, self._beginning, self._tally = intake, beginning, tally
        self._retry, self._at = retry, at
        self._packing = Packing()
        self._vectors = VectorRows(intake.schema().dim)
        self.claims = Claims(beginning.next_row)
        self.n_claimed: Counter[str] = Counter(dict.fromkeys(sources, 0))
        self.met: set[int] = set()

    def decide(self, reader: Reader, batch: Batch) -> Work:
        """What is to be done with a batch.

        Raises:
            DuplicateKeyError: Two examples of this run have one key.
            DimensionError: Vectors of another width than the store's.
        """
        work = self._of_files(reader, batch) if isinstance(batch, FileBatch) else self._of_rows(reader, batch)
        if batch.refused:
            self._refuse(reader.source, batch.refused, work.aside)
        return work

    @property
    def had_rejected(self) -> bool:
        """Whether anything was noted as rejected before the run."""
        return self._beginning.has_rejected

    # -- rows --

    def _of_rows(self, reader: Reader, batch: RowBatch) -> Work:
        aside = Aside()
        if reader.input_kind == "vector":
            batch = self._with_vectors(reader.source, batch, aside)
        source, file = reader.source, batch.file
        digests = row_hashes(batch)
        marks = [stamp(source, file, row, digest) for row, digest in zip(batch.rows, digests, strict=True)]
        packed = self._packing.rows(source, file, batch.rows, digests, batch.data)
        before: list[Before | None] = [None] * len(marks)
        columns = batch.keys, batch.labels, marks, packed, before
        examples = Examples(*columns, batch.inputs, reader.input_kind == "vector")  # type: ignore[arg-type]
        chosen = self._chosen(examples, aside)
        bad = [i for i in chosen if not isinstance(packed[i], bytes)] if any(batch.data) else []
        for i in bad:
            record = rejection(place_of(marks[i]), file, batch.keys[i], "bad data", str(packed[i]), self._at)
            aside.rejected.append(record)
        return Work(examples.only([i for i in chosen if i not in bad] if bad else chosen), aside=aside)

    def _chosen(self, examples: Examples, aside: Aside) -> Sequence[int]:
        """Which rows are to be embedded."""
        keys, marks = examples.keys, examples.marks
        found = self._found(keys)
        known = self._rejections(marks)
        if not found and not known:
            return range(len(keys))
        chosen = []
        for i, mark in enumerate(marks):
            item, note = found[i] if found else None, known[i] if known else None
            if item is not None:
                self._claim(keys[i], item, mark)
            if self._is_to_do(item, note, mark, keys[i], aside):
                chosen.append(i)
                if item is not None or note is not None:
                    examples.before[i] = Before(None if item is None else item.row, note is not None)
        return chosen

    def _is_to_do(self, item: Found | None, note: RejectedRecord | None, mark: Stamp, key: Key, aside: Aside) -> bool:
        """Whether a row is to be embedded."""
        old = None if item is None else stamp_of(item.data)
        if item is not None and old is not None and old["hash"] == mark["hash"]:
            if note is not None:
                aside.cleared.append(place_of(mark))
            if (old["source"], old.get("file")) != (mark["source"], mark["file"]):
                aside.updates.append(Update(key, item.label, restamped(item.data, mark), False))
            else:
                self._tally.count("unchanged")
            return False
        return note is None or not self._is_as_before(note, SourceFile(mark["file"], mark["size"], mark["mtime_ns"]))

    def _with_vectors(self, source: str, batch: RowBatch, aside: Aside) -> RowBatch:
        """The batch with its inputs as float32 [n, dim]; what is no vector is rejected."""
        fitting, wrong = self._vectors.fitting(batch, source)
        for i, message in wrong:
            place = Place(source, batch.file.path, batch.rows[i])
            note = (self._notes([place]) or [None])[0]
            self._reject(rejection(place, batch.file, batch.keys[i], "bad vector", message, self._at), note, aside)
        return fitting

    # -- files --

    def _of_files(self, reader: Reader, batch: FileBatch) -> Work:
        work = Work(None)
        source = reader.source
        found = self._found(batch.keys)
        known = self._notes([Place(source, file.path, None) for file in batch.files])
        for i, file in enumerate(batch.files):
            item, note = found[i] if found else None, known[i] if known else None
            if item is not None:
                self._claim(batch.keys[i], item, stamp(source, file, None, 0))
            old = None if item is None else stamp_of(item.data)
            if item is not None and old is not None and is_of(old, source, file):
                self._keep(batch.keys[i], batch.labels[i], item, Place(source, file.path, None), note, work.aside)
            elif note is None or not self._is_as_before(note, file):
                digest = None if old is None else old["hash"]
                work.tasks.append(Task(batch, i, source, found=item, known=digest, was_rejected=note is not None))
        return work

    def _keep(self, key: Key, label: Label, item: Found, place: Place, note: RejectedRecord | None, aside: Aside) -> None:
        """The file has not changed; its label may have, which is told by its path."""
        if note is not None:
            aside.cleared.append(place)
        if same_label(label, item.label):
            self._tally.count("unchanged")
        else:
            aside.updates.append(Update(key, label, item.data, True))

    # -- what was there --

    def _found(self, keys: Sequence[Key]) -> list[Found | None]:
        """The items under keys that were there before the run; nothing at all where there are none."""
        if not self._beginning.n_live or not keys:
            return []
        try:
            found = self._intake.found(keys)
        except InvalidKeyError:  # that key is refused when it is to be written
            found = [self._found_one(key) for key in keys]
        return [None if item is None or item.row >= self._beginning.next_row else item for item in found]

    def _found_one(self, key: Key) -> Found | None:
        try:
            return self._intake.found([key])[0]
        except InvalidKeyError:
            return None

    def _claim(self, key: Key, item: Found, mark: Stamp) -> None:
        old = stamp_of(item.data)
        if not self.claims.claim(item.row):
            raise duplicate(key, place_of(mark), None if old is None else place_of(old))
        if old is not None and old["source"] in self.n_claimed:
            self.n_claimed[old["source"]] += 1

    def _rejections(self, marks: list[Stamp]) -> list[RejectedRecord | None]:
        return self._notes([place_of(mark) for mark in marks]) if self._beginning.has_rejected else []

    def _notes(self, places: Sequence[Place]) -> list[RejectedRecord | None]:
        """What was rejected at places in earlier runs; nothing at all where nothing was."""
        return self._intake.rejection(places) if self._beginning.has_rejected else []

    def _is_as_before(self, note: RejectedRecord, file: SourceFile) -> bool:
        """Whether what was rejected need not be tried again; counts it. What is in no file shows no change."""
        if self._retry or not file.path or (note.size, note.mtime_ns) != (file.size, file.mtime_ns):
            return False
        self._tally.count("rejected_before")
        self.met.add(hash(note.place))
        return True

    # -- what the reader refused --

    def _refuse(self, source: str, refused: Sequence[Refused], aside: Aside) -> None:
        known = self._notes([Place(source, one.file.path, one.row) for one in refused])
        for i, one in enumerate(refused):
            if one.key is not None and (items := self._found([one.key])) and items[0] is not None:
                self._claim(one.key, items[0], stamp(source, one.file, one.row, 0))  # the older item is kept
            place = Place(source, one.file.path, one.row)
            record = rejection(place, one.file, one.key, one.reason, one.message, self._at)
            self._reject(record, known[i] if known else None, aside)

    def _reject(self, record: RejectedRecord, note: RejectedRecord | None, aside: Aside) -> None:
        file = SourceFile(record.place.file, record.size, record.mtime_ns)
        if note is None or note.reason != record.reason or not self._is_as_before(note, file):
            aside.rejected.append(record)


def restamped(data: Any, mark: Stamp) -> Any:
    """An item's data with another stamp."""
    return {**data, FIELD: mark}


def same_label(a: Label, b: Label) -> bool:
    """Whether two labels are one: 1 and "1" are not."""
    return a == b and isinstance(a, str) == isinstance(b, str)
