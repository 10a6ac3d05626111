"""What people write on a command line, as values: keys, vectors, filters, data."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from simstore.cli.outcome import refuse

if TYPE_CHECKING:
    from simstore.store import Store
    from simstore.types import Key
    from simstore.where import Where

__all__ = ["data_of", "ints_of", "keys_of", "vector_of", "where_given"]


def where_given(text: str | None) -> "Where | None":
    """The filter of --where: the readable form, or a dict as JSON.

    Raises:
        InvalidFilterError: It cannot be understood.
    """
    from simstore.errors import InvalidFilterError
    from simstore.where import parse, where_of

    if text is None:
        return None
    if not text.lstrip().startswith("{"):
        return parse(text)
    try:
        return where_of(json.loads(text))
    except (ValueError, RecursionError) as err:
        if isinstance(err, InvalidFilterError):
            raise
        raise InvalidFilterError(f"the filter starts with {{, and is no JSON: {err}") from err


def keys_of(store: "Store", texts: list[str], *, as_int: bool) -> "list[Key]":
    """The keys that texts stand for: with --int ints; else the str, or the int where only that is in the store."""
    if as_int:
        return list(ints_of(texts))
    return [text if text in store or not _is_int(text) or int(text) not in store else int(text) for text in texts]


def ints_of(texts: list[str]) -> list[int]:
    """The ints that texts are."""
    for text in texts:
        if not _is_int(text):
            refuse(f"{text!r} is no int", ["--int"])
    return [int(text) for text in texts]


def _is_int(text: str) -> bool:
    return text.removeprefix("-").isdigit() and text.isascii() and str(int(text[:30])) == text


def vector_of(text: str) -> Any:
    """The numbers of --vector: "0.1,0.2", the path of an .npy file, or "-" for a JSON list on stdin."""
    import numpy as np

    try:
        with np.errstate(over="ignore"):  # it is infinite then, which the store refuses
            return _numbers(np, text)
    except (ValueError, TypeError, RecursionError) as err:
        refuse(f'{text[:60]!r} is no vector ({err}): write "0.1,0.2", the path of an .npy file, or - for a JSON list on stdin')


def _numbers(np: Any, text: str) -> Any:
    if text == "-":
        return np.asarray(json.loads(sys.stdin.read()), np.float32)
    if text.endswith(".npy") or os.path.isfile(text):
        loaded = np.load(text, allow_pickle=False)
        return np.asarray(loaded, np.float32).reshape(-1) if loaded.ndim == 2 and len(loaded) == 1 else loaded
    return np.array([float(part) for part in text.strip("[] ").replace(",", " ").split()], np.float32)


def data_of(text: str | None) -> Any:
    """The data of --data, as JSON in the form of simstore.transfer.json_form."""
    from simstore.transfer import from_json

    if text is None:
        return None
    try:
        return from_json(json.loads(text))
    except (ValueError, RecursionError) as err:
        refuse(f"{text[:60]!r} is no JSON ({err}): write it as '{{\"year\": 2020}}'", ["--data"])
