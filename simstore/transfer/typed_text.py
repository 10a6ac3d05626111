"""Keys and labels as valid text beside a type, for formats that hold columns of text."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from simstore.transfer.json_form import from_json, to_json
from simstore.types import Label

__all__ = ["typed", "untyped"]


def typed(values: Iterable[Label]) -> tuple[list[str], list[str]]:
    """The texts and types of keys or labels: "str", "int", "none" (with an empty text), or "json" for a str that is no valid
    text: with surrogates, or with a NUL, which some formats cut off.
    """
    pairs = [_pair(value) for value in values]
    return [text for text, _ in pairs], [kind for _, kind in pairs]


def _pair(value: Label) -> tuple[str, str]:
    if value is None:
        return "", "none"
    if isinstance(value, int):
        return str(value), "int"
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        return json.dumps(to_json(value)), "json"
    return value, "str"


def untyped(texts: Sequence[Any], types: Sequence[Any]) -> list[Any]:
    """The keys or labels that typed() wrote.

    Raises:
        ValueError: It did not write these.
    """
    return [_value(text, kind) for text, kind in zip(texts, types, strict=True)]


def _value(text: Any, kind: Any) -> Label:
    if kind == "str" and isinstance(text, str):
        return text
    if kind == "none":
        return None
    value = int(text) if kind == "int" else from_json(json.loads(text)) if kind == "json" else None
    if not isinstance(value, (str, int)):
        raise ValueError(f"{text!r:.60} of type {kind!r:.60} is no key or label")
    return value
