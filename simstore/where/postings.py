"""How the values of an indexed field become terms, byte strings that sort as the values do, and what a comparison looks up.

A term is a tag and a body. An item is listed under the terms of its value at the field's path:

====  ======================  =========================================================================================
tag   value                   body
====  ======================  =========================================================================================
01    present, but no scalar  nothing: a list, a dict, NaN, …
02    None                    nothing
03    bool                    00 or 01
04    number                  the nearest float64, big-endian, the sign bit flipped (a negative's: every bit); and what an
                              int exceeds it by + 8000, 2 bytes; 0000 and FFFF and a byte FF are below and above that
05    str                     UTF-8 (a lone surrogate as if it were a character)
06    bytes                   the bytes
07    datetime with zone      microseconds from 1970 UTC + 2**63, 8 bytes
08    datetime without        the same, as if it were UTC
09    date                    days, 1 being the first of January of the year 1, 4 bytes
4x    list element            the body of tag x; one term for each distinct scalar
====  ======================  =========================================================================================

So an item whose field is there has one term below 40, and a list has more, from 40 on. A body of more than 478 bytes is cut to
478 and a byte FF: such a term of 480 bytes, and that of an int which no float64 is near (none of 64 bits), is *inexact*: other
values may have it, too. A term may be the beginning of another.

Terms are made of data as it is read back: what pack() turns into something else (a bytearray, a named tuple) is none of these.
"""

import datetime
import struct
import sys
from typing import Any, Final, NamedTuple

from simstore.where.expressions import Compare, Op
from simstore.where.kinds import MISSING, Kind, elements_of, kinded
from simstore.where.operands import Operand, Operands

__all__ = ["MAX_TERM_BYTES", "Span", "ordered_spans", "spans_of", "successor", "terms_of"]

MAX_TERM_BYTES = 480

_MAX_BODY = MAX_TERM_BYTES - 2
_CUT = b"\xff"
_PRESENT: Final = b"\x01"
_TAGS: Final = {
    Kind.NONE: 2,
    Kind.BOOL: 3,
    Kind.NUMBER: 4,
    Kind.STR: 5,
    Kind.BYTES: 6,
    Kind.MOMENT: 7,
    Kind.NAIVE: 8,
    Kind.DATE: 9,
}
_ELEMENT: Final = 0x40
_ELEMENTS: Final = b"\x40"
_SIGN: Final = 1 << 63
_EXCESS: Final = 1 << 15
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_EPOCHS: Final = {
    Kind.MOMENT: datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
    Kind.NAIVE: datetime.datetime(1970, 1, 1),
}


class Span(NamedTuple):
    """The terms from start up to stop, without it; the items listed under them match for sure, or must be looked at.

    A tuple, since is_in() makes one for each of its values.
    """

    start: bytes
    stop: bytes
    is_sure: bool

    @property
    def is_point(self) -> bool:
        """Whether ``start`` is the only term in it."""
        return len(self.stop) == len(self.start) + 1 and self.stop == self.start + b"\x00"


def terms_of(value: Any) -> list[bytes]:
    """The terms under which an item with that value at the path is listed, sorted; none of MISSING. It never raises."""
    if value is MISSING:
        return []
    elements = elements_of(value)
    if elements is None:
        kind, plain = kinded(value)
        return [_term(kind, plain)[0]] if _is_scalar(kind, plain) else [_PRESENT]
    pairs = (kinded(element) for element in elements)
    return [_PRESENT, *sorted({_term(kind, plain, _ELEMENT)[0] for kind, plain in pairs if _is_scalar(kind, plain)})]


def spans_of(leaf: Compare) -> list[Span] | None:
    """Where the items that match are listed: sorted spans without a term in common; an item in none of them does not match.

    Returns:
        The spans, which may be none at all; None if it is no comparison of a field, so that these terms cannot tell.
    """
    if leaf.subject.kind != "field":
        return None
    operand = leaf.operand
    if operand is None:
        return [Span(_PRESENT, _ELEMENTS, is_sure=True)]
    if isinstance(operand, Operands):
        terms = dict(_term(kind, value) for kind, values in operand.by_kind for value in values)
        return [_point(term, is_sure=terms[term]) for term in sorted(terms)]
    if leaf.op == "contains":
        return _spans_containing(operand)
    if leaf.op == "!=" and operand.kind is Kind.NONE:
        none = bytes((_TAGS[Kind.NONE],))
        return [Span(_PRESENT, none, is_sure=True), Span(successor(none), _ELEMENTS, is_sure=True)]
    term, is_exact = _term(operand.kind, operand.value)
    if leaf.op == "startswith":
        return [Span(term, successor(term), is_sure=True) if is_exact else _point(term, is_sure=False)]
    tag = _TAGS[operand.kind]
    return ordered_spans(leaf.op, term, is_exact=is_exact, low=bytes((tag,)), high=bytes((tag + 1,)))


def ordered_spans(op: Op, term: bytes, *, is_exact: bool, low: bytes, high: bytes) -> list[Span]:
    """The spans of == != < <= > >= among the terms [low, high), which sort as their values do.

    Args:
        op: The comparison.
        term: The operand's term.
        is_exact: Whether no other value has the operand's term.
        low: The lowest term of the operand's kind, or a bound below.
        high: The bound above.
    """
    above = term + b"\x00"
    spans = [Span(low, term, is_sure=True)] if op in ("<", "<=", "!=") else []
    if not is_exact or op in ("==", "<=", ">="):
        spans.append(Span(term, above, is_sure=is_exact))
    if op in (">", ">=", "!="):
        spans.append(Span(above, high, is_sure=True))
    return [span for span in spans if span.start < span.stop]


def successor(prefix: bytes) -> bytes:
    """The lowest byte string above all that begin with the prefix (which has a byte other than FF)."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,))


def _point(term: bytes, *, is_sure: bool) -> Span:
    return Span(term, term + b"\x00", is_sure)


def _spans_containing(operand: Operand) -> list[Span]:
    term, is_exact = _term(operand.kind, operand.value, _ELEMENT)
    among_elements = _point(term, is_sure=is_exact)
    if operand.kind not in (Kind.STR, Kind.BYTES):
        return [among_elements]
    tag = _TAGS[operand.kind]
    return [Span(bytes((tag,)), bytes((tag + 1,)), is_sure=not operand.value), among_elements]


# -- one value ----------------------------------------------------------------------------------------------------------


def _is_scalar(kind: Kind, plain: Any) -> bool:
    return kind is not Kind.OTHER and plain == plain  # NaN equals nothing, so nobody looks it up


def _term(kind: Kind, plain: Any, first_tag: int = 0) -> tuple[bytes, bool]:
    """The term of a scalar, and whether it is exact."""
    tag = bytes((first_tag + _TAGS[kind],))
    if kind is Kind.NUMBER:
        body, is_exact = _number_body(plain)
        return tag + body, is_exact
    if kind is Kind.STR:
        plain = plain.encode("utf-8", "surrogatepass")
    elif kind is not Kind.BYTES:
        return tag + _fixed_body(kind, plain), True
    return (tag + plain, True) if len(plain) <= _MAX_BODY else (tag + plain[:_MAX_BODY] + _CUT, False)


def _fixed_body(kind: Kind, plain: Any) -> bytes:
    if kind is Kind.NONE:
        return b""
    if kind is Kind.BOOL:
        return bytes((plain,))
    if kind is Kind.DATE:
        return struct.pack(">I", plain.toordinal())
    return struct.pack(">Q", (plain - _EPOCHS[kind]) // _MICROSECOND + _SIGN)


def _number_body(plain: int | float) -> tuple[bytes, bool]:
    try:
        nearest = float(plain) + 0.0  # there is one zero, not two
    except OverflowError:
        nearest = sys.float_info.max if plain > 0 else -sys.float_info.max
    excess = _EXCESS + (plain - int(nearest) if isinstance(plain, int) else 0)
    (bits,) = struct.unpack(">Q", struct.pack(">d", nearest))
    ordered = bits ^ (2 * _SIGN - 1 if bits & _SIGN else _SIGN)
    if 0 < excess < 2 * _EXCESS - 1:
        return struct.pack(">QH", ordered, excess), True
    return struct.pack(">QH", ordered, 0 if excess <= 0 else 2 * _EXCESS - 1) + _CUT, False
