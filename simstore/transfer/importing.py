"""A file that export_store wrote, into a store."""

import os
from dataclasses import dataclass
from typing import Any

from simstore.errors import EmbedderMismatchError, KeyExistsError, SimstoreError, SourceError
from simstore.store import Store
from simstore.transfer.file_info import Content, FileInfo
from simstore.transfer.formats import content_of
from simstore.types import EmbedderSpec, Progress

__all__ = ["Imported", "check_file", "import_file"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What import_file did: how many items are new, and how many took the place of others; what made the vectors, if known."""

    added: int
    replaced: int
    embedder: EmbedderSpec | None


def check_file(path: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
    """Reads a file that export_store wrote to its end, before a store is made for it.

    Raises:
        SourceError: There is no such file, or it is something else, or damaged.
    """
    content = content_of(path)
    try:
        _verify(None, content, progress)
    except RecursionError as err:
        raise SourceError(f"{path} is damaged: it nests too deep") from err
    finally:
        content.close()


def import_file(
    store: Store, path: str | os.PathLike[str], *, upsert: bool = False, progress: Progress | None = None
) -> Imported:
    """Takes in the items of a file that export_store wrote, in batches, one transaction each.

    The whole file is looked through first: a damaged one, or a key that is in the store, changes nothing.

    Args:
        upsert: Replace items whose key is in the store.
        progress: Called as progress("verify" or "import", done, total) now and then.

    Returns:
        Imported(added, replaced, embedder).

    Raises:
        SourceError: There is no such file, or it is something else, or damaged.
        KeyExistsError: A key is in the store.
        DimensionError: The store holds vectors of another width.
        EmbedderMismatchError: The store's embedder did not make these vectors.
        StorageFullError, StorageError: The message tells how many items are in the store; upsert=True goes on.

    Example:
        >>> import simstore, numpy as np, tempfile
        >>> from simstore.transfer import export_store
        >>> folder = tempfile.mkdtemp()
        >>> with simstore.open(folder + "/a.sim") as a, simstore.open(folder + "/b.sim") as b:
        ...     _ = a.add(["a", "b"], np.eye(2))
        ...     _ = export_store(a, folder + "/a.jsonl")
        ...     import_file(b, folder + "/a.jsonl").added
        2
    """
    content = content_of(path)
    try:
        _check_embedder(store, content.info)
        _verify(None if upsert or not len(store) else store, content, progress)
        return _take_in(store, content, progress, upsert=upsert)
    except RecursionError as err:
        raise SourceError(f"{path} is damaged: it nests too deep") from err
    finally:
        content.close()


def _check_embedder(store: Store, info: FileInfo) -> None:
    theirs, ours = info.embedder, store.embedder
    if theirs is not None and ours is not None and theirs.fingerprint != ours.fingerprint:
        raise EmbedderMismatchError(
            f"the store's embedder is {ours.name!r} (fingerprint {ours.fingerprint}), and these vectors were made by "
            f"{theirs.name!r} (fingerprint {theirs.fingerprint}): they cannot be compared. Import into another store"
        )


def _verify(store: Store | None, content: Content, progress: Progress | None) -> None:
    """Raises if the file is damaged, or has a key that is in the store where there must be none."""
    n = 0
    for chunk in content.chunks(decoding=False):
        if store is not None:
            there = next((item.key for item in store.get_many(chunk.keys) if item is not None), None)
            if there is not None:
                raise KeyExistsError(
                    f"{there!r} is in the store already; nothing was imported: upsert (--upsert) replaces items"
                )
        n += len(chunk.keys)
        if progress is not None:
            progress("verify", n, content.info.count)


def _take_in(store: Store, content: Content, progress: Progress | None, *, upsert: bool) -> Imported:
    added = replaced = 0
    total = content.info.count
    for chunk in content.chunks():
        columns: dict[str, Any] = {"labels": chunk.labels, "data": chunk.data}
        try:
            if upsert:
                counts = store.upsert(chunk.keys, chunk.vectors, **columns)
                added, replaced = added + counts.added, replaced + counts.replaced
            else:
                added += len(store.add(chunk.keys, chunk.vectors, **columns))
        except SimstoreError as err:
            done = added + replaced
            if not done:
                raise
            raise type(err)(
                f"{err}; {done:,} of {total:,} items have been imported and stay in the store: upsert (--upsert) imports all"
            ) from err
        if progress is not None:
            progress("import", added + replaced, total)
    return Imported(added, replaced, content.info.embedder)
