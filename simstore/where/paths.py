"""How a path leads into an item's data."""

from typing import Any

import numpy as np

from simstore.errors import InvalidFilterError
from simstore.where.kinds import MISSING, is_list

__all__ = ["Path", "path_of", "path_text", "quoted", "shown", "value_at"]

Path = tuple[str | int, ...]
"""The keys of nested dicts; an int, or a decimal str, is also the index of a list."""

_MAX_DIGITS = 18  # no list is longer


def path_of(given: Any, *, place: str = "field()") -> Path:
    """The path that a str with dots, or a tuple of segments, stands for.

    Raises:
        InvalidFilterError: It is neither, or has a segment that leads nowhere.
    """
    if isinstance(given, str):
        path: Path = tuple(str.__str__(given).split("."))
        if "" in path:
            raise InvalidFilterError(
                f"{place} got {shown(given)}, a path with an empty segment: write names with dots between them, as "
                f'"a.b", or a tuple that is not split, as {shown(path)}; () is the data itself'
            )
        return path
    if not isinstance(given, tuple):
        raise InvalidFilterError(
            f'{place} takes a path, a str as "a.b" or a tuple as ("a", 0), not {type(given).__name__} {shown(given)}'
        )
    return tuple(_segment(part, place) for part in given)


def _segment(part: Any, place: str) -> str | int:
    if isinstance(part, str):
        return str.__str__(part)
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        return int(part)
    raise InvalidFilterError(f"{place} takes a path whose segments are str or int, not {type(part).__name__} {shown(part)}")


def value_at(data: Any, path: Path) -> Any:
    """What the data holds at the path; MISSING if it leads nowhere."""
    for segment in path:
        if isinstance(data, dict):
            data = data.get(segment, MISSING)
        elif is_list(data):
            at = _index(segment)
            data = data[at] if 0 <= at < len(data) else MISSING
        else:
            return MISSING
    return data


def _index(segment: str | int) -> int:
    """The list index that a segment stands for; -1 for none."""
    if isinstance(segment, int):
        return segment
    is_decimal = segment.isascii() and segment.isdigit() and len(segment) <= _MAX_DIGITS
    return int(segment) if is_decimal and (segment[0] != "0" or segment == "0") else -1


def path_text(path: Path) -> str:
    """The path as it is given to field()."""
    if path and all(isinstance(part, str) and part and "." not in part for part in path):
        return quoted(".".join(map(str, path)))
    inner = ", ".join(quoted(part) if isinstance(part, str) else repr(part) for part in path)
    return f"({inner},)" if len(path) == 1 else f"({inner})"


def quoted(text: str | bytes) -> str:
    """The repr of a str or bytes, in double quotes where that takes no escapes."""
    plain = repr(text)
    return plain.replace("'", '"') if plain.count("'") == 2 and '"' not in plain else plain


def shown(value: Any) -> str:
    """A value in an error message, at most 60 characters."""
    try:
        text = quoted(value) if type(value) in (str, bytes) else repr(value)
    except Exception:  # it is the value's own code, and another error is being told
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "…"
