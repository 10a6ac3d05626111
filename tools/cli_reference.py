"""Writes the README's command line reference from the help texts: tools/cli_reference.py.

It stands between two markers; a test compares it.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from simstore.cli.app import app

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- command line reference: written by tools/cli_reference.py -->", "<!-- end of the reference -->"


def reference() -> str:
    """The reference as Markdown."""
    return "\n".join(_parts(get_command(app), "simstore")).strip() + "\n"


def _parts(command: Any, name: str) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield from _command(command, name)
        return
    for sub_name, sub in command.commands.items():
        yield from _parts(sub, f"{name} {sub_name}")


def _command(command: Any, name: str) -> Iterator[str]:
    arguments = [_words(param) for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and param.name != "help"]
    yield f"**`{' '.join([name, *arguments])}`** " + " ".join(command.help.split())
    yield ""
    yield from (_row(param) for param in options if param.name != "json")
    if any(param.name == "json" for param in options):
        yield "- `--json`"
    examples = [line for line in (command.epilog or "").split("\n\n") if line != "Examples:"]
    yield from ["", "```sh", *examples, "```", ""]


def _words(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _row(option: Any) -> str:
    names = " ".join(f"`{word}`" for word in sorted(option.opts, key=len, reverse=True))
    metavar = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    default = option.default if isinstance(option.default, (int, float)) and not isinstance(option.default, bool) else None
    shown = f" (default {default:,})" if default is not None else ""
    return f"- {names}{metavar}: {' '.join((option.help or '').split())}{shown}"


def written(readme: str) -> str:
    """The README with the reference of now.

    Raises:
        ValueError: It has not the two markers.
    """
    if START not in readme or END not in readme:
        raise ValueError(f"{README} has not the markers {START!r} and {END!r}")
    return re.sub(
        f"{re.escape(START)}.*{re.escape(END)}", lambda _: f"{START}\n\n{reference()}\n{END}", readme, flags=re.DOTALL
    )


def main() -> None:
    """Writes it."""
    README.write_text(written(README.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{README} is written\n")


if __name__ == "__main__":
    main()
