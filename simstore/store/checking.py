"""check(): what is on disk, compared with its checksums and with everything else; quickly, or all of it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from xxhash import xxh3_64_hexdigest

from simstore.errors import CorruptStoreError, ForkedStoreError, SimstoreError, StoreClosedError
from simstore.reports import Problem
from simstore.storage import Database, LogEntry, MovedError, SegmentRecord, SnapshotRecord, Transaction
from simstore.storage.pages import Pages, look_at_pages
from simstore.storage.records import unsealed
from simstore.store.deep_checking import (
    check_foreign,
    check_items,
    check_places,
    check_rejected,
    check_snapshots,
    check_staged_vectors,
    check_vectors,
    differences,
)
from simstore.store.findings import BACKUP, HARMLESS, REBUILD, REPAIR, STAGE, Finding, Findings, Look, listed
from simstore.store.leftovers import left_behind
from simstore.store.models import model_path
from simstore.store.opening import SEGMENTS
from simstore.store.view import open_segment

__all__ = ["check_store", "log_problems", "logged_burials", "segment_problems"]

Part = Callable[[Look, Transaction], Iterator[Finding]]


def check_store(look: Look, *, deep: bool) -> list[Problem]:
    """All problems found; an empty list if the store is sound, as far as it was looked at."""
    findings = Findings()
    if _pages_are_sound(look, findings):
        parts = {"state": _check_state, "history": _check_history, "snapshots": _check_snapshots, "embedder": _check_embedders}
        parts["staged"] = _check_staged
        if deep:
            parts |= {"tables": check_places, "items": check_items, "vectors": check_vectors, "staging": check_staged_vectors}
            parts["rejected"] = check_rejected
        else:
            parts |= {"tables": _check_counts}
        for name, part in parts.items():
            _run(part, name, look, findings)
        told = {problem.what for problem in findings.problems}
        for _, problem in segment_problems(look, deep=deep):
            if problem.what not in told:  # else it is not the segment's
                findings.add(problem)
        if deep:
            _run(check_snapshots, "snapshots", look, findings)
            _run(check_foreign, "files", look, findings)
            _attempt(lambda: _find_leftovers(look, findings), "files", look, findings)
    return findings.problems


def _run(part: Part, name: str, look: Look, findings: Findings) -> None:
    """Adds what a part finds."""

    def work() -> None:
        with look.environment.reading() as txn:
            look.environment.refuse_moved(txn)
            for finding in part(look, txn):
                findings.add(finding)

    _attempt(work, name, look, findings)


def _attempt(work: Callable[[], None], name: str, look: Look, findings: Findings) -> None:
    """Does work; what keeps it from looking is a finding, too."""
    try:
        work()
    except (MovedError, StoreClosedError, ForkedStoreError, MemoryError):
        raise
    except Exception as err:
        if err is look.stopped:
            raise
        what = str(err) if isinstance(err, SimstoreError) else f"cannot be read ({type(err).__name__}: {err})"
        if not findings.tells(what):
            findings.add(Problem(name, what, REPAIR))


def _pages_are_sound(look: Look, findings: Findings) -> bool:
    """Looks at LMDB's pages; walking damaged ones can kill the process."""
    try:
        with look.environment.reading() as txn:  # held open, so that no page is used anew while they are looked at
            look.environment.refuse_moved(txn)
            pages = look_at_pages(look.path)
    except CorruptStoreError as err:
        pages = Pages([str(err)])
    for table, n in pages.misfits.items():
        findings.add(Problem(table, f"{n} pages are not filled by their entries, one of which has a wrong size", REPAIR))
    problems = pages.problems
    for text in problems:
        findings.add(Problem("data.mdb", text, BACKUP))
    if problems:
        findings.add(Problem("data.mdb", "nothing else was looked at, since pages are damaged", BACKUP))
    return not problems


def _check_state(look: Look, txn: Transaction) -> Iterator[Finding]:
    schema, state = look.database.schema(txn), look.database.state(txn)
    n_rows = state.next_row - schema.epoch_row
    if n_rows and schema.dim is None:
        yield Problem("state", f"{n_rows} rows, where the schema knows no width", BACKUP)


# -- what died ---------------------------------------------------------------------------------------------------------


def _check_history(look: Look, txn: Transaction) -> Iterator[Finding]:
    database = look.database
    schema, state = database.schema(txn), database.state(txn)
    try:
        purged = set(database.purged(txn).tolist())
    except CorruptStoreError as err:
        yield Problem("purged", str(err), REPAIR)
        return
    if purged and max(purged) >= state.next_row:
        yield Problem("purged", f"row {max(purged)}, which does not exist, is among the purged", REPAIR)
    dead = []
    for row, value in database.tombstone_values(txn):
        dead.append(row)
        try:
            seq = int.from_bytes(unsealed(value, f"the tombstone of row {row}", row), "big")
            if row >= state.next_row or row in purged or seq > state.seq:
                yield Problem("tombstones", f"a tombstone names row {row}, which does not exist, or seq {seq}", REPAIR)
        except CorruptStoreError as err:
            yield Problem("tombstones", str(err), REPAIR)
    n_rows = state.next_row - len(purged)
    if n_rows - len(dead) != state.n_live:
        yield Problem("state", f"{state.n_live} live items, where {n_rows} rows and {len(dead)} tombstones stand", REPAIR)
    n_gone = sum(row < schema.epoch_row for row in dead) + sum(row < schema.epoch_row for row in purged)
    if n_gone < min(schema.epoch_row, state.next_row):
        yield Problem("tombstones", f"of the rows before {schema.epoch_row}, which are all dead, some have none", REPAIR)
    for what in log_problems(txn, database, state.log_seq):
        yield Problem("log", what, HARMLESS)
    lost = sorted(logged_burials(txn, database).keys() - purged.union(dead))
    yield from listed("tombstones", lost, "row {} has none, though the log says that it was buried".format, REPAIR)


def log_problems(txn: Transaction, database: Database, log_seq: int) -> Iterator[str]:
    """What is wrong with the chain of log entries."""
    before: int | None = None
    for seq, value in database.log_values(txn):
        try:
            previous = LogEntry.of(value, seq).previous
            if before is not None and previous != before:
                yield f"log entry {previous}, between {before} and {seq}, is missing"
        except CorruptStoreError as err:
            yield str(err)
        before = seq
    if (before or 0) != log_seq:
        yield f"log entry {log_seq}, the newest, is missing"


def logged_burials(txn: Transaction, database: Database) -> dict[int, int]:
    """The rows that sound log entries name, with the seq that buried them."""
    logged: dict[int, int] = {}
    for seq, value in database.log_values(txn):
        with suppress(CorruptStoreError):
            logged.update(dict.fromkeys(LogEntry.of(value, seq).dead_rows, seq))
    return logged


def _check_snapshots(look: Look, txn: Transaction) -> Iterator[Finding]:
    state = look.database.state(txn)
    for name, value in look.database.snapshot_values(txn):
        remedy = f"delete_snapshot({name!r}), or restore the store from a backup; compact() purges nothing while it is there"
        try:
            snapshot = SnapshotRecord.of(value, name)
        except CorruptStoreError as err:
            yield Problem("snapshots", str(err), remedy)
            continue
        if snapshot.seq > state.seq or snapshot.next_row > state.next_row or not state.snapshots_seq:
            yield Problem("snapshots", f"snapshot {name!r} is newer than the store's state", REPAIR)


# -- tables and files --------------------------------------------------------------------------------------------------


def _check_counts(look: Look, txn: Transaction) -> Iterator[Finding]:
    """How many entries the tables have: LMDB counts them."""
    state = look.database.state(txn)
    n_rows = state.next_row - len(look.database.purged(txn))
    for table in ("items", "keys", "labels"):
        n = look.database.n_entries(txn, table)
        if n > n_rows or (n != n_rows and table != "labels"):
            yield Problem(table, f"{n} entries for {n_rows} rows", REPAIR)


def _check_embedders(look: Look, txn: Transaction) -> Iterator[Finding]:
    records = [look.database.schema(txn).embedder]
    for name, value in look.database.snapshot_values(txn):
        try:
            records.append(SnapshotRecord.of(value, name).embedder)
        except CorruptStoreError:  # told elsewhere
            continue
    saved = {record["fingerprint"]: record for record in records if record is not None and record["saved"]}
    for record in saved.values():
        path = model_path(look.path, record)
        remedy = f"delete {path} if it is there, and open the store with embedder=… and mode='a': the model is saved again"
        if record["fingerprint"] != look.database.schema(txn).fingerprint:
            remedy = "bring the file back from a backup, or delete the snapshots that need it"
        try:
            if xxh3_64_hexdigest(look.files.read(path)) != record["model_xxh3"]:
                yield Problem("embedder", f"the model's file {path.name} is damaged (its checksum does not match)", remedy)
        except OSError as err:
            yield Problem("embedder", f"the model's file {path.name} cannot be read: {err}", remedy)


def _check_staged(look: Look, txn: Transaction) -> Iterator[Finding]:
    database = look.database
    try:
        staging = database.staging(txn)
    except CorruptStoreError as err:
        yield Problem("staged", str(err), STAGE)
        return
    if staging is None and database.n_entries(txn, "staged"):
        yield Problem("staged", "vectors are staged, and nothing says for which embedder", STAGE)


def segment_problems(look: Look, *, deep: bool) -> Iterator[tuple[int, Problem]]:
    """What is wrong with segments, each with its first row; one that is replaced meanwhile is none of these."""
    values: list[tuple[int, bytes]] = []
    n_rows = 0

    def read(look: Look, txn: Transaction) -> Iterator[Finding]:
        nonlocal n_rows
        n_rows = look.database.state(txn).next_row
        values[:] = look.database.segment_values(txn)
        yield from ()

    findings = Findings()
    _run(read, "segments", look, findings)
    yield from ((-1, problem) for problem in findings.problems)
    last = -1
    for i, (first_row, value) in enumerate(values):
        look.tell("segments", i, len(values))
        findings, part = (
            Findings(),
            partial(_check_segment, first_row=first_row, value=value, rows=range(last + 1, n_rows), deep=deep),
        )
        _run(part, f"segment {first_row}-", look, findings)
        if findings.problems and _is_named(look, first_row, value):
            yield from ((first_row, problem) for problem in findings.problems)
        with suppress(CorruptStoreError):
            last = max(last, SegmentRecord.of(value, first_row).last_row)
    look.tell("segments", len(values), len(values))


def _find_leftovers(look: Look, findings: Findings) -> None:
    for path in left_behind(look):
        what = f"{path.relative_to(look.path)} belongs to nothing"
        findings.add(Problem("files", what, "call repair(), which removes what belongs to nothing; or move it elsewhere"))


def _is_named(look: Look, first_row: int, value: bytes) -> bool:
    with look.environment.reading() as txn:
        look.environment.refuse_moved(txn)
        return (first_row, value) in look.database.segment_values(txn)


def _check_segment(look: Look, txn: Transaction, *, first_row: int, value: bytes, rows: range, deep: bool) -> Iterator[Finding]:
    where = f"segment {first_row}-"
    try:
        record = SegmentRecord.of(value, first_row)
        where = f"segment {record.first_row}-{record.last_row}"
        if not rows.start <= record.first_row <= record.last_row < rows.stop:
            yield Problem(where, "its rows overlap another segment's, or do not exist", REBUILD)
        elif deep:
            yield from (Problem(where, what, REBUILD) for what in differences(look, txn, record))
        else:
            open_segment(look.files, look.path / SEGMENTS / record.file, record)
    except CorruptStoreError as err:
        yield Problem(where, str(err), REBUILD)
