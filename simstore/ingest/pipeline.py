"""The stages of a run and the queues between them. DESIGN.md tells why they are as they are."""

import threading
from collections.abc import Iterator, Sequence

from simstore.errors import StorageFullError
from simstore.ingest.channel import AbandonedError, Channel
from simstore.ingest.deciding import Decider, Work
from simstore.ingest.decoded import Gathering
from simstore.ingest.embedding import Embedding
from simstore.ingest.examples import Aside, Examples, Lot
from simstore.ingest.pending import Pending
from simstore.ingest.settings import Settings
from simstore.ingest.tally import Tally
from simstore.ingest.telling import Telling
from simstore.ingest.workers import Task, Workers
from simstore.ingest.writing import BATCH_ROWS, Writing
from simstore.readers import Batch, Reader
from simstore.store.intake import Intake

__all__ = ["Pipeline", "batch_size"]

_USUAL_BATCH = 64
_FEWEST_READ = 64
_QUEUED = 4  # batches between two stages
_LOOK_S = 0.1  # how often who waits looks whether the run is to end
_END_S = 5.0  # how long a reader may take to end


class Pipeline:
    """Reads and decides in a thread, decodes in several, embeds in the caller's, writes in a thread.

    Args:
        intake: The store.
        decider: Says what is to be done with each example.
        settings: How the run goes.
        tally: Counts what is done.
    """

    def __init__(self, intake: Intake, decider: Decider, settings: Settings, tally: Tally) -> None:
        self._decider, self._settings, self._tally = decider, settings, tally
        size = batch_size(intake, settings.batch_size)
        self._read_size = max(_FEWEST_READ, min(size, BATCH_ROWS))
        self._works: Channel[Work] = Channel(_QUEUED)
        self._lots: Channel[Lot] = Channel(_QUEUED)
        self._workers = Workers(settings.n_workers, settings.timeout_s, tally)
        self._gathering = Gathering(settings.at)
        self._embedding = Embedding(intake, tally, settings.at)
        self._writing = Writing(intake, decider.claims, tally, max_errors=settings.max_errors, at=settings.at)
        self._pending = Pending(size)
        self._write_error: BaseException | None = None

    def run(self, readers: Sequence[Reader]) -> bool:
        """Takes in what readers have to give. Returns False if it was stopped before the end.

        Whatever ends it, all its threads have ended but those of decoders that hang, and what was embedded is written, unless
        writing itself has failed.
        """
        reading = threading.Thread(target=self._read, args=(readers,), name="simstore-read", daemon=True)
        writing = threading.Thread(target=self._write, name="simstore-write")
        try:
            writing.start()
            reading.start()
            is_complete = self._embed_all(readers)
        except AbandonedError:  # the writer has given up
            is_complete = False
        except Exception:
            self._rescue()
            raise
        finally:
            self._lots.end()
            self._works.abandon()
            self._workers.close()
            for thread, timeout_s in ((writing, None), (reading, _END_S)):
                if thread.ident is not None:  # an interrupt may have come before its start
                    thread.join(timeout_s)
        if isinstance(self._write_error, StorageFullError):
            raise StorageFullError(
                f"{self._tally.counts['added']:,} examples were added before there was no space left: free some space and run "
                "again, which goes on from there"
            ) from self._write_error
        if self._write_error is not None:
            raise self._write_error
        return is_complete

    # -- the reader's thread --

    def _read(self, readers: Sequence[Reader]) -> None:
        try:
            for reader in readers:
                for batch in self._batches(reader):
                    with self._tally.timing("read"):
                        work = self._decider.decide(reader, batch)
                    self._workers.submit(work.tasks)
                    self._works.put(work)
        except AbandonedError:
            pass
        except BaseException as err:
            self._works.end(err)
        else:
            self._works.end()

    def _batches(self, reader: Reader) -> Iterator[Batch]:
        batches = reader.batches(BATCH_ROWS if reader.input_kind == "vector" else self._read_size)
        try:
            while True:
                with self._tally.timing("read"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        finally:  # a generator has files open
            getattr(batches, "close", _nothing)()

    # -- the writer's --

    def _write(self) -> None:
        try:
            self._writing.run(self._lots)
        except BaseException as err:
            self._write_error = err
            self._lots.abandon()
            self._works.abandon()

    # -- the caller's --

    def _embed_all(self, readers: Sequence[Reader]) -> bool:
        telling = Telling(self._settings.progress, readers, self._tally)
        while not self._settings.is_stopped:
            try:
                work = self._works.take(_LOOK_S)
            except EOFError:
                self._pass_on()
                return True
            if work is not None and not self._take(work):
                return False
            telling.now_and_then()
        return False

    def _take(self, work: Work) -> bool:
        """Embeds what is enough for a batch with this work. False if the run is to end."""
        examples = work.examples
        if work.tasks:
            examples = self._decoded(work.tasks, work.aside)
            if examples is None:
                return False
        if not self._pending.takes(examples):
            self._pass_on()
        self._pending.add(examples, work.aside)
        while self._pending.is_enough and not self._settings.is_stopped:
            self._pass_on_batch()
        return True

    def _decoded(self, tasks: Sequence[Task], aside: Aside) -> Examples | None:
        """The files that were decoded; the others come aside. None if the run is to end."""
        settings = self._settings
        outcomes = []
        for task in tasks:
            outcome = self._workers.outcome(task, lambda: settings.is_stopped)
            if outcome is None:
                return None
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append(outcome)
        return self._gathering.gathered(tasks, outcomes, aside)

    def _pass_on(self) -> None:
        """Embeds all that waits."""
        while self._pending:
            self._pass_on_batch()

    def _pass_on_batch(self) -> None:
        examples, aside = self._pending.take()
        made_by = None
        if examples is None:
            examples = Examples.none()
        elif not examples.are_vectors:
            try:
                examples, rejected, made_by = self._embedding.embedded(examples)
            except Exception:
                self._pending.add(None, aside)
                raise
            aside.rejected += rejected
        self._lots.put(Lot(examples, aside, made_by))

    def _rescue(self) -> None:
        """What is known of rejections is noted, though the run has failed."""
        while self._pending:
            _, aside = self._pending.take()
            if aside.rejected and self._write_error is None:
                try:
                    self._lots.put(Lot(Examples.none(), Aside(rejected=aside.rejected), None))
                except AbandonedError:
                    return


def _nothing() -> None:
    pass


def batch_size(intake: Intake, given: int | None) -> int:
    """How many inputs the embedder gets at once: as given, or as it is used to."""
    record = intake.schema().embedder
    return given or (record or {}).get("batch_size") or _USUAL_BATCH
