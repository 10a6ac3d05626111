"""Random data and random conditions (as naive_where has them), in which what is nearly equal comes up often."""

import datetime
from datetime import UTC
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np
from hypothesis import strategies as st

from simstore import field, key, label
from simstore.where import And, Or, Where

NOON = datetime.datetime(2024, 5, 1, 12)
EAST = datetime.timezone(datetime.timedelta(hours=14))
LONG = "é" * 239  # 478 bytes

_NEAR: list[Any] = [
    *[None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, 0.5, -1.5, float("inf"), float("-inf"), 5e-324, -5e-324],
    *[2**53, 2**53 + 1, 2.0**53, 2**63, 2**63 - 1, 2**64 - 1, 2.0**64, -(2**63), -(2**63) + 1, -(2.0**63)],
    *[10**30, 10**30 + 1, 1e30, 10**400, -(10**400), 1.7976931348623157e308],
    *[
        "",
        "0",
        "1",
        "a",
        "ab",
        "a\x00",
        "b",
        "é",
        "\ud800",
        "\uffff",
        "\U0001f600",
        LONG,
        LONG + "a",
        LONG + "b",
        LONG[:-1] + "zz",
    ],
    *[b"", b"a", b"ab", b"\xff", b"\xff\xff", b"\xff\xff\x00", b"\xff" * 478, b"\xff" * 479, b"\xff" * 480],
    *[
        NOON,
        NOON.replace(fold=1),
        NOON.replace(tzinfo=UTC),
        NOON.replace(tzinfo=EAST),
        datetime.datetime.min,
        datetime.datetime.max,
    ],
    *[datetime.datetime.min.replace(tzinfo=EAST), datetime.datetime.max.replace(tzinfo=UTC), datetime.date(2024, 5, 1)],
    *[datetime.date.min, datetime.date.max],
]

operands = st.one_of(
    st.none(),
    st.sampled_from(_NEAR),
    st.integers(-(2**64), 2**64),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.datetimes(timezones=st.sampled_from([None, UTC, EAST])),  # type: ignore[arg-type]
    st.dates(),
)
_numpy = st.sampled_from(
    [
        *[np.int8(1), np.uint64(2**64 - 1), np.float32(0.5), np.float64("nan"), np.bool_(True), np.str_("a"), np.bytes_(b"a")],
        *[np.datetime64("2024-05-01T12:00"), np.datetime64("2024-05-01"), np.datetime64("2024-05-01T12:00:00.000000001")],
        *[np.datetime64("NaT"), np.timedelta64(1, "s"), np.complex64(1), np.array(1), np.array("a"), np.array(NOON, "M8[us]")],
        *[np.arange(3), np.array([1.5, np.nan]), np.array(["a", "b"]), np.array([True]), np.array([b"a"]), np.zeros(0)],
        *[np.array(["2024-05-01"], "M8[D]"), np.zeros((2, 2)), np.zeros((1, 1, 1)), np.zeros((0, 3))],
    ]
)
scalars = st.one_of(operands, operands, st.just(float("nan")), _numpy)
lists = st.lists(scalars, max_size=4)
values = st.one_of(scalars, scalars, lists, st.dictionaries(st.sampled_from(["a", 0]), scalars, max_size=2))
_names = st.sampled_from(["a", "a", "b", "0", "1", "a.b", 0, 1])
data = st.recursive(
    values,
    lambda inner: st.one_of(st.dictionaries(_names, inner, max_size=4), st.lists(inner, max_size=3)),
    max_leaves=8,
)
keys = st.one_of(st.sampled_from(["a", "ab", "", "1", 1, 0, -1]), st.text(max_size=3), st.integers(-3, 3))
labels = st.one_of(st.none(), keys)
paths = st.lists(_names, max_size=3).map(tuple)

_ORDER = st.sampled_from(["$lt", "$lte", "$gt", "$gte"])
_EQUALITY = st.sampled_from(["$eq", "$ne"])


def leaves(subject: Any, some: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, str, Any]]:
    """Conditions of one subject with random operands."""
    ways = [
        st.tuples(subject, _EQUALITY, some),
        st.tuples(subject, _ORDER, some.filter(lambda operand: operand is not None)),
        st.tuples(subject, st.just("$in"), st.lists(some, max_size=4)),
        st.tuples(subject, st.just("$startswith"), some.filter(lambda operand: isinstance(operand, str))),
    ]
    if some is operands:
        ways[3] = st.tuples(subject, st.just("$startswith"), some.filter(lambda operand: isinstance(operand, (str, bytes))))
        ways += [st.tuples(subject, st.just("$contains"), some), st.tuples(subject, st.just("$exists"), st.booleans())]
    return st.one_of(ways)


conditions = st.recursive(
    st.one_of(leaves(paths, operands), leaves(paths, operands), leaves(st.just("key"), keys), leaves(st.just("label"), labels)),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=4)),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=8,
)


def as_expression(condition: Any) -> Where:
    """The condition as field, label and key write it."""
    if condition[0] == "not":
        return ~as_expression(condition[1])
    if condition[0] in ("and", "or"):
        join, nothing = (and_, And(())) if condition[0] == "and" else (or_, Or(()))
        return reduce(join, map(as_expression, condition[1]), nothing)
    subject, op, operand = condition
    what: Any = {"key": key, "label": label}[subject] if isinstance(subject, str) else field(subject)
    if op == "$exists":
        return what.exists() if operand else ~what.exists()  # type: ignore[no-any-return]
    names = {
        "$eq": "__eq__",
        "$ne": "__ne__",
        "$lt": "__lt__",
        "$lte": "__le__",
        "$gt": "__gt__",
        "$gte": "__ge__",
        "$in": "is_in",
    }
    return getattr(what, names.get(op, op[1:]))(operand)  # type: ignore[no-any-return]


def as_dict(condition: Any) -> dict[Any, Any]:
    """The condition in the dict form."""
    if condition[0] == "not":
        return {"$not": as_dict(condition[1])}
    if condition[0] in ("and", "or"):
        return {f"${condition[0]}": [as_dict(part) for part in condition[1]]}
    subject, op, operand = condition
    return {f"${subject}" if isinstance(subject, str) else subject: {op: operand}}
