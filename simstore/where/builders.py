"""``field``, ``label`` and ``key``: how conditions are written in Python."""

from typing import Any, Final, NoReturn

from simstore.errors import InvalidFilterError
from simstore.where.expressions import Compare, Op, Subject
from simstore.where.kinds import Kind
from simstore.where.operands import Domain, operand_of, operands_of
from simstore.where.paths import path_of, shown

__all__ = ["Field", "KeyOrLabel", "compare", "field", "key", "label", "ops_of"]

_FIELD_DOMAIN = Domain()
_DOMAINS: Final = {
    "field": _FIELD_DOMAIN,
    "label": Domain((Kind.NONE, Kind.STR, Kind.NUMBER), takes_floats=False),
    "key": Domain((Kind.STR, Kind.NUMBER), takes_floats=False),
}
_TEXT_KINDS = (Kind.STR, Kind.BYTES)


def ops_of(subject: Subject) -> tuple[Op, ...]:
    """The comparisons that a subject has."""
    both: tuple[Op, ...] = ("==", "!=", "<", "<=", ">", ">=", "in", "startswith")
    return (*both, "contains", "exists") if subject.kind == "field" else both


def compare(subject: Subject, op: Op, given: Any = None, *, place: str | None = None) -> Compare:
    """A comparison with what was given.

    Raises:
        InvalidFilterError: The operand is none that the subject or the comparison takes; ``place`` is named.
    """
    place = place or f"{subject!r} {op}"
    domain = _DOMAINS[subject.kind]
    if op == "exists":
        return Compare(subject, op)
    if op == "in":
        return Compare(subject, op, operands_of(given, domain, place=place))
    if op == "startswith":
        domain = Domain(tuple(kind for kind in domain.kinds if kind in _TEXT_KINDS))
    elif op in ("<", "<=", ">", ">="):
        domain = domain.without(Kind.NONE)
    return Compare(subject, op, operand_of(given, domain, place=place))


class KeyOrLabel:
    """What can be compared, which gives a condition; by itself it is none."""

    __slots__ = ("_subject",)
    __array_ufunc__ = None  # numpy leaves `np.int64(3) < field("x")` to us

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def __repr__(self) -> str:
        return repr(self._subject)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: Any) -> Compare:  # type: ignore[override]
        return compare(self._subject, "==", other)

    def __ne__(self, other: Any) -> Compare:  # type: ignore[override]
        return compare(self._subject, "!=", other)

    def __lt__(self, other: Any) -> Compare:
        return compare(self._subject, "<", other)

    def __le__(self, other: Any) -> Compare:
        return compare(self._subject, "<=", other)

    def __gt__(self, other: Any) -> Compare:
        return compare(self._subject, ">", other)

    def __ge__(self, other: Any) -> Compare:
        return compare(self._subject, ">=", other)

    def is_in(self, values: Any) -> Compare:
        """It equals one of the values: a list, tuple, set or 1-d array, which may be empty (nothing is in it) or large."""
        return compare(self._subject, "in", values, place=f"{self!r}.is_in()")

    def startswith(self, prefix: Any) -> Compare:
        """It is a str that starts with the prefix; of a field also bytes that start with bytes."""
        return compare(self._subject, "startswith", prefix, place=f"{self!r}.startswith()")

    def _refuse(self, *_: Any) -> NoReturn:
        raise InvalidFilterError(
            f"{self!r} by itself is no condition: compare it, as {self!r} == 1, and put each comparison in parentheses where "
            "conditions are combined with & | ~"
        )

    __bool__ = __and__ = __rand__ = __or__ = __ror__ = __invert__ = _refuse

    def __contains__(self, value: Any) -> NoReturn:
        raise InvalidFilterError(f"{shown(value)} in {self!r} does not work: write field(…).contains({shown(value)})")


class Field(KeyOrLabel):
    """A field of the items' data, by the path to it."""

    __slots__ = ()

    def contains(self, value: Any) -> Compare:
        """It is a list with an element that equals the value, or a str with the str (bytes with the bytes) in it."""
        return compare(self._subject, "contains", value, place=f"{self!r}.contains()")

    def exists(self) -> Compare:
        """The path is there, even if the value is None."""
        return compare(self._subject, "exists")


def field(path: Any) -> Field:
    """A field of the items' data.

    Args:
        path: The names from the outermost dict inwards, with dots between them; or a tuple of them (str, or int for an int key
            or an index), not split; ``()`` for the data itself.

    Raises:
        InvalidFilterError: The path is none.

    >>> field("size.width") > 100
    field("size.width") > 100
    """
    return Field(Subject("field", path_of(path)))


label: Final = KeyOrLabel(Subject("label"))
"""The items' labels: ``label == "cat"``, ``label.is_in(["cat", None])``."""

key: Final = KeyOrLabel(Subject("key"))
"""The items' keys: ``key.startswith("img/")``, ``key.is_in(keys)``."""
