"""Rows of CSV files: the delimiter, and the types of columns, are told by the first rows."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from simstore.errors import RejectedError
from simstore.readers.columns import ColumnType, number_type
from simstore.readers.compression import bare_name, reading
from simstore.readers.files import shown
from simstore.readers.json_rows import Row
from simstore.readers.text_lines import Lines, open_text

__all__ = ["CsvShape", "csv_columns", "csv_rows", "csv_shape", "delimiter_of"]

_MAX_FIELD = 1 << 22
_SAMPLE = 200
_DELIMITERS = ",;\t|"
_INT = re.compile(r"-?(?:0|[1-9]\d{0,17})")  # 007 is no number: its zeros would be lost
_FLOAT = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")


class CsvShape(NamedTuple):
    """What the first rows tell of a CSV file.

    Attributes:
        delimiter: One of , ; | and the tabulator.
        names: The columns.
        types: For some of these what their texts stand for: "int", "float", "bool".
        fractions: Those of floats that are not all whole.
        no_keys: Columns in which a text is missing, or there twice.
    """

    delimiter: str
    names: tuple[str, ...]
    types: dict[str, str]
    fractions: tuple[str, ...]
    no_keys: tuple[str, ...]


def csv_shape(path: str) -> CsvShape:
    """The shape of a CSV file.

    Raises:
        RejectedError: It cannot be read.
    """
    with reading(path), open_text(path, newline="") as text:
        lines = _first(Lines(text))
    delimiter = "\t" if bare_name(path).endswith(".tsv") else delimiter_of(lines)
    rows = _parsed(lines, delimiter)
    names = _names(rows[0] if rows else [])
    full = [row for row in rows[1:] if len(row) == len(names)]
    texts = {name: [row[i] for row in full] for i, name in enumerate(names)}
    types = {name: _type(column) for name, column in texts.items()}
    no_keys = tuple(name for name, column in texts.items() if not all(column) or len(set(column)) < len(column))
    floats = [name for name in names if types[name] == "float"]
    fractions = tuple(name for name in floats if number_type(float(text) for text in texts[name] if text) == "fraction")
    return CsvShape(delimiter, names, {name: kind for name, kind in types.items() if kind}, fractions, no_keys)


def _first(lines: Lines) -> list[str]:
    """The first lines, not more of them than fit into memory easily."""
    taken: list[str] = []
    for line in islice(lines, _SAMPLE):
        taken.append(line)
        if sum(map(len, taken)) > _MAX_FIELD:
            break
    return taken


def csv_columns(shape: CsvShape) -> dict[str, ColumnType]:
    """What the columns hold, by name."""
    numbers: dict[str, ColumnType] = {name: "number" for name, kind in shape.types.items() if kind != "bool"}
    numbers.update(dict.fromkeys(shape.fractions, "fraction"))
    return {name: numbers.get(name, "text") for name in shape.names}


def delimiter_of(lines: Sequence[str]) -> str:
    """The delimiter that gives the first lines the same number of fields, and most; a comma where none does."""
    best, delimiter = (0, 1), ","
    for one in _DELIMITERS:
        counts = [len(row) for row in _parsed(lines[:20], one)]
        same = sum(count == counts[0] for count in counts) / len(counts) if counts else 0
        if counts and counts[0] > 1 and (same > 0.7, counts[0]) > best:
            best, delimiter = (same > 0.7, counts[0]), one
    return delimiter


def _parsed(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The rows of some lines, as far as they can be told; the last may be cut."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(row for row in csv.reader(lines, delimiter=delimiter) if row)
    return rows


def _names(header: list[str]) -> tuple[str, ...]:
    """The columns' names: none empty, none twice."""
    names: list[str] = []
    for i, name in enumerate(header):
        name = name.strip() or f"column {i + 1}"
        names.append(name if name not in names else f"{name} ({i + 1})")
    return tuple(names)


def _type(texts: list[str]) -> str | None:
    """What a column's texts are, if all that are not empty are the same: "int", "float" or "bool"."""
    filled = [text for text in texts if text]
    if not filled:
        return None
    if all(_INT.fullmatch(text) for text in filled):
        return "int"
    if all(_is_float(text) for text in filled):
        return "float"
    return "bool" if all(text.lower() in ("true", "false") for text in filled) else None


def _is_float(text: str) -> bool:
    return bool(_FLOAT.fullmatch(text)) and any(char.isdigit() for char in text)


def _int(text: str) -> Any:
    return int(text) if _INT.fullmatch(text) else text


def _float(text: str) -> Any:
    return float(text) if _is_float(text) else text


def _bool(text: str) -> Any:
    return {"true": True, "false": False}.get(text.lower(), text)


_READ: dict[str, Callable[[str], Any]] = {"int": _int, "float": _float, "bool": _bool}


def csv_rows(
    path: str, *, types: Mapping[str, str], needed: Sequence[str], as_text: Sequence[str]
) -> Iterator[Row | RejectedError]:
    """The rows of a CSV file, by the names in its first row; a RejectedError in the place of a broken one.

    A column with a type in ``types`` gives such values, None for an empty field, and the text where it does not fit.

    Args:
        needed: Columns without which the file is refused.
        as_text: Columns that stay texts.

    Raises:
        RejectedError: The rest cannot be read.
    """
    shape = csv_shape(path)
    for name in needed:
        if name not in shape.names:
            raise RejectedError(
                "unknown column", f"{shown(path)} has no column {name!r}; it has {', '.join(map(repr, shape.names))}"
            )
    converters = [(name, _READ[types[name]]) for name in shape.names if name in types and name not in as_text]
    with reading(path), open_text(path, newline="") as text:
        for row in _records(Lines(text), shape):
            if isinstance(row, dict):
                for name, read in converters:
                    row[name] = read(row[name]) if row[name] else None
            yield row


def _records(lines: Lines, shape: CsvShape) -> Iterator[Row | RejectedError]:
    if csv.field_size_limit() < _MAX_FIELD:
        csv.field_size_limit(_MAX_FIELD)  # of the whole process, there is no other; only ever raised
    reader = csv.reader(lines, delimiter=shape.delimiter, strict=True)
    is_header = True
    while True:
        first = lines.number + 1
        try:
            fields = next(reader, None)
        except (csv.Error, RejectedError) as err:
            yield _broken(first, lines.number, err)
            continue
        if fields is None:
            return
        if not fields or is_header:  # csv gives [] for a blank line
            is_header = is_header and not fields
            continue
        yield _record(fields, shape.names, first)


def _broken(first: int, last: int, err: Exception) -> RejectedError:
    if isinstance(err, RejectedError):
        return err
    where = f"line {first}" if last <= first else f"lines {first} to {last}"
    if "field larger" in str(err):
        return RejectedError(
            "field too large", f"{where}: a field has more than {_MAX_FIELD:,} characters; a quote may be open"
        )
    return RejectedError("broken CSV", f"{where}: {err}")


def _record(fields: list[str], names: tuple[str, ...], line: int) -> Row | RejectedError:
    if len(fields) != len(names):
        return RejectedError("wrong number of fields", f"line {line} has {len(fields)} fields, not {len(names)}")
    for field in fields:
        if "\0" in field:
            return RejectedError("NUL bytes", f"line {line} holds NUL bytes")
        if not field.isascii():
            try:
                field.encode()
            except UnicodeEncodeError:
                return RejectedError("not UTF-8", f"line {line} is no UTF-8: convert the file, as by iconv -f latin1 -t utf-8")
    return dict(zip(names, fields, strict=True))
