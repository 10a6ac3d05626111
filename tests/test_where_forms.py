"""simstore.where: conditions as data, as Python and as dicts; and what is refused, in which words."""

# ruff: noqa: E711, E712, SIM300

import copy
import datetime
import doctest
import pickle
from collections.abc import Callable
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

import simstore.where as where_package
from simstore import field, key, label
from simstore.errors import InvalidFilterError, SimstoreError
from simstore.where import And, Compare, Not, Operand, Operands, Or, Subject, Where, builders, dicts, where_of
from simstore.where.kinds import Kind

X = field("x")
NOON = datetime.datetime(2024, 5, 1, 12)
NOON_UTC = NOON.replace(tzinfo=UTC)
NOON_BERLIN = datetime.datetime(2024, 5, 1, 14, tzinfo=ZoneInfo("Europe/Berlin"))
DAY = datetime.date(2024, 5, 1)


@pytest.mark.parametrize(
    "text",
    [
        'field("year") >= 2020',
        'field(("a.b", 0)) == "x"',
        'field(("a",)) == 1',
        "field(()).exists()",
        'field("x").contains(b"x")',
        'field("x").startswith("it\'s")',
        'key.is_in([1, 2, "a"])',
        "label == None",
        'field("x") < float("inf")',
        '(field("a") == 1) & (field("b") == 2) & (label == "c")',
        '(field("a") == 1) & ((field("b") == 2) | ~(label == "c"))',
        '~((field("a") == 1) & field("b").exists()) | ~~key.startswith("a")',
        "And(())",
        "~Or(())",
        "And((key == 1,)) & (key == 2)",
        'field("x") == datetime.datetime(2024, 5, 1, 12, 0, tzinfo=datetime.timezone.utc)',
        'field("x").is_in([None, True, 1, "a", b"b", datetime.date(2024, 5, 1)])',
    ],
)
def test_a_condition_prints_as_the_python_that_makes_it(text: str) -> None:
    names = {"field": field, "key": key, "label": label, "And": And, "Or": Or, "datetime": datetime}
    where = eval(text, names)
    printed = repr(where)
    if text not in ('field(("a",)) == 1', "And((key == 1,)) & (key == 2)"):  # there are simpler ways
        assert printed == text
    again = eval(printed, names)
    assert again == where and hash(again) == hash(where)
    assert pickle.loads(pickle.dumps(where)) == where == copy.deepcopy(where)


def test_an_endless_number_is_printed_too() -> None:
    where = X == -(10**5000)
    assert eval(repr(where), {"field": field}) == where


def test_a_long_list_is_printed_in_part() -> None:
    assert repr(key.is_in(range(100_000))).endswith("18, 19, … 99980 more])")


def test_equality_is_by_value_and_kind() -> None:
    different = [
        X == 1, X == True, X == "1", X == b"1", X == None, X == 2, X != 1, X < 1, X.is_in([1]), X.is_in([True]), X.is_in([]),
        X.contains(1), X.exists(), field("y") == 1, field(("x", 0)) == 1, field(("x", "0")) == 1, key == 1, label == 1,
        X == NOON, X == NOON_UTC, X == DAY, ~(X == 1), ~~(X == 1), (X == 1) & (X == 2), (X == 2) & (X == 1), (X == 1) | (X == 2),
        And(()), Or(()), And((X == 1,)),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    for i, one in enumerate(different):
        assert [j for j, other in enumerate(different) if other == one] == [i]
    for one, same in [
        (X == 1, X == 1.0),
        (X == 1, X == np.int16(1)),
        (1 < X, X > 1),
        (X == NOON_UTC, X == NOON_BERLIN),
        (X.is_in([1, 2]), X.is_in({2.0, 1})),
        (X.is_in([True, 1]), X.is_in([1, True])),
        (field("a.0"), field(("a", "0"))),
        ((X == 1) & ((X == 2) & (X == 3)), (X == 1) & (X == 2) & (X == 3)),
        (X == np.str_("a"), X == "a"),
    ]:
        if isinstance(one, Where):
            assert one == same and hash(one) == hash(same)
        else:
            assert (one == 1) == (same == 1)


def test_operands_are_plain() -> None:
    for given, kept in [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.True_, True),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
    ]:
        operand = (X == given).operand
        assert type(operand.value) is type(kept) and operand.value == kept  # type: ignore[union-attr]
    assert (X == np.datetime64("2024-05-01T12:00")).operand.value == NOON  # type: ignore[union-attr]


def test_docstring_examples() -> None:
    for module in (where_package, builders, dicts):
        result = doctest.testmod(module)
        assert result.attempted > 0 and result.failed == 0


def test_what_a_planner_sees() -> None:
    where = (field(("a.b", 0)) >= 3) & ~key.is_in(["k", 1, 2.0 and 2]) | label.startswith("c") | field("t").exists()
    assert where == Or(
        (
            And(
                (
                    Compare(Subject("field", ("a.b", 0)), ">=", Operand(Kind.NUMBER, 3)),
                    Not(
                        Compare(
                            Subject("key"),
                            "in",
                            Operands(((Kind.NUMBER, frozenset((1, 2))), (Kind.STR, frozenset(("k",))))),
                        )
                    ),
                )
            ),
            Compare(Subject("label"), "startswith", Operand(Kind.STR, "c")),
            Compare(Subject("field", ("t",)), "exists", None),
        )
    )
    assert where.depth == 4
    operands = key.is_in(["k", 1, 2]).operand
    assert isinstance(operands, Operands) and len(operands) == 3 and set(operands) == {"k", 1, 2}


# -- the dict form -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({}, And(())),
        ({"year": 2020}, field("year") == 2020),
        ({"year": None}, field("year") == None),
        ({"a.b": "x"}, field("a.b") == "x"),
        ({("a.b", 0): "x"}, field(("a.b", 0)) == "x"),
        ({(): 1}, field(()) == 1),
        ({("$x",): 1}, field(("$x",)) == 1),
        ({"x": {"$eq": 1}}, X == 1),
        ({"x": {"$ne": None}}, X != None),
        ({"x": {"$lt": 1}}, X < 1),
        ({"x": {"$lte": 1}}, X <= 1),
        ({"x": {"$gt": 1}}, X > 1),
        ({"x": {"$gte": 1}}, X >= 1),
        ({"x": {"$in": [1, "a", None]}}, X.is_in([1, "a", None])),
        ({"x": {"$in": []}}, X.is_in([])),
        ({"x": {"$contains": "a"}}, X.contains("a")),
        ({"x": {"$startswith": "a"}}, X.startswith("a")),
        ({"x": {"$exists": True}}, X.exists()),
        ({"x": {"$exists": False}}, ~X.exists()),
        ({"year": {"$gte": 2020, "$lt": 2024}}, (field("year") >= 2020) & (field("year") < 2024)),
        ({"a": 1, "b": 2}, (field("a") == 1) & (field("b") == 2)),
        ({"$or": [{"a": 1}, {"b": 2}]}, (field("a") == 1) | (field("b") == 2)),
        ({"$or": [{"a": 1, "b": 2}, {}]}, ((field("a") == 1) & (field("b") == 2)) | And(())),
        ({"$or": [{"a": 1}]}, field("a") == 1),
        ({"$and": [{"a": 1}, {"$and": [{"b": 2}, {"c": 3}]}]}, (field("a") == 1) & (field("b") == 2) & (field("c") == 3)),
        ({"$not": {"a": 1}}, ~(field("a") == 1)),
        ({"$not": {"a": 1, "b": 2}}, ~((field("a") == 1) & (field("b") == 2))),
        ({"$label": "cat"}, label == "cat"),
        ({"$label": None}, label == None),
        ({"$key": {"$startswith": "img/"}}, key.startswith("img/")),
        ({"$key": {"$in": ("a", 1)}}, key.is_in(["a", 1])),
        ({"$key": {"$gte": 1, "$ne": 5}}, (key >= 1) & (key != 5)),
        ({"$and": [key == 1, {"a": 2}]}, (key == 1) & (field("a") == 2)),
        (key == 1, key == 1),
    ],
)
def test_the_dict_form_gives_the_same_objects(given: Any, where: Where) -> None:
    assert where_of(given) == where


# -- what is refused -----------------------------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    given: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        given = {"$not": given}
    return given


CYCLE: dict[str, Any] = {}
CYCLE["$or"] = [CYCLE, CYCLE]


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bool(X == 1), ['field("x") == 1', "no truth value", "& | ~", "1 < x < 2"]),
        (lambda: 1 < X < 2, ['field("x") > 1', "no truth value", "1 < x < 2"]),
        (lambda: (X == 1) and (X == 2), ["no truth value", "in place of and, or, not"]),
        (lambda: X in [1, 2], ["no truth value", ".is_in("]),
        (lambda: "a" in X, ['"a" in field("x")', '.contains("a")']),
        (lambda: not X, ['field("x") by itself', "compare it"]),
        (lambda: ~label, ["label by itself"]),
        (lambda: X & (X == 1), ['field("x") by itself', "parentheses"]),
        (lambda: X == 1 & X == 2, ['field("x") by itself', "parentheses"]),
        (lambda: key | (X == 1), ["key by itself"]),
        (lambda: (X == 1) & X, ['not Field field("x")', "parentheses"]),
        (lambda: (X == 1) | True, ["not bool True", "parentheses"]),
        (lambda: 5 & (X == 1), ["not int 5", "parentheses"]),
        (lambda: X == field("y"), ['field("x") ==', 'not Field field("y")', "int, float, str"]),
        (lambda: X == (X == 1), ['not Compare field("x") == 1']),
        (lambda: X == float("nan"), ['field("x") ==', "not NaN"]),
        (lambda: X != np.float32("nan"), ["not NaN"]),
        (lambda: X == np.datetime64("NaT"), ["NaT"]),
        (lambda: X == [1, 2], ["not list [1, 2]", "is_in"]),
        (lambda: X == np.arange(2), ["not ndarray array([0, 1])", "is_in"]),
        (lambda: X == {"a": 1}, ["not dict {'a': 1}"]),
        (lambda: X == Odd(), ["not Odd <Odd>"]),
        (lambda: X == 3j, ["not complex 3j"]),
        (lambda: X == bytearray(b"x"), ["not bytearray"]),
        (lambda: X < None, ['field("x") <', "not None", "int, float, str"]),
        (lambda: X.contains([1]), ['field("x").contains()', "not list [1]"]),
        (lambda: X.startswith(1), ['field("x").startswith()', "takes str or bytes", "not int 1"]),
        (lambda: X.startswith(None), ["takes str or bytes", "not None"]),
        (lambda: X.is_in("abc"), ['field("x").is_in()', 'not str "abc"', "a list"]),
        (lambda: X.is_in(3), ["not int 3"]),
        (lambda: X.is_in({"a": 1}), ["not dict {'a': 1}"]),
        (lambda: X.is_in(np.zeros((2, 2))), ["1-d array", "not ndarray"]),
        (lambda: X.is_in(one for one in [1]), ["not generator"]),
        (lambda: X.is_in([1, [2]]), ["each value of", "not list [2]"]),
        (lambda: X.is_in([1, float("nan")]), ["each value of", "not NaN"]),
        (lambda: key == 1.0, ["key ==", "takes str or int", "not float 1.0"]),
        (lambda: key == True, ["takes str or int", "not bool True"]),
        (lambda: key == None, ["takes str or int", "not None"]),
        (lambda: key == b"a", ["takes str or int", 'not bytes b"a"']),
        (lambda: label == np.float64(1), ["takes str, int or None", "not float64"]),
        (lambda: label == np.True_, ["takes str, int or None", "not bool"]),
        (lambda: label < None, ["takes str or int", "not None"]),
        (lambda: label.is_in(["a", 1.5]), ["takes str, int or None", "not float 1.5"]),
        (lambda: label.startswith(b"a"), ["label.startswith() takes str", 'not bytes b"a"']),
        (lambda: field("a..b"), ["field()", '"a..b"', "empty segment"]),
        (lambda: field(""), ["field()", '""', "empty segment"]),
        (lambda: field(3), ["field()", "not int 3", '("a", 0)']),
        (lambda: field(None), ["not NoneType None"]),
        (lambda: field(["a"]), ["not list ['a']"]),
        (lambda: field(("a", 1.5)), ["segments are str or int", "not float 1.5"]),
        (lambda: field(("a", True)), ["segments are str or int", "not bool True"]),
        (lambda: where_of(None), ["where takes a condition", "not NoneType None"]),
        (lambda: where_of(3), ["where takes a condition", "not int 3"]),
        (lambda: where_of([{"a": 1}]), ["not list"]),
        (lambda: where_of(X), ["where takes a condition", 'not Field field("x")', "compare it"]),
        (lambda: where_of({"$foo": 1}), ['where["$foo"]', "$and, $or, $not, $key, $label", '("$name",)']),
        (lambda: where_of({"$gte": 1}), ['where["$gte"]', "outside of an operator"]),
        (lambda: where_of({"$nor": []}), ['where["$nor"]', '{"$not": {"$or"']),
        (lambda: where_of({"$or": []}), ['where["$or"]', "one or more", "not list []"]),
        (lambda: where_of({"$and": ()}), ['where["$and"]', "one or more", "not tuple ()"]),
        (lambda: where_of({"$or": {"a": 1}}), ['where["$or"]', "not dict {'a': 1}"]),
        (lambda: where_of({"$or": [{"a": 1}, 3]}), ['where["$or"][1]', "not int 3"]),
        (lambda: where_of({"$not": [{"a": 1}]}), ['where["$not"]', "not list"]),
        (lambda: where_of({"$or": [{"a": {"$in": 3}}]}), ['where["$or"][0]["a"]["$in"]', "not int 3"]),
        (lambda: where_of({"a": {}}), ['where["a"]', "empty dict"]),
        (lambda: where_of({"a": {"b": 1}}), ['where["a"]["b"]', "$eq, $ne, $lt", '"a.b"']),
        (lambda: where_of({"a": {1: 1}}), ['where["a"][1]', "$eq, $ne, $lt"]),
        (
            lambda: where_of({"a": {"$foo": 1}}),
            ['where["a"]["$foo"]', "$eq, $ne, $lt, $lte, $gt, $gte, $in, $startswith, $contains"],
        ),
        (lambda: where_of({"a": {"$nin": [1]}}), ['where["a"]["$nin"]', '{"$not": {"a": {"$in"']),
        (lambda: where_of({"a": {"$regex": "^a"}}), ['where["a"]["$regex"]', "no patterns", "$startswith"]),
        (lambda: where_of({"a": {"$all": [1]}}), ['where["a"]["$all"]', "$contains"]),
        (lambda: where_of({"a": {"$not": {"$gt": 1}}}), ['where["a"]["$not"]', '{"$not": {"a"']),
        (lambda: where_of({"a": [1, 2]}), ['where["a"]', "not list [1, 2]", "$in"]),
        (lambda: where_of({"a": X == 1}), ['where["a"]', 'not Compare field("x") == 1']),
        (lambda: where_of({"a": {"$gt": None}}), ['where["a"]["$gt"]', "not None"]),
        (lambda: where_of({"a": {"$exists": 1}}), ['where["a"]["$exists"]', "true or false", "not int 1"]),
        (lambda: where_of({"$label": {"$exists": True}}), ['where["$label"]["$exists"]', "$startswith"]),
        (lambda: where_of({"$key": {"$contains": "a"}}), ['where["$key"]["$contains"]', "$startswith"]),
        (lambda: where_of({"$key": 1.5}), ['where["$key"]', "not float 1.5"]),
        (lambda: where_of({1: 2}), ["a name in where", "not int 1"]),
        (lambda: where_of({None: 2}), ["a name in where", "not NoneType None"]),
        (lambda: where_of({"a..b": 2}), ["a name in where", '"a..b"']),
        (lambda: where_of({"a": 1j}, place="filter"), ['filter["a"]', "not complex 1j"]),
        (lambda: where_of(CYCLE), ['where["$or"][0]["$or"]', "100 levels", "contains itself"]),
        (lambda: where_of(nested(100)), ["100 levels"]),
        (lambda: where_of(nested(10_000)), ["100 levels"]),
    ],
)
def test_what_is_refused_is_named(make: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(InvalidFilterError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
    assert isinstance(caught.value, SimstoreError) and isinstance(caught.value, ValueError)


def test_a_condition_nests_a_hundred_levels_at_most() -> None:
    where = X == 1
    for level in range(2, 101):
        where = ~where
        assert where.depth == level
    for deeper in (lambda: ~where, lambda: where & (X == 2), lambda: (X == 2) | where, lambda: And((where,))):
        with pytest.raises(InvalidFilterError, match="may nest 100 levels, and this one has 101"):
            deeper()
    assert where_of(nested(99)).depth == 100
    chain = X == 0
    for value in range(1, 1000):
        chain = chain | (X == value)
    assert chain.depth == 2 and len(chain.parts) == 1000  # type: ignore[attr-defined]


def test_fields_cannot_stand_in_sets() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        set([X])  # noqa: C405 - ruff sees no use in {X}
