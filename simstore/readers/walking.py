"""Walking through folders: sorted, recursive, through links, and never twice around a loop of them."""

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from simstore.errors import RejectedError
from simstore.readers.files import check_regular, refusal, shown, source_file, stat_of
from simstore.readers.reader import Refused
from simstore.readers.store_folders import STORE_NOTE, is_store, store_around

__all__ = ["Found", "FoundFile", "Note", "walk"]

Note = Callable[[str, str], None]
"""Called as note(path, why) for what is passed over."""

_Inode = tuple[int, int]


class FoundFile(NamedTuple):
    """A regular file: its absolute path, its path relative to the root, with "/", and what stat() told of it."""

    path: str
    key: str
    status: os.stat_result


Found = FoundFile | Refused


class _Folder(NamedTuple):
    """A folder that is being walked through."""

    inode: _Inode
    entries: Iterator[os.DirEntry[str]]
    prefix: str


class _Walk:
    """One walk. A folder that a link leads to is entered once by a link, so that links across cannot multiply it."""

    def __init__(self, note: Note, enter: Callable[[str], bool]) -> None:
        self._note = note
        self._enter = enter
        self._stack: list[_Folder] = []
        self._linked: set[_Inode] = set()
        self._stores: dict[str, bool] = {}

    def push(self, path: str, prefix: str, status: os.stat_result) -> None:
        """Goes into a folder, unless it is a store.

        Raises:
            RejectedError: It cannot be listed.
        """
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as err:
            raise refusal(path, err) from err
        if is_store({entry.name for entry in entries}):
            self._note(path, STORE_NOTE)
        else:
            self._stack.append(_Folder(_inode(status), iter(entries), prefix))

    def found(self) -> Iterator[Found]:
        """The files below, and what is refused."""
        while self._stack:
            folder = self._stack[-1]
            entry = next(folder.entries, None)
            if entry is None:
                self._stack.pop()
                continue
            key = folder.prefix + entry.name
            try:
                file = self._file(entry, key)
            except RejectedError as err:
                yield Refused(source_file(entry.path, _status_or_none(entry.path)), None, key, err.reason, str(err))
            else:
                if file is not None:
                    yield file

    def _file(self, entry: os.DirEntry[str], key: str) -> FoundFile | None:
        """The file that an entry is; None for a folder, which comes next, and for what is passed over."""
        status = stat_of(entry.path)
        is_link = entry.is_symlink()
        if stat.S_ISDIR(status.st_mode):
            if self._enter(key) and self._may_enter(entry.path, status, is_link):
                self.push(entry.path, key + "/", status)
            return None
        check_regular(entry.path, status)
        return None if is_link and self._in_store(entry.path) else FoundFile(entry.path, key, status)

    def _may_enter(self, path: str, status: os.stat_result, is_link: bool) -> bool:
        inode = _inode(status)
        if any(folder.inode == inode for folder in self._stack):
            raise RejectedError("link loop", f"{shown(path)} leads back to a folder that it lies in")
        if not is_link:
            return True
        if self._in_store(path):
            return False
        if inode in self._linked:
            self._note(path, "another link to a folder that was read through the first")
            return False
        self._linked.add(inode)
        return True

    def _in_store(self, path: str) -> bool:
        """Whether a link leads into a store: tells it then."""
        folder = _folder_of_target(path)
        if folder not in self._stores:
            self._stores[folder] = store_around(folder) is not None
        if self._stores[folder]:
            self._note(path, "a link into " + STORE_NOTE)
        return self._stores[folder]


def _folder_of_target(path: str) -> str:
    """A folder in which lies what a link leads to; its own path may hold links. realpath() would ask for each part of it."""
    try:
        target = os.path.join(os.path.dirname(path), os.readlink(path))
    except OSError as err:
        raise refusal(path, err) from err
    if os.path.basename(target) in ("", ".", "..") or os.path.islink(target):
        target = os.path.realpath(path)
    return os.path.dirname(target)


def _inode(status: os.stat_result) -> _Inode:
    return status.st_dev, status.st_ino


def _status_or_none(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def walk(root: str, *, note: Note, enter: Callable[[str], bool] = lambda key: True) -> Iterator[Found]:
    """The files below a root, and what is refused there, folder by folder in sorted order.

    Args:
        root: An absolute path of a folder.
        enter: enter(relative path) tells whether to go into a folder.

    Raises:
        RejectedError: The root itself cannot be listed.
    """
    walking = _Walk(note, enter)
    walking.push(root, "", stat_of(root))
    yield from walking.found()
