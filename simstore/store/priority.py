"""Work that gives way: what builds graphs must not slow those who search."""

import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["giving_way"]

T = TypeVar("T")
_NICENESS = 10


def giving_way(work: Callable[[], T]) -> T:
    """work(), in a thread of a lower priority where the system knows such (Linux); threads that it starts have it, too.

    In a thread of its own, since nobody but root may raise a priority again.
    """
    if sys.platform != "linux":
        return work()
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            try:  # noqa: SIM105
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
            except OSError:
                pass  # it works at full priority then
            done.append(work())
        except BaseException as err:
            failed.append(err)

    thread = threading.Thread(target=run, name="simstore-build")
    thread.start()
    thread.join()
    if failed:
        raise failed.pop()  # kept here it would refer to itself, by its traceback
    return done[0]
