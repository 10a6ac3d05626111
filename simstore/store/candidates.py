"""What postings know of a filter: the rows that match for sure, and those that may."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.storage import Database, Schema, Transaction
from simstore.storage.encoding import encode_key
from simstore.storage.field_table import Postings, field_prefix
from simstore.where import And, Compare, Not, Operand, Operands, Or, Where
from simstore.where.kinds import Kind
from simstore.where.postings import Span, ordered_spans, spans_of, successor

__all__ = ["Candidates", "candidates"]

Words = NDArray[np.uint64]
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
    if isinstance(where, (And, Or)):
        parts = [candidates(txn, database, schema, n_rows, part) for part in where.parts]
        return _all(parts, n_rows) if isinstance(where, And) else _any(parts, n_rows)
    if isinstance(where, Not):
        inner = candidates(txn, database, schema, n_rows, where.part)
        n_listed = None if inner.n_listed is None else max(0, n_rows - inner.n_listed)
        return Candidates(_not(inner.maybe, n_rows), _not(inner.sure, n_rows), n_listed)
    if not isinstance(where, Compare):
        raise TypeError(f"no condition: {where!r}")
    return _leaf(txn, database, schema, n_rows, where)


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


def _leaf(txn: Transaction, database: Database, schema: Schema, n_rows: int, leaf: Compare) -> Candidates:
    which: Postings
    prefix = b""
    if leaf.subject.kind == "field":
        number = next((indexed.number for indexed in schema.indexed if indexed.path == leaf.subject.path), None)
        spans = None if number is None else spans_of(leaf)
        which, prefix = "fields", b"" if number is None else field_prefix(number)
    else:
        which = "labels" if leaf.subject.kind == "label" else "keys"
        spans = _key_spans(leaf)
    if spans is None:
        return Candidates(_zeros(n_rows), _ones(n_rows), None)
    sure = _listed(txn, database, which, prefix, [span for span in spans if span.is_sure])
    unsure = _listed(txn, database, which, prefix, [span for span in spans if not span.is_sure])
    bits = _words(sure, n_rows)
    candidate = Candidates(bits, bits | _words(unsure, n_rows), len(sure) + len(unsure))
    return candidate if leaf.subject.kind != "label" else _with_unlabelled(txn, database, n_rows, leaf, candidate)


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


def _with_unlabelled(txn: Transaction, database: Database, n_rows: int, leaf: Compare, found: Candidates) -> Candidates:
    """``== None``, ``!= None`` and ``is_in`` with None are about items that no label lists."""
    operand = leaf.operand
    kinds = {operand.kind} if isinstance(operand, Operand) else {kind for kind, _ in operand.by_kind} if operand else set()
    if Kind.NONE not in kinds:
        return found
    rows = [rows for _, rows in database.postings(txn, "labels")]
    labelled = _words(np.concatenate([np.empty(0, np.uint64), *rows]), n_rows)
    bits = labelled if leaf.op == "!=" else found.sure | _not(labelled, n_rows)
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
