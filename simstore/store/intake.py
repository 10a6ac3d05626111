"""What ingest() does with a store: it looks up what is there, embeds, and writes a batch in one transaction."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidVectorError, SimstoreError
from simstore.index import prepared
from simstore.metrics import METRICS
from simstore.storage import Place, RejectedRecord, Schema
from simstore.storage.encoding import unpack
from simstore.storage.records import read_item
from simstore.store import arguments
from simstore.store.core import Core
from simstore.store.opening import MAX_DIM
from simstore.store.request import OutdatedError
from simstore.types import Counts, Key, Label
from simstore.where import Where

__all__ = ["Beginning", "Found", "Intake", "Refuse"]

T = TypeVar("T")


Refuse = Callable[[Sequence[int | None]], None]
"""refuse(rows), with the live row of each key: raises DuplicateKeyError where an item may not be replaced."""


class Beginning(NamedTuple):
    """A store before a run: its next row, how many items are alive, and whether anything was ever rejected."""

    next_row: int
    n_live: int
    has_rejected: bool


class Found(NamedTuple):
    """An item that is in the store: its row, label and data."""

    row: int
    label: Label
    data: Any


class Intake:
    """A store, as ingest() sees it. Keys, labels and data are refused one by one beforehand, so that a batch is written whole.

    Args:
        run: work(core), with the newest core.
        embed: The vectors that a schema's embedder makes of inputs.
    """

    def __init__(self, run: Callable[[Callable[[Core], Any]], Any], embed: Callable[[Schema, Any], Any]) -> None:
        self._run = run
        self._embed = embed

    def schema(self) -> Schema:
        """The newest schema: dim, metric, the embedder's record."""
        schema: Schema = self._run(lambda core: core.view().schema)
        return schema

    def beginning(self) -> Beginning:
        """How the store is now."""

        def work(core: Core) -> Beginning:
            with core.environment.reading() as txn:
                state = core.database.state(txn)
                return Beginning(state.next_row, state.n_live, core.database.has_rejected(txn))

        return self._run(work)  # type: ignore[no-any-return]

    def embed(self, inputs: Any) -> tuple[NDArray[np.float32], str | None]:
        """The vectors [n, dim] of inputs, and the fingerprint of the embedder that made them."""
        while True:
            schema = self.schema()
            try:
                return arguments.embedded(self._embed(schema, inputs), len(inputs), schema.dim), schema.fingerprint
            except OutdatedError:  # the store has just gone over to another embedder
                continue

    def found(self, keys: Sequence[Key]) -> list[Found | None]:
        """What is in the store under keys; None for nothing."""
        encoded = arguments.keys_of(keys, unique=False).encoded

        def work(core: Core) -> list[Found | None]:
            found: list[Found | None] = []
            with core.environment.reading() as txn:
                for row in core.database.live_rows(txn, encoded):
                    found.append(None if row is None else Found(row, *read_item(core.database.item(txn, row), row)[1:]))
            return found

        return self._run(work)  # type: ignore[no-any-return]

    def rows(self, where: Where) -> NDArray[np.uint64]:
        """The rows of the live items that match a filter, ascending."""

        def work(core: Core) -> NDArray[np.uint64]:
            with core.environment.reading() as txn:
                view = core.views.current(txn)
                return core.filters.selection(txn, view, where).rows.rows(0, view.state.next_row)

        return self._run(work)  # type: ignore[no-any-return]

    def live_rows(self, first: int, stop: int) -> NDArray[np.uint64]:
        """Those of rows first … stop - 1 that are alive, ascending."""

        def work(core: Core) -> NDArray[np.uint64]:
            view = core.view()
            return view.alive.rows(first, min(stop, view.state.next_row))

        return self._run(work)  # type: ignore[no-any-return]

    def items(self, rows: Sequence[int]) -> list[tuple[Key, Any]]:
        """Key and data of the items in rows, which are live or were not long ago."""

        def work(core: Core) -> list[tuple[Key, Any]]:
            with core.environment.reading() as txn:
                return [(key, unpack(packed)) for key, _, packed in core.database.records(txn, rows)]

        return self._run(work)  # type: ignore[no-any-return]

    def rejected(self) -> list[RejectedRecord]:
        """All that is noted as rejected, in no order."""

        def work(core: Core) -> list[RejectedRecord]:
            with core.environment.reading() as txn:
                return list(core.database.rejected(txn))

        return self._run(work)  # type: ignore[no-any-return]

    def rejection(self, places: Sequence[Place]) -> list[RejectedRecord | None]:
        """What was rejected before at places; None for nothing."""

        def work(core: Core) -> list[RejectedRecord | None]:
            with core.environment.reading() as txn:
                return [core.database.rejection(txn, place) for place in places]

        return self._run(work)  # type: ignore[no-any-return]

    def refusals(
        self, keys: Sequence[Key], labels: Sequence[Label], vectors: NDArray[np.float32]
    ) -> list[SimstoreError | None]:
        """For each item why it cannot be stored; None if it can. A wrong width is none of these: it concerns all.

        Args:
            vectors: float32 [n, dim].
        """
        metric = METRICS[self.schema().metric]

        def refusal(part: slice) -> SimstoreError | None:
            try:
                arguments.packed_batch(arguments.keys_of(keys[part], unique=False), labels[part], [])
                prepared(vectors[part], metric)
            except SimstoreError as err:
                return err
            return None

        if not len(keys) or refusal(slice(len(keys))) is None:
            return [None] * len(keys)
        return [refusal(slice(i, i + 1)) for i in range(len(keys))]

    def write(
        self,
        keys: Sequence[Key],
        vectors: NDArray[np.float32],
        *,
        labels: Sequence[Label],
        packed: list[bytes],
        made_by: str | None,
        rejected: Sequence[RejectedRecord] = (),
        cleared: Sequence[Place] = (),
        refuse: Refuse | None = None,
    ) -> tuple[Counts, range]:
        """Upserts items, notes rejections and drops others, in one transaction; on the disk when it returns.

        Args:
            keys: Of n items; of none, where there is nothing but rejections.
            vectors: float32 [n, dim].
            packed: Each item's data, as storage.encoding packs it.
            made_by: The fingerprint that embed() told; None for vectors that were given.
            refuse: Called within the transaction before anything is put, with the live row of each key; it may be called
                more than once.

        Returns:
            Counts(added, replaced), and the items' new rows, in the order of the keys.

        Raises:
            EmbedderMismatchError: The store has gone over to another embedder: embed again.
            DimensionError: The store holds vectors of another width.
            DuplicateKeyError and the like: See Store.upsert, and what refuse raises; nothing was written.
            StorageFullError, StorageError: Nothing was written.
        """
        items = None
        if len(keys):
            checked = arguments.vectors_of(vectors, self.schema().dim)
            if checked.shape[1] > MAX_DIM:
                raise InvalidVectorError(f"vectors of {checked.shape[1]} numbers: {MAX_DIM} is the most")
            batch = arguments.packed_batch(arguments.keys_of(keys), labels, packed)
            prepared(checked, METRICS[self.schema().metric])
            items = arguments.NewItems(batch, checked, made_by)
        return self._run(lambda core: core.writer.take_in(items, rejected, cleared, refuse))  # type: ignore[no-any-return]

    def update(self, keys: Sequence[Key], *, labels: Sequence[Label], data: Sequence[Any]) -> range:
        """Gives items another label and other data; returns their new rows. Errors as in Store.update."""
        checked = arguments.keys_of(keys)
        batch = arguments.batch_of(checked, labels, data, len(checked.plain))
        return self._run(lambda core: core.writer.update(checked, batch.labels, list(data)))  # type: ignore[no-any-return]

    def forget(self, places: Sequence[Place]) -> None:
        """Drops what was noted of places."""
        self._run(lambda core: core.writer.take_in(None, (), places, None))
