"""All commands together."""

import os
import sys
from typing import Annotated

import typer

from simstore import __version__
from simstore.cli.commands import completing, embedding, getting, indexing, putting, searching, snapshots, tending, transferring
from simstore.cli.outcome import Commands
from simstore.cli.streams import prepare_streams

__all__ = ["app", "run"]

_HELP = """An embedded vector store: index a data set, search it, look after it.

Exit codes:

0 done

1 something is to be looked at: damage, a missing key, rejected examples

2 what was given is wrong

3 the store, a file or the system said no

130 interrupted"""
_EPILOG = """Examples:

simstore index photos/ --store photos.sim --embedder image-thumb

simstore search photos.sim --image cat.jpg --sheet similar.png

simstore COMMAND --help  shows more, with examples"""

app = typer.Typer(
    name="simstore",
    cls=Commands,
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
for part in (indexing, searching, getting, putting, tending, snapshots, transferring, embedding, completing):
    part.register(app)


def _version(value: bool) -> None:
    if value:
        sys.stdout.write(f"simstore {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; it may stand anywhere.")] = False,
) -> None: ...


def run() -> None:
    """Runs the command that sys.argv names, and exits."""
    prepare_streams()
    if "_SIMSTORE_COMPLETE" in os.environ:
        completing.prepare()
    app(prog_name="simstore")
