"""The tables' handles; what is read from and written to them stands in the classes made from this one."""

from collections.abc import Iterator

from simstore.errors import CorruptStoreError
from simstore.storage.environment import Environment, Table, Transaction
from simstore.storage.records import row_key

__all__ = ["LISTS", "NAMES", "STAGING", "Tables"]

NAMES = (
    "items",
    "vectors",
    "keys",
    "labels",
    "fields",
    "tombstones",
    "log",
    "segments",
    "snapshots",
    "purged",
    "staged",
    "rejected",
)
LISTS = "keys", "labels", "fields"  # many values for one key
NUMBERED = "items", "vectors", "tombstones", "log", "segments", "staged"  # a row or a seq is the key
STAGING = "staging"  # the mark that says for which embedder vectors are being staged

# whether they hold many values for one key
_TABLES = {
    "vectors": False,
    "items": False,
    "keys": True,
    "labels": True,
    "tombstones": False,
    "log": False,
    "segments": False,
}
_LATER_TABLES = {"fields": True, "snapshots": False, "purged": False, "staged": False, "rejected": False}


class Tables:
    """The tables of one open database.

    Args:
        create: Make all of them.
        readonly: Nothing can be made: a table that came with a later version is None, and counts as empty.
    """

    def __init__(self, environment: Environment, *, create: bool = False, readonly: bool = False) -> None:
        self._environment = environment
        open_new = create or not readonly
        tables = environment.tables(_TABLES, {} if open_new else _LATER_TABLES, create=create)
        if open_new:
            tables |= environment.tables(_LATER_TABLES, {}, create=True)
        self._vectors, self._items = tables["vectors"], tables["items"]
        self._keys, self._labels = tables["keys"], tables["labels"]
        self._tombstones, self._log, self._segments = tables["tombstones"], tables["log"], tables["segments"]
        self._fields, self._snapshots = tables["fields"], tables["snapshots"]
        self._purged, self._staged, self._rejected = tables["purged"], tables["staged"], tables["rejected"]

    @property
    def has_fields(self) -> bool:
        """Whether there is a table of the fields' terms."""
        return self._fields is not None

    def look_for_snapshots(self) -> None:
        """Opens the table of snapshots if a writer has made it since; not within a transaction, which would not know it."""
        if self._snapshots is None:
            self._snapshots = self._environment.tables({}, {"snapshots": False}, create=False)["snapshots"]

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

    def n_entries(self, txn: Transaction, table: str) -> int:
        """How many entries a table has; each value of a key counts."""
        handle = self._handle(table)
        return 0 if handle is None else int(txn.stat(handle)["entries"])

    def entry(self, txn: Transaction, table: str, key: bytes) -> bytes | None:
        """A value as it is stored, or None."""
        value: bytes | None = txn.get(key, db=self._handle(table))
        return value

    def put_entry(self, txn: Transaction, table: str, key: bytes, value: bytes) -> None:
        """Writes an entry as it is."""
        txn.put(key, value, db=self._handle(table))

    def drop_entry(self, txn: Transaction, table: str, key: bytes, value: bytes = b"") -> None:
        """Removes an entry; where a key has many values, the given one."""
        txn.delete(key, value, db=self._handle(table))

    def n_unfindable(self, txn: Transaction, table: str) -> int:
        """How many entries stand where nobody who looks for their key comes by: LMDB's inner pages are not right."""
        handle, n = self._handle(table), 0
        if handle is not None:
            with txn.cursor(db=handle) as cursor, txn.cursor(db=handle) as seeker:
                if table in LISTS:
                    n = sum(not seeker.set_key_dup(key, value) for key, value in cursor)
                else:
                    n = sum(_is_odd(table, key) or not seeker.set_key(key) for key in cursor.iternext(values=False))
        return n

    def put_anew(self, txn: Transaction, table: str) -> None:
        """Writes all entries of a table anew, without touching its pages; postings of a wrong size are left out.

        Where the size of a key is wrong, the value begins within what was taken for the key.
        """
        entries = list(self.raw(txn, table))
        self.clear(txn, table)
        for key, value in entries:
            if _is_odd(table, key):
                whole = key + value
                key, value = whole[: len(row_key(0))], whole[len(row_key(0)) :][: len(value)]
            if not _is_odd(table, key) and (table not in LISTS or len(value) == len(row_key(0))):
                self.put_entry(txn, table, key, value)

    def clear(self, txn: Transaction, table: str) -> None:
        """Removes all entries of a table."""
        txn.drop(self._handle(table), delete=False)

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
            raise CorruptStoreError(f"the item in row {row} is missing: check(deep=True) lists all damage, repair() mends it")
        return value


def _is_odd(table: str, key: bytes) -> bool:
    """Whether a key is none of that table's."""
    return table in NUMBERED and len(key) != len(row_key(0))
