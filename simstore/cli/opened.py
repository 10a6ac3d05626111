"""From the path on the command line to an open store: one that is only read or written to must be there already."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from simstore.errors import StoreNotFoundError

if TYPE_CHECKING:
    from simstore.embedders import Embedder
    from simstore.store import Store

__all__ = ["made", "named", "needs_texts", "to_read", "to_write"]


def to_read(path: str, *, snapshot: str | None = None, embedder: str | None = None) -> "Store":
    """A store, or one of its snapshots, to be read.

    Raises:
        StoreNotFoundError: There is none.
    """
    import simstore

    _check(path)
    given = None if embedder is None else named(embedder)
    return simstore.open(path, mode="r", snapshot=snapshot, embedder=given, background=False)


def to_write(path: str, *, embedder: str | None = None) -> "Store":
    """A store that is there, to be written to. A typo makes no new one.

    Raises:
        StoreNotFoundError: There is none.
    """
    import simstore

    _check(path)
    return simstore.open(path, embedder=None if embedder is None else named(embedder), background=False)


def made(path: str, *, metric: str | None = None, embedder: "Embedder | None" = None, index_fields: Any = ()) -> "Store":
    """A store, made if there is none."""
    import simstore

    if metric is None:
        return simstore.open(path, embedder=embedder, background=False, index_fields=index_fields)
    return simstore.open(path, metric=metric, embedder=embedder, background=False, index_fields=index_fields)


def named(name: str, *, texts: "Iterable[str] | None" = None) -> "Embedder":
    """The embedder of a name, fitted to texts if it needs some.

    Raises:
        SimstoreError: There is none, or it lacks a package.
    """
    from simstore.embedders import named_embedder

    return named_embedder(name, texts=texts)


def needs_texts(name: str) -> bool:
    """Whether the embedder of a name has to be fitted to texts."""
    from simstore.embedders import embedder_names

    return any(info.name == name and info.needs_texts for info in embedder_names())


def _check(path: str) -> None:
    if not os.path.lexists(path):
        raise StoreNotFoundError(
            f"there is no store at {path}: see if the path is right; `simstore index`, `add` and `import` make a new one"
        )
