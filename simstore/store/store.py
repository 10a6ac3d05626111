"""The Store: what an application writes, asks and closes."""

import os
import weakref
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simstore.embedders import Embedder
from simstore.errors import (
    CorruptStoreError,
    EmbedderRequiredError,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidVectorError,
    KeyNotFoundError,
    StorageFullError,
)
from simstore.index import prepared, prepared_queries
from simstore.metrics import METRICS
from simstore.storage import Files
from simstore.storage.encoding import encode_key
from simstore.storage.records import read_item
from simstore.store import arguments, opening
from simstore.store.checking import check_store
from simstore.store.describe import described, label_counts
from simstore.store.maintenance import Maintenance
from simstore.store.request import request_of
from simstore.store.searcher import Searcher, thread_count
from simstore.store.view import View, Views
from simstore.store.writer import UNCHANGED, Writer
from simstore.types import BatchHits, Counts, Hits, Item, Key, Label, Problem, Progress, StoreInfo

__all__ = ["Store"]

_SCAN_CHUNK = 256


class Store:
    """An open store. Made by ``simstore.open``; safe to use from many threads, not after a fork."""

    def __init__(
        self, opened: opening.Opened, files: Files, embedder: Embedder | None, *, readonly: bool, background: bool
    ) -> None:
        self._path = opened.path
        self._environment = opened.environment
        self._database = opened.database
        self._files = files
        self._readonly = readonly
        self._embedder = embedder
        segments_dir = opened.path / opening.SEGMENTS
        self._views = Views(opened.database, files, segments_dir)
        self._writer = Writer(opened.environment, opened.database)
        self._maintenance = Maintenance(
            opened.environment, opened.database, self._views, files, segments_dir, background=background and not readonly
        )
        self._searcher = Searcher(opened.environment, opened.database, self._views, self._maintenance.consider)
        self._finalizer = weakref.finalize(
            self, _release, self._maintenance, self._searcher, self._views, opened.environment, os.getpid()
        )

    # -- writing -----------------------------------------------------------------------------------------------------

    def add(self, keys: Any, vectors: Any = None, *, inputs: Any = None, labels: Any = None, data: Any = None) -> list[Key]:
        """Adds new items, all or none; on the disk when it returns.

        Args:
            keys: A str or int for each item; None numbers them; one key alone adds one item.
            vectors: Numbers [n, dim].
            inputs: In place of vectors: n inputs for the store's embedder.
            labels: A str, int or None for each item.
            data: Anything msgpack can hold, with numpy arrays and datetimes, for each item. Tuples come back as lists,
                bytearrays as bytes, time zones as fixed offsets.

        Returns:
            The items' keys.

        Raises:
            KeyExistsError: A key is in the store already.
            InvalidKeyError, InvalidLabelError, InvalidDataError, InvalidVectorError, DimensionError, DuplicateKeyError,
            InvalidArgumentError: The first bad item is named; nothing was written.
            StorageFullError, StorageError: Nothing was written.
        """
        batch, checked = self._batch(keys, vectors, inputs, labels, data)
        return self._writer.add(batch, checked)

    def upsert(self, keys: Any, vectors: Any = None, *, inputs: Any = None, labels: Any = None, data: Any = None) -> Counts:
        """Adds items, replacing those whose key is in the store. Arguments and errors as in add.

        Returns:
            Counts(added, replaced).
        """
        batch, checked = self._batch(keys, vectors, inputs, labels, data)
        return self._writer.upsert(batch, checked)

    def update(self, keys: Any, *, labels: Any = UNCHANGED, data: Any = UNCHANGED) -> None:
        """Gives items another label or other data; the vector stays, and what is not given stays.

        Raises:
            KeyNotFoundError: A key is not in the store; nothing was written.
        """
        self._check_writable()
        if labels is UNCHANGED and data is UNCHANGED:
            raise InvalidArgumentError("update needs labels, data, or both")
        checked = arguments.keys_of(keys)
        single, n = arguments.is_single(keys), len(checked.plain)
        new_labels = None if labels is UNCHANGED else arguments.column("labels", labels, n, single)
        new_data = None if data is UNCHANGED else arguments.column("data", data, n, single)
        arguments.batch_of(checked, new_labels, new_data, n)  # refuses what cannot be stored
        self._writer.update(checked, new_labels, new_data)

    def delete(self, keys: Any, *, missing: Literal["raise", "ignore"] = "raise") -> int:
        """Deletes items, all or none.

        Args:
            keys: A key, or a sequence of keys.
            missing: What a key that is not in the store does: "raise" or "ignore".

        Returns:
            How many were deleted.

        Raises:
            KeyNotFoundError: A key is not in the store; nothing was deleted.
        """
        self._check_writable()
        if missing not in ("raise", "ignore"):
            raise InvalidArgumentError(f"missing is 'raise' or 'ignore', not {missing!r}")
        checked = arguments.keys_of(keys)
        return self._writer.delete(checked, ignore_missing=missing == "ignore") if checked.plain else 0

    def _check_writable(self) -> None:
        self._environment.check_usable()
        opening.require_writable(self._readonly, self._path)

    def _batch(
        self, keys: Any, vectors: Any, inputs: Any, labels: Any, data: Any
    ) -> tuple[arguments.Batch, NDArray[np.float32]]:
        """The valid batch, and its vectors [n, dim] as given."""
        self._check_writable()
        if (vectors is None) == (inputs is None):
            raise InvalidArgumentError("give vectors, or inputs for the store's embedder: one of them, not both")
        schema = self._schema()
        single = keys is not None and arguments.is_single(keys)
        named = None if keys is None else arguments.keys_of(keys)
        if named is not None and not named.plain and not _length(inputs if vectors is None else vectors):
            raise InvalidArgumentError("nothing to write: the batch is empty")
        if vectors is not None:
            checked = arguments.vectors_of(vectors, schema.dim, single=single)
            batch = arguments.batch_of(named, labels, data, len(checked), single=single)
        else:
            embedder = self._required_embedder()
            given = [inputs] if single else arguments.sized("inputs", inputs)
            batch = arguments.batch_of(named, labels, data, len(given), single=single)
            checked = arguments.embedded(embedder.embed(given), len(batch), schema.dim)
        if checked.shape[1] > opening.MAX_DIM:
            raise InvalidVectorError(f"vectors of {checked.shape[1]} numbers: {opening.MAX_DIM} is the most")
        prepared(checked, METRICS[schema.metric], "vectors" if len(checked) == 1 else "vector")
        return batch, checked

    # -- reading -----------------------------------------------------------------------------------------------------

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
        with self._environment.reading() as txn:
            view = self._views.current(txn)
            rows = self._database.live_rows(txn, checked.encoded)
            return [
                None if row is None else self._item(txn, view, row, key) for row, key in zip(rows, checked.plain, strict=True)
            ]

    def _item(self, txn: Any, view: View, row: int, expected: Key | None = None) -> Item:
        key, label, data = read_item(self._database.item(txn, row), row)
        if expected is not None and key != expected:
            raise CorruptStoreError(f"key {expected!r} leads to the item of {key!r}: store.check() lists what else is damaged")
        return Item(key, label, data, self._database.vector(txn, row, view.schema.dim or 0))

    def __contains__(self, key: object) -> bool:
        try:
            encoded = encode_key(key)
        except InvalidKeyError:
            return False
        with self._environment.reading() as txn:
            return self._database.verified_rows(txn, [encoded])[0] is not None

    def __len__(self) -> int:
        return self._view().state.n_live

    def __iter__(self) -> Iterator[Item]:
        return self.scan()

    def scan(self) -> Iterator[Item]:
        """All items, in the order they were written, as they are now: later writes do not show."""
        view = self._view()

        def items() -> Iterator[Item]:
            for first in range(0, view.state.next_row, _SCAN_CHUNK):
                rows = view.alive.rows(first, min(first + _SCAN_CHUNK, view.state.next_row))
                with self._environment.reading() as txn:
                    chunk = [self._item(txn, view, row) for row in rows.tolist()]
                yield from chunk

        return items()

    def labels(self) -> dict[Label, int]:
        """How many items each label has; None counts those without one."""
        with self._environment.reading() as txn:
            return label_counts(txn, self._database, self._views.current(txn))

    def info(self) -> StoreInfo:
        """Counts, sizes and settings."""
        with self._environment.reading() as txn:
            return described(txn, self._database, self._views.current(txn), self._files, self._path)

    def _view(self) -> View:
        with self._environment.reading() as txn:
            return self._views.current(txn)

    # -- searching ---------------------------------------------------------------------------------------------------

    def search(
        self,
        query: Any = None,
        k: int | None = 10,
        *,
        input: Any = None,
        ef: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
        with_vectors: bool = False,
    ) -> Hits:
        """The items nearest to a query.

        Args:
            query: Numbers [dim].
            k: How many; fewer come back when there are fewer. None: everything within max_distance.
            input: In place of query: an input for the store's embedder.
            ef: How many candidates the search keeps; more find better, and take longer.
            exact: Compare with every item.
            max_distance: Leave out what is farther.
            with_vectors: Give the hits their vectors.

        Returns:
            Hits, nearest first.

        Raises:
            InvalidArgumentError, InvalidVectorError, DimensionError: The query or an argument is wrong.
        """
        request = request_of(k, ef, exact, max_distance, with_vectors)
        schema = self._schema()
        vector = arguments.vector_of(self._query(query, input, schema.dim), schema.dim)
        return self._searcher.search(prepared_queries(vector, METRICS[schema.metric]), request)

    def search_many(
        self,
        queries: Any = None,
        k: int | None = 10,
        *,
        inputs: Any = None,
        ef: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
        with_vectors: bool = False,
        threads: int | None = None,
    ) -> BatchHits:
        """The items nearest to each of many queries, all of one state. Arguments as in search, with queries [n, dim].

        Args:
            threads: How many to use; by default one for each CPU.

        Returns:
            BatchHits: ``.keys``, ``.distances`` and ``.labels`` [n, k]; ``[i]`` is the i-th query's Hits.
        """
        request = request_of(k, ef, exact, max_distance, with_vectors)
        arguments.check_positive("threads", threads)
        if (queries is None) == (inputs is None):
            raise InvalidArgumentError("give queries, or inputs for the store's embedder: one of them, not both")
        schema = self._schema()
        if inputs is not None:
            given = arguments.sized("inputs", inputs)
            vectors = arguments.embedded(self._required_embedder().embed(given), len(given), schema.dim)
        else:
            vectors = arguments.vectors_of(queries, schema.dim, what="queries")
        ready = prepared_queries(vectors, METRICS[schema.metric])
        return self._searcher.search_many(ready, request, thread_count(threads, len(ready)))

    def _schema(self) -> Any:
        view = self._views.newest
        return view.schema if view is not None and view.schema.dim is not None else self._view().schema

    def _query(self, query: Any, input: Any, dim: int | None) -> Any:
        if (query is None) == (input is None):
            raise InvalidArgumentError("give a query, or an input for the store's embedder: one of them, not both")
        if input is None:
            return query
        return arguments.embedded(self._required_embedder().embed([input]), 1, dim)[0]

    def _required_embedder(self) -> Embedder:
        if self._embedder is not None:
            return self._embedder
        record = self._view().schema.embedder
        if record is None:
            raise EmbedderRequiredError(
                "this store has no embedder to turn inputs into vectors: give vectors, or open it with embedder=…"
            )
        raise EmbedderRequiredError(
            f"this store's embedder {record['name']!r} could not be saved with it: open it with embedder=… (its fingerprint is "
            f"{record['fingerprint']})"
        )

    # -- upkeep ------------------------------------------------------------------------------------------------------

    def optimize(self, *, progress: Progress | None = None) -> None:
        """Builds one graph over everything: the fastest state to search. Reads and writes go on beside it.

        Args:
            progress: Called as progress(stage, done, total) now and then.

        Raises:
            StorageFullError, StorageError, BuildError: It could not be built; the store goes on as it was.
        """
        self._check_writable()
        self._maintenance.run(everything=True, progress=progress, stoppable=False)

    def check(self) -> list[Problem]:
        """Compares everything on disk with its checksums and with everything else; reads all of it.

        Returns:
            What is wrong; an empty list for a sound store.
        """
        self._environment.check_usable()
        return check_store(self._environment, self._database, self._files, self._path)

    def close(self, *, progress: Progress | None = None) -> None:
        """Folds a long tail, ends the background work and closes the store. Closing again does nothing.

        Args:
            progress: Called as progress(stage, done, total) now and then.

        Raises:
            StorageFullError: No space to fold the tail. The store is closed all the same, and everything written is in it.
        """
        if not self._finalizer.alive:
            return
        try:
            self._environment.check_usable()
            self._maintenance.stop()
            if not self._readonly:
                self._maintenance.run(progress=progress, stoppable=False)
        except StorageFullError as err:
            raise StorageFullError(
                f"the store is closed and holds all that was written; the graph over its newest items found no space: {err}"
            ) from err
        finally:
            self._finalizer()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or isinstance(error, Exception):
            self.close()
        else:  # interrupted: do not build graphs now
            self._finalizer()

    def __repr__(self) -> str:
        if not self._finalizer.alive:
            return f"<Store {self._path} (closed)>"
        view = self._view()
        return f"<Store {self._path}: {view.state.n_live} items, dim {view.schema.dim}, {view.schema.metric}>"


def _release(maintenance: Maintenance, searcher: Searcher, views: Views, environment: Any, pid: int) -> None:
    """Ends threads and closes the database; in a forked child there is nothing to end."""
    if pid != os.getpid():
        return
    maintenance.stop()
    searcher.close()
    views.forget()
    environment.close()


def _length(values: Any) -> int:
    return len(values) if hasattr(values, "__len__") else 1
