"""simstore.where.postings: terms sort as values do, and spans find what matches, no more than they say and no less."""

# ruff: noqa: E711, SIM300

import datetime
from datetime import UTC
from itertools import pairwise
from typing import Any

import naive_where
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_where import LONG, NOON, as_expression, leaves, operands, values

from simstore import field, key, label
from simstore.where import Compare, Where
from simstore.where.kinds import MISSING
from simstore.where.postings import MAX_TERM_BYTES, Span, spans_of, successor, terms_of

X = field("x")
QUICK = settings(deadline=None, derandomize=True, database=None)


def term_of(value: Any) -> bytes:
    (term,) = terms_of(value)
    return term


def spans(where: Where) -> list[Span]:
    assert isinstance(where, Compare)
    found = spans_of(where)
    assert found is not None
    return found


# -- by hand -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "terms"),
    [
        (MISSING, []),
        (None, ["02"]),
        (False, ["03 00"]),
        (True, ["03 01"]),
        (0, ["04 8000000000000000 8000"]),
        (-0.0, ["04 8000000000000000 8000"]),
        (1, ["04 bff0000000000000 8000"]),
        (np.float32(1), ["04 bff0000000000000 8000"]),
        (-1.0, ["04 400fffffffffffff 8000"]),
        (float("inf"), ["04 fff0000000000000 8000"]),
        (2**53 + 1, ["04 c340000000000000 8001"]),
        (2**64 - 1, ["04 c3f0000000000000 7fff"]),
        (10**400, ["04 ffefffffffffffff ffff ff"]),
        (-(10**400), ["04 0010000000000000 0000 ff"]),
        (float("nan"), ["01"]),
        ("", ["05"]),
        ("aé", ["05 61 c3a9"]),
        (b"\x00\xff", ["06 00ff"]),
        (datetime.datetime(1970, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))), ["07 8000000000000000"]),
        (datetime.datetime(1970, 1, 1, 0, 0, 0, 1), ["08 8000000000000001"]),
        (datetime.date(1, 1, 2), ["09 00000002"]),
        ({"a": 1}, ["01"]),
        ([], ["01"]),
        ([[1], {}, float("nan")], ["01"]),
        (["b", "a", "b", None, True], ["01", "42", "43 01", "45 61", "45 62"]),
        ([1, 1.0, "1"], ["01", "44 bff0000000000000 8000", "45 31"]),
        (np.array([1, 0]), ["01", "44 8000000000000000 8000", "44 bff0000000000000 8000"]),
        (np.zeros((2, 2)), ["01"]),
    ],
    ids=repr,
)
def test_terms(value: Any, terms: list[str]) -> None:
    assert [term.hex() for term in terms_of(value)] == [term.replace(" ", "") for term in terms]


def test_long_terms_are_cut() -> None:
    assert term_of(LONG) == b"\x05" + LONG.encode()
    assert term_of(LONG + "a") == term_of(LONG + "b") == b"\x05" + LONG.encode() + b"\xff"
    assert term_of(b"x" * 10_000) == b"\x06" + b"x" * 478 + b"\xff"
    assert terms_of([LONG + "a", LONG + "b"]) == [b"\x01", b"\x45" + LONG.encode() + b"\xff"]


ONE = "04bff00000000000008000"
A_TERM = "0561"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (X == 1, [(ONE, ONE + "00", True)]),
        (X != 1, [("04", ONE, True), (ONE + "00", "05", True)]),
        (X < 1, [("04", ONE, True)]),
        (X <= 1, [("04", ONE, True), (ONE, ONE + "00", True)]),
        (X > 1, [(ONE + "00", "05", True)]),
        (X >= 1, [(ONE, ONE + "00", True), (ONE + "00", "05", True)]),
        (X < "", []),
        (X == None, [("02", "0200", True)]),
        (X != None, [("01", "02", True), ("03", "40", True)]),
        (X.exists(), [("01", "40", True)]),
        (X.is_in([]), []),
        (X.is_in(["a", 1, None]), [("02", "0200", True), (ONE, ONE + "00", True), (A_TERM, A_TERM + "00", True)]),
        (X.startswith("a"), [("0561", "0562", True)]),
        (X.startswith(""), [("05", "06", True)]),
        (X.startswith(b"\xff\xff"), [("06ffff", "07", True)]),
        (X.contains("a"), [("05", "06", False), ("4561", "456100", True)]),
        (X.contains(""), [("05", "06", True), ("45", "4500", True)]),
        (X.contains(b"a"), [("06", "07", False), ("4661", "466100", True)]),
        (X.contains(True), [("4301", "430100", True)]),
        (X.contains(None), [("42", "4200", True)]),
    ],
    ids=str,
)
def test_spans(where: Where, expected: list[tuple[str, str, bool]]) -> None:
    assert [(span.start.hex(), span.stop.hex(), span.is_sure) for span in spans(where)] == expected


def test_spans_of_a_cut_operand_are_to_be_looked_at() -> None:
    term = term_of(LONG + "a")
    around = Span(term, term + b"\x00", is_sure=False)
    below, above = Span(b"\x05", term, is_sure=True), Span(term + b"\x00", b"\x06", is_sure=True)
    long = LONG + "a"
    assert spans(X == long) == spans(X.is_in([long, LONG + "b"])) == spans(X.startswith(long)) == [around]
    assert spans(X < long) == spans(X <= long) == [below, around]
    assert spans(X > long) == spans(X >= long) == [around, above]
    assert spans(X != long) == [below, around, above]
    assert spans(X.startswith(LONG)) == [Span(term_of(LONG), successor(term_of(LONG)), is_sure=True)]


def test_points() -> None:
    assert [span.is_point for span in spans(X <= 1)] == [False, True]
    assert [span.is_point for span in spans(X.contains("a"))] == [False, True]
    assert spans(X == (LONG + "a"))[0].is_point


def test_terms_cannot_tell_of_keys_and_labels() -> None:
    for where in (key == "a", label.is_in([1]), label == None):
        assert isinstance(where, Compare) and spans_of(where) is None


def test_many_values() -> None:
    found = spans(X.is_in([f"k{i}" for i in range(100_000)]))
    assert len(found) == 100_000 and all(span.is_point and span.is_sure for span in found)


# -- by chance -----------------------------------------------------------------------------------------------------------


@given(st.lists(operands, min_size=2, max_size=10))
@settings(QUICK, max_examples=600)
def test_terms_sort_as_values_do(several: list[Any]) -> None:
    for one in several:
        for other in several:
            if naive_where.holds(one, "$lt", other) and other is not None:
                assert term_of(one) <= term_of(other)
                assert term_of(one) < term_of(other) or is_long(one)
            assert (term_of(one) == term_of(other)) == naive_where.equal(one, other) or (is_long(one) and is_long(other))


def is_long(operand: Any) -> bool:
    """Whether its term is inexact."""
    if isinstance(operand, str):
        return len(operand.encode("utf-8", "surrogatepass")) > 478
    if isinstance(operand, bytes):
        return len(operand) > 478
    if not isinstance(operand, int) or abs(operand) <= 2**64:
        return False
    try:
        return abs(operand - int(float(operand))) > 0x7FFE
    except OverflowError:
        return True


@given(leaves(st.just(()), operands), st.lists(st.one_of(values, st.just(MISSING)), min_size=1, max_size=4))
@settings(QUICK, max_examples=3000)
def test_spans_find_what_matches(condition: Any, several: list[Any]) -> None:
    _, op, operand = condition
    where = as_expression((("x",), op, True if op == "$exists" else operand))
    found = spans(where)
    for before, after in pairwise(found):
        assert before.stop <= after.start
    assert all(span.start < span.stop for span in found)
    if op != "$contains" and not any(map(is_long, operand if op == "$in" else [operand])):
        assert all(span.is_sure for span in found)
    for value in several:
        terms = terms_of(value)
        assert terms == sorted(set(terms)) and all(len(term) <= MAX_TERM_BYTES for term in terms)
        assert len([term for term in terms if term < b"\x40"]) == (value is not MISSING)
        data = {} if value is MISSING else {"x": value}
        does = naive_where.matches((("x",), op, True if op == "$exists" else operand), "k", None, data)
        within = [span.is_sure for span in found for term in terms if span.start <= term < span.stop]
        assert does or not any(within), "sure, and it does not match"
        assert within or not does, "it matches, and no span has it"
        assert len(within) <= 1, "listed twice"


def test_noon_is_one_moment_everywhere() -> None:
    utc = NOON.replace(tzinfo=UTC)
    assert term_of(utc) == term_of(utc.astimezone(datetime.timezone(datetime.timedelta(hours=5)))) != term_of(NOON)
