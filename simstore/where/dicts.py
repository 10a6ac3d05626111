"""Conditions written as plain dicts."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from simstore.errors import InvalidFilterError
from simstore.where.builders import KeyOrLabel, compare, ops_of
from simstore.where.expressions import MAX_DEPTH, Not, Op, Subject, Where, all_of, any_of
from simstore.where.paths import path_of, shown

__all__ = ["where_of"]

_OPS: Final[dict[str, Op]] = {
    "$eq": "==",
    "$ne": "!=",
    "$lt": "<",
    "$lte": "<=",
    "$gt": ">",
    "$gte": ">=",
    "$in": "in",
    "$startswith": "startswith",
    "$contains": "contains",
    "$exists": "exists",
}
_JOINS: Final[dict[str, Callable[[tuple[Where, ...]], Where]]] = {"$and": all_of, "$or": any_of}
_SUBJECTS: Final = {"$key": Subject("key"), "$label": Subject("label")}
_TOP: Final = (*_JOINS, "$not", *_SUBJECTS)
_HINTS: Final = {
    "$nin": 'write {"$not": {"a": {"$in": […]}}}, or with {"a": {"$exists": true}} beside it',
    "$nor": 'write {"$not": {"$or": […]}}',
    "$regex": 'there are no patterns: write {"a": {"$startswith": "…"}} or {"a": {"$contains": "…"}}',
    "$all": 'write {"$and": [{"a": {"$contains": 1}}, {"a": {"$contains": 2}}]}',
    "$not": 'write {"$not": {"a": {…}}}, outside of the field',
    "$and": 'several operators in one dict are joined by and; or write {"$and": [{"a": {…}}, {"a": {…}}]}',
    "$or": 'write {"$or": [{"a": {…}}, {"a": {…}}]}, outside of the field',
    "$between": 'write {"a": {"$gte": 1, "$lte": 2}}',
}


def where_of(given: Any, *, place: str = "where") -> Where:
    """The condition that an expression is, or a dict stands for; ``{}`` holds for every item.

    Args:
        given: An expression, or a dict of paths (a str with dots, or a tuple that is not split), ``$key`` and ``$label``, each
            with a value or a dict of operators, and ``$and``, ``$or`` (with a list of dicts) and ``$not`` (with a dict).
            Several entries are joined by and.
        place: What errors call it.

    Raises:
        InvalidFilterError: It cannot be understood; the message names the place in it.

    >>> where_of({"year": {"$gte": 2020, "$lt": 2024}, "$label": "cat"})
    (field("year") >= 2020) & (field("year") < 2024) & (label == "cat")
    """
    return _where(given, place, 1)


def _where(given: Any, place: str, level: int) -> Where:
    if isinstance(given, Where):
        return given
    if level > MAX_DEPTH:
        raise InvalidFilterError(f"{place[:60]}… nests more than {MAX_DEPTH} levels, or contains itself: use fewer levels")
    if not isinstance(given, Mapping):
        hint = f"; {given!r} by itself is no condition: compare it" if isinstance(given, KeyOrLabel) else ""
        raise InvalidFilterError(
            f'{place} takes a condition, as field("year") >= 2020 or {{"year": {{"$gte": 2020}}}}, not '
            f"{type(given).__name__} {shown(given)}{hint}"
        )
    return all_of(tuple(part for name, value in given.items() for part in _entry(name, value, place, level)))


def _entry(name: Any, value: Any, outer: str, level: int) -> tuple[Where, ...]:
    """The conditions, joined by and, of one entry of a dict."""
    place = f"{outer}[{shown(name)}]"
    if not isinstance(name, str) or not name.startswith("$"):
        return _tests(Subject("field", path_of(name, place=f"a name in {outer}")), value, place)
    if name in _SUBJECTS:
        return _tests(_SUBJECTS[name], value, place)
    if name == "$not":
        return (Not(_where(value, place, level + 1)),)
    if name in _JOINS:
        if not isinstance(value, (list, tuple)) or not value:
            got = f"{type(value).__name__} {shown(value)}"
            raise InvalidFilterError(f"{place} takes a list of one or more conditions, not {got}")
        return (_JOINS[name](tuple(_where(part, f"{place}[{i}]", level + 1) for i, part in enumerate(value))),)
    if name in _OPS:
        hint = f'a path stands outside of an operator, as {{"year": {{"{name}": …}}}}'
    else:
        hint = _HINTS.get(name, 'a name that starts with "$" is written ("$name",), a tuple')
    raise InvalidFilterError(f"{place} is unknown: {outer} has paths, {', '.join(_TOP)}; {hint}")


def _tests(subject: Subject, value: Any, place: str) -> tuple[Where, ...]:
    """The comparisons of one subject, from a value that it equals or a dict of operators."""
    if not isinstance(value, Mapping):
        return (compare(subject, "==", value, place=place),)
    if not value:
        raise InvalidFilterError(f'{place} is an empty dict: write a value, or operators as {{"$gte": 1}}')
    return tuple(_test(subject, name, operand, place) for name, operand in value.items())


def _test(subject: Subject, name: Any, operand: Any, outer: str) -> Where:
    place = f"{outer}[{shown(name)}]"
    op = _OPS.get(name) if isinstance(name, str) else None
    if op is None or op not in ops_of(subject):
        allowed = ", ".join(dollar for dollar, known in _OPS.items() if known in ops_of(subject))
        if isinstance(name, str) and name.startswith("$"):
            hint = f"; {_HINTS[name]}" if name in _HINTS else ""
        else:
            hint = '; a field of a nested dict is written "a.b", or ("a", "b")'
        raise InvalidFilterError(f"{place} is unknown: {outer} has the operators {allowed}{hint}")
    if op != "exists":
        return compare(subject, op, operand, place=place)
    if not isinstance(operand, bool):
        raise InvalidFilterError(f"{place} takes true or false, not {type(operand).__name__} {shown(operand)}")
    there = compare(subject, op)
    return there if operand else Not(there)
