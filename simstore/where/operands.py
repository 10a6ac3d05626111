"""The values that a condition compares with."""

import datetime
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain
from typing import Any

import numpy as np

from simstore.errors import InvalidFilterError
from simstore.where.kinds import PLAIN_TYPES, Kind, kinded
from simstore.where.paths import quoted, shown

__all__ = ["Domain", "Operand", "Operands", "Scalar", "operand_of", "operands_of"]

Scalar = None | bool | int | float | str | bytes | datetime.date
"""What an operand holds; a datetime is a date, too."""

_N_SHOWN = 20
_MAX_DECIMAL_BITS = 2000
_INFINITE = (float("inf"), float("-inf"))
_NAMES = {Kind.NUMBER: ("int", "float"), Kind.MOMENT: ("datetime",), Kind.NAIVE: ("datetime",)}


@dataclass(frozen=True, slots=True)
class Operand:
    """A plain value with its kind: 1 and 1.0 are equal, 1, True and "1" are not. A moment has a fixed offset from UTC."""

    kind: Kind
    value: Scalar

    def __repr__(self) -> str:
        if isinstance(self.value, (str, bytes)):
            return quoted(self.value)
        if type(self.value) is int and self.value.bit_length() > _MAX_DECIMAL_BITS:
            return hex(self.value)  # Python writes no decimals that long
        return f'float("{self.value}")' if self.value in _INFINITE else repr(self.value)


@dataclass(frozen=True, slots=True)
class Operands:
    """The distinct values of is_in(), kind by kind; iterated, they come in no order."""

    by_kind: tuple[tuple[Kind, frozenset[Any]], ...]

    def __len__(self) -> int:
        return sum(len(values) for _, values in self.by_kind)

    def __iter__(self) -> Iterator[Scalar]:
        return chain.from_iterable(values for _, values in self.by_kind)

    def __repr__(self) -> str:
        first = [
            repr(Operand(kind, value))
            for kind, values in self.by_kind
            for value in (nsmallest(_N_SHOWN, values) if len(values) > 1 else values)
        ][:_N_SHOWN]
        rest = len(self) - len(first)
        return f"[{', '.join(first)}{f', … {rest} more' if rest else ''}]"


@dataclass(frozen=True, slots=True)
class Domain:
    """Which operands may stand somewhere."""

    kinds: tuple[Kind, ...] = tuple(kind for kind in Kind if kind is not Kind.OTHER)
    takes_floats: bool = True

    def has(self, kind: Kind, value: Any) -> bool:
        """Whether it is one of them. NaN never is."""
        return kind in self.kinds and value == value and (self.takes_floats or not isinstance(value, float))

    def without(self, *kinds: Kind) -> "Domain":
        """The domain of the other kinds."""
        return Domain(tuple(kind for kind in self.kinds if kind not in kinds), self.takes_floats)

    def __str__(self) -> str:
        names = [name for kind in self.kinds if kind is not Kind.NONE for name in _NAMES.get(kind, (kind.value,))]
        names = [name for name in dict.fromkeys(names) if self.takes_floats or name != "float"]
        names += ["None"] * (Kind.NONE in self.kinds)
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def operand_of(given: Any, domain: Domain, *, place: str) -> Operand:
    """The operand of what was given.

    Raises:
        InvalidFilterError: It is none that may stand there.
    """
    kind, value = kinded(given)
    if domain.has(kind, value):
        return Operand(kind, value)
    raise InvalidFilterError(f"{place} takes {domain}, not {_what(given, value)}")


def _what(given: Any, value: Any) -> str:
    if value != value:
        return "NaN, which equals nothing"
    if given is None:
        return "None"
    text = f"{type(given).__name__} {shown(given)}"
    if isinstance(given, (list, tuple, AbstractSet)) or (isinstance(given, np.ndarray) and given.ndim):
        return f"{text}; for one of several values write is_in, or $in in a dict"
    return text


def operands_of(given: Any, domain: Domain, *, place: str) -> Operands:
    """The operands of a list, tuple, set, range or 1-d array.

    Raises:
        InvalidFilterError: It is none of these, or holds what may not stand there.
    """
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = given.tolist() if given.dtype.kind in "biufUS" else list(given)
    if not isinstance(given, (list, tuple, range, AbstractSet)):
        raise InvalidFilterError(
            f"{place} takes a list, a tuple, a set or a 1-d array of values, not {type(given).__name__} {shown(given)}"
        )
    by_kind: dict[Kind, set[Any]] = {}
    for value in given:
        kind = PLAIN_TYPES.get(type(value))
        if kind is None or not domain.has(kind, value):
            operand = operand_of(value, domain, place=f"each value of {place}")
            kind, value = operand.kind, operand.value
        by_kind.setdefault(kind, set()).add(value)
    return Operands(tuple((kind, frozenset(by_kind[kind])) for kind in Kind if kind in by_kind))
