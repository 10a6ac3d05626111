"""Items whose example is no longer there: counted, and deleted if that is wanted."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from simstore.ingest.claims import Claims
from simstore.ingest.stamps import Stamp, place_of, stamp_of
from simstore.storage import Place, RejectedRecord
from simstore.store import Store
from simstore.store.intake import Intake
from simstore.types import Key, Progress

__all__ = ["Vanished", "clear_rejections", "delete_vanished", "refusal", "vanished"]

MOST_SHARE = 0.1  # of a source's items that may be deleted without force
_ROWS = 1 << 16
_ITEMS = 1_000
_NAMED = 10


class Vanished(NamedTuple):
    """Items that are no longer there: how many of each source, and the first keys."""

    by_source: Counter[str]
    keys: tuple[Key, ...]

    @classmethod
    def none(cls) -> "Vanished":
        """Nothing."""
        return cls(Counter(), ())


def vanished(intake: Intake, claims: Claims, sources: Sequence[str]) -> Vanished:
    """The items of sources that a run has not met."""
    by_source: Counter[str] = Counter()
    keys: list[Key] = []
    for items in _unmet(intake, claims, frozenset(sources)):
        by_source.update(mark["source"] for _, mark in items)
        keys += [key for key, _ in items[: _NAMED - len(keys)]]
    return Vanished(by_source, tuple(keys))


def refusal(found: Vanished, n_claimed: Counter[str]) -> str | None:
    """Why so many items are not deleted; None if they may be.

    Args:
        n_claimed: How many items of each source were met.
    """
    for source, n in found.by_source.items():
        n_all = n + n_claimed[source]
        what = f"{n:,} of the {n_all:,} items of {source!r}"
        if n > MOST_SHARE * n_all:
            why = "nothing that was there is left" if n == n_all else f"more than {MOST_SHARE:.0%}"
            return (
                f"prune would delete {what}: {why}. Is it the right source, and is its disk mounted? Nothing was deleted; "
                "force=True deletes them all the same"
            )
    return None


def delete_vanished(
    store: Store, intake: Intake, claims: Claims, sources: Sequence[str], total: int, progress: Progress | None
) -> int:
    """Deletes the items of sources that a run has not met. Returns how many."""
    done = 0
    for items in _unmet(intake, claims, frozenset(sources)):
        done += store.delete([key for key, _ in items], missing="ignore")
        if progress is not None:
            progress("prune", done, total)
    return done


def clear_rejections(intake: Intake, sources: Sequence[str], met: set[int], at: float) -> None:
    """Forgets what was rejected in earlier runs over sources and is no longer there."""
    stale = [
        record.place
        for record in intake.rejected()
        if record.place.source in sources and record.at < at and hash(record.place) not in met
    ]
    for first in range(0, len(stale), _ITEMS):
        intake.forget(stale[first : first + _ITEMS])


def _unmet(intake: Intake, claims: Claims, sources: frozenset[str]) -> Iterator[list[tuple[Key, Stamp]]]:
    """Keys and stamps of the items that were there before the run and that it has not met, some at a time.

    Where an example stands and is rejected, its older item is kept; so are those of a file or folder that cannot be read.
    """
    is_unread = _unread(intake)
    for first in range(0, claims.next_row, _ROWS):
        rows = intake.live_rows(first, min(first + _ROWS, claims.next_row))
        unmet = rows[~claims.claimed(rows)].tolist()
        for at in range(0, len(unmet), _ITEMS):
            stamped = ((key, stamp_of(data)) for key, data in intake.items(unmet[at : at + _ITEMS]))
            items = [(key, mark) for key, mark in stamped if mark is not None and mark["source"] in sources]
            notes = intake.rejection([place_of(mark) for _, mark in items])
            there = [
                item
                for item, note in zip(items, notes, strict=True)
                if not _is_noted(item, note) and not is_unread(item[1]["source"], item[1].get("file", ""))
            ]
            if there:
                yield there


def _is_noted(item: tuple[Key, Stamp], note: RejectedRecord | None) -> bool:
    """Whether an item's example is rejected; rows may have moved, so that another stands where the item's was."""
    key, mark = item
    return note is not None and ("row" not in mark or note.key in (None, key))


def _unread(intake: Intake) -> Callable[[str, str], bool]:
    """What tells whether a file of a source, or a folder that it lies in, is rejected: nobody knows what has vanished there."""

    @lru_cache(maxsize=1 << 14)
    def is_unread(source: str, path: str) -> bool:
        above = os.path.dirname(path)
        [note] = intake.rejection([Place(source, path, None)])
        return note is not None or (above != path and is_unread(source, above))

    return is_unread
