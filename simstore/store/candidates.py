"""What postings know of a filter: the rows that match for sure, and those that may."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.storage import Database, Schema, Transaction
from simstore.storage.encoding import encode_key
from simstore.storage.field_table import Postings, field_prefix
from simstore.where import And, Compare, Not, Operand, Operands, Or, Subject, Where
from simstore.where.kinds import Kind
from simstore.where.postings import Span, ordered_spans, spans_of, successor

__all__ = ["Candidates", "candidates"]

Words = NDArray[np.uint64]
_MANY_VALUED = ("contains", "exists")  # a list is listed under many terms
_LONGEST = 505  # bytes that LMDB looks up; no entry has more than 502


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Bitmaps over all rows, dead ones included.

    Attributes:
        sure: Rows that match.
        maybe: Rows that match or may match: their items are to be looked at.
        n_listed: How many rows the postings named; None where there are none for a part of the filter.
    """

    sure: Words
    maybe: Words
    n_listed: int | None


def candidates(txn: Transaction, database: Database, schema: Schema, n_rows: int, where: Where) -> Candidates:
    """What the postings of labels, keys and indexed fields say of a filter, for n_rows rows."""
    if isinstance(where, And):
        groups = _by_subject(where.parts)
        parts = [
            _leaves(txn, database, schema, n_rows, group)
            if isinstance(group, list)
            else candidates(txn, database, schema, n_rows, group)
            for group in groups
        ]
        return _all(parts, n_rows)
    if isinstance(where, Or):
        return _any([candidates(txn, database, schema, n_rows, part) for part in where.parts], n_rows)
    if isinstance(where, Not):
        inner = candidates(txn, database, schema, n_rows, where.part)
        n_listed = None if inner.n_listed is None else max(0, n_rows - inner.n_listed)
        return Candidates(_not(inner.maybe, n_rows), _not(inner.sure, n_rows), n_listed)
    if not isinstance(where, Compare):
        raise TypeError(f"no condition: {where!r}")
    return _leaves(txn, database, schema, n_rows, [where])


def _by_subject(parts: Sequence[Where]) -> list[list[Compare] | Where]:
    """The parts of an and; comparisons of one subject together, so that two bounds are one range."""
    groups: dict[Subject, list[Compare]] = {}
    others: list[Where] = []
    for part in parts:
        if isinstance(part, Compare) and part.op not in _MANY_VALUED:
            groups.setdefault(part.subject, []).append(part)
        else:
            others.append(part)
    return [*groups.values(), *others]


def _all(parts: Sequence[Candidates], n_rows: int) -> Candidates:
    sure, maybe = _ones(n_rows), _ones(n_rows)
    for part in parts:
        sure, maybe = sure & part.sure, maybe & part.maybe
    listed = [part.n_listed for part in parts if part.n_listed is not None]
    return Candidates(sure, maybe, min(listed) if listed else (None if parts else n_rows))


def _any(parts: Sequence[Candidates], n_rows: int) -> Candidates:
    sure, maybe = _zeros(n_rows), _zeros(n_rows)
    for part in parts:
        sure, maybe = sure | part.sure, maybe | part.maybe
    listed = [part.n_listed for part in parts if part.n_listed is not None]
    return Candidates(sure, maybe, min(n_rows, sum(listed)) if len(listed) == len(parts) else None)


def _leaves(txn: Transaction, database: Database, schema: Schema, n_rows: int, leaves: Sequence[Compare]) -> Candidates:
    """What the postings say of comparisons of one subject, all of which are to hold."""
    subject = leaves[0].subject
    which: Postings
    prefix = b""
    if subject.kind == "field":
        which = "fields"
        number = next((indexed.number for indexed in schema.indexed if indexed.path == subject.path), None)
        if number is None:
            return Candidates(_zeros(n_rows), _ones(n_rows), None)
        prefix = field_prefix(number)
        found = [spans_of(leaf) or [] for leaf in leaves]
    else:
        which = "labels" if subject.kind == "label" else "keys"
        if any(_is_about_none(leaf) for leaf in leaves):
            return _all([_without_label(txn, database, schema, n_rows, leaf) for leaf in leaves], n_rows)
        found = [_key_spans(leaf) for leaf in leaves]
    spans = reduce(_intersected, found)
    sure = _listed(txn, database, which, prefix, [span for span in spans if span.is_sure])
    unsure = _listed(txn, database, which, prefix, [span for span in spans if not span.is_sure])
    bits = _words(sure, n_rows)
    return Candidates(bits, bits | _words(unsure, n_rows), len(sure) + len(unsure))


def _intersected(a: Sequence[Span], b: Sequence[Span]) -> list[Span]:
    """The terms that are in a span of both; spans are sorted and have no term in common."""
    spans, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        start, stop = max(a[i].start, b[j].start), min(a[i].stop, b[j].stop)
        if start < stop:
            spans.append(Span(start, stop, a[i].is_sure and b[j].is_sure))
        if a[i].stop < b[j].stop:
            i += 1
        else:
            j += 1
    return spans


def _listed(txn: Transaction, database: Database, which: Postings, prefix: bytes, spans: Sequence[Span]) -> NDArray[np.uint64]:
    entries = [(prefix + span.start)[:_LONGEST] for span in spans if span.is_point]
    for span in spans:
        if not span.is_point:
            start, stop = (prefix + span.start)[:_LONGEST], (prefix + span.stop)[:_LONGEST]
            entries += database.entries_between(txn, which, start, stop)
    return database.rows_at(txn, which, entries)


# -- keys and labels: their own bytes sort as they do ------------------------------------------------------------------

_TAGS = {Kind.STR: b"s", Kind.NUMBER: b"i"}


def _key_spans(leaf: Compare) -> list[Span]:
    operand = leaf.operand
    if isinstance(operand, Operands):
        keys = [_term(value) for kind, values in operand.by_kind if kind in _TAGS for value in values]
        return [Span(key, key + b"\x00", is_sure=True) for key in sorted(keys)]
    if not isinstance(operand, Operand) or operand.kind not in _TAGS:
        return []  # None: an item without a label is listed nowhere
    tag, term = _TAGS[operand.kind], _term(operand.value)
    if leaf.op == "startswith":
        return [Span(term, successor(term), is_sure=True)]
    return ordered_spans(leaf.op, term, is_exact=True, low=tag, high=bytes((tag[0] + 1,)))


def _term(value: Any) -> bytes:
    """The bytes of a key; what no key can be comes before or after all that can."""
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if value < -(1 << 63):
        return b"i\x00"
    return b"i\xff" if value >= 1 << 64 else encode_key(value)


def _is_about_none(leaf: Compare) -> bool:
    """Whether items without a label, which no posting lists, matter to it."""
    operand = leaf.operand
    if isinstance(operand, Operands):
        return any(kind is Kind.NONE for kind, _ in operand.by_kind)
    return isinstance(operand, Operand) and operand.kind is Kind.NONE


def _without_label(txn: Transaction, database: Database, schema: Schema, n_rows: int, leaf: Compare) -> Candidates:
    """A comparison of labels, ``== None``, ``!= None`` and ``is_in`` with None among them."""
    if not _is_about_none(leaf):
        return _leaves(txn, database, schema, n_rows, [leaf])
    rows = [rows for _, rows in database.postings(txn, "labels")]
    labelled = _words(np.concatenate([np.empty(0, np.uint64), *rows]), n_rows)
    if leaf.op == "!=":
        bits = labelled
    else:
        listed = _listed(txn, database, "labels", b"", _key_spans(leaf))
        bits = _words(listed, n_rows) | _not(labelled, n_rows)
    return Candidates(bits, bits, int(np.bitwise_count(bits).sum()))


# -- bitmaps -----------------------------------------------------------------------------------------------------------


def _zeros(n_rows: int) -> Words:
    return np.zeros(n_rows // 64 + 1, np.uint64)


def _ones(n_rows: int) -> Words:
    return _not(_zeros(n_rows), n_rows)


def _not(words: Words, n_rows: int) -> Words:
    out = ~words
    out[-1] &= (np.uint64(1) << np.uint64(n_rows & 63)) - np.uint64(1)
    return out


def _words(rows: NDArray[np.uint64], n_rows: int) -> Words:
    mask = np.zeros((n_rows // 64 + 1) * 64, bool)
    mask[rows[rows < n_rows].astype(np.int64)] = True
    return np.packbits(mask, bitorder="little").view("<u8").astype(np.uint64)
