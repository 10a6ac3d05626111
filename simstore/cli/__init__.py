"""The command line: every capability of a store for people who do not write Python."""

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command that sys.argv names, and exits."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as err:
        sys.stderr.write(f"simstore's command line needs typer and rich ({err}): pip install 'simstore[cli]'\n")
        raise SystemExit(3) from err
    from simstore.cli.app import run

    run()
