"""The embedder that a store names, and the files of the models that it keeps."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_64_hexdigest

from simstore.errors import CorruptStoreError, DimensionError, EmbedderMismatchError, SnapshotNotFoundError
from simstore.storage import Database, Files, Schema, SnapshotRecord, Transaction
from simstore.storage.files import publish_file, write_file

if TYPE_CHECKING:
    from simstore.store.opening import Opened

__all__ = [
    "EMBEDDERS",
    "check_dim",
    "model_path",
    "needed",
    "save_embedder",
    "save_model",
    "snapshot_named",
    "with_checksum",
]

EMBEDDERS = "embedder"


def model_path(path: Path, record: dict[str, Any]) -> Path:
    """Where a store keeps its embedder's model."""
    return path / EMBEDDERS / f"{record['fingerprint']}.keras"


def needed(txn: Transaction, opened: "Opened", files: Files) -> set[Path]:
    """The models' files that the store, or a snapshot, still needs."""
    try:
        snapshots = opened.database.snapshots(txn)
    except CorruptStoreError:  # nobody knows which one it needs
        return {opened.path / EMBEDDERS / name for name in files.list_dir(opened.path / EMBEDDERS)}
    embedders = [opened.database.schema(txn).embedder, *(snapshot.embedder for snapshot in snapshots)]
    return {model_path(opened.path, embedder) for embedder in embedders if embedder is not None}


def save_embedder(opened: "Opened", files: Files, record: dict[str, Any], content: bytes | None) -> Schema:
    """Has the store remember its embedder: the model's file first, then the transaction that names it.

    Raises:
        EmbedderMismatchError: Meanwhile it was moved to another one.
        StorageError: It could not be written; the store is as it was.
    """
    record = with_checksum(record, content)

    def work(txn: Transaction) -> Schema:
        schema = opened.database.schema(txn)
        if schema.embedder is not None and schema.fingerprint != record["fingerprint"]:
            raise EmbedderMismatchError(
                f"another process has given {opened.path} the embedder {schema.embedder['name']!r} just now: open it again"
            )
        check_dim(schema, record)
        if content is not None:
            save_model(txn, opened.database, opened.path, files, record, content)
        new = replace(schema, dim=record["dim"], embedder=record)
        opened.database.change_schema(txn, new)
        return new

    return opened.environment.write(work)


def snapshot_named(opened: "Opened", name: str) -> SnapshotRecord:
    """The snapshot that is to be opened.

    Raises:
        SnapshotNotFoundError: There is no snapshot of that name.
    """
    with opened.environment.reading() as txn:
        snapshot = opened.database.snapshot_named(txn, name)
        if snapshot is None:
            there = ", ".join(repr(other) for other, _ in opened.database.snapshot_values(txn)) or "none"
            raise SnapshotNotFoundError(f"{opened.path} has no snapshot {name!r}; it has: {there}")
        return snapshot


def check_dim(schema: Schema, record: dict[str, Any]) -> None:
    """Raises DimensionError if the store holds vectors of another width than an embedder makes."""
    if schema.dim is not None and schema.dim != record["dim"]:
        raise DimensionError(f"the embedder makes vectors of {record['dim']}; this store holds vectors of {schema.dim}")


# -- files ---------------------------------------------------------------------------------------------------------------


def with_checksum(record: dict[str, Any], content: bytes | None) -> dict[str, Any]:
    """The record of an embedder with the checksum of its model's file, if there is one."""
    return record if content is None else record | {"model_xxh3": xxh3_64_hexdigest(content)}


def save_model(txn: Transaction, database: Database, path: Path, files: Files, record: dict[str, Any], content: bytes) -> None:
    """Writes a model's file within the transaction that names it, so that no other process takes it for one left behind.

    Snapshots with the same embedder learn the new file's checksum.

    Raises:
        StorageError: It could not be written.
    """
    directory = path / EMBEDDERS
    files.make_dir(directory)
    publish_file(files, write_file(files, directory, [content], len(content)), model_path(path, record))
    files.sync_dir(path)
    for name, value in list(database.snapshot_values(txn)):
        with suppress(CorruptStoreError):
            snapshot = SnapshotRecord.of(value, name)
            if snapshot.embedder is not None and snapshot.embedder["fingerprint"] == record["fingerprint"]:
                database.put_snapshot(txn, replace(snapshot, embedder=record))
