"""repair(): sets right what can be set right, and puts in quarantine what cannot. DESIGN.md has the order."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simstore.reports import Repaired
from simstore.storage import Attempt, Files, State, Transaction
from simstore.storage.files import discard
from simstore.storage.pages import look_at_pages
from simstore.storage.tables import NAMES
from simstore.store.checking import check_store, log_problems
from simstore.store.core import Core
from simstore.store.deep_checking import alive_now, kept_now
from simstore.store.findings import Look
from simstore.store.leftovers import remove_left_behind
from simstore.store.mending_history import mend_counts, mend_snapshots, mend_tombstones
from simstore.store.mending_postings import mend_postings
from simstore.store.mending_rows import find_lost, mend_items, mend_rejected, mend_staged, mend_vectors, take_out
from simstore.store.mending_segments import Copies, mend_segment_records, rebuild_segments
from simstore.store.mending_state import mended_purged, mended_state
from simstore.store.quarantine import write_quarantine
from simstore.store.repair_base import Repair
from simstore.store.survey import Survey, survey

__all__ = ["repair_store"]

T = TypeVar("T")
_LAST_NUMBER = (1 << 64) - 1


class Run(Protocol):
    """Calls work(core); again with the next core if the database is replaced meanwhile."""

    def __call__(self, work: Callable[[Core], T]) -> T:
        """What work returned."""
        ...


def repair_store(run: Run, look_of: Callable[[Core], Look]) -> Repaired:
    """Looks at everything, and mends what is not sound.

    Raises:
        StorageFullError, StorageError: The database is as it was.
    """
    problems = run(lambda core: check_store(look_of(core), deep=True))
    if not problems or any(problem.where == "data.mdb" for problem in problems):  # who touches damaged pages makes it worse
        return Repaired([], [], None, problems)
    repair, quarantine = run(lambda core: _mend_database(look_of(core)))
    rebuilt = list(repair.rebuilt)
    dropped = any(what.startswith("segment ") for what in rebuilt)
    segments = run(lambda core: rebuild_segments(core, look_of(core), dropped=dropped))
    rebuilt += [what for what in segments if what not in rebuilt]
    if run(lambda core: remove_left_behind(look_of(core))):
        rebuilt.append("files")
    problems = run(lambda core: check_store(look_of(core), deep=True))
    return Repaired(rebuilt, [lost.told() for lost in repair.lost], quarantine, problems)


def _mend_database(look: Look) -> tuple[Repair, Path | None]:
    """One transaction, after the file of what it takes out; where nothing is to be mended it writes nothing."""
    written: list[Path] = []
    attempt, now = Attempt(), datetime.now(UTC)

    def work(txn: Transaction) -> Repair:
        _withdraw(look.files, written)  # of a run that found the map too small
        repair = Repair(txn, look.database, look.tell)
        plan = _examined(repair, look)
        if repair.lost:
            written.append(write_quarantine(txn, look.database, look.files, look.path, repair.lost, now))
        _finish(repair, plan)
        return repair

    try:
        repair = look.environment.write(work, attempt=attempt)
    except BaseException:
        if not attempt.committed:
            _withdraw(look.files, written)
        raise
    return repair, written[0] if written else None


def _withdraw(files: Files, written: list[Path]) -> None:
    for path in written:
        discard(files, path)
    written.clear()


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What is still to be done, once all that can be mended is.

    Attributes:
        state: As it was, or as it could be told.
        found: The items.
        purged: bool [n_rows], the rows that are gone for good.
        gone: The rows to be taken out, those among them that do not exist included.
    """

    state: State
    found: Survey
    purged: NDArray[np.bool_]
    gone: NDArray[np.uint64]


def _examined(repair: Repair, look: Look) -> _Plan:
    """Mends what can be mended in place; lists in repair.lost what cannot."""
    misfits = look_at_pages(look.path).misfits  # first of all: changing a page whose sizes are wrong damages more
    for table in NAMES:
        if table in misfits or repair.database.n_unfindable(repair.txn, table):
            repair.database.put_anew(repair.txn, table)
            repair.note(table)
    state = mended_state(repair)
    n_rows = state.next_row
    repair.seen(state.seq)
    found = survey(repair.txn, repair.database, n_rows, state.seq, repair.tell)
    purged = mended_purged(repair, found)
    mend_items(repair, found, purged)
    mend_snapshots(repair)
    mend_tombstones(repair, state, found, purged)
    mend_segment_records(repair, n_rows)
    mend_staged(repair)
    mend_rejected(repair)
    if "purged" in repair.rebuilt:
        repair.database.put_purged(repair.txn, np.flatnonzero(purged).astype(np.uint64))
    if repair.database.n_entries(repair.txn, "snapshots") and not state.snapshots_seq:
        state = replace(state, snapshots_seq=state.seq)
        repair.note("state")
    kept = kept_now(repair.txn, repair.database, state)
    vectors = mend_vectors(repair, kept, found, Copies(repair, look))
    return _Plan(state, found, purged, find_lost(repair, found, purged, kept.mask(0, n_rows), vectors))


def _finish(repair: Repair, plan: _Plan) -> None:
    """Takes out what cannot be mended, then rights what is counted and listed; writes nothing if all was right."""
    txn, database, state, found = repair.txn, repair.database, plan.state, plan.found
    n_rows = state.next_row
    inside = plan.gone[plan.gone < np.uint64(n_rows)].astype(np.int64)
    n_expected = state.n_live - int(alive_now(txn, database, state).mask(0, n_rows)[inside].sum())
    if len(plan.gone):
        take_out(repair, found, plan.purged, plan.gone)
    mend_postings(repair, found, inside)
    mend_counts(repair)
    n_live = n_rows - int(plan.purged.sum()) - database.n_entries(txn, "tombstones")
    next_number = max(state.next_number, min(found.next_number, _LAST_NUMBER))
    if n_live > n_expected and "state" not in repair.rebuilt:
        repair.note(f"{n_live - n_expected} items that had been deleted, and are alive again: their tombstones are lost")
    if (n_live, next_number) != (n_expected, state.next_number):
        repair.note("state")
    if any(log_problems(txn, database, state.log_seq)):
        repair.note("log")
    if not repair.rebuilt and not repair.lost:
        return
    seq = max(repair.newest_seq, state.seq) + 1
    database.clear(txn, "log")
    new = replace(state, seq=seq, n_live=n_live, next_number=next_number, segments_seq=seq, log_seq=0, repaired_seq=seq)
    database.put_state(txn, replace(new, snapshots_seq=seq if state.snapshots_seq else 0))
