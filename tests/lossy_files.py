"""A file system that can tell what a power cut would have left of it."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from simstore.storage import LocalFiles

Nodes = dict[str, int]
"""The inode that each name in a directory leads to."""


class LossyFiles(LocalFiles):
    """LocalFiles that keeps account of what has been synced, and makes images of what a crash may leave.

    Contents not synced are whole, cut off, zeroed or empty after a crash. A name made, changed or removed in a directory that
    was not synced after it is as it was, or as it is; a rename within a directory has happened or not, as journals have it. LMDB
    syncs its own file: data.mdb is whole wherever its name is, unless ``copied`` says that LMDB only made a copy there.

    Args:
        root: The store's directory, which may not exist yet; or one with stores in it.
        shadow: A directory of the same file system, where removed files are kept.
        after: Called with the name of each operation, after it.
        forgets: Files whose sync does nothing, though it says that it did.
    """

    def __init__(
        self,
        root: Path,
        shadow: Path,
        after: Callable[[str], None] = lambda name: None,
        *,
        forgets: Callable[[Path], bool] = lambda path: False,
    ) -> None:
        self._root, self._shadow, self._after, self._forgets = root, shadow, after, forgets
        self._unsynced: set[int] = set()
        self._synced_names: dict[Path, Nodes] = {}
        self._renamed: dict[Path, list[set[str]]] = {}
        shadow.mkdir()
        self.adopt()

    def adopt(self) -> None:
        """Takes all that is there now for synced."""
        self._unsynced.clear()
        for directory in (self._root, *self._root.glob("**/")) if self._root.exists() else ():
            self._synced_names[directory] = self._names(directory)
        self._synced_names[self._root.parent] = self._names(self._root.parent)

    def _names(self, directory: Path) -> Nodes:
        """What is in a directory; a second link keeps each file, so that its inode stays its own."""
        names: Nodes = {}
        for entry in os.scandir(directory):
            if entry.is_file() and self._is_ours(Path(entry.path)):
                kept = self._shadow / str(entry.inode())
                if not kept.exists():
                    os.link(entry.path, kept)
            names[entry.name] = entry.inode()
        return names

    def _is_ours(self, path: Path) -> bool:
        return path == self._root or self._root in path.parents

    # -- the operations --

    def make_dir(self, path: Path) -> None:
        super().make_dir(path)
        self._after("make_dir")

    def write(self, path: Path, chunks: Iterable[Any]) -> int:
        size = super().write(path, chunks)
        self._unsynced.add(path.stat().st_ino)
        self._after("write")
        return size

    def sync(self, path: Path) -> None:
        if not self._forgets(path):
            self._unsynced.discard(path.stat().st_ino)
        self._after("sync")

    def sync_dir(self, path: Path) -> None:
        self._synced_names[path] = self._names(path)
        self._renamed.pop(path, None)
        self._after("sync_dir")

    def rename(self, source: Path, target: Path) -> None:
        self._names(source.parent)
        super().rename(source, target)
        if source.parent == target.parent:
            tied = self._renamed.setdefault(source.parent, [])
            joined = [names for names in tied if names & {source.name, target.name}]
            tied[:] = [names for names in tied if names not in joined] + [{source.name, target.name}.union(*joined)]
        for known in [path for path in self._synced_names if path == source or source in path.parents]:
            self._synced_names[target / known.relative_to(source)] = self._synced_names.pop(known)
        self._after("rename")

    def copied(self, path: Path) -> None:
        """Says that LMDB has copied a database to that file, unsynced."""
        self._unsynced.add(path.stat().st_ino)

    def remove(self, path: Path) -> None:
        self._names(path.parent)
        super().remove(path)
        self._after("remove")

    # -- the crash --

    def crash(self, target: Path, rng: np.random.Generator | None) -> None:
        """Makes an image of the store's directory, as a power cut may leave it now.

        Args:
            target: What to make; it is missing afterwards if the store's directory would be.
            rng: Chooses among what may happen to each name and content; None drops all that was not synced.
        """
        now, synced = self._names(self._root.parent), self._synced_names.get(self._root.parent, {})
        is_old = self._chooser(self._root.parent, rng)
        if (synced if is_old(self._root.name) else now).get(self._root.name) is not None:
            self._image_of(self._root, target, rng)

    def _chooser(self, directory: Path, rng: np.random.Generator | None) -> Callable[[str], bool]:
        """Whether a name of a directory is after the crash as it was when that was synced, or as it is."""
        chosen: dict[str, bool] = {}

        def is_old(name: str) -> bool:
            if name not in chosen:
                tied = next((names for names in self._renamed.get(directory, []) if name in names), {name})
                chosen.update(dict.fromkeys(tied, rng is None or rng.random() < 0.5))
            return chosen[name]

        return is_old

    def _image_of(self, directory: Path, target: Path, rng: np.random.Generator | None) -> None:
        target.mkdir()
        now, synced = self._names(directory), self._synced_names.get(directory, {})
        is_old = self._chooser(directory, rng)
        for name in sorted(now.keys() | synced.keys()):
            inode = now.get(name) if now.get(name) == synced.get(name) else (synced if is_old(name) else now).get(name)
            if inode is None or name == "lock.mdb":
                continue
            if (self._shadow / str(inode)).exists():
                content = (self._shadow / str(inode)).read_bytes()
                (target / name).write_bytes(self._left_of(content, rng) if inode in self._unsynced else content)
            elif (directory / name).is_dir():
                self._image_of(directory / name, target / name, rng)

    @staticmethod
    def _left_of(content: bytes, rng: np.random.Generator | None) -> bytes:
        """What may be left of a content that was not synced."""
        what = 0 if rng is None else int(rng.integers(5))
        if what == 0:
            return b""
        assert rng is not None
        cut = int(rng.integers(len(content) + 1))
        page = cut // 4096 * 4096
        zeroed_page = content[:page] + bytes(len(content[page : page + 4096])) + content[page + 4096 :]
        return (b"", bytes(len(content)), content[:cut], zeroed_page, content)[what]

    def forget(self) -> None:
        """Removes what was kept."""
        shutil.rmtree(self._shadow)
