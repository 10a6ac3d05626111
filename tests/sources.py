"""Readers to test ingest() with: rows in memory, a folder of .bin files, rows of .csv-like files. No pytest: children import them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simstore.errors import RejectedError
from simstore.readers import Batch, Decoded, FileBatch, InputKind, Notes, Refused, RowBatch, SourceFile

NOWHERE = SourceFile("", 0, 0)


@dataclass
class MemoryReader:
    """Rows that are no file."""

    keys: list[Any]
    inputs: Any
    labels: list[Any] | None = None
    data: list[dict[str, Any]] | None = None
    source: str = "memory"
    input_kind: InputKind = "vector"
    format: str = "examples"
    file: SourceFile = NOWHERE
    refused: tuple[Refused, ...] = ()
    before: Callable[[int], None] = lambda _first: None
    sizes: list[int] = field(default_factory=list)

    @property
    def n_examples(self) -> int | None:
        return len(self.keys)

    def notes(self) -> Notes:
        return Notes(("column 'x' is the vector",), (("odd.txt", "no vectors"),))

    def batches(self, size: int) -> Iterator[Batch]:
        for first in range(0, max(len(self.keys), 1), size):
            self.before(first)
            cut = slice(first, first + size)
            keys = self.keys[cut]
            self.sizes.append(len(keys))
            labels = [None] * len(keys) if self.labels is None else self.labels[cut]
            data = [{} for _ in keys] if self.data is None else self.data[cut]
            refused = self.refused if first == 0 else ()
            yield RowBatch(self.file, range(first, first + len(keys)), keys, labels, data, self.inputs[cut], refused)


@dataclass
class FolderReader:
    """Files ``*.bin`` below a folder, each an example: three numbers in text; "hang", "bad" and "crash" are what they say.

    Attributes:
        n_read, n_decoded: Which files were read, and decoded.
        hanging: What a decoder does that hangs.
    """

    root: Path
    labelled: bool = True
    hanging: Callable[[], Any] = lambda: None
    format: str = "images"
    input_kind: InputKind = "array"
    n_examples: int | None = None
    n_read: list[str] = field(default_factory=list)
    n_decoded: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        return str(self.root)

    def notes(self) -> Notes:
        return Notes((), ())

    def batches(self, size: int) -> Iterator[Batch]:
        paths = sorted(self.root.rglob("*.bin"))
        for first in range(0, len(paths), size):
            yield self._batch(paths[first : first + size])

    def _batch(self, paths: Sequence[Path]) -> FileBatch:
        stats = [path.stat() for path in paths]
        files = [SourceFile(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in zip(paths, stats, strict=True)]
        refused = tuple(
            Refused(file, None, str(Path(file.path).relative_to(self.root)), "empty", "no bytes")
            for file in files
            if not file.size
        )
        files = [file for file in files if file.size]
        names = [str(Path(file.path).relative_to(self.root)) for file in files]
        labels = [Path(name).parent.name if self.labelled else None for name in names]

        def read(i: int) -> bytes:
            self.n_read.append(names[i])
            return Path(files[i].path).read_bytes()

        def decode(i: int, content: bytes) -> Decoded:
            self.n_decoded.append(names[i])
            text = content.decode()
            if text.startswith("hang"):
                self.hanging()
            if text.startswith("bad"):
                raise RejectedError("no numbers", f"{text!r} is not three numbers")
            return Decoded(np.array(text.split(), np.float32), {"n": len(content)})

        return FileBatch(files, names, labels, read, decode, refused)


def write_file(root: Path, name: str, text: str, mtime_ns: int | None = None) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def contents(store: Any) -> dict[Any, tuple[Any, ...]]:
    """All that a store holds, by key."""
    return {item.key: (item.label, repr(item.data), item.vector.tobytes()) for item in store.scan()}
