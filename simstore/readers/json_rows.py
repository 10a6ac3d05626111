"""Rows of JSON Lines and of plain lines."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from simstore.errors import RejectedError
from simstore.readers.columns import ColumnType, number_type
from simstore.readers.compression import reading
from simstore.readers.text_lines import Lines, open_text

__all__ = ["Row", "json_columns", "json_rows", "line_rows"]

Row = dict[str, Any]

_SAMPLE = 100  # rows in which columns are looked for


def json_rows(path: str) -> Iterator[Row | RejectedError]:
    """The objects of a JSON Lines file; a RejectedError in the place of a line that is none. Blank lines do not count.

    Raises:
        RejectedError: The rest cannot be read.
    """
    for number, line in _lines(path):
        if isinstance(line, RejectedError):
            yield line
        elif not line.isspace():
            yield _object(number, line)


def _object(number: int, line: str) -> Row | RejectedError:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as err:
        return RejectedError("broken JSON", f"line {number} is no JSON: {err}")
    if isinstance(value, dict):
        return value
    return RejectedError("no JSON object", f"line {number} holds a {type(value).__name__}, not an object")


def line_rows(path: str) -> Iterator[Row | RejectedError]:
    """The lines of a file that are not blank, as {"text": line}.

    Raises:
        RejectedError: The rest cannot be read.
    """
    for number, line in _lines(path):
        if isinstance(line, RejectedError):
            yield line
        elif "\0" in line:
            yield RejectedError("NUL bytes", f"line {number} holds NUL bytes")
        elif not line.isspace():
            yield {"text": line.rstrip("\r\n")}


def _lines(path: str) -> Iterator[tuple[int, str | RejectedError]]:
    with reading(path), open_text(path) as text:
        lines = Lines(text)
        while True:
            try:
                line = next(lines, None)
            except RejectedError as err:
                yield lines.number, err
                continue
            if line is None:
                return
            yield lines.number, line


def json_columns(path: str) -> tuple[dict[str, ColumnType], set[str]]:
    """What the first rows hold, by name; and the columns in which a value is missing, or there twice."""
    rows = [row for row in islice(json_rows(path), _SAMPLE) if isinstance(row, dict)]
    types: dict[str, ColumnType] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and types.get(name, "other") == "other":
                types[name] = _type_of(value)
            elif types.get(name) == "number" and isinstance(value, float):
                types[name] = number_type([value])
            else:
                types.setdefault(name, "other")
    return types, {name for name in types if not _is_unique([row.get(name) for row in rows])}


def _is_unique(values: list[Any]) -> bool:
    keys = [value for value in values if isinstance(value, (str, int))]
    return len(keys) == len(set(keys)) == len(values)


def _type_of(value: Any) -> ColumnType:
    if isinstance(value, str):
        return "text"
    if isinstance(value, (int, float)):
        return number_type([value])
    if isinstance(value, list) and value and all(isinstance(one, (int, float)) for one in value[:16]):
        return "vector"
    return "other"
