"""How keys, labels and data become bytes, and come back.

Keys and labels are a type byte and a body whose bytes sort as the values do: ``s`` and UTF-8; ``i``, a byte that holds sign and
length, and the big-endian magnitude. Data is msgpack with three extension types: 1 a numpy array
([dtype, shape, bytes]), 2 a numpy scalar ([dtype, bytes]), 3 a datetime and 4 a date (ISO 8601).
"""

import datetime
from typing import Any

import msgpack
import numpy as np

from simstore.errors import CorruptStoreError, InvalidDataError, InvalidKeyError, InvalidLabelError
from simstore.types import Key

__all__ = ["decode_key", "encode_key", "encode_label", "pack", "packer", "unpack"]

MAX_BYTES = 500
_INT_RANGE = range(-(1 << 63), 1 << 64)  # what msgpack holds
_ARRAY, _SCALAR, _DATETIME, _DATE = 1, 2, 3, 4


def _encode_int(value: int) -> bytes:
    size = (abs(value).bit_length() + 7) // 8
    if value >= 0:
        return bytes((0x69, 0x80 + size)) + value.to_bytes(size, "big")
    return bytes((0x69, 0x80 - size)) + (value + (1 << 8 * size)).to_bytes(size, "big")


def _decode_int(body: bytes) -> int:
    size = body[0] - 0x80
    magnitude = int.from_bytes(body[1:], "big")
    return magnitude if size >= 0 else magnitude - (1 << 8 * -size)


def encode_key(key: Any) -> bytes:
    """A key's bytes, at most 500.

    Raises:
        InvalidKeyError: It is no str or int, or too long.
    """
    if type(key) is str:
        encoded = b"s" + key.encode("utf-8", "surrogatepass")
        if len(encoded) > MAX_BYTES:
            raise InvalidKeyError(
                f"key {key[:40]!r}… takes {len(encoded)} bytes encoded; {MAX_BYTES} is the most: use a shorter key, or a hash"
            )
        return encoded
    if type(key) is int:
        if key not in _INT_RANGE:
            raise InvalidKeyError(f"key {key} is out of range: an int key is from -2**63 to 2**64 - 1; use a str")
        return _encode_int(key)
    plain = _plain(key)
    if plain is None:
        raise InvalidKeyError(f"a key is a str or an int, not {type(key).__name__} ({_short(key)})")
    return encode_key(plain)


def encode_label(label: Any) -> bytes | None:
    """A label's bytes, at most 500; None for no label.

    Raises:
        InvalidLabelError: It is no str, int or None, or too long.
    """
    if label is None:
        return None
    if (type(label) in (str, int)) or _plain(label) is not None:
        try:
            return encode_key(label)
        except InvalidKeyError as err:
            raise InvalidLabelError(str(err).replace("key", "label")) from None
    raise InvalidLabelError(f"a label is a str, an int or None, not {type(label).__name__} ({_short(label)})")


def plain_value(value: Any) -> Any:
    """The str, int or None that is stored for a key or label that has been encoded without error."""
    return value if type(value) in (str, int) or value is None else _plain(value)


def _plain(value: Any) -> Key | None:
    """The str or int that a numpy scalar or a subclass stands for; None for anything else (a bool is no int here)."""
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (int, np.integer)):
        return int(value)
    return str.__str__(value) if isinstance(value, str) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def decode_key(encoded: bytes) -> Key:
    """The key or label of its bytes."""
    try:
        if encoded[:1] == b"s":
            return encoded[1:].decode("utf-8", "surrogatepass")
        if encoded[:1] == b"i" and len(encoded) > 1:
            return _decode_int(encoded[1:])
    except UnicodeDecodeError:
        pass
    raise CorruptStoreError(
        f"{encoded!r} is no encoded key: the store is damaged; check(deep=True) lists all damage, repair() mends it"
    )


# -- data ------------------------------------------------------------------------------------------------------------


def _extend(value: Any) -> Any:
    """What msgpack stores for a value it does not know by itself."""
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidDataError("data holds a masked array, whose mask would be lost: store its data and its mask")
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.dtype.names:
            raise InvalidDataError(f"data holds an array of dtype {value.dtype}: only plain numeric, bool, str and time arrays")
        parts = [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]
        return msgpack.ExtType(_ARRAY, msgpack.packb(parts))
    if isinstance(value, np.generic) and not value.dtype.hasobject and not value.dtype.names:
        return msgpack.ExtType(_SCALAR, msgpack.packb([value.dtype.str, value.tobytes() if value.dtype.itemsize else b""]))
    if isinstance(value, datetime.datetime):
        return msgpack.ExtType(_DATETIME, value.isoformat().encode())
    if isinstance(value, datetime.date):
        return msgpack.ExtType(_DATE, value.isoformat().encode())
    bases: tuple[Any, ...] = (str, int, float, bytes, dict, list)
    for base in bases:  # a subclass is stored as what it is
        if isinstance(value, base):
            return str.__str__(value) if base is str else base(value)
    if isinstance(value, (tuple, bytearray, memoryview)):
        return list(value) if isinstance(value, tuple) else bytes(value)
    raise InvalidDataError(
        f"data holds a {type(value).__name__} ({_short(value)}); it may hold None, bool, int, float, str, bytes, lists, dicts, "
        "numpy scalars and arrays, datetimes and dates"
    )


def _restore(code: int, body: bytes) -> Any:
    if code == _ARRAY:
        dtype, shape, content = msgpack.unpackb(body)
        if not content:
            return np.zeros(shape, dtype)
        return np.frombuffer(content, np.dtype(dtype)).reshape(shape).copy()
    if code == _SCALAR:
        dtype, content = msgpack.unpackb(body)
        return np.frombuffer(content, np.dtype(dtype))[0] if content else np.dtype(dtype).type()
    if code == _DATETIME:
        return datetime.datetime.fromisoformat(body.decode())
    if code == _DATE:
        return datetime.date.fromisoformat(body.decode())
    return msgpack.ExtType(code, body)


def packer() -> msgpack.Packer:
    """A packer for ``pack``; not to be shared between threads."""
    return msgpack.Packer(default=_extend, strict_types=True, unicode_errors="surrogatepass")


def pack(with_packer: msgpack.Packer, value: Any) -> bytes:
    """A value's msgpack bytes, unpacked once: what cannot be read again is refused now.

    Raises:
        InvalidDataError: It holds something that msgpack cannot.
    """
    try:
        packed: bytes = with_packer.pack(value)
        unpack(packed)
    except (ValueError, OverflowError, TypeError, RecursionError, BufferError, msgpack.UnpackException) as err:
        with_packer.reset()
        if isinstance(err, InvalidDataError):
            raise
        raise InvalidDataError(
            f"data cannot be stored and read again ({err}): it may hold what msgpack holds, with ints up to 64 bits, dict keys "
            "that are no tuples, contiguous memory, no ExtType of codes 1 to 4, and at most some hundred levels"
        ) from err
    return packed


def unpack(packed: bytes | memoryview) -> Any:
    """The value of its msgpack bytes."""
    return msgpack.unpackb(packed, ext_hook=_restore, strict_map_key=False, unicode_errors="surrogatepass")
