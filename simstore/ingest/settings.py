"""How a run goes."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from simstore.errors import InvalidArgumentError
from simstore.store import arguments
from simstore.store.searcher import cpu_count
from simstore.types import Progress

__all__ = ["Settings", "Stop"]


class Stop(Protocol):
    """What a threading.Event is: set, it ends a run after the batch in hand."""

    def is_set(self) -> bool:
        """Whether the run is to end."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run goes.

    Args:
        prune, force, retry_errors, max_errors, timeout_s, workers, batch_size, dry_run, stop, progress: See Store.ingest.
        at: When it begins, in seconds since 1970.
    """

    prune: bool = False
    force: bool = False
    retry_errors: bool = False
    max_errors: int | None = None
    timeout_s: float = 30.0
    workers: int | None = None
    batch_size: int | None = None
    dry_run: bool = False
    stop: Stop | None = None
    progress: Progress | None = None
    at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        arguments.check_positive("workers", self.workers)
        arguments.check_positive("batch_size", self.batch_size)
        if self.max_errors is not None and (not isinstance(self.max_errors, int) or self.max_errors < 0):
            raise InvalidArgumentError(f"max_errors is how many examples may be rejected, 0 or more, not {self.max_errors!r}")
        if not isinstance(self.timeout_s, (int, float)) or not self.timeout_s > 0:
            raise InvalidArgumentError(f"timeout_s is a number of seconds above 0, not {self.timeout_s!r}")
        if self.stop is not None and not callable(getattr(self.stop, "is_set", None)):
            raise InvalidArgumentError(f"stop is a threading.Event, or the like, not {type(self.stop).__name__}")

    @property
    def n_workers(self) -> int:
        """How many threads decode: by default as many as there are CPUs to run on."""
        return cpu_count() if self.workers is None else self.workers

    @property
    def is_stopped(self) -> bool:
        """Whether the run is to end."""
        return self.stop is not None and self.stop.is_set()
