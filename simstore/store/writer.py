"""Everything that changes items: one call, one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simstore.errors import DimensionError, EmbedderMismatchError, InvalidKeyError, KeyExistsError, KeyNotFoundError
from simstore.storage import (
    Database,
    Environment,
    LogEntry,
    NewRows,
    Place,
    RejectedRecord,
    Schema,
    State,
    Transaction,
    steps,
)
from simstore.storage.encoding import encode_key, encode_label, pack, packer, plain_value
from simstore.storage.records import read_record
from simstore.store.arguments import Batch, Keys, NewItems
from simstore.store.commits import Commits
from simstore.store.filters import Filters, refuse_mismatch
from simstore.store.statistics import Statistics
from simstore.store.view import Views
from simstore.types import Counts, Key
from simstore.where import Where

__all__ = ["UNCHANGED", "Writer"]

T = TypeVar("T")
UNCHANGED: Any = ...
_LAST_NUMBER = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class _Change:
    """What a transaction does to the rows."""

    rows: NewRows | None
    dead: list[int]
    n_live: int
    next_number: int


class Writer:
    """Writes items. What a method returned from is on the disk; where it raised, nothing was written.

    Interrupted (KeyboardInterrupt and the like), it may have been written.
    """

    def __init__(self, environment: Environment, database: Database, statistics: Statistics) -> None:
        self.commits = Commits(environment)
        self._database = database
        self._statistics = statistics

    def add(self, items: NewItems) -> list[Key]:
        """Writes new items; returns their keys.

        Raises:
            KeyExistsError: One of the keys is in the store.
            EmbedderMismatchError: The store has gone over to another embedder than the one that made the vectors.
        """
        batch, vectors, made_by = items

        def work(txn: Transaction) -> list[Key]:
            state, schema = self._begin(txn, vectors.shape[1], made_by)
            keys = batch.keys or _numbered(state, len(batch))
            live = self._database.live_rows(txn, keys.encoded)
            if any(row is not None for row in live):
                at = next(i for i, row in enumerate(live) if row is not None)
                raise KeyExistsError(f"keys[{at}]: {keys.plain[at]!r} is in the store already: upsert replaces it")
            self._commit(txn, state, self._change(state, keys, batch, vectors, live), schema)
            return keys.plain

        keys = self.write(work)
        self._statistics.wrote(len(keys), 0, vectors.nbytes + sum(map(len, batch.data)))
        return keys

    def upsert(self, items: NewItems) -> Counts:
        """Writes items, replacing those whose key is in the store; errors as in add, but for keys."""
        counts = self.write(lambda txn: self._upserted(txn, items))[0]
        self._count(items, counts)
        return counts

    def take_in(
        self,
        items: NewItems | None,
        rejected: Sequence[RejectedRecord],
        cleared: Sequence[Place],
        refuse: Callable[[Sequence[int | None]], None] | None,
    ) -> tuple[Counts, range]:
        """Upserts items and notes what was rejected, and what no longer is; returns the new rows, too.

        Raises:
            One of REFUSALS: refuse(live rows of the keys) did. Else as in upsert.
        """

        def work(txn: Transaction) -> tuple[Counts, range]:
            done = (Counts(0, 0), range(0)) if items is None else self._upserted(txn, items, refuse)
            self._database.drop_rejected(txn, cleared)
            self._database.put_rejected(txn, rejected)
            return done

        counts, rows = self.write(work)
        if items is not None:
            self._count(items, counts)
        return counts, rows

    def _upserted(
        self, txn: Transaction, items: NewItems, refuse: Callable[[Sequence[int | None]], None] | None = None
    ) -> tuple[Counts, range]:
        batch, vectors, made_by = items
        state, schema = self._begin(txn, vectors.shape[1], made_by)
        keys = batch.keys or _numbered(state, len(batch))
        live = self._database.verified_rows(txn, keys.encoded)
        if refuse is not None:
            refuse(live)
        self._commit(txn, state, self._change(state, keys, batch, vectors, live), schema)
        n_replaced = sum(row is not None for row in live)
        return Counts(added=len(live) - n_replaced, replaced=n_replaced), range(state.next_row, state.next_row + len(live))

    def _count(self, items: NewItems, counts: Counts) -> None:
        self._statistics.wrote(sum(counts), counts.replaced, items.vectors.nbytes + sum(map(len, items.batch.data)))

    def update(self, keys: Keys, labels: list[Any] | None, data: list[Any] | None) -> range:
        """Gives items another label or other data; None keeps what they have. Returns their new rows.

        Raises:
            KeyNotFoundError: One of the keys is not in the store.
        """

        def work(txn: Transaction) -> tuple[int, range]:
            state = self._database.state(txn)
            schema = self._database.schema(txn)
            live = self._live(txn, keys)
            items = [read_record(self._database.item(txn, row), row) for row in live]
            with_packer = packer()
            new_labels = [item[1] for item in items] if labels is None else [plain_value(label) for label in labels]
            new_data = [item[2] for item in items] if data is None else [pack(with_packer, value) for value in data]
            batch = Batch(keys, new_labels, [encode_label(label) for label in new_labels], new_data)
            vectors = np.stack([self._database.vector(txn, row, schema.dim or 0) for row in live])
            self._commit(txn, state, self._change(state, keys, batch, vectors, list(live)))
            return vectors.nbytes + sum(map(len, new_data)), range(state.next_row, state.next_row + len(live))

        n_bytes, rows = self.write(work)
        self._statistics.wrote(len(keys.plain), len(keys.plain), n_bytes)
        return rows

    def delete(self, keys: Keys, *, ignore_missing: bool) -> int:
        """Deletes items; returns how many.

        Raises:
            KeyNotFoundError: One of the keys is not in the store, and ignore_missing is False.
        """

        def work(txn: Transaction) -> int:
            state = self._database.state(txn)
            if ignore_missing:
                dead = [row for row in self._database.verified_rows(txn, keys.encoded) if row is not None]
            else:
                dead = self._live(txn, keys)
            if dead:
                self._commit(txn, state, _Change(None, dead, state.n_live - len(dead), state.next_number))
            return len(dead)

        n_deleted = self.write(work)
        self._statistics.wrote(0, n_deleted, 0)
        return n_deleted

    def delete_where(self, views: Views, filters: Filters, where: Where) -> int:
        """Deletes the items that match; returns how many."""

        def work(txn: Transaction) -> int:
            view = views.within_write(txn)
            chosen = filters.selection_once(txn, view, where)
            dead = chosen.rows.rows(0, view.state.next_row).tolist()
            refuse_mismatch(where, dead, self._database.records(txn, dead))
            if dead:
                self._commit(txn, view.state, _Change(None, dead, view.state.n_live - len(dead), view.state.next_number))
            return len(dead)

        n_deleted = self.write(work)
        self._statistics.wrote(0, n_deleted, 0)
        return n_deleted

    # -- one transaction --

    # Other calls' works may stand before and after a work in its transaction, and it may run more than once: it keeps nothing
    # outside the transaction, and has put nothing in it when it raises one of REFUSALS.

    def write(self, work: Callable[[Transaction], T]) -> T:
        """work(transaction), committed when it returns."""
        steps.reached("write.begun")
        result = self.commits.write(work)
        steps.reached("write.committed")
        return result

    def _begin(self, txn: Transaction, dim: int, made_by: str | None = None) -> tuple[State, Schema | None]:
        """The state before; and the schema to put, where these are the first vectors ever and settle the store's width."""
        schema: Schema = self._database.schema(txn)
        if made_by is not None and made_by != schema.fingerprint:
            raise EmbedderMismatchError("the store has gone over to another embedder than the one that made these vectors")
        if schema.dim is None:
            return self._database.state(txn), replace(schema, dim=dim)
        if schema.dim != dim:
            raise DimensionError(f"vectors have {dim} numbers each; this store holds vectors of {schema.dim}")
        return self._database.state(txn), None

    def _live(self, txn: Transaction, keys: Keys) -> list[int]:
        rows = self._database.verified_rows(txn, keys.encoded)
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            at = rows.index(None)
            raise KeyNotFoundError(f"keys[{at}]: {keys.plain[at]!r} is not in the store")
        return found

    @staticmethod
    def _change(state: State, keys: Keys, batch: Batch, vectors: NDArray[np.float32], live: Sequence[int | None]) -> _Change:
        dead = [row for row in live if row is not None]
        numbers = [key for key in keys.plain if isinstance(key, int)]
        records = list(zip(keys.plain, batch.labels, batch.data, strict=True))
        rows = NewRows(keys.encoded, batch.label_keys, records, vectors)
        next_number = max(state.next_number, min(max(numbers, default=-1) + 1, _LAST_NUMBER))
        return _Change(rows, dead, state.n_live + len(keys.plain) - len(dead), next_number)

    def _commit(self, txn: Transaction, state: State, change: _Change, schema: Schema | None = None) -> None:
        """Writes the change as the next seq, and the schema if it is given; the transaction commits after it."""
        database, seq = self._database, state.seq + 1
        if schema is not None:
            database.put_schema(txn, schema)
        n_rows = 0 if change.rows is None else len(change.rows.keys)
        if change.rows is not None:
            database.append(txn, change.rows, state.next_row, seq)
            steps.reached("write.appended")
        if change.dead:
            database.bury(txn, change.dead, seq)
            database.put_log(txn, seq, LogEntry(state.log_seq, tuple(change.dead)))
            steps.reached("write.buried")
        new = State(  # not by replace(): that takes a tenth of one item's write
            seq=seq,
            next_row=state.next_row + n_rows,
            n_live=change.n_live,
            next_number=change.next_number,
            segments_seq=state.segments_seq,
            log_seq=seq if change.dead else state.log_seq,
            snapshots_seq=state.snapshots_seq,
            repaired_seq=state.repaired_seq,
        )
        database.put_state(txn, new)
        steps.reached("write.put")


def _numbered(state: State, n: int) -> Keys:
    """The next n numbers as keys."""
    if state.next_number + n > _LAST_NUMBER:
        raise InvalidKeyError("the store has used the largest int key, so that it cannot number items: give keys")
    plain: list[Key] = list(range(state.next_number, state.next_number + n))
    return Keys(plain, [encode_key(key) for key in plain])
