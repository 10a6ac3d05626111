"""The data of items as JSON, and back, exactly.

What JSON has is written as it is. The rest is an object with one name that starts with ``$``:

=============  ==========================================================================================
``$bytes``     base64
``$array``     {"dtype": as numpy writes it, "shape": [...], "base64": the bytes in C order}
``$scalar``    a numpy scalar: {"dtype": ..., "base64": ...}
``$datetime``  ISO 8601, as "2024-05-01T12:00:00+02:00"
``$date``      ISO 8601, as "2024-05-01"
``$float``     "nan", "inf", "-inf"; another NaN as its 16 hex digits
``$str``       a str that JSON would not bring back (two surrogates in a row): base64 of its UTF-8
``$dict``      [[key, value], ...]: a dict with keys that are no str, or whose one key starts with $
``$msgpack``   anything else, and what is nested very deep: base64 of its msgpack
=============  ==========================================================================================
"""

import base64
import math
import re
import struct
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final

import numpy as np

from simstore.storage.encoding import pack, packer, unpack

__all__ = ["from_json", "to_json"]

_PLAIN = frozenset((str, int, bool, type(None), float))
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")  # JSON reads their escapes as one character
_MAX_LEVELS = 60  # Python's json goes down by recursion


def to_json(value: Any) -> Any:
    """A value that an item's data came back as, made of what JSON has."""
    return _out(value, 0)


def _out(value: Any, level: int) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        if kind is float and not math.isfinite(value):
            return {"$float": _float_name(value)}
        return {"$str": _base64(_utf8(value))} if kind is str and _PAIR.search(value) else value
    if level > _MAX_LEVELS and kind in (list, dict):
        return _packed(value)
    if kind is list:
        return [_out(part, level + 1) for part in value]
    if kind is dict:
        return _dict(value, level)
    return _special(value)


def _special(value: Any) -> Any:
    if isinstance(value, bytes) and not isinstance(value, np.generic):
        return {"$bytes": _base64(value)}
    if isinstance(value, np.ndarray):
        content = _base64(np.ascontiguousarray(value).tobytes())
        return {"$array": {"dtype": value.dtype.str, "shape": list(value.shape), "base64": content}}
    if isinstance(value, np.generic):
        return {"$scalar": {"dtype": value.dtype.str, "base64": _base64(value.tobytes() if value.dtype.itemsize else b"")}}
    if isinstance(value, date):
        return {"$datetime" if isinstance(value, datetime) else "$date": value.isoformat()}
    return _packed(value)


def _dict(value: dict[Any, Any], level: int) -> Any:
    is_plain = all(type(key) is str and not _PAIR.search(key) for key in value)
    if is_plain and not (len(value) == 1 and next(iter(value)).startswith("$")):
        return {key: _out(inner, level + 1) for key, inner in value.items()}
    return {"$dict": [[_out(key, level + 1), _out(inner, level + 1)] for key, inner in value.items()]}


def _packed(value: Any) -> dict[str, str]:
    return {"$msgpack": _base64(pack(packer(), value))}


def _float_name(value: float) -> str:
    bits = struct.pack(">d", value)
    return repr(value) if not math.isnan(value) or bits == struct.pack(">d", math.nan) else bits.hex()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# -- back --------------------------------------------------------------------------------------------------------------


def from_json(value: Any) -> Any:
    """The value that to_json wrote.

    Raises:
        ValueError: An object with a ``$`` name that to_json does not write.
    """
    if isinstance(value, list):
        return [from_json(part) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, content),) = value.items()
        if name.startswith("$"):
            return _read(name, content)
    return {key: from_json(inner) for key, inner in value.items()}


def _read(name: str, content: Any) -> Any:
    reader = _READERS.get(name)
    if reader is None:
        raise ValueError(f'{name!r} is no type: {", ".join(_READERS)}; a dict of this one key is {{"$dict": [["{name}", …]]}}')
    try:
        return reader(content)
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as err:
        raise ValueError(f"{name} holds {content!r:.60}, which is none ({err})") from err


def _array(content: Any) -> Any:
    dtype, raw = _dtype(content), _bytes(content["base64"])
    array = np.frombuffer(raw, dtype).copy() if raw else np.zeros(content["shape"], dtype)
    return array.reshape(content["shape"])


def _scalar(content: Any) -> Any:
    dtype, raw = _dtype(content), _bytes(content["base64"])
    return np.frombuffer(raw, dtype)[0] if raw else dtype.type()


def _dtype(content: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(content["dtype"])
    if dtype.hasobject or dtype.names:
        raise ValueError(f"an array of {dtype}: only plain ones")
    return dtype


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _float(name: str) -> float:
    if name in ("nan", "inf", "-inf"):
        return float(name)
    return float(struct.unpack(">d", bytes.fromhex(name))[0])


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "$bytes": _bytes,
    "$array": _array,
    "$scalar": _scalar,
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$float": _float,
    "$str": lambda text: _bytes(text).decode("utf-8", "surrogatepass"),
    "$dict": lambda pairs: {from_json(key): from_json(inner) for key, inner in pairs},
    "$msgpack": lambda text: unpack(_bytes(text)),
}
