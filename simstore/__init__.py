"""simstore: an embedded vector-store database. Open a directory, add items, find their neighbours."""

from simstore import errors
from simstore.errors import SimstoreError
from simstore.reports import (
    Compacted,
    Difference,
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
