"""reembed, embedders, rejected."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from simstore.cli.examples import examples
from simstore.cli.opened import named, needs_texts, to_read, to_write
from simstore.cli.options import AsJson, StorePath
from simstore.cli.outcome import refuse
from simstore.cli.printing import counted, key_text, note, print_json, print_table, print_text, progress_bar

if TYPE_CHECKING:
    from simstore.embedders import Embedder
    from simstore.store import Store
    from simstore.types import Progress

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(
        "reembed",
        epilog=examples(
            "simstore reembed photos.sim --embedder image-efficientnet-lite0",
            "simstore reembed texts.sim --embedder text-minilm --field text",
        ),
    )(_reembed)
    app.command("embedders", epilog=examples("simstore embedders"))(_embedders)
    app.command("rejected", epilog=examples("simstore rejected photos.sim", "simstore rejected photos.sim --json"))(_rejected)


def _reembed(
    store: StorePath,
    embedder: Annotated[
        str, typer.Option("--embedder", "-e", metavar="NAME", help="As for `simstore index`.", show_default=False)
    ],
    field: Annotated[
        str | None,
        typer.Option("--field", help="The field of the items' data that holds the input; else their image files do."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="How many inputs the embedder gets at once.")] = 64,
    json: AsJson = False,
) -> None:
    """Give all items vectors of another embedder, which is the store's from then on.

    The old vectors answer until all new ones are there. Interrupted, it goes on where it was when it is run again.
    """
    from simstore.cli.inputs import inputs_of_items

    with to_write(store) as opened, progress_bar() as progress:
        new = _new(opened, embedder, field, progress)
        done = opened.reembed(new, inputs=inputs_of_items(new, field), batch_size=batch_size, progress=progress)
    if json:
        print_json(done)
    else:
        resumed = f" ({done.n_resumed:,} had them already)" if done.n_resumed else ""
        print_text(f"{done.n_items:,} items have vectors of {done.dim:,} numbers by {new.spec.name}{resumed}")
        print_text(f"fastest to search after: simstore optimize {store}")


def _new(store: "Store", name: str, field: str | None, progress: "Progress | None") -> "Embedder":
    from simstore.cli.inputs import texts_of_items

    if not needs_texts(name):
        return named(name)
    if field is None:
        refuse(f"{name} goes through all texts first: name the field of the items' data that holds them", ["--field"])
    return named(name, texts=counted(texts_of_items(store, field), progress))


def _embedders(json: AsJson = False) -> None:
    """List the embedders that have names. Besides, --embedder takes a .keras file, and module:function."""
    from simstore.embedders import embedder_names

    infos = embedder_names()
    if json:
        for info in infos:
            print_json(info)
        return
    rows = [(info.name, info.kind, str(info.dim or ""), info.remedy or "yes", info.about) for info in infos]
    print_table(["name", "for", "dim", "installed", "what it is"], rows, right=["dim"])


def _rejected(
    store: StorePath,
    json: AsJson = False,
) -> None:
    """List what `simstore index` could not take in, and why."""
    from simstore.transfer import to_json

    with to_read(store) as opened:
        found = opened.rejected()
    if json:
        for one in found:
            print_json({**_fields(one), "key": to_json(one.key)})
        return
    rows = [
        (one.reason, one.file or one.source, "" if one.row is None else str(one.row), key_text(one.key), one.message)
        for one in found
    ]
    print_table(["reason", "file", "row", "key", "what was found"], rows, right=["row"], none="nothing was rejected")
    if found:
        note(", ".join(f"{n:,} {reason}" for reason, n in Counter(one.reason for one in found).most_common()))


def _fields(one: object) -> dict[str, object]:
    from simstore.cli.printing import as_json

    fields: dict[str, object] = as_json(one)
    return fields
