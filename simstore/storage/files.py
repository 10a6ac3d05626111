"""Every file of a store but LMDB's own is made, read, mapped and removed here."""

import errno
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from simstore.errors import StorageError, StorageFullError
from simstore.storage import steps

__all__ = ["Files", "LocalFiles", "publish_file", "storage_error", "temporary_name", "write_file"]

TEMPORARY = "tmp-"


class Files(Protocol):
    """What a store asks of a file system. Tests put one in its place that forgets what was not synced."""

    def make_dir(self, path: Path) -> None:
        """Makes a directory, and is content if it is there."""
        ...

    def list_dir(self, path: Path) -> list[str]:
        """The names in a directory; none if it is missing."""
        ...

    def write(self, path: Path, chunks: Iterable[Any]) -> int:
        """Writes a new file from buffers, unsynced; returns its size in bytes."""
        ...

    def sync(self, path: Path) -> None:
        """Puts a file's content on the disk."""
        ...

    def sync_dir(self, path: Path) -> None:
        """Puts a directory's names on the disk."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file another name, replacing what had it."""
        ...

    def remove(self, path: Path) -> None:
        """Removes a file, and is content if it is missing."""
        ...

    def size(self, path: Path) -> int:
        """A file's size in bytes, or -1 if it is missing."""
        ...

    def read(self, path: Path) -> bytes:
        """A file's content."""
        ...

    def map(self, path: Path) -> memoryview:
        """A file's content, mapped read-only; it stays mapped while the view lives."""
        ...


class LocalFiles:
    """The real file system."""

    def make_dir(self, path: Path) -> None:
        """See Files."""
        path.mkdir(exist_ok=True)

    def list_dir(self, path: Path) -> list[str]:
        """See Files."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def write(self, path: Path, chunks: Iterable[Any]) -> int:
        """See Files."""
        size = 0
        with open(path, "xb", buffering=0) as file:
            for chunk in chunks:
                view = memoryview(chunk).cast("B")
                while view.nbytes:
                    written = file.write(view[: 1 << 26]) or 0
                    size += written
                    view = view[written:]
        return size

    def sync(self, path: Path) -> None:
        """See Files."""
        with open(path, "rb+", buffering=0) as file:
            os.fsync(file.fileno())

    def sync_dir(self, path: Path) -> None:
        """See Files. Windows syncs names by itself, and cannot open a directory."""
        if os.name == "nt":
            return
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """See Files."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """See Files."""
        path.unlink(missing_ok=True)

    def size(self, path: Path) -> int:
        """See Files."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return -1

    def read(self, path: Path) -> bytes:
        """See Files."""
        return path.read_bytes()

    def map(self, path: Path) -> memoryview:
        """See Files."""
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def temporary_name() -> str:
    """A name for a file in the making, which tells who makes it: a later open removes it if that process is gone."""
    return f"{TEMPORARY}{os.getpid()}-{os.urandom(6).hex()}"


def is_own(name: str) -> bool:
    """Whether this process is making the temporary file of that name."""
    return name.startswith(f"{TEMPORARY}{os.getpid()}-")


def is_abandoned(name: str) -> bool:
    """Whether a temporary file's maker is gone. This process' own files count: it opens a store before it makes any."""
    if not name.startswith(TEMPORARY):
        return False
    maker = name[len(TEMPORARY) :].split("-")[0]
    if not maker.isdigit() or int(maker) == os.getpid():
        return True
    try:
        os.kill(int(maker), 0) if os.name != "nt" else None
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def write_file(files: Files, directory: Path, chunks: Iterable[Any], expected_size: int | None = None) -> Path:
    """Writes and syncs a file under a temporary name in the directory; ``publish_file`` gives it its own.

    Raises:
        StorageError: It could not be written, or has not the expected size; nothing is left behind.
    """
    path = directory / temporary_name()
    try:
        size = files.write(path, chunks)
        steps.reached("file.written")
        if size != (size if expected_size is None else expected_size) or files.size(path) != size:
            raise StorageError(f"{path.name}: {files.size(path)} bytes on disk where {expected_size or size} were written")
        files.sync(path)
        steps.reached("file.synced")
    except OSError as err:
        discard(files, path)
        raise storage_error(err, f"writing a file in {directory}") from err
    except BaseException:
        discard(files, path)
        raise
    return path


def publish_file(files: Files, temporary: Path, target: Path) -> None:
    """Renames a synced temporary file to its own name, and syncs the directory."""
    try:
        files.rename(temporary, target)
        steps.reached("file.renamed")
        files.sync_dir(target.parent)
        steps.reached("file.directory-synced")
    except OSError as err:
        discard(files, temporary)
        raise storage_error(err, f"publishing {target}") from err


def discard(files: Files, path: Path) -> None:
    """Removes a file, or an empty directory, if that can be done; a later open removes what is left."""
    try:
        files.remove(path)
    except OSError:
        with suppress(OSError):
            path.rmdir()


def storage_error(err: OSError, doing: str) -> StorageError:
    """What to raise for an error of the operating system."""
    if isinstance(err, StorageError):
        return err
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFullError(f"no space left while {doing}: free some space and call again; nothing was changed")
    return StorageError(f"{doing} failed: {err}")
