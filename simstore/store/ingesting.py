"""Taking in whole data sets; simstore.ingest does it."""

from datetime import UTC, datetime

from simstore.reports import Rejected
from simstore.storage import RejectedRecord
from simstore.store.base import StoreBase
from simstore.store.core import Core
from simstore.store.intake import Intake

__all__ = ["Ingesting"]


class Ingesting(StoreBase):
    """Everything that concerns data sets."""

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
