"""Vectors in, transactions out."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from simstore.errors import (
    DimensionError,
    DuplicateKeyError,
    InvalidKeyError,
    InvalidLabelError,
    InvalidVectorError,
    KeyNotFoundError,
    SimstoreError,
    TooManyRejectedError,
)
from simstore.ingest.channel import Channel
from simstore.ingest.claims import Claims
from simstore.ingest.examples import Aside, Examples, Lot, Update
from simstore.ingest.places import duplicate
from simstore.ingest.stamps import FIELD, place_of, rejection, stamp_of
from simstore.ingest.tally import Tally
from simstore.readers import SourceFile
from simstore.storage import Place, RejectedRecord
from simstore.store.intake import Intake

__all__ = ["Writing"]

BATCH_ROWS = 1_000
BATCH_BYTES = 8 << 20
BATCH_S = 5.0  # after which a smaller batch is written: what a slow embedder has made is not to be lost

_REASONS: dict[type[SimstoreError], str] = {
    InvalidKeyError: "bad key",
    InvalidLabelError: "bad label",
    InvalidVectorError: "bad vector",
}


class Writing:
    """Gathers lots and writes them, a transaction for each batch.

    Args:
        intake: The store.
        claims: Told of the rows that are written; asked whether an item is this run's.
        max_errors: How many examples may be rejected; None for any number.
        at: When the run began.
    """

    def __init__(self, intake: Intake, claims: Claims, tally: Tally, *, max_errors: int | None, at: float) -> None:
        self._intake, self._claims, self._tally = intake, claims, tally
        self._max_errors, self._at = max_errors, at
        self._lots: list[Lot] = []
        self._n_rows = self._n_bytes = 0
        self._due = 0.0

    def run(self, lots: Channel[Lot]) -> None:
        """Writes all lots of a channel.

        Raises:
            DuplicateKeyError: Two items of this run have one key; the batch was not written.
            TooManyRejectedError: More than max_errors were rejected; they are noted.
            StorageFullError, StorageError, EmbedderMismatchError: The batch was not written.
        """
        while True:
            try:
                lot = lots.take(0.2 if self._lots else 3600.0)
            except EOFError:
                self._flush()
                return
            if lot is not None:
                self._add(lot)
            if self._lots and (self._is_full or time.monotonic() >= self._due):
                self._flush()

    @property
    def _is_full(self) -> bool:
        return self._n_rows >= BATCH_ROWS or self._n_bytes >= BATCH_BYTES

    def _add(self, lot: Lot) -> None:
        if self._lots and lot.made_by != self._lots[-1].made_by:
            self._flush()
        if not self._lots:
            self._due = time.monotonic() + BATCH_S
        self._lots.append(lot)
        aside = lot.aside
        self._n_rows += len(lot.examples) + len(aside.rejected) + len(aside.updates) + len(aside.cleared)
        self._n_bytes += lot.examples.size_bytes

    def _flush(self) -> None:
        if not self._lots:
            return
        examples = Examples.joined([lot.examples for lot in self._lots if len(lot.examples)]) if self._n_rows else None
        made_by, aside = self._lots[0].made_by, Aside()
        for lot in self._lots:
            aside.add(lot.aside)
        self._lots, self._n_rows, self._n_bytes = [], 0, 0
        with self._tally.timing("write"):
            self._put(examples or _NONE, aside, made_by)
            self._update(aside.updates)
        if self._max_errors is not None and self._tally.n_rejected > self._max_errors:
            raise TooManyRejectedError(
                f"{self._tally.n_rejected} examples were rejected, and max_errors={self._max_errors}: store.rejected() tells "
                "which and why. What was committed stays; run again with a larger max_errors to go on"
            )

    # -- items and rejections --

    def _put(self, examples: Examples, aside: Aside, made_by: str | None) -> None:
        """Writes examples and rejections in one transaction; what the store refuses becomes a rejection."""
        rejected = list(aside.rejected)
        while len(examples) or rejected or aside.cleared:
            try:
                self._put_once(examples, rejected, aside.cleared, made_by)
                break
            except DimensionError:
                raise
            except DuplicateKeyError as err:
                raise self._duplicate(examples, err) from err
            except tuple(_REASONS) as err:
                examples, refused = self._refused(examples)
                if not refused:
                    raise
                del err
                rejected += refused
        self._tally.reject([record.reason for record in rejected])

    def _put_once(
        self, examples: Examples, rejected: Sequence[RejectedRecord], cleared: Sequence[Place], made_by: str | None
    ) -> None:
        marks = zip(examples.marks, examples.before, strict=True)
        taken = [place_of(mark) for mark, before in marks if before is not None and before.was_rejected]
        counts, rows = self._intake.write(
            examples.keys, examples.inputs, labels=examples.labels, packed=examples.packed, made_by=made_by,
            rejected=rejected, cleared=[*cleared, *taken], refuse=self._refuse,
        )  # fmt: skip
        self._claims.wrote(rows)
        self._tally.count("added", counts.added)
        self._tally.count("replaced", counts.replaced)

    def _refuse(self, live: Sequence[int | None]) -> None:
        """An item that this run has written is not replaced by it."""
        if live.count(None) == len(live):
            return
        for i, row in enumerate(live):
            if row is not None and self._claims.has_written(row):
                raise DuplicateKeyError(f"keys[{i}] was written by this run")

    def _duplicate(self, examples: Examples, err: DuplicateKeyError) -> DuplicateKeyError:
        first: dict[Any, int] = {}
        for i, key in enumerate(examples.keys):
            at = first.setdefault(key, i)
            if at != i:
                return duplicate(key, place_of(examples.marks[i]), place_of(examples.marks[at]))
        for i, item in enumerate(self._intake.found(examples.keys)):
            if item is not None and self._claims.has_written(item.row):
                old = stamp_of(item.data)
                return duplicate(examples.keys[i], place_of(examples.marks[i]), None if old is None else place_of(old))
        return err

    def _refused(self, examples: Examples) -> tuple[Examples, list[RejectedRecord]]:
        """The examples that can be stored, and why others cannot."""
        refusals = self._intake.refusals(examples.keys, examples.labels, examples.inputs)
        rejected = []
        for i, err in enumerate(refusals):
            if err is not None:
                mark = examples.marks[i]
                reason = next((name for kind, name in _REASONS.items() if isinstance(err, kind)), "refused")
                file = SourceFile(mark["file"], mark["size"], mark["mtime_ns"])
                rejected.append(rejection(place_of(mark), file, examples.keys[i], reason, str(err), self._at))
        return examples.only([i for i, err in enumerate(refusals) if err is None]), rejected

    # -- what keeps its vector --

    def _update(self, updates: list[Update]) -> None:
        """Gives items another label and stamp. One that was deleted meanwhile is left: the next run takes it in."""
        updates = self._sound(updates)
        while updates:
            keys, labels, data, _ = zip(*updates, strict=True)
            try:
                self._claims.wrote(self._intake.update(keys, labels=labels, data=data))
            except KeyNotFoundError:
                found = self._intake.found(keys)
                updates = [update for update, item in zip(updates, found, strict=True) if item is not None]
                continue
            n_relabelled = sum(update.is_relabelled for update in updates)
            self._tally.count("relabelled", n_relabelled)
            self._tally.count("unchanged", len(updates) - n_relabelled)
            return

    def _sound(self, updates: list[Update]) -> list[Update]:
        """Those that the store takes; a label that it does not take is noted."""
        if not updates:
            return updates
        keys, labels, _, _ = zip(*updates, strict=True)
        refusals = self._intake.refusals(keys, labels, np.ones((len(keys), 1), np.float32))
        rejected = []
        for update, err in zip(updates, refusals, strict=True):
            if err is not None:
                mark = update.data[FIELD]
                file = SourceFile(mark["file"], mark["size"], mark["mtime_ns"])
                rejected.append(rejection(place_of(mark), file, update.key, "bad label", str(err), self._at))
        if rejected:
            self._put_once(_NONE, rejected, (), None)
            self._tally.reject([record.reason for record in rejected])
        return [update for update, err in zip(updates, refusals, strict=True) if err is None]


_NONE = Examples([], [], [], [], [], np.empty((0, 1), np.float32))
