"""simstore.where: what conditions mean, how they are written, and what is refused."""

# ruff: noqa: E711, E712, SIM300

import datetime
from datetime import UTC
from enum import IntEnum, StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import naive_where
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_where import as_dict, as_expression, conditions, data, keys, labels, leaves, operands, values

from simstore import field, key, label
from simstore.errors import InvalidFilterError
from simstore.where import And, Or, Where, compiled, postings, subjects, where_of
from simstore.where.kinds import Kind

NAN = float("nan")
INF = float("inf")
NOON = datetime.datetime(2024, 5, 1, 12)
NOON_UTC = NOON.replace(tzinfo=UTC)
NOON_BERLIN = datetime.datetime(2024, 5, 1, 14, tzinfo=ZoneInfo("Europe/Berlin"))
DAY = datetime.date(2024, 5, 1)
MISSING: Any = object()


def try_on(where: Where, value: Any) -> bool:
    return compiled(where).matches("k", None, {"other": 1} if value is MISSING else {"x": value, "other": 1})


X = field("x")
QUICK = settings(deadline=None, derandomize=True, database=None)
ANYTHING = [
    MISSING,
    None,
    True,
    False,
    0,
    1,
    3,
    2.5,
    NAN,
    "",
    "3",
    "abc",
    b"",
    b"abc",
    NOON,
    NOON_UTC,
    DAY,
    [],
    [3],
    {},
    {"x": 3},
]
ANYTHING += [np.arange(4), np.zeros((2, 2)), np.float64(NAN), np.datetime64("NaT"), np.timedelta64(3, "s"), 3j]


@pytest.mark.parametrize(
    ("where", "yes"),
    [
        (X == 3, [3, 3.0, np.int8(3), np.float32(3), np.array(3), np.longdouble(3)]),
        (X == 3.0, [3, 3.0]),
        (X == True, [True, np.True_, np.array(True)]),
        (X == 1, [1, 1.0]),
        (X == "3", ["3", np.str_("3")]),
        (X == b"abc", [b"abc", np.bytes_(b"abc")]),
        (X == None, [None]),
        (X != None, [value for value in ANYTHING if value is not MISSING and value is not None]),
        (X != 3, [0, 1, 2.5, INF, -INF, np.uint8(4)]),
        (X != True, [False, np.False_]),
        (X != "abc", ["", "3", "ABC"]),
        (X < 3, [0, 1, 2.5, -INF, np.float16(-1)]),
        (X <= 3, [0, 1, 2.5, 3, -INF]),
        (X > 3, [4, INF, 3.0000001, 10**400]),
        (X >= 3, [3, 4, INF]),
        (3 < X, [4, INF]),
        (np.int64(3) < X, [4, INF]),
        (X > False, [True]),
        (X < "b", ["", "3", "abc", "B", "aé"]),
        (X >= "abc", ["abc", "abcd", "b", "é", "\U0001f600", "\uffff"]),
        (X > b"\x80", [b"\x80\x00", b"\xff"]),
        (
            X == NOON,
            [NOON, np.datetime64("2024-05-01T12:00"), np.datetime64("2024-05-01T12:00:00.000000001"), np.array(NOON, "M8[s]")],
        ),
        (X == NOON_UTC, [NOON_UTC, NOON_BERLIN, NOON_UTC.astimezone(datetime.timezone(datetime.timedelta(hours=-7)))]),
        (X == NOON_BERLIN, [NOON_UTC, NOON_BERLIN]),
        (X > NOON_UTC, [NOON_BERLIN + datetime.timedelta(microseconds=1)]),
        (X == DAY, [DAY, np.datetime64("2024-05-01")]),
        (X < DAY, [datetime.date(2024, 4, 30), np.datetime64("2024-05"[:4])]),
        (X.is_in([3, "abc", None]), [3, 3.0, np.int8(3), "abc", np.str_("abc"), None]),
        (X.is_in([1]), [1, 1.0]),
        (X.is_in([True, NOON_BERLIN]), [True, np.True_, NOON_UTC]),
        (X.is_in(()), []),
        (X.is_in({2.5}), [2.5]),
        (X.is_in(range(2, 4)), [3, 2]),
        (X.is_in(np.array([2, 3], np.uint8)), [3, 2]),
        (X.startswith("a"), ["abc", "a", np.str_("abc")]),
        (X.startswith(""), ["", "3", "abc"]),
        (X.startswith(b"a"), [b"abc", b"a"]),
        (X.contains(3), [[3], [1, 3.0], np.arange(4), (0, 3), [np.int64(3)], [np.zeros(3), 3], [np.array(3)]]),
        (X.contains(1), [[1, True], np.arange(4)]),
        (X.contains(True), [[1, True], np.array([False, True])]),
        (X.contains("b"), ["abc", "b", ["a", "b"], np.array(["a", "b"])]),
        (X.contains(""), ["", "3", "abc", [""]]),
        (X.contains(b"b"), [b"abc", [b"b"]]),
        (X.contains(None), [[None], [1, None]]),
        (X.contains(NOON), [[NOON], np.array([NOON], "M8[us]")]),
        (X.exists(), [value for value in ANYTHING if value is not MISSING]),
        (X == INF, [INF]),
        (X == 2**53 + 1, [2**53 + 1, np.int64(2**53 + 1)]),
        (X > 2.0**53, [2**53 + 1, 2**53 + 2]),
        (And(()), ANYTHING),
        (Or(()), []),
    ],
    ids=str,
)
def test_what_a_comparison_is_true_of(where: Where, yes: list[Any]) -> None:
    for value in yes:
        assert try_on(where, value), f"{where} on {value!r}"
        assert not try_on(~where, value)
    for value in ANYTHING:
        if not any(value is one or (type(value) is type(one) and repr(value) == repr(one)) for one in yes):
            assert not try_on(where, value), f"{where} on {value!r}"
            assert try_on(~where, value)


@pytest.mark.parametrize(
    ("path", "data", "value"),
    [
        ("a", {"a": 7}, 7),
        ("a.b", {"a": {"b": 7}}, 7),
        ("a.b", {"a.b": 7}, MISSING),
        (("a.b",), {"a.b": 7}, 7),
        (("a.b", 0), {"a.b": [7, 8]}, 7),
        (("a.b", 0), {"a.b": {0: 7, "0": 8}}, 7),
        ("a.0", {"a": [7, 8]}, 7),
        ("a.1.b", {"a": [7, {"b": 9}]}, 9),
        ("a.0", {"a": {"0": 7}}, 7),
        ("a.0", {"a": {0: 7}}, MISSING),
        ("a.2", {"a": [7, 8]}, MISSING),
        ("a.-1", {"a": [7, 8]}, MISSING),
        (("a", -1), {"a": [7, 8]}, MISSING),
        (("a", -1), {"a": {-1: 7}}, 7),
        ("a.01", {"a": [7, 8]}, MISSING),
        ("a.+1", {"a": [7, 8]}, MISSING),
        ("a.٠", {"a": [7, 8]}, MISSING),
        ("a." + "9" * 5000, {"a": [7]}, MISSING),
        (("a", 10**30), {"a": [7]}, MISSING),
        ("a.1", {"a": np.array([7, 8])}, 8),
        ("a.1", {"a": np.zeros((2, 2))}, MISSING),
        ("a.b", {"a": "b"}, MISSING),
        ("a.0", {"a": "b"}, MISSING),
        ("a.b", {"a": None}, MISSING),
        ("a", None, MISSING),
        ("a", ["a"], MISSING),
        ("0", ["a"], "a"),
        ((), "a", "a"),
        ((), None, None),
        ((0,), ["a"], "a"),
        (("",), {"": "a"}, "a"),
        (("a", ""), {"a": {"": 1}}, 1),
        (("$x",), {"$x": 1}, 1),
    ],
)
def test_where_a_path_leads(path: Any, data: Any, value: Any) -> None:
    def holds(where: Where) -> bool:
        return compiled(where).matches("k", None, data)

    assert holds(field(path).exists()) == (value is not MISSING)
    assert holds(field(path) == (None if value is MISSING else value)) == (value is not MISSING)
    assert holds(field(path).is_in([value if value is not MISSING else None])) == (value is not MISSING)


@pytest.mark.parametrize(
    ("where", "keys", "labels"),
    [
        (key == "a", ["a"], None),
        (key == 1, [1], None),
        (key != "a", ["", "b", "img/", "img/1", "im"], None),
        (key < 2, [1, 0, -5], None),
        (key.startswith("img/"), ["img/", "img/1"], None),
        (key.is_in(["a", 1, "img/"]), ["a", 1, "img/"], None),
        (label == "cat", None, ["cat"]),
        (label == None, None, [None]),
        (label != None, None, ["cat", "dog", 1, 2]),
        (label != "cat", None, ["dog"]),
        (label.is_in([None, 2]), None, [None, 2]),
        (label >= 2, None, [2]),
        (~(label == "cat"), None, [None, "dog", 1, 2]),
    ],
    ids=str,
)
def test_key_and_label(where: Where, keys: list[Any] | None, labels: list[Any] | None) -> None:
    matcher = compiled(where)
    assert not matcher.needs_data
    for one in ["a", "", "b", 1, 0, -5, 2, "img/", "img/1", "im"] if keys is not None else []:
        assert matcher.matches(one, "a", {}) == (one in keys), one  # type: ignore[operator]
    for one in [None, "cat", "dog", 1, 2] if labels is not None else []:
        assert matcher.matches("cat", one, {}) == (one in labels), one  # type: ignore[operator]


def test_and_or_not() -> None:
    a, b, c = X > 0, X > 10, X > 20
    for where, yes in [
        (a & ~b, [5]),
        (a & b, [15, 25]),
        (a & b & ~c, [15]),
        (~a | b, [-5, 15, 25]),
        (~a | b | c, [-5, 15, 25]),
        (~a | (b & ~c), [-5, 15]),
        (~(a & b), [-5, 5]),
        (And((a, And((b, c)))), [25]),
        (Or((c, Or((~a,)))), [-5, 25]),
    ]:
        assert [value for value in (-5, 5, 15, 25) if try_on(where, value)] == yes, where


def test_needs_data_and_subjects() -> None:
    where = (key == "a") & ~((label == "b") | (field("a.b") == 1) | (field("a.b") > 3) | field(()).exists())
    assert compiled(where).needs_data
    assert not compiled((key == "a") & ~(label == "b")).needs_data
    assert not compiled(And(())).needs_data
    kinds = sorted((subject.kind, subject.path) for subject in subjects(where))
    assert kinds == [("field", ()), ("field", ("a", "b")), ("key", ()), ("label", ())]


def test_an_hour_that_is_repeated_is_two_moments() -> None:
    first = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    second = first.replace(fold=1)
    for berlin, utc in [
        (first, datetime.datetime(2024, 10, 27, 0, 30, tzinfo=UTC)),
        (second, datetime.datetime(2024, 10, 27, 1, 30, tzinfo=UTC)),
    ]:
        for where in (X == utc, X.is_in([utc]), X.contains(utc)):
            assert [try_on(where, [value] if where.op == "contains" else value) for value in (first, second)] == [
                value is berlin for value in (first, second)
            ]
        assert try_on(X == berlin, utc) and try_on(X.is_in([berlin]), utc)
        assert postings.terms_of(berlin) == postings.terms_of(utc)


class Stamp(datetime.datetime):
    """As pandas' Timestamp is."""


class NoStamp(datetime.datetime):
    """As pandas' NaT is."""

    year = float("nan")  # type: ignore[assignment]


def test_subclasses_count_as_what_they_are_of() -> None:
    color, name = IntEnum("color", {"RED": 3}), StrEnum("name", {"A": "abc"})  # type: ignore[misc]
    for base, value in [(float, 2.5), (bytes, b"ab"), (int, 2**70)]:
        assert try_on(X == type("Sub", (base,), {})(value), value)
        assert try_on(X.is_in([value]), type("Sub", (base,), {})(value))
    assert try_on(X == color.RED, 3) and try_on(X == 3, color.RED) and type((X == color.RED).operand.value) is int
    assert try_on(X == name.A, "abc") and try_on(X.is_in(["abc"]), name.A) and type((X == name.A).operand.value) is str
    again = Stamp(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    assert try_on(X == again, datetime.datetime(2024, 10, 27, 1, 30, tzinfo=UTC))
    assert try_on(X == NOON, Stamp(2024, 5, 1, 12)) and type((X == Stamp(2024, 5, 1)).operand.value) is datetime.datetime
    assert not try_on((X == NOON) | (X < NOON) | (X > NOON) | (X == DAY), NoStamp(2024, 5, 1))
    with pytest.raises(InvalidFilterError, match="NoStamp"):
        X == NoStamp(2024, 5, 1)  # noqa: B015


# -- against a naive evaluator -------------------------------------------------------------------------------------------


@given(conditions, st.lists(st.tuples(keys, labels, data), min_size=1, max_size=4))
@settings(QUICK, max_examples=600)
def test_random_conditions_on_random_items(condition: Any, items: list[tuple[Any, Any, Any]]) -> None:
    where = as_expression(condition)
    assert where_of(as_dict(condition)) == where
    assert eval(repr(where), {"field": field, "key": key, "label": label, "datetime": datetime}) == where
    matcher = compiled(where)
    for one_key, one_label, one_data in items:
        given_data = one_data if matcher.needs_data else None
        found = matcher.matches(one_key, one_label, given_data)
        assert type(found) is bool
        assert found == naive_where.matches(condition, one_key, one_label, one_data)


@given(leaves(st.just(()), operands), values)
@settings(QUICK, max_examples=1500)
def test_random_comparisons_of_random_values(condition: Any, value: Any) -> None:
    assert compiled(as_expression(condition)).matches("k", None, value) == naive_where.matches(condition, "k", None, value)


class Zone(datetime.tzinfo):
    def utcoffset(self, dt: datetime.datetime | None) -> datetime.timedelta:
        raise RuntimeError


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
OBJECTS = np.empty((), object)
OBJECTS[()] = OBJECTS
STRANGE: list[Any] = [
    *[CYCLE, OBJECTS, np.array([None, OBJECTS, []], object), np.ma.masked, np.ma.array([1, 2], mask=[True, False])],
    *[np.zeros((), "i4,f8"), np.zeros(2, "i4,f8"), np.zeros(2, "i4,f8")[0], np.zeros(2, "V3"), np.zeros((2, 0))],
    *[np.longdouble("1e4000"), np.array([np.longdouble(1)]), np.complex128(1j), np.float16("inf")],
    *[np.datetime64(2**62, "s"), np.datetime64(-(2**62), "Y"), np.datetime64(2**62, "ns"), np.datetime64(2**62, "as")],
    *[np.zeros(1, "M8")[0], np.array(["NaT", 5], "M8[W]"), np.array([5], "m8[ns]"), np.datetime64("NaT")],
    *[NOON.replace(tzinfo=Zone()), datetime.time(1), datetime.timedelta(1), Zone(), object(), object, NotImplemented, {1, 2}],
    *[msgpack.ExtType(9, b"x"), msgpack.Timestamp(5, 6), bytearray(b"x"), memoryview(b"x"), range(3), Kind.STR, 10**5000],
    *[{0: 1, b"a": 2, None: 3, True: 4, 1.5: 5, ("a",): 6}, [[]], {"a": {"a": {"a": CYCLE}}}, "\ud800", 1e-320],
]


strange_values = st.sampled_from(range(len(STRANGE))).map(STRANGE.__getitem__)  # some have no repr


@given(conditions, st.one_of(strange_values, strange_values, st.lists(strange_values, max_size=3), data))
@settings(QUICK, max_examples=600)
def test_nothing_in_data_raises(condition: Any, strange: Any) -> None:
    matches = compiled(as_expression(condition)).matches
    for one in (strange, {"a": strange}, [strange], {"a": [strange, strange]}):
        assert type(matches("a", None, one)) is bool
        assert type(postings.terms_of(one)) is list


def test_what_strange_values_match() -> None:
    for value in STRANGE:
        assert try_on(X.exists(), value) and try_on(X != None, value), repr(value)
        if not isinstance(value, (int, float, str, np.number)):
            for where in (X == 3, X < 3, X != "a", X < NOON_UTC, X.is_in([None, 3, "a"]), X.startswith("a"), X.contains("a")):
                assert not try_on(where, value), repr(value)
    assert try_on(X == datetime.datetime(2116, 2, 20, 23, 53, 38, 427387), np.datetime64(2**62, "ns"))
    assert try_on(X == INF, np.longdouble("1e4000"))
    assert not try_on(X.contains(None), np.ma.array([1, 2], mask=[True, False]))
    assert not try_on(X.contains(9), msgpack.ExtType(9, b"x"))
    assert not try_on(field("x.0").exists(), msgpack.ExtType(9, b"x"))
