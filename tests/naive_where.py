"""What a filter means, said slowly: conditions as nested tuples, tried one value at a time. Independent of simstore.

A condition is ("and" | "or", [condition, …]), ("not", condition) or (subject, op, operand), with a subject "key", "label" or a
path (a tuple), and an op as in the dict form ("$eq", …).
"""

import datetime
from typing import Any

import numpy as np

NOTHING = object()


def plain(value: Any) -> Any:
    """numpy's scalars and 0-d arrays as Python's, 1-d arrays as lists."""
    if isinstance(value, np.ndarray) and value.ndim <= 1:
        value = [value[i] for i in range(len(value))] if value.ndim else value[()]
    if isinstance(value, np.datetime64) and not np.isnat(value):
        return value.astype("M8[us]").item() if np.datetime_data(value.dtype)[0] == "ns" else value.item()
    return value.item() if isinstance(value, np.generic) and value.dtype.kind != "M" else value


def kind(value: Any) -> str:
    for types, name in [
        (bool, "bool"),
        ((int, float), "number"),
        (str, "str"),
        (bytes, "bytes"),
        (datetime.datetime, "datetime"),
        (datetime.date, "date"),
        (list, "list"),
    ]:
        if isinstance(value, types):
            return name + "+00:00" if name == "datetime" and value.tzinfo is not None else name
    return "none" if value is None else "other"


def at(data: Any, path: tuple[str | int, ...]) -> Any:
    for segment in path:
        data = plain(data)
        if isinstance(data, dict) and segment in data:
            data = data[segment]
        elif isinstance(data, list) and str(segment) in [str(i) for i in range(len(data))]:
            data = data[int(segment)]
        else:
            return NOTHING
    return plain(data)


def equal(value: Any, operand: Any) -> bool:
    return kind(value) == kind(operand) != "other" and bool(value == operand)


def holds(value: Any, op: str, operand: Any) -> bool:
    """One comparison; the value is one that `at` gave."""
    if op == "$exists":
        return (value is not NOTHING) == operand
    if value is NOTHING:
        return False
    if op == "$in":
        return any(equal(value, one) for one in operand)
    if op == "$contains":
        if kind(value) == "list":
            return any(equal(plain(element), operand) for element in value)
        return kind(value) == kind(operand) and kind(value) in ("str", "bytes") and operand in value
    if operand is None:
        return (value is None) == (op == "$eq")
    if kind(value) != kind(operand) or value != value:
        return False
    if op == "$startswith":
        return value[: len(operand)] == operand
    order = (value > operand) - (value < operand)
    return {"$eq": order == 0, "$ne": order != 0, "$lt": order < 0, "$lte": order <= 0, "$gt": order > 0, "$gte": order >= 0}[
        op
    ]


def matches(condition: Any, key: Any, label: Any, data: Any) -> bool:
    if condition[0] == "and":
        return all(matches(part, key, label, data) for part in condition[1])
    if condition[0] == "or":
        return any(matches(part, key, label, data) for part in condition[1])
    if condition[0] == "not":
        return not matches(condition[1], key, label, data)
    subject, op, operand = condition
    value = {"key": key, "label": label}[subject] if isinstance(subject, str) else at(data, subject)
    return holds(value, op, operand)
