"""How places of examples are told to people."""

from simstore.errors import DuplicateKeyError
from simstore.storage import Place
from simstore.types import Key

__all__ = ["duplicate", "shown"]


def shown(place: Place | None) -> str:
    """A place in words."""
    if place is None:
        return "an example"
    where = repr(place.file or place.source)
    return where if place.row is None else f"row {place.row} of {where}"


def duplicate(key: Key, place: Place | None, other: Place | None) -> DuplicateKeyError:
    """The error for two examples of one run that have one key."""
    return DuplicateKeyError(
        f"two items have the key {key!r}: {shown(other)} and {shown(place)}. Within one run each key may stand once: choose "
        "another key column, or give the sources to several runs, of which a later one replaces items of an earlier one. "
        "What was committed before stays"
    )
