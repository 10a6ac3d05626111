"""What a value counts as in a comparison."""

import datetime
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import numpy as np

__all__ = ["MISSING", "PLAIN_TYPES", "Kind", "Missing", "elements_of", "is_list", "kinded"]


class Missing(Enum):
    """The type of MISSING."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""What stands for the value of a path that is not there."""


class Kind(Enum):
    """Values are compared within a kind only."""

    NONE = "None"
    BOOL = "bool"
    NUMBER = "number"
    STR = "str"
    BYTES = "bytes"
    MOMENT = "datetime with a time zone"
    NAIVE = "datetime without a time zone"
    DATE = "date"
    OTHER = "other"  # a list, a dict, MISSING, …: compares with nothing

    def __repr__(self) -> str:
        return f"Kind.{self.name}"


PLAIN_TYPES: Final[dict[type, Kind]] = {
    type(None): Kind.NONE,
    bool: Kind.BOOL,
    int: Kind.NUMBER,
    float: Kind.NUMBER,
    str: Kind.STR,
    bytes: Kind.BYTES,
    datetime.date: Kind.DATE,
}
"""The types whose values, if they are exactly of it, are compared as they are."""

_KIND_OF: Final[dict[type, Kind]] = {**PLAIN_TYPES, list: Kind.OTHER, dict: Kind.OTHER, Missing: Kind.OTHER}
_FINE_UNITS = ("ns", "ps", "fs", "as")
_OTHER: Final = (Kind.OTHER, None)


def kinded(value: Any) -> tuple[Kind, Any]:
    """The kind of a value, and a plain value that compares rightly with the others of its kind. It never raises."""
    kind = _KIND_OF.get(type(value))
    return (kind, value) if kind is not None else _kinded_by_class(value)


def _kinded_by_class(value: Any) -> tuple[Kind, Any]:
    if isinstance(value, np.ndarray):
        if value.ndim:
            return _OTHER
        value = value[()]
        if type(value) in _KIND_OF:
            return kinded(value)
    if isinstance(value, np.generic):
        return _kinded_numpy(value)
    if isinstance(value, datetime.date):
        return _kinded_date(value)
    if isinstance(value, str):
        return Kind.STR, str.__str__(value)
    if isinstance(value, int):
        return Kind.NUMBER, int.__index__(value)
    if isinstance(value, float):
        return Kind.NUMBER, float.__float__(value)
    return (Kind.BYTES, bytes(memoryview(value))) if isinstance(value, bytes) else _OTHER


def _kinded_numpy(value: np.generic) -> tuple[Kind, Any]:
    code = value.dtype.kind
    if code == "b":
        return Kind.BOOL, bool(value)
    if code in "iu":
        return Kind.NUMBER, int(value)
    if code == "f":
        return Kind.NUMBER, float(value)
    if code in "US":
        return kinded(value.item())
    if isinstance(value, np.datetime64) and not np.isnat(value):
        unit = np.datetime_data(value.dtype)[0]
        if unit in _FINE_UNITS:
            value = value.astype("datetime64[us]")
        item = value.item() if unit != "generic" else None  # an int if it is out of the range of datetime
        return kinded(item) if isinstance(item, datetime.date) else _OTHER
    return _OTHER


def _kinded_date(value: datetime.date) -> tuple[Kind, Any]:
    """Moments get a fixed offset: of two zones' datetimes, Python calls those in a repeated hour never equal."""
    if type(value) is not datetime.datetime:
        return _kinded_subclass(value)
    if value.tzinfo is None:
        return Kind.NAIVE, value
    if type(value.tzinfo) is datetime.timezone:
        return Kind.MOMENT, value
    try:
        offset = value.utcoffset()
    except Exception:  # it is the zone's own code
        return _OTHER
    if offset is None:
        return Kind.NAIVE, value.replace(tzinfo=None)
    return Kind.MOMENT, value.replace(tzinfo=datetime.timezone(offset), fold=0)


def _kinded_subclass(value: datetime.date) -> tuple[Kind, Any]:
    try:
        day = value.year, value.month, value.day
        if not isinstance(value, datetime.datetime):
            return Kind.DATE, datetime.date(*day)
        time = value.hour, value.minute, value.second, value.microsecond
        return _kinded_date(datetime.datetime(*day, *time, tzinfo=value.tzinfo, fold=value.fold))
    except (TypeError, ValueError):  # pandas.NaT is a datetime without a year
        return _OTHER


def elements_of(value: Any) -> Sequence[Any] | None:
    """The elements of a list, a tuple or a 1-d array; None of anything else."""
    if not is_list(value):
        return None
    if not isinstance(value, np.ndarray):
        return value  # type: ignore[no-any-return]
    is_plain = type(value) is np.ndarray and value.dtype.kind in "biufUS"
    elements: list[Any] = value.tolist() if is_plain else list(value)
    return elements


def is_list(value: Any) -> bool:
    """Whether it is a list, a tuple or a 1-d array. A subclass of tuple is none: msgpack's ExtType is one."""
    return isinstance(value, list) or type(value) is tuple or (isinstance(value, np.ndarray) and value.ndim == 1)
