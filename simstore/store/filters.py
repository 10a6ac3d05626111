"""Which rows a filter lets through: from postings where a field is indexed, else by looking at the items."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.index import Segment
from simstore.storage import Database, Transaction
from simstore.storage.encoding import unpack
from simstore.storage.records import Record, read_record
from simstore.store.bitmap import Bitmap
from simstore.store.candidates import Candidates, candidates
from simstore.store.view import View
from simstore.where import Where, compiled

__all__ = ["Filters", "Selection", "refuse_mismatch"]

T = TypeVar("T")
_MOST_KNOWN = 64  # filters whose rows are remembered
_MOST_CHECKED = 1 << 17
_DENSE = 16  # of so many items at least one is a candidate: then reading all of them in order is faster
_FEW_NEW = 4096  # new rows that are looked at one by one, rather than asking the postings again


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The rows of a view that a filter lets through.

    Attributes:
        rows: Which they are.
        count: How many.
        estimate: How many the postings named, dead rows included, before any item was looked at; None if there are none for it.
        n_read: How many items had to be looked at, beside those written since the filter was first used.
        checked: Rows whose items were seen to match; see ``refuse_mismatch``.
    """

    rows: Bitmap
    count: int
    estimate: int | None
    n_read: int
    checked: set[int]
    _counts: dict[int, int] = field(default_factory=dict)
    _nodes: dict[int, NDArray[np.uint32]] = field(default_factory=dict)
    _node_words: dict[int, NDArray[np.uint64] | None] = field(default_factory=dict)

    def count_in(self, segment: Segment) -> int:
        """How many are in a segment."""
        known = self._counts.get(segment.first_row)
        if known is None:
            known = self._counts[segment.first_row] = self.rows.count(segment.first_row, segment.last_row + 1)
        return known

    def nodes(self, segment: Segment) -> NDArray[np.uint32]:
        """The nodes of a segment that stand for them, ascending.

        Raises:
            CorruptStoreError: The segment's file is damaged.
        """
        known = self._nodes.get(segment.first_row)
        if known is None:
            known = np.unique(segment.nodes_of(self.rows.rows(segment.first_row, segment.last_row + 1)))
            self._nodes[segment.first_row] = known
        return known

    def node_words(self, segment: Segment) -> NDArray[np.uint64] | None:
        """The same nodes as a bitmap; None when first asked, since making it reads the row of every node.

        Raises:
            CorruptStoreError: The segment's file is damaged.
        """
        if segment.first_row not in self._node_words:
            self._node_words[segment.first_row] = None
            return None
        known = self._node_words[segment.first_row]
        if known is None:
            bits = np.zeros((segment.n_nodes + 63) // 64 * 64, bool)
            bits[self.nodes(segment)] = True
            known = self._node_words[segment.first_row] = np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)
        return known


@dataclass(frozen=True, slots=True, eq=False)
class _Matches:
    """Which rows match, dead ones aside, as of a state. Rows never change, so that only new ones are to be looked at later,
    until a repair has changed what postings say."""

    seq: int
    repaired_seq: int
    indexed: tuple[object, ...]
    words: NDArray[np.uint64]
    n_rows: int
    estimate: int | None
    n_read: int
    checked: set[int] = field(default_factory=set)


class Filters:
    """Finds the rows of filters, and remembers them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._matches: OrderedDict[Where, _Matches] = OrderedDict()
        self._view: Callable[[], View | None] = _no_view  # weak: it keeps files mapped that merges have replaced
        self._selections: OrderedDict[Where, Selection] = OrderedDict()  # of that view
        self._last: tuple[Callable[[], View | None], Where, Selection] | None = None  # what was asked for last

    def selection(self, txn: Transaction, view: View, where: Where) -> Selection:
        """The rows of a view that the filter lets through; the transaction sees the view's state.

        Raises:
            CorruptStoreError: An item that had to be looked at is damaged.
        """
        last = self._last
        if last is not None and last[0]() is view and last[1] is where:  # to hash a filter takes microseconds
            return last[2]
        with self._lock:
            known = self._selections.get(where) if self._view() is view else None
            before = self._matches.get(where)
        if known is not None:
            self._last = ref(view), where, known
            return known
        if before is not None and before.seq > view.state.seq:  # an older view may see rows that died before
            return self.selection_once(txn, view, where)
        matches = self._matched(txn, view, where, before)
        selection = _selected(view, matches)
        with self._lock:
            if self._view() is not view:
                self._view, self._last = ref(view), None
                self._selections.clear()
            _remember(self._matches, where, matches)
            _remember(self._selections, where, selection)
        return selection

    def selection_once(self, txn: Transaction, view: View, where: Where) -> Selection:
        """The same, without remembering it: for a view of what has not been committed yet."""
        return _selected(view, self._matched(txn, view, where, None))

    def forget(self) -> None:
        """Lets go of all that is remembered."""
        with self._lock:
            self._matches.clear()
            self._selections.clear()
            self._view, self._last = _no_view, None

    def _matched(self, txn: Transaction, view: View, where: Where, before: _Matches | None) -> _Matches:
        n_rows, indexed, repaired_seq = view.state.next_row, view.schema.indexed, view.state.repaired_seq
        holds = before is not None and before.indexed == indexed and before.repaired_seq == repaired_seq
        if before is not None and holds and n_rows - before.n_rows <= _FEW_NEW:
            words = _resized(before.words, n_rows)
            fresh = view.alive.rows(before.n_rows, n_rows)
            hits = _matching(txn, self._database, where, fresh)
            _set(words, hits)
            estimate = None if before.estimate is None else before.estimate + len(hits)
            return _Matches(view.state.seq, repaired_seq, indexed, words, n_rows, estimate, before.n_read, before.checked)
        found: Candidates = candidates(txn, self._database, view.schema, n_rows, where)
        unsure = Bitmap(found.maybe & ~found.sure & _resized(view.alive.words, n_rows), 0, is_full=False).rows(0, n_rows)
        words = found.sure
        _set(words, _matching(txn, self._database, where, unsure))
        return _Matches(view.state.seq, repaired_seq, indexed, words, n_rows, found.n_listed, len(unsure))


def _no_view() -> None:
    return None


def _remember(known: OrderedDict[Where, T], where: Where, value: T) -> None:
    known[where] = value
    known.move_to_end(where)
    if len(known) > _MOST_KNOWN:
        known.popitem(last=False)


def _selected(view: View, matches: _Matches) -> Selection:
    n_rows = view.state.next_row
    rows = Bitmap(matches.words & _resized(view.alive.words, n_rows), 0, is_full=False).closed(n_rows)
    return Selection(rows, rows.count(0, n_rows), matches.estimate, matches.n_read, matches.checked)


def _resized(words: NDArray[np.uint64], n_rows: int) -> NDArray[np.uint64]:
    """A copy with a bit for each of n_rows rows; new ones are not set."""
    n_words = n_rows // 64 + 1
    out = np.zeros(n_words, np.uint64)
    out[: min(n_words, len(words))] = words[:n_words]
    return out


def _set(words: NDArray[np.uint64], rows: NDArray[np.uint64]) -> None:
    np.bitwise_or.at(words, rows >> np.uint64(6), np.left_shift(np.uint64(1), rows & np.uint64(63)))


def refuse_mismatch(where: Where, rows: list[int], records: list[Record], checked: set[int] | None = None) -> None:
    """Raises CorruptStoreError if one of the records, which postings have named, does not match: they carry no checksums.

    Args:
        checked: Rows that were seen to match before; those that do now come in.
    """
    if checked is not None and checked.issuperset(rows):
        return
    matcher = compiled(where)
    for key, label, packed in records:
        if not matcher.matches(key, label, unpack(packed) if matcher.needs_data else None):
            raise CorruptStoreError(
                f"key {key!r} is listed for {where!r}, which it does not match: store.check(deep=True) lists what is damaged, "
                "and store.repair() rebuilds the lists"
            )
    if checked is not None:
        if len(checked) > _MOST_CHECKED:
            checked.clear()
        checked.update(rows)


def _matching(txn: Transaction, database: Database, where: Where, rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Those of rows, ascending, whose items match."""
    if not len(rows):
        return rows
    matcher = compiled(where)
    matches, needs_data = matcher.matches, matcher.needs_data
    wanted = rows.tolist()
    hits = []
    first, last = wanted[0], wanted[-1]
    if (last - first) <= _DENSE * len(wanted):
        at = 0
        for row, value in database.items(txn, first):
            if row < wanted[at]:
                continue
            if row > wanted[at]:
                database.item(txn, wanted[at])  # raises: it is missing
            key, label, packed = read_record(value, row)
            if matches(key, label, unpack(packed) if needs_data else None):
                hits.append(row)
            at += 1
            if at == len(wanted):
                break
        else:
            database.item(txn, wanted[at])
    else:
        for row in wanted:
            key, label, packed = read_record(database.item(txn, row), row)
            if matches(key, label, unpack(packed) if needs_data else None):
                hits.append(row)
    return np.array(hits, np.uint64)
