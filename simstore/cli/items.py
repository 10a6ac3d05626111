"""Items and hits as tables and as JSON."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from simstore.cli.printing import key_text, print_json, print_table, short

if TYPE_CHECKING:
    from simstore.types import Hit, Item

__all__ = ["hit_json", "item_json", "print_hits", "print_items"]


def item_json(item: "Item | Hit", *, with_vectors: bool) -> dict[str, Any]:
    """key, label, data and, if wanted, vector."""
    from simstore.transfer import to_json

    found = {"key": to_json(item.key), "label": to_json(item.label), "data": to_json(item.data)}
    return {**found, "vector": item.vector.tolist()} if with_vectors and item.vector is not None else found


def hit_json(hit: "Hit", *, with_vectors: bool) -> dict[str, Any]:
    """rank, distance, and what item_json has."""
    return {"rank": hit.rank, "distance": hit.distance, **item_json(hit, with_vectors=with_vectors)}


def print_items(items: "Iterable[Item]", *, as_json: bool, with_vectors: bool) -> None:
    """A table, or a line of JSON each."""
    if as_json:
        for item in items:
            print_json(item_json(item, with_vectors=with_vectors))
        return
    rows = ([key_text(item.key), key_text(item.label), short(item.data), *_vector(item, with_vectors)] for item in items)
    print_table(["key", "label", "data", *["vector"] * with_vectors], rows, none="no items")


def print_hits(hits: "Iterable[Hit]", *, as_json: bool, with_vectors: bool) -> None:
    """A table, or a line of JSON each."""
    if as_json:
        for hit in hits:
            print_json(hit_json(hit, with_vectors=with_vectors))
        return
    rows = (
        [
            str(hit.rank),
            f"{hit.distance:.6g}",
            key_text(hit.key),
            key_text(hit.label),
            short(hit.data),
            *_vector(hit, with_vectors),
        ]
        for hit in hits
    )
    print_table(
        ["rank", "distance", "key", "label", "data", *["vector"] * with_vectors],
        rows,
        right=["rank", "distance"],
        none="nothing found",
    )


def _vector(item: "Item | Hit", with_vectors: bool) -> list[str]:
    return [",".join(f"{number:.6g}" for number in item.vector.tolist())] if with_vectors and item.vector is not None else []
