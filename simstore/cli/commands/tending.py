"""check, repair, optimize, compact, backup: upkeep."""

from typing import Annotated

import typer

from simstore.cli.examples import examples
from simstore.cli.opened import to_read, to_write
from simstore.cli.options import AsJson, StorePath
from simstore.cli.outcome import PROBLEMS, ended
from simstore.cli.printing import key_text, print_json, print_table, print_text, progress_bar

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("check", epilog=examples("simstore check photos.sim --deep"))(_check)
    app.command("repair", epilog=examples("simstore repair photos.sim"))(_repair)
    app.command("optimize", epilog=examples("simstore optimize photos.sim"))(_optimize)
    app.command("compact", epilog=examples("simstore compact photos.sim"))(_compact)
    app.command("backup", epilog=examples("simstore backup photos.sim /mnt/disk/photos.sim"))(_backup)


def _check(
    store: StorePath,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte: only this can tell that a store is sound.")] = False,
    json: AsJson = False,
) -> None:
    """Look for damage. The exit code is 1 if there is any."""
    with to_read(store) as opened, progress_bar() as progress:
        problems = opened.check(deep=deep, progress=progress)
    if json:
        for problem in problems:
            print_json(problem)
    elif problems:
        print_table(["where", "what", "remedy"], [(problem.where, problem.what, problem.remedy) for problem in problems])
    else:
        print_text("sound" if deep else "nothing found by a quick look; --deep reads everything")
    ended(PROBLEMS if problems else 0)


def _repair(store: StorePath, json: AsJson = False) -> None:
    """Mend what check --deep finds. What cannot be mended is taken out of the store, its bytes kept in quarantine/.

    The exit code is 1 if anything was taken out, or is left.
    """
    with to_write(store) as opened, progress_bar() as progress:
        done = opened.repair(progress=progress)
    if json:
        print_json(done)
    else:
        print_text(f"rebuilt: {', '.join(done.rebuilt)}" if done.rebuilt else "nothing was to be rebuilt")
        for item in done.quarantined:
            print_text(f"taken out: {key_text(item.key)} (row {item.row}): {item.what}")
        if done.quarantine is not None:
            print_text(f"their bytes: {done.quarantine}")
        for problem in done.unrepaired:
            print_text(f"left: {problem.where}: {problem.what}; {problem.remedy}")
    ended(PROBLEMS if done.quarantined or done.unrepaired else 0)


def _optimize(store: StorePath, json: AsJson = False) -> None:
    """Build one graph over everything: the fastest state to search."""
    with to_write(store) as opened, progress_bar() as progress:
        opened.optimize(progress=progress)
        info = opened.info()
    if json:
        print_json({"count": info.count, "n_segments": info.n_segments})
    else:
        print_text(f"{info.count:,} items in {info.n_segments} graph{'s' * (info.n_segments != 1)}")


def _compact(store: StorePath, json: AsJson = False) -> None:
    """Purge what was deleted or replaced and no snapshot sees, and give its space back."""
    with to_write(store) as opened, progress_bar() as progress:
        done = opened.compact(progress=progress)
    if json:
        print_json(done)
    else:
        before, after = (f"{size / 1e6:,.1f} MB" for size in (done.before_size_bytes, done.after_size_bytes))
        print_text(f"{done.n_purged:,} items purged; {before} before, {after} now")


def _backup(
    store: StorePath,
    dest: Annotated[str, typer.Argument(metavar="DEST", help="A path where there is nothing yet.", show_default=False)],
    json: AsJson = False,
) -> None:
    """Copy a store, snapshots included, while it is in use."""
    with to_read(store) as opened, progress_bar() as progress:
        path = opened.backup(dest, progress=progress)
    if json:
        print_json({"path": path})
    else:
        print_text(f"copied to {path}")
