"""The named steps of everything that writes, for crash tests: a test sets ``observer`` and kills the process where it likes."""

from collections.abc import Callable

__all__ = ["reached", "set_observer"]

_observer: Callable[[str], None] | None = None


def set_observer(observer: Callable[[str], None] | None) -> None:
    """Has observer(name) called at every step from now on; None stops it."""
    global _observer
    _observer = observer


def reached(name: str) -> None:
    """Says that the step of that name has been reached."""
    if _observer is not None:
        _observer(name)
