"""A new file that appears when it is whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from simstore.errors import SimstoreError, StorageError
from simstore.storage.files import LocalFiles, publish_file, storage_error, temporary_name

__all__ = ["new_file"]


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A file to write, beside the path; at the end it is synced and renamed. If anything is raised nothing is left.

    Raises:
        StorageError: There is something at the path, or it cannot be written.
        StorageFullError: No space left.
    """
    if not overwrite and os.path.lexists(path):
        raise StorageError(f"{path} exists already: choose another path, or overwrite it with overwrite=True (--force)")
    if path.is_dir():
        raise StorageError(f"{path} is a directory: name a file in it")
    temporary = path.parent / f".{temporary_name()}"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not overwrite and os.path.lexists(path):
            raise StorageError(f"{path} has been made by somebody else meanwhile: choose another path")
        publish_file(LocalFiles(), temporary, path)
    except BaseException as err:
        temporary.unlink(missing_ok=True)
        if isinstance(err, OSError) and not isinstance(err, SimstoreError):
            raise storage_error(err, f"writing {path}") from err
        raise
