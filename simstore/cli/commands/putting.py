"""add, delete: what changes items."""

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simstore.cli.examples import examples
from simstore.cli.given import data_of, ints_of, keys_of, vector_of, where_given
from simstore.cli.opened import made, named, to_write
from simstore.cli.options import AsInt, AsJson, EmbedderName, MetricName, StorePath, WhereText
from simstore.cli.outcome import PROBLEMS, ended, refuse
from simstore.cli.printing import key_text, note, print_json, print_text

if TYPE_CHECKING:
    from simstore.cli.lines import NewItem
    from simstore.store import Store

__all__ = ["register"]

_N_UNASKED = 10
_N_NAMED = 10


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(
        "add",
        epilog=examples(
            "simstore add my.sim --key a --vector 0.1,0.2,0.3 --label cat --data '{\"year\": 2020}'",
            "simstore add photos.sim --key new.jpg --image new.jpg",
            "simstore list old.sim --json --with-vectors | simstore add new.sim",
        ),
    )(_add)
    app.command(
        "delete",
        epilog=examples(
            "simstore delete photos.sim cats/1.jpg cats/2.jpg",
            'simstore delete photos.sim --where "key startswith cats/" --dry-run',
            'simstore delete photos.sim --where "not exists year" --yes',
        ),
    )(_delete)


def _add(
    store: StorePath,
    key: Annotated[str | None, typer.Option("--key", "-k", help="The new item's key; by default it is numbered.")] = None,
    vector: Annotated[
        str | None, typer.Option("--vector", metavar="NUMBERS", help='As "0.1,0.2", or the path of an .npy file.')
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="In place of a vector: a text for the store's embedder.")] = None,
    image: Annotated[str | None, typer.Option("--image", metavar="FILE", help="Or an image for it.")] = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="The item's label.")] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="JSON", help="The item's data.")] = None,
    as_int: AsInt = False,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace items whose key is in the store.")] = False,
    metric: MetricName = None,
    embedder: EmbedderName = None,
    json: AsJson = False,
) -> None:
    """Add an item, or items from JSON lines on stdin. A store that is not there is made.

    A line has "vector" (numbers, or base64 of float32), "text" or "image"; and "key", "label" and "data" if wanted.
    Lines are written a thousand at once; a bad one ends it, and those before it may be in the store.
    """
    from simstore.cli.lines import NewItem, batches_of, items_of

    given = [("vector", vector), ("text", text), ("image", image)]
    chosen: list[tuple[Any, str]] = [(kind, value) for kind, value in given if value is not None]
    if len(chosen) > 1:
        refuse("one of them, not several", [f"--{kind}" for kind, _ in chosen])
    if chosen:
        kind, value = chosen[0]
        content = vector_of(value) if kind == "vector" else value
        known = ints_of([key])[0] if as_int and key is not None else key
        items: Iterable[NewItem] = [NewItem(known, kind, content, label, data_of(data))]
    elif key is not None or label is not None or data is not None:
        refuse("give --vector, --text or --image with it; or JSON lines on stdin alone", ["--key", "--label", "--data"])
    else:
        items = items_of(sys.stdin)
    given_embedder = None if embedder is None else named(embedder)
    batches = batches_of(items)
    first = next(batches, None)  # nothing is made for lines that are none
    if first is None:
        refuse("there is nothing on stdin: JSON lines, or --key and --vector")
    if first[0].kind != "vector" and embedder is None and not os.path.lexists(store):
        refuse(f"a new store has nothing that turns a {first[0].kind} into a vector: give --embedder, or vectors")
    with made(store, metric=metric, embedder=given_embedder) as opened:
        _put_all(opened, [first], batches, upsert=upsert, as_json=json)


def _put_all(
    store: "Store", first: "list[list[NewItem]]", rest: "Iterable[list[NewItem]]", *, upsert: bool, as_json: bool
) -> None:
    import itertools

    added = replaced = 0
    try:
        for batch in itertools.chain(first, rest):
            counts = _put(store, batch, upsert=upsert)
            added, replaced = added + counts[0], replaced + counts[1]
    finally:
        if as_json:
            print_json({"added": added, "replaced": replaced})
        else:
            print_text(f"{added:,} added, {replaced:,} replaced")


def _put(store: "Store", batch: "list[NewItem]", *, upsert: bool) -> tuple[int, int]:
    from simstore.cli.inputs import embedder_of, image_decoder

    keys = None if batch[0].key is None else [item.key for item in batch]
    inputs: list[Any] = [item.input for item in batch]
    if batch[0].kind == "image":
        inputs = list(map(image_decoder(embedder_of(store)), inputs))
    labels, data = [item.label for item in batch], [item.data for item in batch]
    vectors, texts = (inputs, None) if batch[0].kind == "vector" else (None, inputs)
    if keys is not None and upsert:
        counts = store.upsert(keys, vectors, inputs=texts, labels=labels, data=data)
        return counts.added, counts.replaced
    return len(store.add(keys, vectors, inputs=texts, labels=labels, data=data)), 0


def _delete(
    store: StorePath,
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY...]", help="Keys of items.", show_default=False)] = None,
    where: WhereText = None,
    as_int: AsInt = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    json: AsJson = False,
) -> None:
    """Delete items, by their keys or all that match a filter; all or none. More than ten are asked about first.

    A key that is not there is told on stderr, nothing is deleted then, and the exit code is 1.
    """
    from simstore.where import key as where_key

    if bool(keys) == (where is not None):
        refuse("give keys, or --where for all items that match: one of them, not both", ["KEY...", "--where"])
    with to_write(store) as opened:
        condition = where_given(where)
        chosen = (
            [item.key for item in opened.scan(condition)]
            if condition is not None
            else keys_of(opened, keys or [], as_int=as_int)
        )
        missing = [] if condition is not None else [key for key in chosen if key not in opened]
        for key in missing:
            note(f"{key_text(key)} is not in the store")
        if missing:
            ended(PROBLEMS)
        if dry_run:
            _say(len(chosen), "would be deleted", chosen, as_json=json)
            return
        if len(chosen) > _N_UNASKED and not yes:
            _ask(len(chosen), chosen)
        if condition is not None and chosen:  # those that were told, as far as they still match
            n = opened.delete(where=condition & where_key.is_in(chosen))
        else:
            n = opened.delete(chosen, missing="ignore")
        _say(n, "deleted", chosen, as_json=json)


def _say(n: int, what: str, keys: list[Any], *, as_json: bool) -> None:
    from simstore.transfer import to_json

    if as_json:
        print_json(
            {"deleted": n if what == "deleted" else 0, "matched": len(keys), "keys": [to_json(key) for key in keys[:_N_NAMED]]}
        )
        return
    print_text(f"{n:,} item{'s' * (n != 1)} {what}{f': {_first(keys)}' if keys else ''}")


def _first(keys: list[Any]) -> str:
    return ", ".join(map(key_text, keys[:_N_NAMED])) + (", …" if len(keys) > _N_NAMED else "")


def _ask(n: int, keys: list[Any]) -> None:
    if not sys.stdin.isatty():
        refuse(f"{n:,} items would be deleted, and there is no terminal to ask at: give --yes", ["--yes"])
    note(f"{n:,} items: {_first(keys)}")
    if not typer.confirm("Delete them?", err=True):
        note("nothing was deleted")
        ended(PROBLEMS)
