"""Which columns of a table are the input, the key and the label: named by the user, or guessed by name and type."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from simstore.errors import InvalidArgumentError, SourceError
from simstore.readers.options import ReadOptions
from simstore.readers.reader import InputKind

__all__ = ["ColumnType", "Columns", "choose_columns", "number_type"]

ColumnType = Literal["text", "number", "fraction", "vector", "array", "bytes", "other"]
_Kind = Literal["text", "vector", "image"]

_NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "content", "body", "title", "caption", "description", "document", "question"),
    "vector": ("vector", "vectors", "embedding", "embeddings", "emb", "x", "data", "x_train"),
    "image": ("image", "image/encoded", "image_raw", "img", "jpeg", "png", "jpg"),
    "key": ("key", "keys", "id", "ids", "_id", "uid", "uuid"),
    "label": ("label", "labels", "class", "category", "target", "targets", "image/class/label", "y", "y_train"),
}
_TYPES: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "vector": ("vector", "array"),
    "image": ("bytes",),
    "key": ("text", "number"),
    "label": ("text", "number"),
}


def number_type(values: Iterable[float | None]) -> ColumnType:
    """What a column of numbers is good for: fractions are no labels, though it may be called "y"."""
    return "fraction" if any(value is not None and math.isfinite(value) and value % 1 for value in values) else "number"


@dataclass(frozen=True, slots=True)
class Columns:
    """What is in which column.

    Attributes:
        input: The column of the input.
        kind: What it holds.
        key, label: Their columns; None for none.
        guesses: What was guessed, a sentence each.
    """

    input: str
    kind: InputKind
    key: str | None
    label: str | None
    guesses: tuple[str, ...]

    def used(self) -> tuple[str, ...]:
        """The columns that have a meaning of their own."""
        return tuple(name for name in (self.input, self.key, self.label) if name is not None)


def choose_columns(
    types: Mapping[str, ColumnType], options: ReadOptions, where: str, *, no_keys: Collection[str] = ()
) -> Columns:
    """The columns of a table.

    Args:
        types: What each column holds, in their order.
        where: What the table is called in errors.
        no_keys: Columns that cannot be the key: a value is missing, or there twice.

    Raises:
        SourceError: One that was named is not there, or there is none that could be the input.
        InvalidArgumentError: More than one input was named, or one that is no text as key or label, too.
    """
    guesses: list[str] = []
    asked = {"key": options.key_column, "label": options.label_column}
    unique = {name: held for name, held in types.items() if name not in no_keys}
    for role, among in (("key", unique), ("label", types)):
        named = _named(types, asked[role] or None, role, where)
        asked[role] = None if asked[role] == "" else named or _guessed(among, role, guesses)
    kind, column = _input(types, options, where)
    if column is None:
        kind, column = _guessed_input(types, options, (asked["key"], asked["label"]), where)
        guesses.insert(0, f"column {column!r} is the {kind}")
    for role, name in (("key", options.key_column), ("label", options.label_column)):
        if asked[role] != column:
            continue
        if name is None:  # what is guessed is one thing; words may well be named to be their own keys
            asked[role] = None
            guesses = [guess for guess in guesses if guess != _sentence(column, role)]
        elif kind != "text":
            raise InvalidArgumentError(f"{where}: column {column!r} is the {kind}: it cannot be the {role}, too")
    is_input = options.as_vectors is False or types[column] == "array"
    read_as: InputKind = "array" if kind == "vector" and is_input else kind
    return Columns(column, read_as, asked["key"], asked["label"], tuple(guesses))


def _sentence(column: str, role: str) -> str:
    return f"column {column!r} is the {role}"


def _named(types: Mapping[str, ColumnType], name: str | None, role: str, where: str) -> str | None:
    if name is not None and name not in types:
        columns = ", ".join(map(repr, types)) or "no columns"
        raise SourceError(f"{where} has no column {name!r}, which was to be the {role}: it has {columns}")
    return name


def _input(types: Mapping[str, ColumnType], options: ReadOptions, where: str) -> tuple[_Kind, str | None]:
    """The input that the user named."""
    asked: list[tuple[_Kind, str | None]] = [
        ("text", options.text_column),
        ("vector", options.vector_column),
        ("image", options.image_column),
    ]
    named = [(kind, name) for kind, name in asked if name is not None]
    if len(named) > 1:
        raise InvalidArgumentError(f"{' and '.join(f'{kind}_column' for kind, _ in named)} at once: one column is the input")
    for kind, name in named:
        return kind, _named(types, name, kind, where)
    return "text", None


def _guessed(types: Mapping[str, ColumnType], role: str, guesses: list[str]) -> str | None:
    for name in _by_name(types, role):
        guesses.append(_sentence(name, role))
        return name
    return None


def _by_name(types: Mapping[str, ColumnType], role: str) -> Sequence[str]:
    """The columns whose name and type fit a role, the likeliest first."""
    lower = {name.lower(): name for name in reversed(list(types)) if types[name] in _TYPES[role]}
    return [lower[name] for name in _NAMES[role] if name in lower]


def _guessed_input(
    types: Mapping[str, ColumnType], options: ReadOptions, taken: tuple[str | None, ...], where: str
) -> tuple[_Kind, str]:
    order: tuple[_Kind, ...] = ("vector", "text", "image") if options.as_vectors is not None else ("text", "vector", "image")
    named = (options.key_column, options.label_column)
    for among in ({name: held for name, held in types.items() if name not in named}, types):
        for kind in order:
            for name in _by_name(among, kind):
                return kind, name
    for kind in order:
        fits = [name for name, held in types.items() if held in _TYPES[kind] and name not in taken]
        if len(fits) == 1:
            return kind, fits[0]
    columns = ", ".join(f"{name!r} ({held})" for name, held in types.items()) or "no columns"
    raise SourceError(
        f"{where}: no column is plainly the input; it has {columns}. Name one: text_column=, vector_column= or image_column= "
        "(--text-column, --vector-column, …)"
    )
