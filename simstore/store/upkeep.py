"""Upkeep: optimize, compact, backup, check, repair."""

import os
from pathlib import Path

from simstore.reports import Compacted, Problem, Repaired, Stats
from simstore.storage import DATA_FILE
from simstore.store import opening
from simstore.store.backup import backup_store
from simstore.store.base import StoreBase
from simstore.store.checking import check_store
from simstore.store.compaction import compact_database
from simstore.store.core import Core
from simstore.store.findings import Look
from simstore.store.indexing import add_index, drop_index
from simstore.store.repairing import repair_store
from simstore.types import Progress
from simstore.where.paths import path_of

__all__ = ["Upkeep"]


class Upkeep(StoreBase):
    """Everything that keeps a store fast and sound."""

    def optimize(self, *, progress: Progress | None = None) -> None:
        """Builds one graph over everything: the fastest state to search. Reads and writes go on beside it.

        Args:
            progress: Called as progress(stage, done, total) now and then.

        Raises:
            StorageFullError, StorageError, BuildError: It could not be built; the store goes on as it was.
        """
        self._check_writable()
        self._run(lambda core: core.maintenance.run(everything=True, progress=progress, stoppable=False))

    def create_index(self, field: str | tuple[str | int, ...], *, progress: Progress | None = None) -> None:
        """Lists the items under the values of a field, so that filters on it need not look at every item.

        Args:
            field: The path, as in ``simstore.field``.
            progress: Called as progress(stage, done, total) now and then.

        Raises:
            IndexExistsError: It has one.
            InvalidFilterError: It is no path.
        """
        self._check_writable()
        path = path_of(field, place="create_index")
        self._written(lambda txn, core: add_index(txn, core.database, [path], progress))

    def drop_index(self, field: str | tuple[str | int, ...]) -> None:
        """Forgets the index on a field.

        Raises:
            IndexNotFoundError: It has none.
        """
        self._check_writable()
        path = path_of(field, place="drop_index")
        self._written(lambda txn, core: drop_index(txn, core.database, path))

    def compact(self, *, progress: Progress | None = None) -> Compacted:
        """Purges the items that were deleted or replaced and that no snapshot sees, and gives their space back.

        Reads go on beside it, in every process; writes wait. It needs space for a copy of what remains.

        Args:
            progress: Called as progress(stage, done, total) now and then.

        Returns:
            Compacted(n_purged, before_size_bytes, after_size_bytes).

        Raises:
            StorageFullError, StorageError, BuildError: The store goes on as it was.
        """
        self._check_writable()
        before = self._size_bytes()
        self._run(lambda core: core.maintenance.run(everything=True, purging=True, progress=progress, stoppable=False))

        def work(core: Core) -> int:
            name, n_purged = compact_database(core, self._path, self._files, progress)
            self._cores.follow(core, name)
            return n_purged

        n_purged = self._run(work)
        return Compacted(n_purged, before, self._size_bytes())

    def _size_bytes(self) -> int:
        return max(0, self._files.size(self._path / DATA_FILE)) + opening.directory_size(self._path / opening.SEGMENTS)

    def backup(self, dest: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
        """Copies the store, as it is now, to a new directory, while it is in use: ``simstore.open(dest)`` is a full store.

        All of it, snapshots included, also where this Store is opened on one of them.

        Args:
            dest: A path where there is nothing yet.
            progress: Called as progress(stage, done, total) now and then.

        Returns:
            The path, absolute.

        Raises:
            StoreExistsError: There is something at the path.
            StoreNotFoundError: The directory above it does not exist.
            InvalidArgumentError: The path lies within the store, or is none.
            StorageFullError, StorageError: It could not be written; nothing of it is left.
        """
        self._check_usable()
        return self._run(lambda core: backup_store(core, self._path, self._files, dest, progress))

    def stats(self) -> Stats:
        """What this Store object has done since it was opened: searches and their latencies, writes, folds, merges."""
        self._check_usable()
        return self._cores.stats()

    def refresh(self) -> None:
        """Looks for what other processes have written. Every call does so by itself: this is never needed."""
        self._view()

    def check(self, *, deep: bool = False, progress: Progress | None = None) -> list[Problem]:
        """Looks for damage. Only ``deep=True`` can tell that a store is sound.

        By default it looks at what is quickly read, however many vectors there are: LMDB's pages, the state, the log, the
        tombstones, the snapshots' records, how many entries the tables have, the segments' records, sizes and headers, the
        embedder's file. A damaged item or vector, or one in the middle of a segment, is not seen.

        Args:
            deep: Read everything, and compare it with its checksums and with everything else: all items and vectors, also
                those that only snapshots see, all postings, all segments, the files in the directory.
            progress: Called as progress(stage, done, total) now and then.

        Returns:
            What is wrong, at most a hundred problems of a kind and how many more there are; an empty list if nothing is.
        """
        self._check_usable()
        return self._run(lambda core: check_store(self._look(core, progress), deep=deep))

    def repair(self, *, progress: Progress | None = None) -> Repaired:
        """Mends what check(deep=True) finds. What cannot be mended is taken out of the store, its bytes kept in a file.

        Everything that can be told from something else is made anew: postings, counts, the log, the state, tombstones,
        segments. A single flipped bit is set right, since the checksum tells which one it was. An item or vector that is
        damaged beyond that is removed, from the snapshots, too, so that the rest works; first its bytes are written to a file
        in the store's directory ``quarantine``. A sound store is not touched. Writes wait meanwhile; reads go on, in every
        process.

        Args:
            progress: Called as progress(stage, done, total) now and then.

        Returns:
            Repaired(rebuilt, quarantined, quarantine, unrepaired).

        Raises:
            ReadOnlyStoreError: The store was opened to be read.
            StorageFullError, StorageError: The database is as it was.

        Example:
            >>> import simstore, numpy as np, tempfile
            >>> with simstore.open(tempfile.mkdtemp()) as store:
            ...     _ = store.add(["a", "b"], np.eye(2))
            ...     store.repair().unrepaired
            []
        """
        self._check_writable()
        return repair_store(self._run, lambda core: self._look(core, progress))

    def _look(self, core: Core, progress: Progress | None) -> Look:
        return Look(core.environment, core.database, self._files, self._path, progress)
