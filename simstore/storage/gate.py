"""What keeps transactions out while the map grows; only where maps grow."""

import threading
from collections.abc import Callable

__all__ = ["Gate"]


class Gate:
    """Lets transactions through until the map must grow; then waits until none is open."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = 0
        self._growing = False
        self._aborting = 0

    def hold(self, by: int) -> None:
        """Lets nobody in while a transaction is aborted."""
        with self._changed:
            self._aborting += by
            self._changed.notify_all()

    def enter(self) -> None:
        """Waits until transactions may begin, and counts one."""
        with self._changed:
            self._changed.wait_for(lambda: not self._growing and not self._aborting)
            self._open += 1

    def leave(self) -> None:
        """A transaction has ended."""
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def alone(self, work: Callable[[], None]) -> None:
        """Runs work() while no transaction is open."""
        with self._changed:
            self._changed.wait_for(lambda: not self._growing)
            self._growing = True
            try:
                self._changed.wait_for(lambda: self._open == 0)
                work()
            finally:
                self._growing = False
                self._changed.notify_all()
