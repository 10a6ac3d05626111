"""The Store: what an application opens, writes, asks and closes."""

import os
import weakref
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simstore.embedders import Embedder, check_same, from_record, model_bytes, to_record
from simstore.errors import (
    CorruptStoreError,
    EmbedderRequiredError,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidVectorError,
    KeyNotFoundError,
)
from simstore.index import prepared, prepared_queries
from simstore.metrics import METRICS
from simstore.storage import DATA_FILE, Files, LocalFiles
from simstore.storage.encoding import decode_key, encode_key
from simstore.storage.records import read_item
from simstore.store import arguments, opening
from simstore.store.checking import check_store
from simstore.store.maintenance import Maintenance
from simstore.store.searcher import DEFAULT_EF, Request, Searcher, thread_count
from simstore.store.view import View, Views
from simstore.store.writer import UNCHANGED, Writer
from simstore.types import BatchHits, Counts, EmbedderSpec, Hits, Item, Key, Label, Problem, Progress, StoreInfo

__all__ = ["Store", "open"]

_SCAN_CHUNK = 256
_LARGEST_EF = 1 << 30
Mode = Literal["r", "a", "w"]


class _DefaultStr(str):
    """A default value that can be told from the same value given."""


class _DefaultInt(int):
    """A default value that can be told from the same value given."""


_METRIC = _DefaultStr("cosine")
_M = _DefaultInt(16)
_EF_CONSTRUCTION = _DefaultInt(200)


def open(
    path: str | os.PathLike[str],
    *,
    dim: int | None = None,
    metric: str = _METRIC,
    embedder: Embedder | None = None,
    mode: Mode = "a",
    M: int = _M,
    ef_construction: int = _EF_CONSTRUCTION,
    background: bool = True,
) -> "Store":
    """Opens the store in a directory, or makes one.

    Args:
        path: The directory.
        dim: How many numbers a vector has; by default what the embedder makes, or what the first add brings.
        metric: "cosine" (1 - cos), "l2" (Euclidean) or "ip" (1 - inner product). A store keeps the one it was made with.
        embedder: Turns inputs into vectors. A KerasEmbedder is saved in the store and needs not be given again.
        mode: "r" reads a store that is there; "a" opens it or makes it; "w" makes it and fails if it is there.
        M: Links of a node in the graph; more find better, and take more memory. Kept like metric.
        ef_construction: Candidates considered for each new node's links; more find better, and build slower. Kept like metric.
        background: Build graphs in a thread beside reads and writes; if False only optimize() and close() do.

    Returns:
        The open Store; close it, or use it in a with-statement.

    Raises:
        StoreNotFoundError, StoreExistsError, NotAStoreError: The path is not what the mode needs.
        FormatVersionError: A newer simstore wrote it.
        CorruptStoreError: Bytes on disk are not what was written.
        AlreadyOpenError: This process has it open.
        EmbedderMismatchError: The store was made with another embedder.
        InvalidArgumentError, DimensionError: An argument is wrong, or contradicts the store that is there.

    Example:
        >>> import simstore, numpy as np, tempfile
        >>> with simstore.open(tempfile.mkdtemp()) as store:
        ...     _ = store.add(["a", "b"], np.eye(2), labels=["x", "y"])
        ...     store.search([1, 0.1], k=1)[0].key
        'a'
    """
    return Store._open(path, dim, metric, embedder, mode, M, ef_construction, background, LocalFiles())


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
        self._finalizer = weakref.finalize(self, _release, self._maintenance, self._searcher, opened.environment, os.getpid())

    @classmethod
    def _open(
        cls, path: str | os.PathLike[str], dim: int | None, metric: str, embedder: Embedder | None, mode: str, M: int,
        ef_construction: int, background: bool, files: Files, map_size: int | None = None,
    ) -> "Store":  # fmt: skip
        dim, M, ef_construction = _whole(dim), _whole(M), _whole(ef_construction)
        record = None if embedder is None else to_record(embedder)
        if record is not None and dim is not None and dim != record["dim"]:
            raise InvalidArgumentError(f"dim={dim}, but the embedder makes vectors of {record['dim']}: leave dim out")
        settings = opening.Settings(
            dim=dim if record is None else record["dim"],
            metric=None if isinstance(metric, _DefaultStr) else metric,
            M=None if isinstance(M, _DefaultInt) else M,
            ef_construction=None if isinstance(ef_construction, _DefaultInt) else ef_construction,
        )
        directory = _path(path)
        creates = embedder is not None and mode != "r" and not (directory / DATA_FILE).exists()
        content = model_bytes(embedder) if creates and embedder is not None else None  # refused before anything is made
        opened = opening.open_directory(directory, mode, settings, files, map_size=map_size)
        try:
            schema = opened.schema
            if schema.embedder is None and embedder is not None and record is not None and mode != "r":
                opening.save_embedder(opened, files, record, content if creates else model_bytes(embedder))
            elif schema.embedder is not None and embedder is None:
                embedder = from_record(schema.embedder, opening.model_path(opened.path, schema.embedder))
            elif schema.embedder is not None and embedder is not None:
                check_same(schema.embedder, embedder)
            return cls(opened, files, embedder, readonly=mode == "r", background=background)
        except BaseException:
            opened.environment.close()
            raise

    # -- writing -----------------------------------------------------------------------------------------------------

    def add(self, keys: Any, vectors: Any = None, *, inputs: Any = None, labels: Any = None, data: Any = None) -> list[Key]:
        """Adds new items, all or none; on the disk when it returns.

        Args:
            keys: A str or int for each item; None numbers them; one key alone adds one item.
            vectors: Numbers [n, dim].
            inputs: In place of vectors: n inputs for the store's embedder.
            labels: A str, int or None for each item.
            data: Anything msgpack can hold, with numpy arrays and datetimes, for each item. Tuples come back as lists.

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
            return self._database.live_rows(txn, [encoded])[0] is not None

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
            view = self._views.current(txn)
            counts: dict[Label, int] = {}
            for name, rows in self._database.postings(txn, "labels"):
                if int(rows.max()) >= view.state.next_row:
                    raise CorruptStoreError(
                        f"label {name!r} leads to a row that does not exist: store.check() lists what else is damaged"
                    )
                counts[decode_key(name)] = int(np.count_nonzero(view.alive.of_rows(rows)))
        counts[None] = view.state.n_live - sum(counts.values())
        return {label: count for label, count in counts.items() if count}

    def info(self) -> StoreInfo:
        """Counts, sizes and settings."""
        view = self._view()
        schema, state = view.schema, view.state
        record = schema.embedder
        return StoreInfo(
            path=str(self._path),
            count=state.n_live,
            n_labels=sum(label is not None for label in self.labels()),
            dim=schema.dim,
            metric=schema.metric,
            M=schema.M,
            ef_construction=schema.ef_construction,
            embedder=None if record is None else EmbedderSpec(record["name"], record["dim"], record["fingerprint"]),
            seq=state.seq,
            n_rows=state.next_row,
            n_dead=view.alive.n_dead,
            n_segments=len(view.records),
            n_tail=state.next_row - view.tail_first,
            database_size_bytes=max(0, self._files.size(self._path / DATA_FILE)),
            segments_size_bytes=opening.directory_size(self._path / opening.SEGMENTS),
            format_version=schema.format,
        )

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
        request = _request(k, ef, exact, max_distance, with_vectors)
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
        request = _request(k, ef, exact, max_distance, with_vectors)
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
        """
        if not self._finalizer.alive:
            return
        try:
            self._environment.check_usable()
            self._maintenance.stop()
            if not self._readonly:
                self._maintenance.run(progress=progress, stoppable=False)
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


def _release(maintenance: Maintenance, searcher: Searcher, environment: Any, pid: int) -> None:
    """Ends threads and closes the database; in a forked child there is nothing to end."""
    if pid != os.getpid():
        return
    maintenance.stop()
    searcher.close()
    environment.close()


def _whole(n: Any) -> Any:
    """A numpy integer as an int; anything else as it is."""
    return int(n) if isinstance(n, np.integer) else n


def _length(values: Any) -> int:
    return len(values) if hasattr(values, "__len__") else 1


def _request(k: Any, ef: Any, exact: bool, max_distance: Any, with_vectors: bool) -> Request:
    """What is asked, checked; the same again costs nothing."""
    try:
        return _checked_request(k, ef, exact, max_distance, with_vectors)
    except TypeError:  # an argument that cannot be hashed
        return _checked_request.__wrapped__(k, ef, exact, max_distance, with_vectors)


@lru_cache(64, typed=True)
def _checked_request(k: Any, ef: Any, exact: bool, max_distance: Any, with_vectors: bool) -> Request:
    arguments.check_max_distance(max_distance)
    arguments.check_k(k, max_distance)
    arguments.check_positive("ef", ef)
    if max_distance is not None:
        try:
            with np.errstate(over="ignore"):
                max_distance = float(np.float32(max_distance))
        except OverflowError:  # an int beyond all floats
            max_distance = np.inf if max_distance > 0 else -np.inf
    ef = min(int(ef or DEFAULT_EF), _LARGEST_EF)
    return Request(None if k is None else int(k), ef, bool(exact), max_distance, bool(with_vectors))


def _path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidArgumentError(f"path is a str or a path, not {type(path).__name__}")
    text = os.fsdecode(path)
    if "\0" in text:
        raise InvalidArgumentError(f"path holds a NUL character, which no file system allows: {text!r}")
    return Path(os.path.abspath(text))
