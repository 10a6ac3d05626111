"""The file formats, by name and by suffix."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from simstore.errors import InvalidArgumentError, SourceError
from simstore.transfer.file_info import Content, FileInfo, Lines
from simstore.transfer.jsonl import JsonlContent, write_jsonl
from simstore.transfer.npz import NpzContent, write_npz
from simstore.transfer.parquet import ParquetContent, write_parquet

__all__ = ["FORMATS", "Format", "content_of", "file_info", "format_of"]


class Format(NamedTuple):
    """How items are written and read: write(file, settings, lines); open(path)."""

    write: Callable[[BinaryIO, str, Iterable[Lines]], None]
    open: Callable[[Path], Content]


FORMATS: Final[dict[str, Format]] = {
    "parquet": Format(write_parquet, ParquetContent),
    "jsonl": Format(write_jsonl, JsonlContent),
    "npz": Format(write_npz, NpzContent),
}
_MAGIC: Final = {b"PAR1": "parquet", b"PK\x03\x04": "npz", b'{"si': "jsonl"}


def format_of(path: Path, given: str | None) -> str:
    """The name of the format to write.

    Raises:
        InvalidArgumentError: There is no such format, or the suffix tells none.
    """
    name = given if given is not None else path.suffix[1:].lower()
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        what = f"format is one of {known}, not {given!r}" if given is not None else f"{path} does not end in one of {known}"
        raise InvalidArgumentError(f"{what}: give format, or such a path")
    return name


def content_of(path: str | os.PathLike[str]) -> Content:
    """An open file that export_store wrote; what it is, its first bytes tell.

    Raises:
        SourceError: There is none, or it is something else, or damaged.
    """
    target = Path(path)
    try:
        if not target.is_file():
            raise SourceError(f"{target} is no file" if target.exists() else f"there is no file {target}")
        with open(target, "rb") as file:
            start = file.read(4)
        name = _MAGIC.get(start)
        if start[:2] == b"\x1f\x8b":
            raise SourceError(f"{target} is compressed: gunzip it first")
        if name is None:
            raise SourceError(f"{target} was not written by `simstore export`: it starts with {start!r}; see `simstore index`")
        return FORMATS[name].open(target)
    except OSError as err:
        raise SourceError(f"{target} cannot be read: {err}") from err


def file_info(path: str | os.PathLike[str]) -> FileInfo:
    """What a file holds that export_store wrote.

    Raises:
        SourceError: There is none, or it is something else, or damaged.
    """
    content = content_of(path)
    try:
        return content.info
    finally:
        content.close()
