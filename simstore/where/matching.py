"""How a condition is tried on an item."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from simstore.types import Key, Label
from simstore.where.expressions import And, Compare, Not, Or, Subject, Where, subjects
from simstore.where.kinds import MISSING, PLAIN_TYPES, Kind, elements_of, kinded
from simstore.where.operands import Operand, Operands
from simstore.where.paths import value_at

__all__ = ["Matcher", "compiled", "value_test"]

Matches = Callable[[Key, Label, Any], bool]
Test = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition made ready to be tried.

    Attributes:
        needs_data: Whether it looks at an item's data; if not, ``matches`` takes anything for it.
        matches: Called as matches(key, label, data); it never raises, and one may be shared between threads.
    """

    needs_data: bool
    matches: Matches


def compiled(where: Where) -> Matcher:
    """The matcher of a condition."""
    return Matcher(any(subject.kind == "field" for subject in subjects(where)), _matches(where))


def _matches(where: Where) -> Matches:
    if isinstance(where, Compare):
        return _leaf(where.subject, value_test(where))
    if isinstance(where, Not):
        inner = _matches(where.part)
        return lambda key, label, data: not inner(key, label, data)
    if not isinstance(where, (And, Or)):
        raise TypeError(f"no condition: {where!r}")
    parts = tuple(map(_matches, where.parts))
    if len(parts) == 2:
        return _both(*parts) if isinstance(where, And) else _either(*parts)
    return _every(parts) if isinstance(where, And) else _some(parts)


def _both(first: Matches, second: Matches) -> Matches:
    return lambda key, label, data: first(key, label, data) and second(key, label, data)


def _either(first: Matches, second: Matches) -> Matches:
    return lambda key, label, data: first(key, label, data) or second(key, label, data)


def _every(parts: tuple[Matches, ...]) -> Matches:
    def matches(key: Key, label: Label, data: Any) -> bool:
        for part in parts:  # noqa: SIM110 - all() and a generator take twice as long
            if not part(key, label, data):
                return False
        return True

    return matches


def _some(parts: tuple[Matches, ...]) -> Matches:
    def matches(key: Key, label: Label, data: Any) -> bool:
        for part in parts:  # noqa: SIM110 - any() and a generator take twice as long
            if part(key, label, data):
                return True
        return False

    return matches


def _leaf(subject: Subject, test: Test) -> Matches:
    path = subject.path
    if subject.kind == "key":
        return lambda key, label, data: test(key)
    if subject.kind == "label":
        return lambda key, label, data: test(label)
    if not path:
        return lambda key, label, data: test(data)
    if len(path) > 1:
        return lambda key, label, data: test(value_at(data, path))
    name = path[0]

    def matches(key: Key, label: Label, data: Any) -> bool:
        return test(data.get(name, MISSING) if type(data) is dict else value_at(data, path))

    return matches


# -- one comparison of one value ----------------------------------------------------------------------------------------


def value_test(leaf: Compare) -> Test:
    """The test of a value, or MISSING, of the leaf's subject."""
    if isinstance(leaf.operand, Operands):
        return _in_test(leaf.operand)
    if leaf.operand is None:
        return lambda value: value is not MISSING
    if leaf.op == "contains":
        return _contains_test(leaf.operand)
    if leaf.operand.kind is not Kind.NONE:
        return _kind_test(leaf.operand, _COMPARISONS[leaf.op])
    if leaf.op == "==":
        return lambda value: kinded(value)[0] is Kind.NONE
    return lambda value: value is not MISSING and kinded(value)[0] is not Kind.NONE


def _differs(value: Any, operand: Any) -> bool:
    return bool(value != operand and value == value)  # NaN is not itself


_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": _differs,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "startswith": lambda value, prefix: bool(value.startswith(prefix)),
}


def _kind_test(operand: Operand, holds: Callable[[Any, Any], bool]) -> Test:
    """A comparison that only a value of the operand's kind can pass."""
    wanted, other = operand.kind, operand.value
    as_they_are = [plain for plain, kind in PLAIN_TYPES.items() if kind is wanted]
    first, second = (as_they_are[0], as_they_are[-1]) if as_they_are else (None, None)  # two only of numbers

    def test(value: Any) -> bool:
        its_type = type(value)
        if its_type is first or its_type is second:
            return holds(value, other)
        kind, plain = kinded(value)
        return kind is wanted and holds(plain, other)

    return test


def _in_test(operands: Operands) -> Test:
    by_kind = dict(operands.by_kind)
    none: frozenset[Any] = frozenset()
    by_type = {plain: by_kind.get(kind, none) for plain, kind in PLAIN_TYPES.items()}

    def test(value: Any) -> bool:
        values = by_type.get(type(value))
        if values is not None:
            return value in values
        kind, plain = kinded(value)
        return kind in by_kind and plain in by_kind[kind]

    return test


def _contains_test(operand: Operand) -> Test:
    wanted, part = operand.kind, operand.value
    equals = value_test(Compare(Subject("field"), "==", operand))
    is_text = wanted is Kind.STR or wanted is Kind.BYTES

    def test(value: Any) -> bool:
        elements = elements_of(value)
        if elements is not None:
            return any(map(equals, elements))
        kind, plain = kinded(value)
        return is_text and kind is wanted and part in plain

    return test
