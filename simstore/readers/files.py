"""Opening files that may be anything: what is no regular file is never read from, and nothing waits."""

import errno
import os
import stat
from typing import BinaryIO

from simstore.errors import RejectedError
from simstore.readers.reader import SourceFile

__all__ = ["check_regular", "open_regular", "refusal", "shown", "source_file", "stat_of"]

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def shown(path: str) -> str:
    """A path as it can be shown: bytes that are no UTF-8 and control characters are escaped."""
    return repr(path) if not path.isprintable() else f"'{path}'"


def source_file(path: str, status: os.stat_result | None) -> SourceFile:
    """The SourceFile of a path and what stat() told of it, if it told anything."""
    return SourceFile(path, 0, 0) if status is None else SourceFile(path, status.st_size, status.st_mtime_ns)


def stat_of(path: str) -> os.stat_result:
    """What a path leads to.

    Raises:
        RejectedError: A dangling link, a link loop, vanished, unreadable.
    """
    try:
        return os.stat(path)
    except OSError as err:
        raise refusal(path, err) from err


def refusal(path: str, err: OSError) -> RejectedError:
    """The RejectedError for what the system said of a path."""
    if err.errno == errno.ELOOP:
        return RejectedError("link loop", f"{shown(path)}: its links lead back to themselves")
    if err.errno in (errno.ENOENT, errno.ENOTDIR):
        if os.path.islink(path):
            return RejectedError("dangling link", f"{shown(path)} leads to {shown(os.readlink(path))}, which is not there")
        return _vanished(path)
    if err.errno in (errno.ENXIO, errno.ENODEV):  # open() of a socket, or of a device that is not there
        return _irregular(path, "a socket or a device")
    return RejectedError("unreadable", f"{shown(path)} cannot be read: {err.strerror or err}")


def _vanished(path: str) -> RejectedError:
    """The RejectedError for a file that was listed and is gone."""
    return RejectedError("vanished", f"{shown(path)} is gone since its folder was listed")


def _irregular(path: str, kind: str) -> RejectedError:
    return RejectedError("not a regular file", f"{shown(path)} is {kind}, which is not read")


def check_regular(path: str, status: os.stat_result) -> None:
    """Raises RejectedError for what is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise _irregular(path, _KINDS.get(stat.S_IFMT(status.st_mode), "no file"))


def open_regular(path: str) -> BinaryIO:
    """A regular file, opened to be read. A FIFO that took its place since it was looked at does not make this wait.

    Raises:
        RejectedError: It is none, or cannot be opened.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as err:
        raise refusal(path, err) from err
    try:
        check_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb", buffering=1 << 17)
    except BaseException:
        os.close(descriptor)
        raise
