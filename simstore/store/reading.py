"""Reading: get, scan, labels, info."""

from collections.abc import Iterable, Iterator
from typing import Any

from simstore.errors import CorruptStoreError, InvalidKeyError, KeyNotFoundError
from simstore.reports import StoreInfo
from simstore.storage import Transaction
from simstore.storage.encoding import encode_key
from simstore.storage.records import read_item
from simstore.store import arguments
from simstore.store.base import StoreBase
from simstore.store.bitmap import Bitmap
from simstore.store.core import Core
from simstore.store.describe import described, embedder_of, label_counts
from simstore.store.filters import refuse_mismatch
from simstore.store.view import View
from simstore.types import EmbedderSpec, Item, Key, Label
from simstore.where import Where, where_of

__all__ = ["Reading"]

_SCAN_CHUNK = 256


class Reading(StoreBase):
    """Everything that reads items as they are."""

    def get(self, key: Key) -> Item:
        """The item of a key.

        Raises:
            KeyNotFoundError: The key is not in the store.
            CorruptStoreError: The item is damaged on the disk.
        """
        item = self.get_many([key])[0]
        if item is None:
            raise KeyNotFoundError(f"{key!r} is not in the store")
        return item

    def get_many(self, keys: Iterable[Key]) -> list[Item | None]:
        """The items of keys, None for a key that is not in the store."""
        checked = arguments.keys_of(keys, unique=False)

        def work(core: Core) -> list[Item | None]:
            with core.environment.reading() as txn:
                view = core.views.current(txn)
                rows = self._rows(core, txn, view, checked.encoded)
                return [
                    None if row is None else item_of(core, txn, view, row, key)
                    for row, key in zip(rows, checked.plain, strict=True)
                ]

        return self._run(work)

    def _rows(self, core: Core, txn: Transaction, view: View, encoded: list[bytes]) -> list[int | None]:
        """The row of each key in a view, or None."""
        if self._setting.snapshot is None:
            return core.database.live_rows(txn, encoded)
        n_rows = view.state.next_row
        seen = ([row for row in core.database.rows_of(txn, key) if row < n_rows and row in view.alive] for key in encoded)
        return [rows[-1] if rows else None for rows in seen]

    def __contains__(self, key: object) -> bool:
        try:
            encoded = encode_key(key)
        except InvalidKeyError:
            return False

        def work(core: Core) -> bool:
            with core.environment.reading() as txn:
                (row,) = self._rows(core, txn, core.views.current(txn), [encoded])
                if row is not None:
                    core.database.verify_row(txn, encoded, row)
                return row is not None

        return self._run(work)

    def __len__(self) -> int:
        return self._view().state.n_live

    def __iter__(self) -> Iterator[Item]:
        return self.scan()

    def count(self, where: Where | dict[str, Any] | None = None) -> int:
        """How many items there are, or match a filter.

        Raises:
            InvalidFilterError: The filter cannot be understood.
        """
        if where is None:
            return len(self)
        condition = where_of(where)

        def work(core: Core) -> int:
            with core.environment.reading() as txn:
                return core.filters.selection(txn, core.views.current(txn), condition).count

        return self._run(work)

    def scan(self, where: Where | dict[str, Any] | None = None) -> Iterator[Item]:
        """All items, or those that match a filter, in the order they were written, as they are now: later writes do not show.

        Raises:
            InvalidFilterError: The filter cannot be understood.
        """
        condition = None if where is None else where_of(where)

        def begin(core: Core) -> tuple[Core, View, Bitmap]:
            with core.environment.reading() as txn:
                view = core.views.current(txn)
                return core, view, view.alive if condition is None else core.filters.selection(txn, view, condition).rows

        core, view, visible = self._run(begin)

        def items() -> Iterator[Item]:
            for first in range(view.first_row, view.state.next_row, _SCAN_CHUNK):
                rows = visible.rows(first, min(first + _SCAN_CHUNK, view.state.next_row))
                self._cores.refuse_closed()
                with core.environment.reading() as txn:
                    if condition is not None:
                        refuse_mismatch(condition, rows.tolist(), core.database.records(txn, rows.tolist()))
                    chunk = [item_of(core, txn, view, row) for row in rows.tolist()]
                yield from chunk

        return items()

    def labels(self, where: Where | dict[str, Any] | None = None) -> dict[Label, int]:
        """How many items each label has, of all or of those that match a filter; None counts those without one.

        Raises:
            InvalidFilterError: The filter cannot be understood.
        """
        condition = None if where is None else where_of(where)

        def work(core: Core) -> dict[Label, int]:
            with core.environment.reading() as txn:
                view = core.views.current(txn)
                chosen = None if condition is None else core.filters.selection(txn, view, condition)
                return label_counts(txn, core.database, view, chosen)

        return self._run(work)

    @property
    def embedder(self) -> EmbedderSpec | None:
        """What makes vectors of inputs, by name, dim and fingerprint; None if vectors are given. Takes microseconds."""
        return embedder_of(self._view().schema)

    def info(self) -> StoreInfo:
        """Counts, sizes and settings."""

        def work(core: Core) -> StoreInfo:
            with core.environment.reading() as txn:
                return described(txn, core.database, core.views.current(txn), self._files, self._path)

        return self._run(work)


def item_of(core: Core, txn: Transaction, view: View, row: int, expected: Key | None = None) -> Item:
    """The item in a row.

    Raises:
        CorruptStoreError: It is damaged, or is not that of the expected key.
    """
    key, label, data = read_item(core.database.item(txn, row), row)
    if expected is not None and key != expected:
        raise CorruptStoreError(
            f"key {expected!r} leads to the item of {key!r}: check(deep=True) lists all damage, repair() mends it"
        )
    return Item(key, label, data, core.database.vector(txn, row, view.schema.dim or 0))
