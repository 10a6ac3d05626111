"""One run of reembed(): stages vectors batch by batch, then switches the store over to them in one transaction."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simstore.embedders import Embedder, to_record
from simstore.errors import CorruptStoreError, EmbedderMismatchError, InvalidArgumentError, InvalidVectorError
from simstore.index import prepared
from simstore.metrics import METRICS
from simstore.reports import Reembedded
from simstore.storage import Staging, Transaction
from simstore.storage.records import read_item
from simstore.store import arguments, models
from simstore.store.core import Core, Cores
from simstore.store.reading import item_of
from simstore.store.rewriting import append_rows, begin_epoch, bury_rows, copies
from simstore.store.view import View
from simstore.types import Item, Key, Progress

__all__ = ["Move"]

T = TypeVar("T")
Rows = NDArray[np.uint64]
Vectors = NDArray[np.float32]

_ROUNDS = 4  # what others still write after so many is embedded within the transaction that switches
_COMMIT_S, _COMMIT_BYTES = 1.0, 8 << 20  # what being killed may cost


class Move:
    """Moves a store to an embedder.

    Args:
        record: What the store is to remember of it.
        content: The model's file, if the store is to keep it.
        inputs, batch_size, progress: See reembed.
    """

    def __init__(
        self,
        cores: Cores,
        embedder: Embedder,
        record: dict[str, Any],
        content: bytes | None,
        inputs: Callable[[Item], Any] | None,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        self._cores = cores
        self._embedder, self._record, self._content = embedder, record, content
        self._inputs, self._batch_size, self._progress = inputs, batch_size, progress
        self._staging = Staging(record["fingerprint"], record["dim"])
        self._metric = METRICS[cores.run(Core.view).schema.metric]
        self._pending: list[tuple[Rows, Vectors]] = []
        self._committed_s = 0.0

    def run(self) -> Reembedded:
        """Does it; goes on with what an interrupted run has left. Errors as in reembed."""
        n_resumed, turn = self._write(self._begin), 0
        while True:
            self._stage_missing()
            self._check_unchanged()
            n_items = self._alone(partial(self._switch, is_last=turn == _ROUNDS))
            if n_items is not None:
                return Reembedded(n_items, self._staging.dim, n_resumed)
            turn += 1

    def _write(self, work: Callable[[Transaction, Core], T]) -> T:
        return self._cores.run(lambda core: core.writer.write(lambda txn: work(txn, core)))

    def _alone(self, work: Callable[[Transaction, Core], T]) -> T:
        """As ``_write``, in a transaction that no other call shares: the work is long, and may call the caller's functions."""
        return self._cores.run(lambda core: core.environment.write(lambda txn: work(txn, core)))

    def _check_unchanged(self) -> None:
        """Raises InvalidArgumentError if the embedder has become another one, as by training: what it made is dropped."""
        try:
            if to_record(self._embedder)["fingerprint"] == self._staging.fingerprint:
                return
            raise InvalidArgumentError(f"the embedder {self._record['name']!r} has another fingerprint than at the beginning")
        except InvalidArgumentError:
            self._write(lambda txn, core: core.database.end_staging(txn))
            raise

    # -- within a transaction --

    def _begin(self, txn: Transaction, core: Core) -> int:
        """Keeps what an interrupted run has staged, as far as it is of use; returns how many vectors that is."""
        database = core.database
        try:
            is_resumed = database.staging(txn) == self._staging
        except CorruptStoreError:
            is_resumed = False
        if self._is_done(txn, core):
            return 0
        if not is_resumed:
            database.begin_staging(txn, self._staging)
            return 0
        staged, alive = database.staged_rows(txn), _alive(core.views.within_write(txn))
        useless = {*np.setdiff1d(staged, alive).tolist(), *database.damaged_staged(txn, self._staging.dim)}
        database.drop_staged(txn, useless)
        return len(staged) - len(useless)

    def _is_done(self, txn: Transaction, core: Core) -> bool:
        """Whether another call has moved the store to this very embedder."""
        return core.database.schema(txn).fingerprint == self._staging.fingerprint

    def _refuse_overtaken(self, txn: Transaction, core: Core) -> None:
        """Raises EmbedderMismatchError if what is staged is not this run's."""
        if core.database.staging(txn) != self._staging:
            raise EmbedderMismatchError(
                f"another call of reembed() has dropped the vectors that were staged for {self._record['name']!r}, to move the "
                "store elsewhere or leave it as it is: decide for one embedder, and call reembed() with it again"
            )

    def _missing(self, txn: Transaction, core: Core, view: View) -> Rows:
        """The live rows without a staged vector, ascending."""
        return np.setdiff1d(_alive(view), core.database.staged_rows(txn), assume_unique=True)

    def _put(self, txn: Transaction, core: Core, rows: Rows, vectors: Vectors) -> bool:
        """Stages vectors; False if the store has been moved meanwhile."""
        if self._is_done(txn, core):
            return False
        self._refuse_overtaken(txn, core)
        core.database.put_staged(txn, rows, vectors)
        return True

    def _switch(self, txn: Transaction, core: Core, *, is_last: bool) -> int | None:
        """Has the staged vectors be the store's; returns how many items there are, or None if some are still to be embedded.

        Args:
            is_last: Embed those here: else a store that others write to all the time would never be moved.
        """
        if self._is_done(txn, core):
            return core.database.state(txn).n_live
        self._refuse_overtaken(txn, core)
        view = core.views.within_write(txn)
        missing = self._missing(txn, core, view)
        if len(missing) and not is_last:
            return None
        for rows in self._batches(missing):
            core.database.put_staged(txn, rows, self._embedded(self._asked(txn, core, view, rows)))
        return self._go_over(txn, core, view)

    def _go_over(self, txn: Transaction, core: Core, view: View) -> int:
        database, state, rows = core.database, view.state, _alive(view)
        vectors = partial(database.staged_vectors, txn, dim=self._staging.dim)
        next_row = append_rows(txn, database, state, copies(txn, database, rows, vectors))
        log_seq = bury_rows(txn, database, state, rows)
        begin_epoch(txn, database, state, self._staging.dim, self._record)
        if self._content is not None:
            setting = self._cores.setting
            models.save_model(txn, database, setting.path, setting.files, self._record, self._content)
        database.end_staging(txn)
        database.put_state(txn, replace(state, seq=state.seq + 1, next_row=next_row, n_live=len(rows), log_seq=log_seq))
        return len(rows)

    # -- batch by batch --

    def _batches(self, rows: Rows) -> Iterator[Rows]:
        return (rows[at : at + self._batch_size] for at in range(0, len(rows), self._batch_size))

    def _stage_missing(self) -> None:
        """Embeds the live items that have no staged vector yet; what is done when an error comes is kept."""

        def missing_of(core: Core) -> tuple[Rows, int]:
            with core.environment.reading() as txn:
                view = core.views.current(txn)
                return self._missing(txn, core, view), view.state.n_live

        missing, total = self._cores.run(missing_of)
        done, self._committed_s = total - len(missing), time.monotonic()
        try:
            for rows in self._batches(missing):
                if not self._stage(rows):
                    return
                done += len(rows)
                if self._progress is not None:
                    self._progress("reembed", done, total)
        finally:
            self._flush()

    def _stage(self, rows: Rows) -> bool:
        """Embeds the items of rows; False if the store has been moved meanwhile."""

        def asked(core: Core) -> tuple[Rows, list[tuple[Key, Any]]]:
            with core.environment.reading() as txn:
                view = core.views.current(txn)
                alive = rows[view.alive.of_rows(rows)]
                return alive, self._asked(txn, core, view, alive)

        alive, items = self._cores.run(asked)
        if len(alive):
            self._pending.append((alive, self._embedded(items)))
        size = sum(vectors.nbytes for _, vectors in self._pending)
        is_due = size >= _COMMIT_BYTES or time.monotonic() - self._committed_s >= _COMMIT_S
        return self._flush() if is_due else True

    def _flush(self) -> bool:
        """Commits what has been embedded; False if the store has been moved meanwhile."""
        pending, self._pending = self._pending, []
        if not pending:
            return True
        rows, vectors = (np.concatenate(column) for column in zip(*pending, strict=True))
        is_open = self._write(lambda txn, core: self._put(txn, core, rows, vectors))
        self._committed_s = time.monotonic()
        return is_open

    # -- one batch --

    def _asked(self, txn: Transaction, core: Core, view: View, rows: Rows) -> list[tuple[Key, Any]]:
        """The keys of rows and what their inputs are made of: items for the function ``inputs``, else data."""
        if self._inputs is None:
            items = (read_item(core.database.item(txn, row), row) for row in rows.tolist())
            return [(key, data) for key, _, data in items]
        return [(item.key, item) for item in (item_of(core, txn, view, row) for row in rows.tolist())]

    def _embedded(self, asked: list[tuple[Key, Any]]) -> Vectors:
        """The vectors of items, float32 [n, dim].

        Raises:
            InvalidArgumentError: One has no data, and there is no function ``inputs``.
            InvalidVectorError: The embedder made something that cannot be compared.
        """
        inputs = [self._input(key, given) for key, given in asked]
        vectors = arguments.embedded(self._embedder.embed(inputs), len(inputs), self._staging.dim)
        try:
            prepared(vectors, self._metric)
        except InvalidVectorError:
            for i, (key, _) in enumerate(asked):
                prepared(vectors[i : i + 1], self._metric, f"vector that the embedder made for item {key!r}")
            raise
        return vectors

    def _input(self, key: Key, given: Any) -> Any:
        if self._inputs is None:
            if given is None:
                raise InvalidArgumentError(
                    f"item {key!r} has no data to be embedded, and the store keeps no inputs: give inputs=…, a function item → "
                    "input. Nothing has changed; called again, reembed() goes on from here"
                )
            return given
        try:
            return self._inputs(given)
        except Exception as err:
            err.add_note(f"raised by inputs(item) for the item {key!r}")
            raise


def _alive(view: View) -> Rows:
    return view.alive.rows(view.first_row, view.state.next_row)
