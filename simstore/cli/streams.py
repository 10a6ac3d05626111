"""Standard streams that can be relied on, however the process was started."""

import codecs
import os
import sys

__all__ = ["prepare_streams"]

_HANDLER = "simstore.bytes"


def prepare_streams() -> None:
    """Opens those that are closed, and has what an encoding lacks come out as escapes: no text that is printed is refused.

    A closed one is more than an inconvenience: the next file to be opened, as a store's, would be number 1 or 2, and what
    libraries print would go into it.
    """
    for number in (0, 1, 2):
        _open(number)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    codecs.register_error(_HANDLER, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER if stream is sys.stdout else "backslashreplace")


def _open(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def _escaped(err: UnicodeError) -> tuple[str | bytes, int]:
    """A path or key of any bytes comes out as it is; what the encoding lacks as escapes."""
    try:
        return codecs.lookup_error("surrogateescape")(err)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(err)
