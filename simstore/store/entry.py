"""simstore.open: from a path to a Store."""

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from simstore.embedders import Embedder, check_same, model_bytes, to_record
from simstore.errors import InvalidArgumentError
from simstore.storage import DATA_FILE, Files, LocalFiles, MovedError
from simstore.store import arguments, models, opening
from simstore.store.core import Setting
from simstore.store.indexing import add_index, paths_of
from simstore.store.leases import release
from simstore.store.store import Store
from simstore.where.paths import Path as FieldPath

__all__ = ["open", "open_through"]

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
    index_fields: Iterable[str | tuple[str | int, ...]] = (),
    background: bool = True,
    snapshot: str | None = None,
) -> Store:
    """Opens the store in a directory, or makes one.

    Args:
        path: The directory.
        dim: How many numbers a vector has; by default what the embedder makes, or what the first add brings.
        metric: "cosine" (1 - cos), "l2" (Euclidean) or "ip" (1 - inner product). A store keeps the one it was made with.
        embedder: Turns inputs into vectors. A KerasEmbedder is saved in the store and needs not be given again.
        mode: "r" reads a store that is there; "a" opens it or makes it; "w" makes it and fails if it is there.
        M: Links of a node in the graph; more find better, and take more memory. Kept like metric.
        ef_construction: Candidates considered for each new node's links; more find better, and build slower. Kept like metric.
        index_fields: Fields of the items' data that filters are to be fast on, as ("year", "tags"); those that have no index
            get one. Store.create_index and drop_index do so later.
        background: Build graphs in a thread beside reads and writes; if False only optimize() and close() do.
        snapshot: The name of a snapshot: the state that it remembers is opened, to be read. The store itself may be open in
            this process, too.

    Returns:
        The open Store; close it, or use it in a with-statement.

    Raises:
        StoreNotFoundError, StoreExistsError, NotAStoreError: The path is not what the mode needs.
        FormatVersionError: A newer simstore wrote it.
        CorruptStoreError: Bytes on disk are not what was written.
        AlreadyOpenError: This process has it open.
        SnapshotNotFoundError: There is no snapshot of that name.
        EmbedderMismatchError: The store was made with another embedder.
        InvalidArgumentError, DimensionError: An argument is wrong, or contradicts the store that is there.

    Example:
        >>> import simstore, numpy as np, tempfile
        >>> with simstore.open(tempfile.mkdtemp()) as store:
        ...     _ = store.add(["a", "b"], np.eye(2), labels=["x", "y"])
        ...     store.search([1, 0.1], k=1)[0].key
        'a'
    """
    return open_through(
        LocalFiles(), path, dim=dim, metric=metric, embedder=embedder, mode=mode, M=M, ef_construction=ef_construction,
        index_fields=index_fields, background=background, snapshot=snapshot,
    )  # fmt: skip


def open_through(
    files: Files,
    path: str | os.PathLike[str],
    *,
    dim: int | None = None,
    metric: str = _METRIC,
    embedder: Embedder | None = None,
    mode: str = "a",
    M: int = _M,
    ef_construction: int = _EF_CONSTRUCTION,
    index_fields: Iterable[str | tuple[str | int, ...]] = (),
    background: bool = True,
    snapshot: str | None = None,
    map_size: int | None = None,
) -> Store:
    """As ``open``, through other files than the system's, or in a map of another size."""
    dim, M, ef_construction = _whole(dim), _whole(M), _whole(ef_construction)
    record = None if embedder is None else to_record(embedder)
    if record is not None and dim is not None and dim != record["dim"]:
        raise InvalidArgumentError(f"dim={dim}, but the embedder makes vectors of {record['dim']}: leave dim out")
    directory, paths = arguments.path_of(path, "path"), paths_of(index_fields, "index_fields")
    if snapshot is not None:
        arguments.check_snapshot_name(snapshot)
        if mode == "w":
            raise InvalidArgumentError("mode='w' makes a new store, which has no snapshots: leave mode out")
    readonly = mode == "r" or snapshot is not None
    creates = embedder is not None and not readonly and not (directory / DATA_FILE).exists()
    settings = opening.Settings(
        dim=record["dim"] if creates and record is not None else dim,
        metric=None if isinstance(metric, _DefaultStr) else metric,
        M=None if isinstance(M, _DefaultInt) else M,
        ef_construction=None if isinstance(ef_construction, _DefaultInt) else ef_construction,
    )
    content = model_bytes(embedder) if creates and embedder is not None else None  # refused before anything is made
    for_snapshot = snapshot is not None
    while True:
        opened = opening.open_directory(directory, mode, settings, files, map_size=map_size, for_snapshot=for_snapshot)
        try:
            past = None if snapshot is None else models.snapshot_named(opened, snapshot)
            if past is not None:
                opened = replace(opened, schema=replace(opened.schema, dim=past.dim, embedder=past.embedder))
                settings.check_against(opened.schema)
            known = opened.schema.embedder
            if known is None and embedder is not None and record is not None:
                models.check_dim(opened.schema, record)
                if not readonly:
                    new_schema = models.save_embedder(opened, files, record, content if creates else model_bytes(embedder))
                    opened = replace(opened, schema=new_schema)
            elif known is not None and embedder is not None:
                check_same(known, embedder)
                if known["saved"] and not readonly and files.size(models.model_path(opened.path, known)) <= 0:
                    models.save_embedder(opened, files, known, model_bytes(embedder))
            if set(paths) - {indexed.path for indexed in opened.schema.indexed}:
                opening.require_writable(opened.path, readonly, snapshot)
                _index(opened, paths)
            return Store(Setting(opened.path, files, readonly, background, past, map_size), opened, embedder)
        except MovedError:  # compacted by another process just now
            release(opened.path, opened.environment, for_snapshot=for_snapshot)
            mode = "a" if mode == "w" else mode
        except BaseException:
            release(opened.path, opened.environment, for_snapshot=for_snapshot)
            raise


def _index(opened: opening.Opened, paths: tuple[FieldPath, ...]) -> None:
    opened.environment.write(lambda txn: add_index(txn, opened.database, paths, None, missing_only=True))


def _whole(n: Any) -> Any:
    """A numpy integer as an int; anything else as it is."""
    return int(n) if isinstance(n, np.integer) else n
