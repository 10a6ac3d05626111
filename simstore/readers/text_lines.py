"""Text files, line by line, whatever their encoding and compression; a line without an end cannot fill the memory."""

import codecs
import io
from collections.abc import Iterator
from typing import Any

from simstore.errors import RejectedError
from simstore.readers.compression import open_stream

__all__ = ["MAX_CHARS", "Lines", "encoding_of", "open_text"]

MAX_CHARS = 1 << 24
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def encoding_of(head: bytes) -> str:
    """utf-8-sig or utf-16 where a byte order mark says so; else utf-8."""
    return next((name for bom, name in _BOMS.items() if head.startswith(bom)), "utf-8")


def open_text(path: str, *, newline: str | None = None) -> io.TextIOWrapper:
    """A file as text; bytes that are no UTF-8 become lone surrogates.

    Raises:
        RejectedError: It cannot be opened.
    """
    opened: Any = open_stream(path)
    stream = io.BufferedReader(opened, 1 << 17)
    try:
        encoding = encoding_of(stream.peek(4)[:4])
    except BaseException:
        stream.close()
        raise
    errors = "replace" if encoding == "utf-16" else "surrogateescape"
    return io.TextIOWrapper(stream, encoding, errors, newline)


class Lines:
    """The lines of a text, with their ends. next() raises RejectedError for one that is too long, and goes on behind it."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_CHARS)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == MAX_CHARS and not line.endswith("\n"):
            while (rest := self._text.readline(MAX_CHARS)) and not rest.endswith("\n"):
                pass
            raise RejectedError("line too long", f"line {self.number} has more than {MAX_CHARS:,} characters")
        return line
