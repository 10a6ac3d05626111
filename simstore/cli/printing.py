"""What commands print: tables for people, one JSON object a line for programs, progress on a terminal's stderr."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simstore.types import Key, Progress

__all__ = [
    "as_json",
    "bare",
    "counted",
    "key_text",
    "note",
    "print_json",
    "print_pairs",
    "print_table",
    "print_text",
    "progress_bar",
    "short",
]

_N_SHOWN = 60


def print_text(text: str) -> None:
    """A line for people."""
    sys.stdout.write(bare(text) + "\n")


def note(text: str) -> None:
    """A line about what is going on, on stderr: what is on stdout stays clean."""
    sys.stderr.write(bare(text) + "\n")


def print_json(value: Any) -> None:
    """One line of ASCII."""
    sys.stdout.write(json.dumps(as_json(value), allow_nan=False) + "\n")


def as_json(value: Any) -> Any:
    """A report as plain JSON: dataclasses and named tuples as objects, times as ISO 8601, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: as_json(inner) for name, inner in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(inner) for inner in value]
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = (), none: str = "") -> None:
    """A table on a terminal; otherwise a line for each row, with tabs between the columns and the headers first.

    Args:
        none: What is noted where there are no rows.
    """
    texts = ([cell if isinstance(cell, str) else str(cell) for cell in row] for row in rows)
    if sys.stdout.isatty():
        n = _print_framed(headers, list(texts), right)
    else:
        print_text("\t".join(headers))
        n = 0
        for line in texts:  # one by one: there may be millions
            print_text("\t".join(line))
            n += 1
    if none and not n:
        note(none)


def _print_framed(headers: Sequence[str], texts: Sequence[Sequence[str]], right: Sequence[str]) -> int:
    """The table as rich draws it, unless it has no rows; how many it has."""
    if not texts:
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for line in texts:
        table.add_row(*(Text(bare(cell)) for cell in line))
    Console().print(table)
    return len(texts)


def print_pairs(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one below the other."""
    listed = [(name, str(value)) for name, value in pairs]
    if not sys.stdout.isatty():
        for name, value in listed:
            print_text(f"{name}\t{value}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in listed:
        table.add_row(Text(name, style="bold"), Text(bare(value)))
    Console().print(table)


def bare(text: str) -> str:
    """The text with everything that a terminal would obey, and what is no valid text, as escapes; tabs stay."""
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in text)


def key_text(key: "Key | None") -> str:
    """A key or label as people see it: a str that could be an int is in quotes, and so is an empty one."""
    if key is None:
        return "–"
    text = bare(str(key)).replace("\t", "\\t")
    is_plain = isinstance(key, int) or (text and text == text.strip() and not _is_int(text) and text != "–")
    return text if is_plain else f'"{text}"'


def _is_int(text: str) -> bool:
    return text.lstrip("-").isdigit()


def short(value: Any) -> str:
    """Data as one short line."""
    from simstore.transfer import to_json

    if isinstance(value, dict):
        value = {name: inner for name, inner in value.items() if name != "_source"}
    if value is None or value == {}:
        return ""
    text = json.dumps(to_json(value), ensure_ascii=False)
    return bare(text if len(text) <= _N_SHOWN else text[: _N_SHOWN - 1] + "…")


def counted(texts: Iterable[str], progress: "Progress | None") -> Iterator[str]:
    """The texts of a first pass, whose number is shown."""
    for n, text in enumerate(texts, start=1):
        if progress is not None and n % 1000 == 0:
            progress("first pass", n, 0)
        yield text


@contextmanager
def progress_bar() -> "Iterator[Progress | None]":
    """What a store calls as progress(stage, done, total): a bar on stderr if that is a terminal; None otherwise."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield show
