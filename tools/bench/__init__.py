"""simstore beside raw hnswlib and bare LMDB: every case is a ratio, measured in one run on the same data."""
