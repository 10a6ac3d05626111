"""The tables' handles; what is read from and written to them stands in the classes made from this one."""

from collections.abc import Iterator

from simstore.errors import CorruptStoreError
from simstore.storage.environment import Environment, Table, Transaction
from simstore.storage.records import row_key

__all__ = ["STAGING", "Tables"]

STAGING = "staging"  # the mark that says for which embedder vectors are being staged


class Tables:
    """The tables of one open database.

    Args:
        create: Make all of them.
        readonly: Nothing can be made: a table that came with a later version is None, and counts as empty.
    """

    def __init__(self, environment: Environment, *, create: bool = False, readonly: bool = False) -> None:
        self._environment = environment
        table = environment.table
        self._vectors = table("vectors", create=create)
        self._items = table("items", create=create)
        self._keys = table("keys", create=create, duplicates=True)
        self._labels = table("labels", create=create, duplicates=True)
        self._tombstones = table("tombstones", create=create)
        self._log = table("log", create=create)
        self._segments = table("segments", create=create)
        self._fields = self._later("fields", create, readonly, duplicates=True)
        self._snapshots = self._later("snapshots", create, readonly)
        self._purged = self._later("purged", create, readonly)
        self._staged = self._later("staged", create, readonly)

    def _later(self, name: str, create: bool, readonly: bool, *, duplicates: bool = False) -> Table | None:
        if not create:
            try:
                return self._environment.table(name, duplicates=duplicates)
            except CorruptStoreError:
                if readonly:
                    return None
        return self._environment.table(name, create=True, duplicates=duplicates)

    @property
    def has_fields(self) -> bool:
        """Whether there is a table of the fields' terms."""
        return self._fields is not None

    def look_for_snapshots(self) -> None:
        """Opens the table of snapshots if a writer has made it since; not within a transaction, which would not know it."""
        if self._snapshots is None:
            self._snapshots = self._later("snapshots", create=False, readonly=True)

    def raw(self, txn: Transaction, table: str) -> Iterator[tuple[bytes, bytes]]:
        """All entries of a table, as they are stored, by key."""
        handle = self._handle(table)
        if handle is not None:
            with txn.cursor(db=handle) as cursor:
                yield from cursor

    def put_raw(self, txn: Transaction, table: str, entries: list[tuple[bytes, bytes]]) -> None:
        """Appends entries that come after all those in a table."""
        with txn.cursor(db=self._handle(table)) as cursor:
            cursor.putmulti(entries, append=True)

    def _handle(self, table: str) -> Table | None:
        handle: Table | None = getattr(self, f"_{table}")
        return handle

    def mark(self, txn: Transaction, name: str) -> bytes | None:
        """A value beside schema and state, or None."""
        value: bytes | None = txn.get(name.encode())
        return value

    def put_mark(self, txn: Transaction, name: str, value: bytes | None) -> None:
        """Writes a value beside schema and state; None removes it."""
        if value is None:
            txn.delete(name.encode())
        else:
            txn.put(name.encode(), value)

    def item(self, txn: Transaction, row: int) -> bytes:
        """The stored value of a row's item."""
        value: bytes | None = txn.get(row_key(row), db=self._items)
        if value is None:
            raise CorruptStoreError(f"the item in row {row} is missing: store.check() lists what else is")
        return value
