"""A bounded queue between two threads, either of which may give up."""

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["AbandonedError", "Channel"]

T = TypeVar("T")


class AbandonedError(Exception):
    """The other side has given up."""


class Channel(Generic[T]):
    """A queue of at most so many entries, with an end.

    Unlike queue.Queue it lets whoever waits on it be told that nobody will ever put, or take, any more.

    Args:
        most: How many entries wait in it before ``put`` waits.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_ended = self._is_abandoned = False
        self._error: BaseException | None = None

    def put(self, entry: T) -> None:
        """Adds an entry, once there is room.

        Raises:
            AbandonedError: Nobody will take it.
        """
        with self._changed:
            while len(self._entries) >= self._most and not self._is_abandoned:
                self._changed.wait()
            if self._is_abandoned:
                raise AbandonedError
            self._entries.append(entry)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Says that this was all. The error is raised where the last entry has been taken."""
        with self._changed:
            self._is_ended, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Drops what is in it; whoever waits is told."""
        with self._changed:
            self._is_abandoned = True
            self._entries.clear()
            self._changed.notify_all()

    def take(self, timeout_s: float) -> T | None:
        """The next entry; None if none came in time.

        Raises:
            EOFError: There are no more.
            AbandonedError: It was abandoned.
        """
        with self._changed:
            if not self._entries and not self._is_ended and not self._is_abandoned:
                self._changed.wait(timeout_s)
            if self._is_abandoned:
                raise AbandonedError
            if self._entries:
                entry = self._entries.popleft()
                self._changed.notify_all()
                return entry
            if not self._is_ended:
                return None
            if self._error is not None:
                raise self._error
            raise EOFError
