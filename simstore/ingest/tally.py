"""What a run has done so far, counted by several threads."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Tally"]


class Tally:
    """Counts of examples, rejections by reason, and seconds by stage.

    Attributes:
        counts: Of "added", "replaced", "relabelled", "unchanged", "rejected_before", "n_embedded".
        reasons: Of rejections.
        seconds: Of "read", "decode", "embed", "write"; stages run beside each other, and "decode" in several threads.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.seconds = dict.fromkeys(("read", "decode", "embed", "write"), 0.0)
        self._lock = threading.Lock()

    def count(self, what: str, n: int = 1) -> None:
        """Adds n."""
        with self._lock:
            self.counts[what] += n

    def reject(self, reasons: list[str]) -> None:
        """Adds rejections."""
        with self._lock:
            self.reasons.update(reasons)

    @property
    def n_rejected(self) -> int:
        """How many were rejected."""
        with self._lock:
            return self.reasons.total()

    @property
    def n_done(self) -> int:
        """How many examples have been dealt with."""
        with self._lock:
            counts = self.counts
            n_known = counts["unchanged"] + counts["relabelled"] + counts["rejected_before"]
            return counts["added"] + counts["replaced"] + n_known + self.reasons.total()

    def spent(self, stage: str, seconds: float) -> None:
        """Adds to a stage's time."""
        with self._lock:
            self.seconds[stage] += seconds

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Adds the block's time."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent(stage, time.perf_counter() - start)
