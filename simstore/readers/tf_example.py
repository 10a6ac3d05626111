"""The protocol buffer tf.train.Example, read without TensorFlow: a map of names to lists of bytes, floats or ints."""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["Feature", "parse_example"]

Feature = list[bytes] | list[float] | list[int]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _FLOAT_LIST, _INT_LIST = 1, 2, 3


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number and where the next thing begins."""
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise ValueError("a number of more than 10 bytes")


def _fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of a message: (number, wire type, value)."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _LENGTH:
            size, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("a field goes beyond its message")
        yield number, wire, data[at : at + size]
        at += size


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    for found, _, value in _fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def _ints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield _signed(value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _feature(data: memoryview) -> Feature:
    values: list[Any] = []
    for kind, _, inner in _fields(data):
        if not isinstance(inner, memoryview):
            continue
        for number, wire, value in _fields(inner):
            if number != 1:
                continue
            if isinstance(value, int):
                values.append(_signed(value))
            elif kind == _BYTES_LIST:
                values.append(bytes(value))
            elif kind == _FLOAT_LIST:
                values.extend(np.frombuffer(value, "<f4").tolist() if wire == _LENGTH else struct.unpack("<f", value))
            elif kind == _INT_LIST:
                values.extend(_ints(value))
    return values


def parse_example(record: bytes) -> dict[str, Feature]:
    """The features of a serialized tf.train.Example.

    Raises:
        ValueError: It is none.
    """
    try:
        features: dict[str, Feature] = {}
        for all_features in _messages(memoryview(record), 1):
            for entry in _messages(all_features, 1):
                name = b"".join(bytes(part) for part in _messages(entry, 1)).decode()
                features[name] = [value for part in _messages(entry, 2) for value in _feature(part)]  # type: ignore[assignment]
        return features
    except (IndexError, struct.error) as err:
        raise ValueError(f"the message ends early ({err})") from err
