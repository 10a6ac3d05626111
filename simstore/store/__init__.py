"""The store: opens a directory, writes, searches, and keeps itself in shape. It alone maps keys to rows."""

from simstore.store.store import Store, open

__all__ = ["Store", "open"]
