"""Snapshots: states of the store that can be read, compared and restored."""

import time
from datetime import UTC, datetime

from simstore.errors import InvalidArgumentError
from simstore.reports import Difference, Restored, SnapshotInfo
from simstore.storage import SnapshotRecord
from simstore.store import arguments, remembering
from simstore.store.arguments import NOW
from simstore.store.base import StoreBase
from simstore.store.core import Core

__all__ = ["Snapshots"]


class Snapshots(StoreBase):
    """Everything about past states."""

    def snapshot(self, name: str, note: str = "") -> SnapshotInfo:
        """Remembers the present state under a name. It costs one small commit; items that it sees are
        kept until it is deleted.

        Args:
            name: At most 200 bytes of UTF-8; "now" is taken.
            note: Anything worth knowing about it.

        Returns:
            What ``snapshots()`` will list.

        Raises:
            SnapshotExistsError: There is one of that name.
            InvalidArgumentError: The name or the note cannot be one.
            ReadOnlyStoreError: The store was opened to be read.
        """
        self._check_writable()
        arguments.check_snapshot_name(name)
        if not isinstance(note, str):
            raise InvalidArgumentError(f"note is a str, not {note!r:.60}")
        arguments.utf8("note", note)
        now = time.time()
        return _info(
            self._run(lambda core: core.writer.write(lambda txn: remembering.take(txn, core.database, name, note, now)))
        )

    def snapshots(self) -> list[SnapshotInfo]:
        """All snapshots, oldest first."""

        def work(core: Core) -> list[SnapshotInfo]:
            core.database.look_for_snapshots()
            with core.environment.reading() as txn:
                core.environment.refuse_moved(txn)
                return [_info(snapshot) for snapshot in core.database.snapshots(txn)]

        return self._run(work)

    def delete_snapshot(self, name: str) -> None:
        """Forgets a snapshot; compact() then purges what only it has seen.

        Raises:
            SnapshotNotFoundError: There is none of that name.
        """
        self._check_writable()
        arguments.check_snapshot_name(name)
        self._written(lambda txn, core: remembering.drop(txn, core.database, name))
        self._remove_spare_models()

    def restore(self, name: str) -> Restored:
        """Makes a snapshot's state the present again, in one transaction.

        The state before is remembered as a snapshot, whose name comes back: restore that one to undo.

        Returns:
            Restored(undo, n_restored, n_removed).

        Raises:
            SnapshotNotFoundError: There is none of that name; nothing was changed.
            CorruptStoreError: An item to be restored is damaged; nothing was changed.
        """
        self._check_writable()
        arguments.check_snapshot_name(name)
        now = time.time()
        return self._written(lambda txn, core: remembering.restore(txn, core.database, name, now))

    def diff(self, a: str, b: str = NOW) -> Difference:
        """What happened from state a to state b, as keys.

        Args:
            a, b: Names of snapshots, or "now".

        Returns:
            Difference(added, changed, deleted): an item has changed if its label, its data or its vector has.

        Raises:
            SnapshotNotFoundError: There is no snapshot of one of the names.
        """
        for name in (a, b):
            if name != NOW:
                arguments.check_snapshot_name(name)

        def work(core: Core) -> Difference:
            core.database.look_for_snapshots()
            with core.environment.reading() as txn:
                core.environment.refuse_moved(txn)
                return remembering.difference(txn, core.database, a, b)

        return self._run(work)


def _info(snapshot: SnapshotRecord) -> SnapshotInfo:
    created = datetime.fromtimestamp(snapshot.created_s, UTC)
    return SnapshotInfo(snapshot.name, created, snapshot.note, snapshot.n_live, snapshot.dim, snapshot.seq)
