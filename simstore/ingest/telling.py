"""How far a run is, told now and then."""

import time
from collections.abc import Sequence

from simstore.ingest.tally import Tally
from simstore.readers import Reader
from simstore.types import Progress

__all__ = ["Telling"]

_EVERY_S = 0.1


class Telling:
    """Calls progress("ingest", done, total).

    Args:
        progress: None tells nothing; then nobody counts the examples either, for which a reader of images walks its folder.
        readers: How many examples they have is the total; 0 where one of them does not know.
        tally: How many are done.
    """

    def __init__(self, progress: Progress | None, readers: Sequence[Reader], tally: Tally) -> None:
        self._progress, self._tally = progress, tally
        numbers = [] if progress is None else [reader.n_examples for reader in readers]
        self._total = sum(n for n in numbers if n is not None) if None not in numbers else 0
        self._told = 0.0

    def now_and_then(self) -> None:
        """Tells it, unless it has just been told."""
        now = time.monotonic()
        if self._progress is not None and now - self._told >= _EVERY_S:
            self._told = now
            self._progress("ingest", self._tally.n_done, self._total)
