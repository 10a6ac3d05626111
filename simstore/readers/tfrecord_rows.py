"""TFRecord files, without TensorFlow: frames with checksums, and in each frame a tf.train.Example."""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from simstore.errors import InvalidArgumentError, RejectedError, SourceError
from simstore.readers.columns import ColumnType
from simstore.readers.compression import open_stream, reading
from simstore.readers.crc32c import masked_crc32c
from simstore.readers.files import shown
from simstore.readers.image_formats import image_format
from simstore.readers.json_rows import Row
from simstore.readers.tf_example import Feature, parse_example

__all__ = ["Spec", "check_spec", "is_frame", "records", "tfrecord_columns", "tfrecord_rows", "tfrecord_spec"]

Spec = Mapping[str, Any]
"""What features hold, by name: str, int, float or bytes; [str] and so on for lists of any length."""

_HEADER = struct.Struct("<QI")
_MAX_RECORD = 1 << 30
_TYPES = (str, int, float, bytes)


def is_frame(head: bytes) -> bool:
    """Whether a file that begins so is a TFRecord file: its first length carries a checksum."""
    return len(head) >= 12 and masked_crc32c(head[:8]) == _HEADER.unpack(head[:12])[1]


def records(path: str) -> Iterator[bytes | RejectedError]:
    """The records of a file; a RejectedError in the place of one whose checksum is wrong.

    Raises:
        RejectedError: A length is damaged, or the file ends within a record: nothing behind it can be found.
    """
    with reading(path), open_stream(path) as stream:
        n = 0
        while head := _exactly(stream, 12, path, may_end=True):
            length, check = _HEADER.unpack(head)
            if masked_crc32c(head[:8]) != check or length > _MAX_RECORD:
                raise RejectedError("damaged", f"{shown(path)}: the length of record {n} is damaged")
            record = _exactly(stream, length, path)
            (check,) = struct.unpack("<I", _exactly(stream, 4, path))
            is_good = masked_crc32c(record) == check
            yield record if is_good else RejectedError("wrong checksum", f"record {n} is not what was written")
            n += 1


def _exactly(stream: BinaryIO, size: int, path: str, *, may_end: bool = False) -> bytes:
    content = stream.read(size)
    if len(content) < size and (content or not may_end):
        raise RejectedError("truncated", f"{shown(path)} ends within a record")
    return content


def check_spec(spec: Spec) -> None:
    """Raises InvalidArgumentError for a spec that cannot be understood."""
    for name, held in spec.items():
        if (held[0] if isinstance(held, list) and len(held) == 1 else held) not in _TYPES:
            raise InvalidArgumentError(
                f"features[{name!r}] is {held!r}: str, int, float, bytes, or one of them in a list: [float]"
            )


def tfrecord_spec(path: str) -> dict[str, Any]:
    """What the features of the first record seem to hold.

    Raises:
        SourceError: It is no tf.train.Example, or there is none.
        RejectedError: It cannot be read.
    """
    record = next((record for record in records(path) if isinstance(record, bytes)), None)
    if record is None:
        raise SourceError(f"{shown(path)} holds no record that can be read")
    try:
        example = parse_example(record)
    except ValueError as err:
        raise SourceError(f"{shown(path)}: the first record is no tf.train.Example ({err})") from err
    return {name: held for name, values in example.items() if (held := _held(values)) is not None}


def _held(values: Feature) -> Any:
    """The spec of a feature with such values; None if there are none."""
    if not values:
        return None
    kind: Any = type(values[0])
    if isinstance(values[0], bytes):
        kind = bytes if image_format(values[0]) or not _is_text(values[0]) else str
    return kind if len(values) == 1 else [kind]


def _is_text(value: bytes) -> bool:
    try:
        return "\0" not in value.decode()
    except UnicodeDecodeError:
        return False


def tfrecord_columns(spec: Spec) -> dict[str, ColumnType]:
    """What the features hold, as columns."""
    types: dict[Any, ColumnType] = {str: "text", int: "number", float: "number", bytes: "bytes"}
    return {
        name: ("vector" if held[0] in (int, float) else "other") if isinstance(held, list) else types[held]
        for name, held in spec.items()
    }


def tfrecord_rows(path: str, *, spec: Spec) -> Iterator[Row | RejectedError]:
    """The examples of a file as dicts; features that the spec does not name are left out, missing ones are None.

    Raises:
        RejectedError: The rest cannot be read.
    """
    for record in records(path):
        yield record if isinstance(record, RejectedError) else _row(record, spec)


def _row(record: bytes, spec: Spec) -> Row | RejectedError:
    try:
        example = parse_example(record)
        return {name: _value(example.get(name, []), held, name) for name, held in spec.items()}
    except RejectedError as err:
        return err
    except ValueError as err:  # UnicodeDecodeError is one
        return RejectedError("no tf.train.Example", f"the record is no tf.train.Example: {err}")


def _value(values: Feature, held: Any, name: str) -> Any:
    one = held[0] if isinstance(held, list) else held
    stored = bytes if one is str else one
    for value in values:
        if not isinstance(value, stored):
            raise RejectedError("wrong type", f"feature {name!r} holds {type(value).__name__}, not {one.__name__}")
    read = [_decoded(value, name) for value in values] if one is str else list(values)
    if isinstance(held, list):
        return read
    if len(read) > 1:
        raise RejectedError("wrong type", f"feature {name!r} holds {len(read)} values, not one")
    return read[0] if read else None


def _decoded(value: Any, name: str) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as err:
        raise RejectedError("not UTF-8", f"feature {name!r} is no UTF-8: {err.reason} at {err.start}") from err
