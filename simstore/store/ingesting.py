"""Taking in whole data sets; simstore.ingest does it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from simstore.embedders import Embedder
from simstore.reports import IngestReport, Rejected
from simstore.storage import RejectedRecord
from simstore.store.base import StoreBase
from simstore.store.core import Core
from simstore.store.intake import Intake
from simstore.types import Progress

if TYPE_CHECKING:
    from simstore.ingest import Stop
    from simstore.readers import ReadOptions
    from simstore.store.store import Store

__all__ = ["Ingesting"]


class Ingesting(StoreBase):
    """Everything that concerns data sets."""

    def ingest(
        self,
        source: Any,
        *,
        options: "ReadOptions | None" = None,
        prune: bool = False,
        force: bool = False,
        retry_errors: bool = False,
        max_errors: int | None = None,
        timeout_s: float = 30.0,
        workers: int | None = None,
        batch_size: int | None = None,
        dry_run: bool = False,
        stop: "Stop | None" = None,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Takes in a data set, however large: read, decoded, embedded by the store's embedder, written in batches.

        To run it again is to go on: items whose example has not changed are left as they are, without decoding, and
        changed ones replaced. An example that cannot be taken in is noted in ``rejected()`` and ends nothing. Each item's
        data has "_source": where it came from.

        Args:
            source: A path, a glob, a tf.data.Dataset, an iterable of Example, a reader, or a list of these.
            options: How to read it: columns, labels, format. Images come in the size that the embedder takes.
            prune: Delete items of these sources whose example is no longer there. Refused where more than a tenth of a source's
                items would go.
            force: Not even then.
            retry_errors: Try again what was rejected before, though it has not changed.
            max_errors: How many examples may be rejected before that is an error.
            timeout_s: How long a file may take to be decoded, in seconds.
            workers: How many threads decode; by default as many as there are CPUs.
            batch_size: How many inputs the embedder gets at once; by default what it is used to.
            dry_run: Write nothing; count, and estimate time and size.
            stop: A threading.Event: once it is set, the run ends after the batch in hand.
            progress: Called as progress("ingest", done, total) now and then, and progress("prune", done, total); total is
                0 where nobody knows it.

        Returns:
            What was done.

        Raises:
            SourceError: A source cannot be read as it was asked for.
            EmbedderRequiredError: There are no vectors, and the store has no embedder to make them.
            DimensionError: Vectors of another width than the store's.
            DuplicateKeyError: Two examples have one key; both places are named.
            IngestError: It cannot go on; TooManyRejectedError for more than max_errors.
            PruneRefusedError: Too much would be deleted; nothing was, and all else is done.
            ReadOnlyStoreError: The store was opened to be read.
            StorageFullError, StorageError: It could not be written. Whatever was raised, what was committed stays, and the next
                run goes on from there.

        Example:
            >>> import simstore, numpy as np, tempfile
            >>> np.save(path := tempfile.mkdtemp() + "/vectors.npy", np.eye(4))
            >>> with simstore.open(tempfile.mkdtemp()) as store:
            ...     report = store.ingest(path)
            ...     report.added, store.get("vectors.npy#3").data["_source"]["row"]
            (4, 3)
        """
        from simstore.ingest import Settings, ingest

        settings = Settings(
            prune=prune, force=force, retry_errors=retry_errors, max_errors=max_errors, timeout_s=timeout_s,
            workers=workers, batch_size=batch_size, dry_run=dry_run, stop=stop, progress=progress,
        )  # fmt: skip
        return ingest(cast("Store", self), source, settings=settings, options=options)

    @property
    def _embedder(self) -> Embedder | None:
        """What makes vectors of inputs; None if vectors are given."""
        schema = self._view().schema
        return None if schema.embedder is None else self._embedders.of(schema)

    @property
    def _intake(self) -> Intake:
        """What simstore.ingest works with.

        Raises:
            ReadOnlyStoreError: The store was opened to be read.
        """
        self._check_writable()
        return Intake(self._run, self._embedded)

    def rejected(self) -> list[Rejected]:
        """What ingest() could not take in, and why, by source, file and row.

        An entry goes when its example is taken in, or is no longer there, in a later run.

        Raises:
            CorruptStoreError: An entry is damaged; repair() drops it.
        """

        def work(core: Core) -> list[RejectedRecord]:
            with core.environment.reading() as txn:
                return list(core.database.rejected(txn))

        records = sorted(self._run(work), key=lambda one: (one.place.source, one.place.file, one.place.row or 0))
        return [
            Rejected(
                *one.place, one.key, one.reason, one.message, one.size, one.mtime_ns,
                datetime.fromtimestamp(one.at, UTC),
            )
            for one in records
        ]  # fmt: skip
