"""search: what is near to a text, an image, a vector or an item."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from simstore.cli.examples import examples
from simstore.cli.given import keys_of, vector_of, where_given
from simstore.cli.items import print_hits
from simstore.cli.opened import to_read
from simstore.cli.options import (
    AsInt,
    AsJson,
    Ef,
    EmbedderName,
    Exact,
    Recall,
    SnapshotName,
    StorePath,
    WhereText,
    WithVectors,
)
from simstore.cli.outcome import refuse
from simstore.cli.printing import note

if TYPE_CHECKING:
    from simstore.store import Store
    from simstore.types import Hit, Item

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "search",
        epilog=examples(
            "simstore search photos.sim --image cat.jpg --sheet similar.png",
            'simstore search texts.sim --text "how to fly" -k 5 --where "year>=2020"',
            "simstore search photos.sim --key cats/1.jpg --json",
            'echo "[0.1, 0.2, 0.3]" | simstore search my.sim --vector -',
        ),
    )(_search)


def _search(
    store: StorePath,
    text: Annotated[str | None, typer.Option("--text", "-t", help="A text, for the store's embedder.")] = None,
    image: Annotated[
        str | None, typer.Option("--image", "-i", metavar="FILE", help="An image, for the store's embedder.")
    ] = None,
    vector: Annotated[
        str | None,
        typer.Option(
            "--vector", "-v", metavar="NUMBERS", help='As "0.1,0.2"; the path of an .npy file; - for a JSON list on stdin.'
        ),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="An item of the store; it is left out of the answer.")] = None,
    k: Annotated[int, typer.Option("-k", "--count", min=0, help="How many; 0: all within --max-distance.")] = 10,
    where: WhereText = None,
    max_distance: Annotated[
        float | None, typer.Option("--max-distance", metavar="D", help="Leave out what is farther.")
    ] = None,
    ef: Ef = None,
    recall: Recall = None,
    exact: Exact = False,
    snapshot: SnapshotName = None,
    embedder: EmbedderName = None,
    as_int: AsInt = False,
    sheet: Annotated[
        str | None, typer.Option("--sheet", metavar="FILE", help="Draw the query and the images found into a .png or .jpg.")
    ] = None,
    with_vectors: WithVectors = False,
    json: AsJson = False,
) -> None:
    """Find the items nearest to a text, an image, a vector or another item."""
    queries = {"--text": text, "--image": image, "--vector": vector, "--key": key}
    given = [name for name, value in queries.items() if value is not None]
    if len(given) != 1:
        refuse(f"give one of {', '.join(queries)}" + (f", not {' and '.join(given)}" if given else ""), given)
    if k == 0 and max_distance is None:
        refuse("0 means all within a distance: give --max-distance, too", ["--count"])
    with to_read(store, snapshot=snapshot, embedder=embedder) as opened:
        item = None if key is None else opened.get(keys_of(opened, [key], as_int=as_int)[0])
        hits = opened.search(
            _vector(vector, item), (k and k + (item is not None)) or None, input=_input(opened, text, image),
            where=where_given(where), ef=ef, recall=recall, exact=exact, max_distance=max_distance, with_vectors=with_vectors,
        )  # fmt: skip
        found = _without(list(hits), item, k)
    print_hits(found, as_json=json, with_vectors=with_vectors)
    if sheet is not None:
        _draw(sheet, text or image or vector or key or "", image, item, found)


def _vector(vector: str | None, item: "Item | None") -> Any:
    return item.vector if item is not None else None if vector is None else vector_of(vector)


def _input(store: "Store", text: str | None, image: str | None) -> Any:
    if image is None:
        return text
    from simstore.cli.inputs import embedder_of, image_decoder

    return image_decoder(embedder_of(store))(image)


def _without(hits: "list[Hit]", item: "Item | None", k: int) -> "list[Hit]":
    """The hits but the item that was asked with, ranked anew."""
    if item is None:
        return hits
    others = [hit for hit in hits if (type(hit.key), hit.key) != (type(item.key), item.key)]
    return [hit._replace(rank=rank) for rank, hit in enumerate(others[:k] if k else others)]


def _draw(sheet: str, name: str, image: str | None, item: "Item | None", hits: "list[Hit]") -> None:
    from simstore.cli.inputs import source_file_of
    from simstore.cli.sheet import Tile, draw_sheet

    file = image if item is None else source_file_of(item.data)
    tiles = [Tile("query", name, file)]
    tiles += [Tile(f"{hit.distance:.4g}", str(hit.key), source_file_of(hit.data)) for hit in hits]
    draw_sheet(sheet, tiles)
    note(f"{len(tiles)} pictures in {sheet}")
