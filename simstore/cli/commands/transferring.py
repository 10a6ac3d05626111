"""export, import: a store as one file."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from simstore.cli.examples import examples
from simstore.cli.given import where_given
from simstore.cli.opened import made, named, to_read
from simstore.cli.options import AsJson, EmbedderName, SnapshotName, StorePath, WhereText
from simstore.cli.outcome import refuse
from simstore.cli.printing import note, print_json, print_text, progress_bar

if TYPE_CHECKING:
    from simstore.embedders import Embedder
    from simstore.store import Store
    from simstore.transfer import FileInfo

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(
        "export",
        epilog=examples(
            "simstore export photos.sim photos.parquet",
            'simstore export photos.sim cats.jsonl --where "label=cat"',
            "simstore export photos.sim - | gzip > photos.jsonl.gz",
        ),
    )(_export)
    app.command("import", epilog=examples("simstore import photos.parquet photos.sim"))(_import)


def _export(
    store: StorePath,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A new .parquet, .jsonl or .npz; - is JSONL on stdout.", show_default=False)
    ],
    format: Annotated[
        str | None, typer.Option("--format", help="parquet, jsonl or npz; by default as the suffix says.")
    ] = None,
    where: WhereText = None,
    snapshot: SnapshotName = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it is there.")] = False,
    json: AsJson = False,
) -> None:
    """Write keys, labels, data and vectors to one file, exactly; it appears when it is whole."""
    from simstore.transfer import export_store

    if file == "-" and (json or format not in (None, "jsonl")):
        refuse("on stdout there is JSONL, and nothing else", ["FILE"])
    with to_read(store, snapshot=snapshot) as opened, progress_bar() as progress:
        dest = sys.stdout.buffer if file == "-" else file
        done = export_store(opened, dest, format=format, where=where_given(where), overwrite=force, progress=progress)
    if json:
        print_json(done)
    elif file == "-":
        note(f"{done.count:,} items")
    else:
        print_text(f"{done.count:,} items in {done.path} ({done.size_bytes / 1e6:,.1f} MB)")


def _import(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `simstore export` wrote.", show_default=False)],
    store: StorePath,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace items whose key is in the store.")] = False,
    embedder: EmbedderName = None,
    json: AsJson = False,
) -> None:
    """Take in a file that `simstore export` wrote: into a new store with its settings, or into one that is there.

    The whole file is looked through first; a damaged one, or a key that is in the store, changes nothing. With --embedder a new
    store gets the embedder that made the vectors, which the file only names.
    """
    from simstore.transfer import check_file, file_info, import_file

    info = file_info(file)
    given = None if embedder is None else _same(named(embedder), info)
    with progress_bar() as progress:
        if not os.path.exists(store):  # none is made for a damaged file
            check_file(file, progress=progress)
    with _opened(store, info, given) as opened, progress_bar() as progress:
        _warn(opened, info)
        done = import_file(opened, file, upsert=upsert, progress=progress)
        has_embedder = opened.embedder is not None
        opened.close(progress=progress)  # graphs are built
    if json:
        print_json(done)
        return
    print_text(f"{done.added:,} items added, {done.replaced:,} replaced")
    if done.embedder is not None and not has_embedder:
        note(
            f"the vectors were made by the embedder {done.embedder.name!r}, which is not in the file: to search by inputs, "
            "import with --embedder, or open the store with it"
        )


def _warn(store: "Store", info: "FileInfo") -> None:
    if store.info().metric != info.metric:
        note(f"the file is of a store that compares by {info.metric}; this one does by {store.info().metric}, as before")


def _same(embedder: "Embedder", info: "FileInfo") -> "Embedder":
    made_by = info.embedder
    if made_by is None or made_by.fingerprint != embedder.spec.fingerprint:
        who = (
            "the file names no embedder"
            if made_by is None
            else f"the vectors were made by {made_by.name!r} ({made_by.fingerprint})"
        )
        refuse(f"{who}, not by {embedder.spec.name!r} ({embedder.spec.fingerprint})", ["--embedder"])
    return embedder


def _opened(store: str, info: "FileInfo", embedder: "Embedder | None") -> "Store":
    import simstore

    if os.path.isdir(store) and os.listdir(store):
        return made(store, embedder=embedder)
    return simstore.open(
        store, dim=None if embedder else info.dim, metric=info.metric, M=info.M, ef_construction=info.ef_construction,
        index_fields=info.indexed_fields, embedder=embedder, background=False,
    )  # fmt: skip
