"""What ingest() is given, opened as readers that suit the store's embedder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from simstore.embedders import input_of
from simstore.errors import SourceError
from simstore.ingest.settings import Settings
from simstore.ingest.stamps import FIELD
from simstore.readers import Batch, InputKind, Notes, Reader, ReadOptions, open_sources
from simstore.store import Store
from simstore.types import ImageInput
from simstore.where import field

__all__ = ["opened"]


@dataclass(frozen=True, slots=True)
class MissingReader:
    """A source of which nothing is left."""

    source: str
    format: str = "examples"
    input_kind: InputKind = "vector"
    n_examples: int = 0

    def batches(self, size: int) -> Iterator[Batch]:
        """None."""
        return iter(())

    def notes(self) -> Notes:
        """What is told."""
        return Notes((), ((self.source, "nothing is there"),))


def opened(store: Store, sources: Any, options: ReadOptions | None, settings: Settings) -> list[Reader]:
    """The readers of what was given; images come in the size that the store's embedder takes.

    A path of which nothing is left, and whose items are to be deleted by force, is a source without examples.

    Raises:
        SourceError: A source cannot be read as it was asked for.
    """
    options = options or ReadOptions()
    if options.image_input is None:
        options = replace(options, image_input=_image_input(store))
    try:
        return open_sources(sources, options)
    except SourceError:
        if not settings.prune:
            raise
    listed = sources if isinstance(sources, (list, tuple)) else [sources]
    return [reader for source in listed for reader in _opened(store, source, options, force=settings.force)]


def _image_input(store: Store) -> ImageInput | None:
    embedder = store._embedder
    taken = None if embedder is None else input_of(embedder)
    return taken if isinstance(taken, ImageInput) else None


def _opened(store: Store, source: Any, options: ReadOptions, *, force: bool) -> list[Reader]:
    """The readers of a source, of which nothing may be left."""
    try:
        return open_sources(source, options)
    except SourceError as err:
        if not isinstance(source, (str, os.PathLike)):
            raise
        path = os.path.abspath(os.fsdecode(source))
        n = store.count(field(f"{FIELD}.source") == path)
        if not n:
            raise
        if not force:
            raise SourceError(f"{err}. The store has {n:,} items of it; prune with force=True deletes them") from err
        return [MissingReader(path)]
