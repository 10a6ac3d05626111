"""Says on stderr what takes long, and for how long."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Step", "no_step", "progress"]

Step = Callable[[int], None]

_EVERY_S = 0.5


@contextmanager
def progress(what: str, total: int = 0) -> Iterator[Step]:
    """Shows ``what`` while the block runs; the block may call the step with how much of ``total`` is done."""
    start = shown = time.monotonic()
    is_terminal = sys.stderr.isatty()

    def step(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if is_terminal and now - shown >= _EVERY_S:
            shown = now
            _say(f"\r  … {what}: {done:,} of {total:,}, {now - start:.0f} s\x1b[K")

    _say(f"  … {what}" + ("" if is_terminal else "\n"))
    try:
        yield step
    finally:
        _say(f"\r  … {what}: {time.monotonic() - start:.1f} s\x1b[K\n" if is_terminal else "")


def no_step(_done: int) -> None:
    """A step that shows nothing."""


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
