"""ingest(): a data set, into a store."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from simstore.errors import EmbedderRequiredError, InvalidArgumentError, PruneRefusedError
from simstore.ingest.deciding import Decider
from simstore.ingest.dry_run import rehearsed
from simstore.ingest.pipeline import Pipeline
from simstore.ingest.settings import Settings
from simstore.ingest.sources import opened
from simstore.ingest.tally import Tally
from simstore.ingest.vanished import Vanished, clear_rejections, delete_vanished, refusal, vanished
from simstore.readers import Reader, ReadOptions
from simstore.reports import IngestEstimate, IngestReport
from simstore.store import Store

__all__ = ["ingest"]

_NAMED = {"image": "'image-thumb'", "text": "'text-ngram'"}


def ingest(store: Store, source: Any, *, settings: Settings | None = None, options: ReadOptions | None = None) -> IngestReport:
    """Takes a data set into a store; see Store.ingest, which takes the settings one by one."""
    settings = settings or Settings()
    return _Run(store, opened(store, source, options, settings), settings).report()


class _Run:
    """One run over readers.

    Raises:
        EmbedderRequiredError: The store has no embedder for what they read.
        InvalidArgumentError: Two of them read one source.
    """

    def __init__(self, store: Store, readers: Sequence[Reader], settings: Settings) -> None:
        self._store, self._readers, self._settings = store, readers, settings
        self._sources = [reader.source for reader in readers]
        self._intake = store._intake
        self._tally = Tally()
        self._start = time.perf_counter()
        _check_embedder(self._intake.schema().embedder, readers)
        _check_given_once(readers)
        self._decider = Decider(
            self._intake, self._intake.beginning(), self._tally,
            retry=settings.retry_errors, at=settings.at, sources=self._sources,
        )  # fmt: skip

    def report(self) -> IngestReport:
        """Does it, and tells what was done."""
        if self._settings.dry_run:
            return self._rehearsal()
        is_complete = Pipeline(self._intake, self._decider, self._settings, self._tally).run(self._readers)
        found, n_pruned = Vanished.none(), 0
        if is_complete:
            if self._decider.had_rejected:
                clear_rejections(self._intake, self._sources, self._decider.met, self._settings.at)
            found = vanished(self._intake, self._decider.claims, self._sources)
            n_pruned = self._prune(found)
        return self._told(found, n_pruned, is_interrupted=not is_complete)

    def _rehearsal(self) -> IngestReport:
        settings = self._settings
        estimate = rehearsed(self._intake, self._readers, self._decider, settings, self._tally)
        found = Vanished.none() if settings.is_stopped else vanished(self._intake, self._decider.claims, self._sources)
        return self._told(found, 0, is_interrupted=settings.is_stopped, estimate=estimate)

    def _prune(self, found: Vanished) -> int:
        settings = self._settings
        n = found.by_source.total()
        if not settings.prune or not n:
            return 0
        why = None if settings.force else refusal(found, self._decider.n_claimed)
        if why is not None:
            raise PruneRefusedError(why, self._told(found, 0))
        return delete_vanished(self._store, self._intake, self._decider.claims, self._sources, n, settings.progress)

    def _told(
        self, found: Vanished, n_pruned: int, *, is_interrupted: bool = False, estimate: IngestEstimate | None = None
    ) -> IngestReport:
        tally, counts = self._tally, self._tally.counts
        notes = [reader.notes() for reader in self._readers]
        if self._settings.progress is not None:
            self._settings.progress("ingest", tally.n_done, tally.n_done)
        return IngestReport(
            added=counts["added"],
            replaced=counts["replaced"],
            unchanged=counts["unchanged"],
            relabelled=counts["relabelled"],
            rejected=dict(tally.reasons),
            rejected_before=counts["rejected_before"],
            ignored=tuple(one for note in notes for one in note.ignored),
            vanished=found.by_source.total(),
            vanished_keys=found.keys,
            pruned=n_pruned,
            n_embedded=counts["n_embedded"],
            seconds=time.perf_counter() - self._start,
            stage_seconds=dict(tally.seconds),
            guesses=tuple(one for note in notes for one in note.guesses),
            embedder=self._intake.schema().fingerprint,
            is_interrupted=is_interrupted,
            is_dry_run=estimate is not None,
            estimate=estimate,
        )


def _check_given_once(readers: Sequence[Reader]) -> None:
    """Raises InvalidArgumentError if a source is there twice. A pattern has a reader for each format."""
    for (source, _), n in Counter((reader.source, reader.format) for reader in readers).items():
        if n > 1:
            raise InvalidArgumentError(f"the source {source!r} is given twice")


def _check_embedder(record: dict[str, Any] | None, readers: Sequence[Reader]) -> None:
    """Raises EmbedderRequiredError where there is something to embed, and nothing to do it with."""
    for reader in readers:
        if record is None and reader.input_kind != "vector":
            named = _NAMED.get(reader.input_kind, "'image-thumb' (images), 'text-ngram' (texts)")
            raise EmbedderRequiredError(
                f"{reader.source!r} holds {reader.input_kind}s, and this store has no embedder to turn them into vectors: "
                f"open a new store with embedder=…, a KerasEmbedder(model) or named_embedder(…) of {named}; or give vectors"
            )
