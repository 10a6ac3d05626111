"""What a file is, by what it holds; its suffix decides only where that leaves it open."""

import json
import os
import zipfile

from simstore.errors import RejectedError, SourceError
from simstore.readers.compression import bare_name, open_stream, reading
from simstore.readers.csv_rows import delimiter_of
from simstore.readers.files import open_regular, shown
from simstore.readers.image_formats import image_format
from simstore.readers.text_lines import encoding_of
from simstore.readers.tfrecord_rows import is_frame
from simstore.readers.vecs_files import VECS_SUFFIXES

__all__ = ["format_of"]

_HEAD = 1 << 16
_TABLES, _JSON, _TEXTS = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json"), (".txt", ".text", ".md", ".rst", ".log", ".lst")
_COUNTED = 3  # so many lines need the same number of fields for a file without a suffix to be a table


def format_of(path: str) -> str:
    """The format of a file, one of FORMATS.

    Raises:
        RejectedError: It cannot be read, is empty, or of no known format.
        SourceError: It is a JSON document, which is no JSON Lines.
    """
    with reading(path), open_stream(path) as stream:
        head = stream.read(_HEAD)
    if not head:
        raise RejectedError("empty", f"{shown(path)} holds nothing")
    suffix = os.path.splitext(bare_name(path))[1]
    if suffix in VECS_SUFFIXES:
        return "fvecs"
    return _binary_format(path, head) or _text_format(path, head, suffix)


def _binary_format(path: str, head: bytes) -> str | None:
    if image_format(head[:32]):
        return "images"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PAR1"):
        return "parquet"
    if is_frame(head):
        return "tfrecord"
    return "npz" if head.startswith(b"PK\x03\x04") and _holds_arrays(path) else None


def _holds_arrays(path: str) -> bool:
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as members:
                return any(name.endswith(".npy") for name in members.namelist())
        except zipfile.BadZipFile as err:
            raise RejectedError("damaged", f"{shown(path)} cannot be read as a zip file: {err}") from err


def _text_format(path: str, head: bytes, suffix: str) -> str:
    text = _text(head, is_hinted=suffix in _TABLES + _JSON + _TEXTS)
    if text is None:
        what = f"{shown(path)} is of no known format: it begins with {head[:16]!r}"
        raise RejectedError("unknown format", what)
    lines = text.splitlines()
    lines = lines[:-1] if len(head) == _HEAD and len(lines) > 1 else lines
    if suffix in _TABLES:
        return "csv"
    if suffix in _JSON or _is_object(next((line for line in lines if line.strip()), "")):
        _check_json_lines(path, text, lines)
        return "jsonl"
    return "lines" if suffix in _TEXTS or not _is_table(lines) else "csv"


def _text(head: bytes, *, is_hinted: bool) -> str | None:
    """The head as text; None if it seems to be none."""
    encoding = encoding_of(head)
    if encoding == "utf-16" or is_hinted:
        return head.decode(encoding, "replace")
    try:
        text = head.decode(encoding)
    except UnicodeDecodeError as err:
        if err.start < len(head) - 3 or len(head) < _HEAD:
            return None
        text = head[: err.start].decode(encoding)
    return None if "\0" in text else text


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _check_json_lines(path: str, text: str, lines: list[str]) -> None:
    """Raises SourceError for a document: an array, or an object over several lines."""
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("["):
        raise SourceError(f"{shown(path)} is a JSON array; an object in each line is read: convert it, as by jq -c '.[]'")
    if start.startswith("{") and not any(map(_is_object, lines)):
        raise SourceError(f"{shown(path)} has no line that is a JSON object by itself: convert it, as by jq -c .")


def _is_table(lines: list[str]) -> bool:
    """Whether the first lines have the same number of fields, more than one."""
    lines = [line for line in lines[:20] if line.strip()]
    delimiter = delimiter_of(lines)
    counts = {line.count(delimiter) for line in lines}
    return len(lines) >= _COUNTED and len(counts) == 1 and counts != {0}
