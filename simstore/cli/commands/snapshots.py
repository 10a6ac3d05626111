"""snapshot create, list, diff, restore, delete."""

from typing import TYPE_CHECKING, Annotated

import typer

from simstore.cli.examples import examples
from simstore.cli.opened import to_read, to_write
from simstore.cli.options import AsJson, StorePath
from simstore.cli.printing import key_text, print_json, print_table, print_text

if TYPE_CHECKING:
    from simstore.types import Key

__all__ = ["register"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="The snapshot's name.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(
        help="Remember states of a store, compare them, go back to them.", no_args_is_help=True, rich_markup_mode="rich"
    )
    group.command("create", epilog=examples('simstore snapshot create photos.sim monday --note "before cleaning up"'))(_create)
    group.command("list", epilog=examples("simstore snapshot list photos.sim"))(_list)
    group.command("diff", epilog=examples("simstore snapshot diff photos.sim monday", "simstore snapshot diff photos.sim a b"))(
        _diff
    )
    group.command("restore", epilog=examples("simstore snapshot restore photos.sim monday"))(_restore)
    group.command("delete", epilog=examples("simstore snapshot delete photos.sim monday"))(_delete)
    app.add_typer(group, name="snapshot")


def _create(
    store: StorePath,
    name: Name,
    note: Annotated[str, typer.Option("--note", help="Anything worth knowing about it.")] = "",
    json: AsJson = False,
) -> None:
    """Remember the present state under a name."""
    with to_write(store) as opened:
        info = opened.snapshot(name, note)
    if json:
        print_json(info)
    else:
        print_text(f"{info.name}: {info.count:,} items")


def _list(store: StorePath, json: AsJson = False) -> None:
    """List the snapshots, oldest first."""
    with to_read(store) as opened:
        infos = opened.snapshots()
    if json:
        for info in infos:
            print_json(info)
        return
    rows = [(info.name, f"{info.created:%Y-%m-%d %H:%M:%S} UTC", f"{info.count:,}", info.note) for info in infos]
    print_table(["name", "taken", "items", "note"], rows, right=["items"], none="no snapshots")


def _diff(
    store: StorePath,
    name: Name,
    other: Annotated[
        str, typer.Argument(metavar="[OTHER]", help='Another snapshot; "now" by default.', show_default=False)
    ] = "now",
    json: AsJson = False,
) -> None:
    """List what was added, changed and deleted from one state to another."""
    from simstore.transfer import to_json

    with to_read(store) as opened:
        found = opened.diff(name, other)
    changes: list[tuple[str, list[Key]]] = [("added", found.added), ("changed", found.changed), ("deleted", found.deleted)]
    if json:
        for what, keys in changes:
            for key in keys:
                print_json({"change": what, "key": to_json(key)})
        return
    print_table(["change", "key"], [(what, key_text(key)) for what, keys in changes for key in keys], none="no difference")


def _restore(store: StorePath, name: Name, json: AsJson = False) -> None:
    """Make a snapshot's state the present again. The state before is remembered, too."""
    with to_write(store) as opened:
        done = opened.restore(name)
    if json:
        print_json(done)
    else:
        print_text(f"{done.n_restored:,} items came back, {done.n_removed:,} went")
        print_text(f"to undo: simstore snapshot restore {store} {done.undo}")


def _delete(store: StorePath, name: Name, json: AsJson = False) -> None:
    """Forget a snapshot; `simstore compact` then purges what only it has seen."""
    with to_write(store) as opened:
        opened.delete_snapshot(name)
    print_json({"deleted": name}) if json else print_text(f"{name} is forgotten")
