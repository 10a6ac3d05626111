"""What a run was asked for."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DATA_SETS", "FILTERED_RECALL", "RECALL", "ROOT", "THREADS", "K", "Settings"]

ROOT = Path(__file__).resolve().parents[2]
DATA_SETS = ("glove", "mnist", "fashion", "clustered")

K = 10
RECALL = 0.95
FILTERED_RECALL = 0.98
THREADS = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line, checked. Counts of None mean: as the case wants it."""

    command: str
    data: str
    n: int | None
    queries: int
    seed: int
    repeats: int | None
    M: int
    ef_construction: int
    only: tuple[str, ...]
    out: Path
    workdir: Path | None
    keep: bool
    mnist: Path
    fashion: Path
    images: Path
    batch: int
    tail: int
    copies: int
    turnover_n: int
    single_adds: int
    small_n: int
    readers: int
    searches: int
    seconds: int
    threads: int
    epochs: int
    steps: int
    seeds: int
    gigabytes: float

    def repeats_or(self, usual: int) -> int:
        """How often a case is repeated: --repeats, or what the case is used to."""
        return usual if self.repeats is None else self.repeats
