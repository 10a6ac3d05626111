"""get, list, info: what is in a store."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from simstore.cli.examples import examples
from simstore.cli.given import keys_of, where_given
from simstore.cli.items import print_items
from simstore.cli.opened import to_read
from simstore.cli.options import AsInt, AsJson, SnapshotName, StorePath, WhereText, WithVectors
from simstore.cli.outcome import PROBLEMS, ended
from simstore.cli.printing import as_json, key_text, note, print_json, print_pairs

if TYPE_CHECKING:
    from simstore.reports import StoreInfo
    from simstore.store import Store
    from simstore.where import Where

__all__ = ["register"]

_N_LISTED = 50
_N_LABELS = 10


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("get", epilog=examples("simstore get photos.sim cats/1.jpg", "simstore get photos.sim 17 --int --json"))(_get)
    app.command(
        "list",
        epilog=examples(
            'simstore list photos.sim --where "year>=2020 and label in (cat,dog)"',
            "simstore list photos.sim --label cat --json --with-vectors",
            "simstore list photos.sim --labels",
        ),
    )(_list)
    app.command("info", epilog=examples("simstore info photos.sim", "simstore info photos.sim --json"))(_info)


def _get(
    store: StorePath,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys of items.", show_default=False)],
    as_int: AsInt = False,
    snapshot: SnapshotName = None,
    with_vectors: WithVectors = False,
    json: AsJson = False,
) -> None:
    """Print items by their keys. A key that is not there is told on stderr, and the exit code is 1."""
    with to_read(store, snapshot=snapshot) as opened:
        chosen = keys_of(opened, keys, as_int=as_int)
        items = opened.get_many(chosen)
        print_items([item for item in items if item is not None], as_json=json, with_vectors=with_vectors)
    missing = [key for key, item in zip(chosen, items, strict=True) if item is None]
    for key in missing:
        note(f"{key_text(key)} is not in the store")
    ended(PROBLEMS if missing else 0)


def _list(
    store: StorePath,
    where: WhereText = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="Only items of this label.")] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=0, help="How many; 50 on a terminal, else all. 0: all.", show_default=False),
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Print the labels and how many items each has.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Print only how many items there are.")] = False,
    snapshot: SnapshotName = None,
    with_vectors: WithVectors = False,
    json: AsJson = False,
) -> None:
    """List items in the order they were written, all or those that match a filter; or labels, or a number."""
    with to_read(store, snapshot=snapshot) as opened:
        condition = _with_label(where_given(where), label)
        if labels:
            _print_labels(opened.labels(where=condition), as_json=json)
        elif count:
            _print_count(opened.count(condition), as_json=json)
        else:
            _print_some(opened, condition, limit, as_json=json, with_vectors=with_vectors)


def _with_label(where: "Where | None", label: str | None) -> "Where | None":
    """The filter, and the label: as a str, or an int if it looks like one."""
    from simstore.where import label as labels

    if label is None:
        return where
    texts: list[Any] = [label, int(label)] if label.removeprefix("-").isdecimal() else [label]
    chosen = labels.is_in(texts)
    return chosen if where is None else where & chosen


def _print_labels(labels: dict[Any, int], *, as_json: bool) -> None:
    from simstore.cli.printing import print_table
    from simstore.transfer import to_json

    if as_json:
        for label, n in labels.items():
            print_json({"label": to_json(label), "count": n})
        return
    print_table(
        ["label", "items"], [(key_text(label), f"{n:,}") for label, n in labels.items()], right=["items"], none="no items"
    )


def _print_count(n: int, *, as_json: bool) -> None:
    from simstore.cli.printing import print_text

    print_json({"count": n}) if as_json else print_text(str(n))


def _print_some(store: "Store", where: "Where | None", limit: int | None, *, as_json: bool, with_vectors: bool) -> None:
    import itertools
    import sys

    if limit is None:
        limit = _N_LISTED if sys.stdout.isatty() and not as_json else 0
    items = store.scan(where)
    print_items(itertools.islice(items, limit or None), as_json=as_json, with_vectors=with_vectors)
    if limit and next(items, None) is not None:
        note(f"… {limit:,} of {store.count(where):,} items: --limit 0 lists all")


def _info(store: StorePath, snapshot: SnapshotName = None, json: AsJson = False) -> None:
    """Show counts, settings and sizes."""
    with to_read(store, snapshot=snapshot) as opened:
        info, labels = opened.info(), opened.labels()
        n_snapshots, n_rejected = len(opened.snapshots()), len(opened.rejected())
    if json:
        print_json({**as_json(info), "n_snapshots": n_snapshots, "n_rejected": n_rejected})
        return
    print_pairs(_facts(info, labels, n_snapshots, n_rejected))


def _facts(info: "StoreInfo", labels: dict[Any, int], n_snapshots: int, n_rejected: int) -> list[tuple[str, Any]]:
    most = sorted((item for item in labels.items() if item[0] is not None), key=lambda item: -item[1])
    names = ", ".join(f"{key_text(label)} ({n:,})" for label, n in most[:_N_LABELS])
    size = info.database_size_bytes + info.segments_size_bytes
    rest = f", … {len(most) - _N_LABELS:,} more" if len(most) > _N_LABELS else ""
    embedder = "none: vectors are given" if info.embedder is None else f"{info.embedder.name} ({info.embedder.fingerprint})"
    return [
        ("path", info.path),
        ("items", f"{info.count:,}"),
        ("labels", f"{len(most):,}: {names}{rest}" if most else "none"),
        ("vectors", "none yet" if info.dim is None else f"{info.dim} numbers, {info.metric}"),
        ("embedder", embedder),
        (
            "graphs",
            f"{info.n_segments}; {info.n_tail:,} rows in none yet (M {info.M}, ef_construction {info.ef_construction})",
        ),
        ("indexed fields", ", ".join(map(str, info.indexed_fields)) or "none"),
        ("replaced or deleted", f"{info.n_dead:,} rows, which `simstore compact` purges"),
        ("snapshots", n_snapshots),
        ("rejected", f"{n_rejected:,}" + (", which `simstore rejected` lists" if n_rejected else "")),
        (
            "size",
            f"{size / 1e6:,.1f} MB, of which {info.segments_size_bytes / 1e6:,.1f} MB are graphs",
        ),
    ]
