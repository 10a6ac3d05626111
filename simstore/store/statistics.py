"""What a store has done since it was opened, in numbers."""

from simstore.reports import Latency, Stats
from simstore.store.sight import PATHS, Path

__all__ = ["Statistics"]

_BUCKETS = 28  # of latencies: up to 1 µs, 2 µs, 4 µs, … 67 s, and beyond


class Statistics:
    """Counters. Each is one addition to an int, which no other thread of CPython comes between: they need no lock."""

    def __init__(self) -> None:
        self.n_searches = 0
        self.n_queries = 0
        self.n_items_written = 0
        self.n_items_buried = 0
        self.n_folds = 0
        self.n_merges = 0
        self.item_bytes = 0
        self.segment_bytes = 0
        self._paths: dict[Path, int] = dict.fromkeys(PATHS, 0)
        self._latencies = [0] * _BUCKETS

    def searched(self, n_queries: int, nanoseconds: int) -> None:
        """A search for n queries took so long."""
        self.n_searches += 1
        self.n_queries += n_queries
        self._latencies[min((nanoseconds // 1000).bit_length(), _BUCKETS - 1)] += 1

    def took(self, path: Path, n_queries: int) -> None:
        """So many queries went through a segment, or the tail, by a path."""
        self._paths[path] += n_queries

    def wrote(self, n_written: int, n_buried: int, n_bytes: int) -> None:
        """A call wrote and buried so many rows."""
        self.n_items_written += n_written
        self.n_items_buried += n_buried
        self.item_bytes += n_bytes

    def built(self, size_bytes: int, *, is_merge: bool) -> None:
        """A segment of that size was published."""
        if is_merge:
            self.n_merges += 1
        else:
            self.n_folds += 1
        self.segment_bytes += size_bytes

    def now(self, n_writes: int, n_commits: int) -> Stats:
        """The counters as they stand."""
        latencies = [
            Latency(1e-6 * (1 << i) if i < _BUCKETS - 1 else float("inf"), count) for i, count in enumerate(self._latencies)
        ]
        return Stats(
            searches=self.n_searches,
            queries=self.n_queries,
            paths={str(path): n for path, n in self._paths.items()},
            latencies=tuple(latencies),
            writes=n_writes,
            commits=n_commits,
            items_written=self.n_items_written,
            items_buried=self.n_items_buried,
            folds=self.n_folds,
            merges=self.n_merges,
            item_bytes_written=self.item_bytes,
            segment_bytes_written=self.segment_bytes,
        )
