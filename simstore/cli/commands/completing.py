"""completion show, install: what shells complete."""

import sys
from typing import Annotated, Any

import typer

from simstore.cli.examples import examples
from simstore.cli.printing import print_text

__all__ = ["prepare", "register"]

Shell = Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh, fish, powershell or pwsh.", show_default=False)]
_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="Have the shell complete commands and options.", no_args_is_help=True, rich_markup_mode="rich")
    group.command("show", epilog=examples("simstore completion show bash >> ~/.bashrc"))(_show)
    group.command("install", epilog=examples("simstore completion install zsh"))(_install)
    app.add_typer(group, name="completion")


def prepare() -> None:
    """Lets typer answer a shell that asks for completions."""
    _typer().completion_init()


def _typer() -> Any:
    from typer import completion

    return completion


def _show(shell: Shell) -> None:
    """Print the script that makes a shell complete."""
    script = _typer().get_completion_script(prog_name="simstore", complete_var="_SIMSTORE_COMPLETE", shell=_known(shell))
    sys.stdout.write(script + "\n")


def _install(shell: Shell) -> None:
    """Put that script where the shell finds it."""
    name, path = _typer().install(shell=_known(shell), prog_name="simstore", complete_var="_SIMSTORE_COMPLETE")
    print_text(f"installed for {name} in {path}: open a new terminal")


def _known(shell: str) -> str:
    if shell not in _SHELLS:
        raise typer.BadParameter(f"{shell!r} is none of {', '.join(_SHELLS)}")
    return shell
