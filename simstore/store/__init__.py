"""The store: opens a directory, writes, searches, and keeps itself in shape. It alone maps keys to rows."""

from simstore.store.entry import open
from simstore.store.opening import CALIBRATION
from simstore.store.store import Store

__all__ = ["CALIBRATION", "Store", "open"]
