"""A run that writes nothing: what would be done, and how long it would take."""

import time
from collections.abc import Sequence

from simstore.ingest.deciding import Decider, Work
from simstore.ingest.decoded import Gathering
from simstore.ingest.embedding import Embedding
from simstore.ingest.examples import Aside, Examples
from simstore.ingest.pipeline import batch_size
from simstore.ingest.settings import Settings
from simstore.ingest.tally import Tally
from simstore.ingest.telling import Telling
from simstore.readers import Reader
from simstore.reports import IngestEstimate
from simstore.store.intake import Intake

__all__ = ["rehearsed"]

_SAMPLE_S = 2.0  # how long examples are tried
_ITEM_BYTES = 120  # of a store's tables, beside vector, data and keys
_LINK_BYTES = 10  # of a graph, per item and M


class Rehearsal:
    """Counts what would be done with each example, and tries some of them.

    Args:
        n_workers: How many threads would decode.
    """

    def __init__(self, intake: Intake, settings: Settings, tally: Tally) -> None:
        self._intake, self._tally, self._settings = intake, tally, settings
        self._size = batch_size(intake, settings.batch_size)
        self._gathering = Gathering(settings.at)
        self._embedding = Embedding(intake, Tally(), settings.at)
        self._n_to_do = self._n_sample = self._n_data_bytes = self._n_weighed = self._dim = 0
        self._sample_s = self._read_s = 0.0

    def count(self, work: Work) -> None:
        """Counts what a batch would do."""
        aside = work.aside
        self._tally.reject([record.reason for record in aside.rejected])
        for update in aside.updates:
            self._tally.count("relabelled" if update.is_relabelled else "unchanged")
        befores = [] if work.examples is None else [one is not None and one.row is not None for one in work.examples.before]
        replaced = [*befores, *(task.found is not None for task in work.tasks)]
        self._tally.count("replaced", sum(replaced))
        self._tally.count("added", len(replaced) - sum(replaced))
        self._n_to_do += len(replaced)
        if self._sample_s < _SAMPLE_S and replaced:
            self._try(work)

    def _try(self, work: Work) -> None:
        start = time.perf_counter()
        examples, n = work.examples, self._size
        if work.tasks:
            tasks = work.tasks[:n]
            examples = self._gathering.gathered(tasks, [task.run() for task in tasks], Aside())
            n = len(tasks)
        decoded = time.perf_counter()
        sample = (examples or Examples.none()).part(0, n)
        if len(sample):
            self._weigh(sample)
            if not sample.are_vectors:
                self._dim = self._embedding.embedded(sample)[0].inputs.shape[1]
        self._sample_s += (decoded - start) / self._settings.n_workers + time.perf_counter() - decoded
        self._n_sample += n if work.tasks else len(sample)

    def _weigh(self, sample: Examples) -> None:
        if sample.are_vectors:
            self._dim = sample.inputs.shape[1]
        self._n_weighed += len(sample)
        for key, packed in zip(sample.keys, sample.packed, strict=True):
            self._n_data_bytes += len(packed) + 3 * len(str(key))

    def estimate(self, read_s: float) -> IngestEstimate:
        """What all of it would take.

        Args:
            read_s: What reading has taken.
        """
        data_bytes = self._n_data_bytes / max(self._n_weighed, 1)
        item_bytes = data_bytes + _ITEM_BYTES + 2 * 4 * self._dim + _LINK_BYTES * self._intake.schema().M
        seconds = None if not self._n_sample else read_s + self._sample_s / self._n_sample * self._n_to_do
        return IngestEstimate(seconds, int(item_bytes * self._n_to_do), self._n_sample)


def rehearsed(intake: Intake, readers: Sequence[Reader], decider: Decider, settings: Settings, tally: Tally) -> IngestEstimate:
    """Goes through readers without writing, and without reading the files that are one example each, but for some.

    A file that is there already and has another time counts as replaced: only its content would tell.
    """
    rehearsal = Rehearsal(intake, settings, tally)
    telling = Telling(settings.progress, readers, tally)
    for reader in readers:
        for batch in reader.batches(max(64, batch_size(intake, settings.batch_size))):
            if settings.is_stopped:
                break
            with tally.timing("read"):
                work = decider.decide(reader, batch)
            rehearsal.count(work)
            telling.now_and_then()
    return rehearsal.estimate(tally.seconds["read"])
