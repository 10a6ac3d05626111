"""simstore: an embedded vector-store database. Open a directory, add items, find their neighbours."""
