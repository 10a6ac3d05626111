"""simstore: an embedded vector-store database. Open a directory, add items, find their neighbours."""

from simstore import errors
from simstore.errors import SimstoreError
from simstore.store import Store, open
from simstore.types import (
    BatchHits,
    Compacted,
    Counts,
    Difference,
    Hit,
    Hits,
    Item,
    Plan,
    PlanPart,
    Problem,
    Reembedded,
    Restored,
    SnapshotInfo,
    StoreInfo,
)
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
    "Reembedded",
    "Restored",
    "SimstoreError",
    "SnapshotInfo",
    "Store",
    "StoreInfo",
    "__version__",
    "errors",
    "field",
    "key",
    "label",
    "open",
]
