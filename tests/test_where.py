"""simstore.where: what conditions mean, how they are written, and what is refused."""

# ruff: noqa: E711, E712, SIM300

import datetime
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from simstore import field, key, label
from simstore.where import And, Or, Where, compiled, subjects

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
