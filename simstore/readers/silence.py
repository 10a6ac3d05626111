"""Silence for what a library warns of while it decodes: the reason for which a file is refused says it better."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["silenced"]

_FILTER: Any = ("ignore", None, Warning, re.compile(r"PIL\b|pillow_heif\b"), 0)
_lock = threading.Lock()
_inside = 0


@contextmanager
def silenced() -> Iterator[None]:
    """Warnings raised in Pillow's modules go nowhere, in any thread, as long as one thread is inside.

    warnings.catch_warnings is not for threads: each would put back what it found, the filters of another. Here the first
    to come adds one filter, and the last to go takes that one away.
    """
    global _inside
    with _lock:
        _inside += 1
        if _FILTER not in warnings.filters:
            _change(lambda filters: filters.insert(0, _FILTER))
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                with suppress(ValueError):
                    _change(lambda filters: filters.remove(_FILTER))


def _change(work: Any) -> None:
    work(warnings.filters)
    mutated = getattr(warnings, "_filters_mutated", None)  # the C part keeps what it decided until it is told
    if mutated is not None:
        mutated()
