"""check(): everything on disk, compared with its checksums and with everything else."""

from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_hexdigest

from simstore.errors import CorruptStoreError, SimstoreError
from simstore.index import prepared
from simstore.metrics import METRICS
from simstore.reports import Problem
from simstore.storage import Database, Environment, Files, LogEntry, SegmentRecord, SnapshotRecord, State, Transaction
from simstore.storage.encoding import decode_key, encode_key, encode_label
from simstore.storage.environment import structural_problems
from simstore.storage.field_table import Postings
from simstore.storage.records import created_seq_of, read_item, unsealed
from simstore.store.bitmap import Bitmap
from simstore.store.models import model_path
from simstore.store.view import open_segment

__all__ = ["check_store"]

_RESTORE = "restore the store from a backup, or delete the item and add it again"
_REBUILD = "open the store with mode='a' and call optimize(): the items are safe, the segment is rebuilt from them"
_HARMLESS = "nothing is lost: the log is a shortcut, and processes read all tombstones where it does not serve"
_STAGE = "call reembed() again: it makes them anew, and nothing is lost"
_CHUNK = 4096


def check_store(environment: Environment, database: Database, files: Files, directory: Path) -> list[Problem]:
    """All problems found; an empty list if the store is sound."""
    problems = [Problem("data.mdb", text, "restore the store from a backup") for text in structural_problems(directory)]
    if problems:  # walking damaged pages can kill the process
        return [
            *problems,
            Problem("data.mdb", "nothing else was looked at, since pages are damaged", "restore the store from a backup"),
        ]
    for part in (_check_state, _check_items, _check_vectors, _check_postings, _check_segments, _check_models, _check_staged):
        try:
            with environment.reading() as txn:
                environment.refuse_moved(txn)  # compact() removes files that the old database names
                problems.extend(part(txn, database, files, directory))
        except SimstoreError as err:
            problems.append(Problem(part.__name__.removeprefix("_check_"), str(err), _RESTORE))
    return problems


def _check_models(txn: Transaction, database: Database, files: Files, directory: Path) -> Iterator[Problem]:
    embedders = [database.schema(txn).embedder]
    for name, value in database.snapshot_values(txn):
        try:
            embedders.append(SnapshotRecord.of(value, name).embedder)
        except CorruptStoreError as err:
            yield Problem(f"snapshot {name!r}", str(err), "delete_snapshot it")
    saved = {record["fingerprint"]: record for record in reversed(embedders) if record is not None and record["saved"]}
    for record in saved.values():
        path = model_path(directory, record)
        remedy = f"delete {path} if it is there, and open the store with embedder=… and mode='a': the model is saved again"
        try:
            if xxh3_64_hexdigest(files.read(path)) != record["model_xxh3"]:
                yield Problem("embedder", f"the model's file {path.name} is damaged (its checksum does not match)", remedy)
        except OSError as err:
            yield Problem("embedder", f"the model's file {path.name} cannot be read: {err}", remedy)


def _check_staged(txn: Transaction, database: Database, files: Files, directory: Path) -> Iterator[Problem]:
    try:
        staging = database.staging(txn)
    except CorruptStoreError as err:
        yield Problem("staged", str(err), _STAGE)
        return
    n_damaged = 0 if staging is None else sum(1 for _ in database.damaged_staged(txn, staging.dim))
    if n_damaged:
        yield Problem("staged", f"{n_damaged} vectors that an interrupted reembed() left are damaged", _STAGE)
    elif staging is None and any(True for _ in database.raw(txn, "staged")):
        yield Problem("staged", "vectors are staged, and nothing says for which embedder", _STAGE)


def _alive(txn: Transaction, database: Database, state: State) -> Bitmap:
    dead = database.dead_rows(txn)
    return Bitmap.of(state.next_row, dead[dead < np.uint64(state.next_row)])


def _check_state(txn: Transaction, database: Database, files: Files, directory: Path) -> Iterator[Problem]:
    state = database.state(txn)
    database.schema(txn)
    n_dead = 0
    for row, value in database.tombstone_values(txn):
        n_dead += 1
        try:
            if row >= state.next_row or int.from_bytes(unsealed(value, f"the tombstone of row {row}", row), "big") > state.seq:
                yield Problem("tombstones", f"a tombstone names row {row}, which does not exist", _RESTORE)
        except CorruptStoreError as err:
            yield Problem("tombstones", str(err), _RESTORE)
    n_rows = state.next_row - len(database.purged(txn))
    if n_rows - n_dead != state.n_live:
        yield Problem(
            "state", f"{state.n_live} live items are counted where {n_rows} rows and {n_dead} tombstones stand", _RESTORE
        )
    yield from _check_log(txn, database, state)


def _check_log(txn: Transaction, database: Database, state: State) -> Iterator[Problem]:
    before: int | None = None
    for seq, value in database.log_values(txn):
        try:
            previous = LogEntry.of(value, seq).previous
            if before is not None and previous != before:
                yield Problem("log", f"log entry {previous}, between {before} and {seq}, is missing", _HARMLESS)
        except CorruptStoreError as err:
            yield Problem("log", str(err), _HARMLESS)
        before = seq
    if (before or 0) != state.log_seq:
        yield Problem("log", f"log entry {state.log_seq}, the newest, is missing", _HARMLESS)


def _check_items(txn: Transaction, database: Database, files: Files, directory: Path) -> Iterator[Problem]:
    state = database.state(txn)
    alive = _alive(txn, database, state)
    expected = Bitmap.of(state.next_row, database.purged(txn)).mask(0, state.next_row)
    damaged: dict[int, str] = {}
    for row, value in database.items(txn):
        if row >= state.next_row or not expected[row]:
            yield Problem("items", f"row {row} is there, and should not be", _RESTORE)
            continue
        expected[row] = False
        try:
            key, label, _ = read_item(value, row)
        except CorruptStoreError as err:
            if row < state.next_row and alive.count(row, row + 1):
                damaged[row] = str(err)
            continue
        if created_seq_of(value) > state.seq:
            yield Problem("items", f"row {row} was written by transaction {created_seq_of(value)}, after the newest", _RESTORE)
        if row not in database.rows_of(txn, encode_key(key)):
            yield Problem("keys", f"key {key!r} does not lead to its row {row}", _RESTORE)
        encoded = encode_label(label)
        if encoded is not None and not database.has_label(txn, encoded, row):
            yield Problem("labels", f"label {label!r} does not lead to row {row} of key {key!r}", _RESTORE)
    if (missing := np.flatnonzero(expected)).size:
        yield Problem("items", f"{missing.size} rows are missing, {int(missing[0])} among them", _RESTORE)
    names = _keys_of(txn, database, damaged) if damaged else {}
    for row, what in damaged.items():
        yield Problem("items", f"the item of {names.get(row, 'an unknown key')}: {what}", _RESTORE)


def _keys_of(txn: Transaction, database: Database, rows: Container[int]) -> dict[int, str]:
    """The keys that lead to rows, for a message."""
    names = {}
    for encoded, found in database.postings(txn, "keys"):
        for row in found.tolist():
            if row in rows:
                with suppress(CorruptStoreError):
                    names[row] = f"key {decode_key(encoded)!r}"
    return names


def _check_vectors(txn: Transaction, database: Database, files: Files, directory: Path) -> Iterator[Problem]:
    state, schema = database.state(txn), database.schema(txn)
    dim = schema.dim
    if dim is None:
        return
    alive = _alive(txn, database, state)
    for first in range(schema.epoch_row, state.next_row, _CHUNK):  # what came before is dead
        stop = min(first + _CHUNK, state.next_row)
        _, damaged = database.vectors_and_damage(txn, first, stop, dim)
        for i in np.flatnonzero(damaged & alive.mask(first, stop)).tolist():
            yield Problem("vectors", database.damaged_vector(txn, first + i), _RESTORE)


def _check_postings(txn: Transaction, database: Database, files: Files, directory: Path) -> Iterator[Problem]:
    state = database.state(txn)
    n_rows = state.next_row - len(database.purged(txn))
    which: Postings
    for which in ("keys", "labels"):
        total = 0
        for name, rows in database.postings(txn, which):
            total += len(rows)
            if len(rows) and int(rows[-1]) >= state.next_row:
                yield Problem(which, f"{name!r} leads to row {int(rows[-1])}, which does not exist", _RESTORE)
        if total > n_rows or (which == "keys" and total != n_rows):
            yield Problem(which, f"{total} entries for {n_rows} rows", _RESTORE)


def _check_segments(txn: Transaction, database: Database, files: Files, directory: Path) -> Iterator[Problem]:
    state, last = database.state(txn), -1
    for first_row, value in database.segment_values(txn):
        try:
            record = SegmentRecord.of(value, first_row)
        except CorruptStoreError as err:
            yield Problem(f"segment {first_row}-", str(err), _REBUILD)
            continue
        where = f"segment {record.first_row}-{record.last_row}"
        if record.first_row <= last or record.last_row >= state.next_row:
            yield Problem(where, "its rows overlap another segment's, or do not exist", _REBUILD)
        last = record.last_row
        try:
            yield from _check_segment(txn, database, files, directory, record, where)
        except CorruptStoreError as err:
            yield Problem(where, str(err), _REBUILD)


def _check_segment(
    txn: Transaction, database: Database, files: Files, directory: Path, record: SegmentRecord, where: str
) -> Iterator[Problem]:
    segment = open_segment(files, directory / "segments" / record.file, record)
    segment.verify()
    rows = np.sort(segment.rows())
    if len(rows) != record.n_rows or (len(rows) > 1 and not (np.diff(rows.astype(np.int64)) > 0).all()):
        yield Problem(where, f"holds {len(rows)} rows, some twice perhaps, where {record.n_rows} were built in", _REBUILD)
    alive = _alive(txn, database, database.state(txn)).rows(record.first_row, record.last_row + 1)
    lost = np.setdiff1d(alive, rows)
    if len(lost):
        yield Problem(where, f"lacks {len(lost)} live rows, {int(lost[0])} among them", _REBUILD)
    if not np.array_equal(np.sort(segment.unreachable()), np.sort(record.orphans)):
        yield Problem(where, "its list of nodes that no walk reaches is not right", _REBUILD)
    metric, nodes = METRICS[record.metric], segment.node_rows()
    order, stored = np.argsort(nodes), segment.vectors()
    order = order[np.isin(nodes[order], alive)]
    for at in range(0, len(order), _CHUNK):
        part = order[at : at + _CHUNK]
        first, stop = int(nodes[part[0]]), int(nodes[part[-1]]) + 1
        needed = np.zeros(stop - first, bool)
        places = (nodes[part] - np.uint64(first)).astype(np.int64)
        needed[places] = True
        vectors = database.vectors(txn, first, stop, record.dim, needed)[places]
        differ = (prepared(vectors, metric) != stored[part]).any(axis=1)
        if differ.any():
            row = int(nodes[part[int(np.argmax(differ))]])
            yield Problem(where, f"the vector of row {row} is not the one in the database", _REBUILD)
