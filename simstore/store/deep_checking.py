"""What check(deep=True) looks at beyond check(): every item, every vector, every posting, every node, every file."""

from collections.abc import Iterator

import numpy as np

from simstore.errors import CorruptStoreError
from simstore.index import prepared
from simstore.metrics import METRICS
from simstore.reports import Problem
from simstore.storage import Database, SegmentRecord, SnapshotRecord, State, Transaction
from simstore.storage.encoding import decode_key
from simstore.storage.field_table import Postings
from simstore.storage.records import read_record
from simstore.storage.tables import NAMES
from simstore.store.bitmap import Bitmap
from simstore.store.findings import REPAIR, STAGE, Finding, Look, listed
from simstore.store.leftovers import foreign
from simstore.store.opening import SEGMENTS
from simstore.store.survey import POSTINGS, Survey, compared, damaged_vectors, entries_for, keys_leading_to, survey
from simstore.store.view import open_segment
from simstore.store.visibility import alive_at, kept_rows

__all__ = [
    "check_foreign",
    "check_items",
    "check_places",
    "check_rejected",
    "check_snapshots",
    "check_staged_vectors",
    "check_vectors",
    "differences",
    "kept_now",
]

_CHUNK = 4096


def alive_now(txn: Transaction, database: Database, state: State) -> Bitmap:
    """The rows without a tombstone, whatever the tombstones say."""
    dead = database.dead_rows(txn)
    return Bitmap.of(state.next_row, dead[dead < np.uint64(state.next_row)])


def kept_now(txn: Transaction, database: Database, state: State) -> Bitmap:
    """The rows that are alive, or that a snapshot sees; all there are, if nobody knows what one sees."""
    return kept_rows(txn, database, state, alive_now(txn, database, state))


# -- items and postings ------------------------------------------------------------------------------------------------


def check_items(look: Look, txn: Transaction) -> Iterator[Finding]:
    """All items, and the postings that lead to them."""
    database = look.database
    state = database.state(txn)
    found = survey(txn, database, state.next_row, state.seq, look.tell)
    n_rows = state.next_row
    purged = ~Bitmap.of(n_rows, database.purged(txn)).mask(0, n_rows)
    extra = [*np.flatnonzero(found.there & purged).tolist(), *found.strays]
    yield from listed("items", extra, "row {} is there, and should not be".format, REPAIR)
    missing = np.flatnonzero(~found.there & ~purged).tolist()
    yield from listed("items", missing, "row {} is missing".format, REPAIR)
    yield from listed("items", found.late, "row {} was written after the newest transaction".format, REPAIR)
    yield from listed("items", found.odd, lambda row: f"row {row} cannot be understood ({found.odd[row]})", REPAIR)
    yield from _damaged_items(txn, database, found, kept_now(txn, database, state))
    if found.next_number > state.next_number and state.next_number < (1 << 64) - 1:
        yield Problem("state", f"the next number is {state.next_number}, which an item has already", REPAIR)
    twice = np.flatnonzero(alive_now(txn, database, state).mask(0, n_rows) & found.superseded())
    yield from listed("tombstones", twice.tolist(), "row {} has none, though its key has a newer row".format, REPAIR)
    for which in POSTINGS:
        yield from _check_postings(txn, database, which, found)


def _damaged_items(txn: Transaction, database: Database, found: Survey, kept: Bitmap) -> Iterator[Finding]:
    rows = np.flatnonzero(found.damaged & kept.mask(0, len(found.there)))
    names = keys_leading_to(txn, database, rows) if len(rows) else {}

    def describe(row: int) -> str:
        try:
            return f"the item of key {decode_key(names[row][0])!r} (row {row}) is damaged (its checksum does not match)"
        except (KeyError, CorruptStoreError):
            return f"the item of an unknown key, in row {row}, is damaged (its checksum does not match)"

    yield from listed("items", rows.tolist(), describe, REPAIR)


def _check_postings(txn: Transaction, database: Database, which: Postings, found: Survey) -> Iterator[Finding]:
    what = {"keys": "key", "labels": "label", "fields": "value of an indexed field"}[which]
    comparison = compared(txn, database, which, found)
    rows = np.flatnonzero(comparison.wrong).tolist()

    def describe(row: int) -> str:
        if not found.sound[row]:
            return f"not one key leads to row {row}, or a {what} to one without an item"
        value = database.item(txn, row)
        key = read_record(value, row)[0]
        wanted = entries_for(value, row, database.schema(txn).indexed)[which]
        at = np.uint64(row)
        missing = [entry for entry in wanted if at not in database.rows_at(txn, which, [entry])]
        if not missing:
            return f"another {what} leads to row {row} of key {key!r}"
        return f"a {what} ({missing[0]!r:.60}) does not lead to row {row} of key {key!r}"

    yield from listed(which, rows, describe, REPAIR)
    nowhere = (row for _, row in comparison.foreign)
    yield from listed(which, nowhere, f"a {what} leads to row {{}}, which does not exist".format, REPAIR)


def check_places(look: Look, txn: Transaction) -> Iterator[Finding]:
    """Whether what stands in the tables is found by who looks for it."""
    for table in NAMES:
        if n := look.database.n_unfindable(txn, table):
            yield Problem(
                table, f"{n} entries are not found by who looks for them: an inner page or a key's size is damaged", REPAIR
            )


# -- vectors -----------------------------------------------------------------------------------------------------------


def check_vectors(look: Look, txn: Transaction) -> Iterator[Finding]:
    """The vectors of all rows that are alive or that a snapshot sees."""
    database = look.database
    state = database.state(txn)
    rows = (row for row, _ in damaged_vectors(txn, database, kept_now(txn, database, state), state.next_row, look.tell))
    yield from listed("vectors", rows, lambda row: database.damaged_vector(txn, row), REPAIR)


def check_staged_vectors(look: Look, txn: Transaction) -> Iterator[Finding]:
    """The vectors that wait for reembed() to go on."""
    try:
        staging = look.database.staging(txn)
    except CorruptStoreError:  # told elsewhere
        return
    n = 0 if staging is None else sum(1 for _ in look.database.damaged_staged(txn, staging.dim))
    if n:
        yield Problem("staged", f"{n} vectors that an interrupted reembed() left are damaged", STAGE)


def check_rejected(look: Look, txn: Transaction) -> Iterator[Finding]:
    """The notes of what ingest() rejected."""
    if n := len(look.database.damaged_rejected(txn)):
        yield Problem("rejected", f"{n} notes of what ingest() rejected are damaged", REPAIR)


def differences(look: Look, txn: Transaction, record: SegmentRecord) -> Iterator[str]:
    """How a segment differs from what LMDB says.

    Raises:
        CorruptStoreError: Its file is damaged.
    """
    database = look.database
    segment = open_segment(look.files, look.path / SEGMENTS / record.file, record)
    segment.verify()
    rows = np.sort(segment.rows())
    if len(rows) != record.n_rows or (len(rows) > 1 and not (np.diff(rows.astype(np.int64)) > 0).all()):
        yield f"holds {len(rows)} rows, some twice perhaps, where {record.n_rows} were built in"
    kept = _known_kept(txn, database).rows(record.first_row, record.last_row + 1)
    lost = np.setdiff1d(kept, rows)
    if len(lost):
        yield f"lacks {len(lost)} rows, {int(lost[0])} among them"
    if not np.array_equal(np.sort(segment.unreachable()), np.sort(record.orphans)):
        yield "its list of nodes that no walk reaches is not right"
    metric, nodes = METRICS[record.metric], segment.node_rows()
    order, stored = np.argsort(nodes), segment.vectors()
    order = order[np.isin(nodes[order], kept)]
    for at in range(0, len(order), _CHUNK):
        part = order[at : at + _CHUNK]
        first, stop = int(nodes[part[0]]), int(nodes[part[-1]]) + 1
        places = (nodes[part] - np.uint64(first)).astype(np.int64)
        vectors, damaged = database.vectors_and_damage(txn, first, stop, record.dim)
        vectors[damaged] = 1.0
        differ = (prepared(vectors[places], metric) != stored[part]).any(axis=1) & ~damaged[places]
        if differ.any():
            yield f"the vector of row {int(nodes[part[int(np.argmax(differ))]])} is not the one in the database"


def _known_kept(txn: Transaction, database: Database) -> Bitmap:
    """The rows that are alive, or that a snapshot is known to see."""
    state = database.state(txn)
    try:
        database.snapshots(txn)
        database.burials(txn)
    except CorruptStoreError:
        return alive_now(txn, database, state)
    return kept_now(txn, database, state)


# -- snapshots and files -----------------------------------------------------------------------------------------------


def check_snapshots(look: Look, txn: Transaction) -> Iterator[Finding]:
    """How many rows each snapshot sees."""
    for name, value in look.database.snapshot_values(txn):
        try:
            snapshot = SnapshotRecord.of(value, name)
        except CorruptStoreError:  # told elsewhere
            continue
        seen = alive_at(txn, look.database, snapshot).count(snapshot.first_row, snapshot.next_row)
        if seen != snapshot.n_live:
            yield Problem("snapshots", f"snapshot {name!r} had {snapshot.n_live} items, and sees {seen}", REPAIR)


def check_foreign(look: Look, txn: Transaction) -> Iterator[Finding]:
    """Files in the directory that are none of a store's."""
    for name in foreign(look.path, look.files):
        yield Problem("files", f"{name} is no part of a store", "nothing reads it: move it elsewhere")
