"""How a run goes."""

from dataclasses import dataclass
from typing import Protocol

from simstore.errors import InvalidArgumentError
from simstore.store import arguments
from simstore.types import Progress

__all__ = ["Settings", "Stop"]


class Stop(Protocol):
    """What a threading.Event is: set, it ends a run after the batch in hand."""

    def is_set(self) -> bool:
        """Whether the run is to end."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run goes; the arguments of ingest().

    Attributes:
        at: When it began, in seconds since 1970.
    """

    prune: bool
    force: bool
    retry_errors: bool
    max_errors: int | None
    timeout_s: float
    n_workers: int
    batch_size: int | None
    stop: Stop | None
    progress: Progress | None
    at: float

    def __post_init__(self) -> None:
        arguments.check_positive("workers", self.n_workers)
        arguments.check_positive("batch_size", self.batch_size)
        if self.max_errors is not None and (not isinstance(self.max_errors, int) or self.max_errors < 0):
            raise InvalidArgumentError(f"max_errors is how many examples may be rejected, 0 or more, not {self.max_errors!r}")
        if not isinstance(self.timeout_s, (int, float)) or not self.timeout_s > 0:
            raise InvalidArgumentError(f"timeout_s is a number of seconds above 0, not {self.timeout_s!r}")
        if self.stop is not None and not callable(getattr(self.stop, "is_set", None)):
            raise InvalidArgumentError(f"stop is a threading.Event, or the like, not {type(self.stop).__name__}")

    @property
    def is_stopped(self) -> bool:
        """Whether the run is to end."""
        return self.stop is not None and self.stop.is_set()
