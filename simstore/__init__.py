"""simstore: an embedded vector-store database. Open a directory, add items, find their neighbours."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simstore import errors
from simstore.errors import SimstoreError

if TYPE_CHECKING:
    from simstore.reports import (
        Compacted,
        Difference,
        IngestEstimate,
        IngestReport,
        Plan,
        PlanPart,
        Problem,
        Quarantined,
        RecallEstimate,
        Reembedded,
        Rejected,
        Repaired,
        Restored,
        SnapshotInfo,
        Stats,
        StoreInfo,
    )
    from simstore.store import Store, open
    from simstore.types import BatchHits, Counts, Hit, Hits, Item
    from simstore.where import field, key, label

__version__ = "0.1.0"
__all__ = [
    "BatchHits",
    "Compacted",
    "Counts",
    "Difference",
    "Hit",
    "Hits",
    "IngestEstimate",
    "IngestReport",
    "Item",
    "Plan",
    "PlanPart",
    "Problem",
    "Quarantined",
    "RecallEstimate",
    "Reembedded",
    "Rejected",
    "Repaired",
    "Restored",
    "SimstoreError",
    "SnapshotInfo",
    "Stats",
    "Store",
    "StoreInfo",
    "__version__",
    "errors",
    "field",
    "key",
    "label",
    "open",
]

_HOMES = ("simstore.store", "simstore.types", "simstore.where", "simstore.reports")
_PACKAGES = ("embedders", "index", "metrics", "reports", "storage", "store", "types", "where")


def __getattr__(name: str) -> Any:
    """What the package exports, loaded at its first use: `simstore --help` has no use for numpy."""
    if name in _PACKAGES:
        return import_module(f"simstore.{name}")
    if name in __all__:
        for home in _HOMES:
            module = import_module(home)
            if name in module.__all__:
                globals()[name] = value = getattr(module, name)
                return value
    raise AttributeError(f"module 'simstore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
