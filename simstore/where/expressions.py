"""Conditions as data: a tree of comparisons under and, or, not."""

from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from simstore.errors import InvalidFilterError
from simstore.where.operands import Operand, Operands
from simstore.where.paths import Path, path_text, shown

__all__ = ["MAX_DEPTH", "And", "Compare", "Not", "Op", "Or", "Subject", "Where", "all_of", "any_of", "subjects"]

MAX_DEPTH = 100

Op = Literal["==", "!=", "<", "<=", ">", ">=", "in", "startswith", "contains", "exists"]


class Where:
    """A condition on an item. ``&``, ``|`` and ``~`` combine; ``depth`` is how many levels it nests."""

    __slots__ = ()

    depth: int

    def __and__(self, other: Any) -> "Where":
        return all_of((self, _condition(other)))

    def __or__(self, other: Any) -> "Where":
        return any_of((self, _condition(other)))

    def __rand__(self, other: Any) -> NoReturn:
        raise _no_condition(other)

    __ror__ = __rand__

    def __invert__(self) -> "Where":
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise InvalidFilterError(
            f"{shown(self)} is a condition and has no truth value: combine conditions with & | ~ in place of and, or, not, "
            "each comparison in parentheses; a chained comparison 1 < x < 2 does not work: write (1 < x) & (x < 2); "
            "and .is_in([...]) is what in would be"
        )


def _condition(given: Any) -> Where:
    if isinstance(given, Where):
        return given
    raise _no_condition(given)


def _no_condition(given: Any) -> InvalidFilterError:
    return InvalidFilterError(
        f"& and | combine conditions, not {type(given).__name__} {shown(given)}: & | ~ bind tighter than comparisons, so put "
        'each comparison in parentheses, as (field("a") == 1) & (field("b") == 2)'
    )


def _depth_over(parts: tuple[Where, ...]) -> int:
    depth = 1 + max((part.depth for part in parts), default=0)
    if depth > MAX_DEPTH:
        raise InvalidFilterError(
            f"a condition may nest {MAX_DEPTH} levels, and this one has {depth}: a chain of & or of | is one level, so join "
            "the conditions without the levels between"
        )
    return depth


@dataclass(frozen=True, slots=True)
class Subject:
    """What of an item is compared: a field of its data, with the path to it, its label or its key."""

    kind: Literal["field", "label", "key"]
    path: Path = ()

    def __repr__(self) -> str:
        return f"field({path_text(self.path)})" if self.kind == "field" else self.kind


@dataclass(frozen=True, slots=True)
class Compare(Where):
    """A leaf. ``operand`` is an Operand; Operands if ``op`` is "in"; None if it is "exists"."""

    subject: Subject
    op: Op
    operand: Operand | Operands | None = None

    @property
    def depth(self) -> int:  # type: ignore[override]
        """One level."""
        return 1

    def __repr__(self) -> str:
        if self.op == "exists":
            return f"{self.subject!r}.exists()"
        if self.op[0].isalpha():
            return f"{self.subject!r}.{'is_in' if self.op == 'in' else self.op}({self.operand!r})"
        return f"{self.subject!r} {self.op} {self.operand!r}"


@dataclass(frozen=True, slots=True)
class And(Where):
    """Every part holds; an And among them is taken apart. ``And(())`` holds for every item."""

    parts: tuple[Where, ...]
    depth: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = _flat(And, self.parts)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "depth", _depth_over(parts))

    def __repr__(self) -> str:
        return _joined(self.parts, " & ") if len(self.parts) > 1 else f"And({self.parts!r})"


@dataclass(frozen=True, slots=True)
class Or(Where):
    """Some part holds; an Or among them is taken apart. ``Or(())`` holds for no item."""

    parts: tuple[Where, ...]
    depth: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = _flat(Or, self.parts)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "depth", _depth_over(parts))

    def __repr__(self) -> str:
        return _joined(self.parts, " | ") if len(self.parts) > 1 else f"Or({self.parts!r})"


@dataclass(frozen=True, slots=True)
class Not(Where):
    """The part does not hold."""

    part: Where
    depth: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", _depth_over((self.part,)))

    def __repr__(self) -> str:
        return f"~{_wrapped(self.part)}"


def _flat(join: type[And] | type[Or], parts: tuple[Where, ...]) -> tuple[Where, ...]:
    return tuple(inner for part in parts for inner in (part.parts if isinstance(part, join) else (part,)))


def _joined(parts: tuple[Where, ...], operator: str) -> str:
    return operator.join(map(_wrapped, parts))


def _wrapped(part: Where) -> str:
    """The part's repr, in parentheses unless it is a call or a name and so binds tighter than & | ~."""
    is_call = part.op[0].isalpha() if isinstance(part, Compare) else isinstance(part, Not) or len(_parts(part)) < 2
    return repr(part) if is_call else f"({part!r})"


def _parts(where: Where) -> tuple[Where, ...]:
    if isinstance(where, Not):
        return (where.part,)
    return where.parts if isinstance(where, (And, Or)) else ()


def all_of(parts: tuple[Where, ...]) -> Where:
    """Every one of the parts: an And, or the only part left when those are taken apart."""
    parts = _flat(And, parts)
    return parts[0] if len(parts) == 1 else And(parts)


def any_of(parts: tuple[Where, ...]) -> Where:
    """Some one of the parts: an Or, or the only part left when those are taken apart."""
    parts = _flat(Or, parts)
    return parts[0] if len(parts) == 1 else Or(parts)


def subjects(where: Where) -> frozenset[Subject]:
    """Everything that a condition compares."""
    if isinstance(where, Compare):
        return frozenset((where.subject,))
    return frozenset[Subject]().union(*map(subjects, _parts(where)))
