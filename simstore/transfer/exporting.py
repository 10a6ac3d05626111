"""A store, or a part of it, as one file."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from simstore.store import Store
from simstore.transfer.file_info import Lines, info_text
from simstore.transfer.formats import FORMATS, format_of
from simstore.transfer.json_form import to_json
from simstore.transfer.publishing import new_file
from simstore.types import Item, Progress
from simstore.where import Where

__all__ = ["Exported", "export_store"]

_N_ITEMS, _N_BYTES = 1000, 8 << 20


@dataclass(frozen=True, slots=True)
class Exported:
    """What export_store did: the file (None for a stream), its format and size, and how many items are in it."""

    path: Path | None
    format: str
    count: int
    size_bytes: int


def export_store(
    store: Store,
    dest: str | os.PathLike[str] | BinaryIO,
    *,
    format: str | None = None,
    where: Where | dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Writes the items of a store to a file, as they are now, whatever is written meanwhile. The file appears when it is whole.

    Args:
        dest: A path; or a stream open to write bytes, for "jsonl".
        format: "parquet", "jsonl" or "npz"; by default as the path's suffix says.
        where: Only items that match, as in Store.search.
        overwrite: Replace what is at the path.
        progress: Called as progress("export", done, total) now and then.

    Raises:
        InvalidArgumentError: There is no such format.
        InvalidFilterError: The filter cannot be understood.
        PackageMissingError: The format needs a package that is not installed.
        StorageFullError, StorageError: It could not be written, or the path is taken; nothing is left.
        CorruptStoreError: An item is damaged; nothing is left.

    Example:
        >>> import simstore, numpy as np, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with simstore.open(folder + "/a.sim") as store:
        ...     _ = store.add(["a", "b"], np.eye(2))
        ...     export_store(store, folder + "/a.jsonl").count
        2
    """
    counter = _Counter(store, where, progress)
    settings = info_text(store.info())
    if not isinstance(dest, (str, os.PathLike)):
        FORMATS["jsonl"].write(dest, settings, counter.lines())
        return Exported(None, "jsonl", counter.n, 0)
    path = Path(os.path.abspath(dest))
    name = format_of(path, format)
    with new_file(path, overwrite=overwrite) as file:
        FORMATS[name].write(file, settings, counter.lines())
    return Exported(path, name, counter.n, path.stat().st_size)


class _Counter:
    """The items of a store, chunk by chunk; ``n`` is how many there were so far."""

    def __init__(self, store: Store, where: Where | dict[str, Any] | None, progress: Progress | None) -> None:
        self._items = store.scan(where)
        self._progress = progress
        self._total = store.count(where) if progress is not None else 0
        self.n = 0

    def lines(self) -> Iterator[Lines]:
        """Chunks of at most a thousand items, or of some megabytes."""
        items: list[Item] = []
        texts: list[str] = []
        size = 0
        for item in self._items:
            items.append(item)
            texts.append(json.dumps(to_json(item.data)))
            size += len(texts[-1]) + item.vector.nbytes
            if len(items) == _N_ITEMS or size > _N_BYTES:
                yield self._counted(items, texts)
                items, texts, size = [], [], 0
        if items:
            yield self._counted(items, texts)

    def _counted(self, items: list[Item], texts: list[str]) -> Lines:
        self.n += len(items)
        if self._progress is not None:
            self._progress("export", self.n, max(self.n, self._total))
        vectors = np.stack([item.vector for item in items])
        return Lines([item.key for item in items], [item.label for item in items], texts, vectors)
