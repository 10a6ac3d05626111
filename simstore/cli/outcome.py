"""How commands end: exit codes, and errors as one message in place of a traceback.

====  ==================================================================================================
0     done
1     done, and there is something to look at: check() found damage, a key is not there, examples were
      rejected with --strict, repair() left something
2     what was given is wrong: an option, a filter, a key, a vector, a source
3     the store, a file, a package or the system said no
130   interrupted; what was committed stays
====  ==================================================================================================
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from simstore import errors
from simstore.cli.quiet import quieten_tensorflow

__all__ = ["INTERRUPTED", "OK", "PROBLEMS", "STORE", "USAGE", "Commands", "ended", "refuse"]

OK, PROBLEMS, USAGE, STORE, INTERRUPTED = 0, 1, 2, 3, 130

_USAGE_ERRORS: Final = (
    errors.InvalidArgumentError,
    errors.InvalidVectorError,
    errors.InvalidKeyError,
    errors.InvalidLabelError,
    errors.InvalidDataError,
    errors.InvalidFilterError,
    errors.DuplicateKeyError,
    errors.EmbedderRequiredError,
    errors.SourceError,
)
_DEBUG = "simstore.debug"


class Commands(TyperGroup):
    """All commands: what they raise becomes a message and an exit code; --debug, wherever it stands, shows the traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes --debug out."""
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            ctx.meta[_DEBUG] = True
            args = [arg for arg in args[:end] if arg != "--debug"] + args[end:]
        return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Runs a command."""
        quieten_tensorflow()
        with _told(is_debug=ctx.meta.get(_DEBUG, False)):
            return super().invoke(ctx)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Reads the options; --help and --version print here already."""
        with _told(is_debug=False):
            return super().make_context(*args, **kwargs)


@contextmanager
def _told(*, is_debug: bool) -> Iterator[None]:
    """Says what is raised within, and exits accordingly."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read had enough; Python must not try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(OK) from None
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C at a question
        if is_debug:
            raise
        _say("interrupted: what was committed stays, nothing is half there")
        raise typer.Exit(INTERRUPTED) from None
    except (errors.KeyNotFoundError, errors.SimstoreError, OSError) as err:
        if is_debug:
            raise
        _say(f"error: {err}")
        raise typer.Exit(_code(err)) from None


def _code(err: Exception) -> int:
    if isinstance(err, errors.KeyNotFoundError):
        return PROBLEMS
    return USAGE if isinstance(err, _USAGE_ERRORS) else STORE


def _say(text: str) -> None:
    sys.stderr.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def ended(code: int) -> None:
    """Exits with a code other than 0."""
    if code:
        raise typer.Exit(code)


def refuse(message: str, options: Sequence[str] = ()) -> NoReturn:
    """Exits with a message about options, and how to see the help."""
    raise typer.BadParameter(message, param_hint=list(options) or None)
