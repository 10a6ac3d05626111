"""What a value of a table is good for: a text, a key, a label, data."""

import datetime
import decimal
import math
import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import RejectedError
from simstore.types import Key, Label

__all__ = ["array_of", "key_of", "label_of", "plain", "text_of", "vector_of"]

_PLAIN = (str, int, float, bool, bytes, type(None), datetime.datetime, datetime.date)


def _wrong(role: str, value: Any, wanted: str) -> RejectedError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "…"
    return RejectedError("wrong type", f"the {role} is {wanted}, not {type(value).__name__} ({shown})")


def text_of(value: Any) -> str:
    """A text.

    Raises:
        RejectedError: It is missing, none, or cannot be encoded.
    """
    if value is None:
        raise RejectedError("no text", "the row has no text")
    if not isinstance(value, str):
        raise _wrong("text", value, "a str")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as err:
            raise RejectedError("not UTF-8", f"the text is no valid Unicode: {err.reason} at {err.start}") from err
    return value


def key_of(value: Any) -> Key:
    """A key.

    Raises:
        RejectedError: It is missing, or no str or int.
    """
    if value is None or value == "":
        raise RejectedError("no key", "the row has no key")
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return value
    raise _wrong("key", value, "a str or an int")


def label_of(value: Any) -> Label:
    """A label: a bool counts as 0 or 1, a whole float as an int, NaN and an empty str as None.

    Raises:
        RejectedError: It is something else.
    """
    if isinstance(value, bool):
        return int(value)
    if value is None or isinstance(value, (str, int)):
        return value if value != "" else None
    if isinstance(value, float) and (math.isnan(value) or value.is_integer()):
        return None if math.isnan(value) else int(value)
    raise _wrong("label", value, "a str, an int or None")


def vector_of(value: Any) -> NDArray[np.float32]:
    """A vector, float32 [dim].

    Raises:
        RejectedError: It is missing, or no list of numbers.
    """
    if value is None:
        raise RejectedError("no vector", "the row has no vector")
    try:
        array = np.asarray(value)
    except ValueError:  # lists of several lengths
        array = np.empty(0, object)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not len(array):
        raise _wrong("vector", value, "a list of numbers")
    with np.errstate(over="ignore"):  # inf is refused as such, later
        return array.astype(np.float32)


def array_of(value: Any) -> NDArray[Any]:
    """An array of numbers.

    Raises:
        RejectedError: It is none.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise _wrong("input", value, "an array of numbers")
    return array


def plain(value: Any) -> Any:
    """A value as data can hold it: a Decimal and a time become str, a duration seconds, a set a list."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(inner) for inner in value]
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    return value
