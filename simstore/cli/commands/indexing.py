"""index: a data set into a store."""

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simstore.cli.examples import examples
from simstore.cli.opened import named, needs_texts
from simstore.cli.options import AsJson, EmbedderName, MetricName
from simstore.cli.outcome import INTERRUPTED, PROBLEMS, ended, refuse
from simstore.cli.printing import counted, note, print_json, progress_bar
from simstore.errors import EmbedderMismatchError, EmbedderRequiredError

if TYPE_CHECKING:
    from simstore.embedders import Embedder
    from simstore.readers import ReadOptions
    from simstore.reports import IngestReport
    from simstore.store import Store

__all__ = ["register"]

Column = Annotated[str | None, typer.Option(metavar="NAME", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "index",
        epilog=examples(
            "simstore index photos/ --store photos.sim --embedder image-thumb",
            "simstore index notes.csv --store notes.sim --embedder text-ngram --text-column body --key-column id",
            "simstore index 'vectors/*.npy' --store my.sim --metric l2",
            "simstore index photos/ --store photos.sim --prune  # again: only what has changed is read",
        ),
    )(_index)


def _index(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Folders of images, files of texts or vectors, globs.", show_default=False),
    ],
    store: Annotated[
        str,
        typer.Option(
            "--store", "-s", metavar="STORE", help="The store's directory; made if it is not there.", show_default=False
        ),
    ],
    embedder: EmbedderName = None,
    text_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which column is the text; guessed where one fits.")
    ] = None,
    key_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which column is the key; '' for none, and no guess.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which column is the label; '' for none, and no guess.")
    ] = None,
    vector_column: Annotated[str | None, typer.Option(metavar="NAME", help="Which column holds the vectors.")] = None,
    image_column: Annotated[str | None, typer.Option(metavar="NAME", help="Which column holds image files.")] = None,
    label_from: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="Labels of files: parent (the folder's name), none, or a regular expression."),
    ] = None,
    format: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the files are; by default their content tells.")
    ] = None,
    metric: MetricName = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete items whose example is no longer there.")] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Prune even if more than a tenth of the items would go.")
    ] = False,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try again what was rejected before.")] = False,
    max_errors: Annotated[int | None, typer.Option(min=0, metavar="N", help="End when more than N are rejected.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything was rejected.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Write nothing: count and estimate.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads that decode; by default one for each CPU.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many inputs the embedder gets at once.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, metavar="SECONDS", help="How long a file may take to decode.")] = 30.0,
    max_pixels: Annotated[int, typer.Option(min=1, metavar="N", help="Larger images are rejected.")] = 100_000_000,
    report: Annotated[str | None, typer.Option("--report", metavar="FILE", help="Write the report as JSON, too.")] = None,
    json: AsJson = False,
) -> None:
    """Turn data sets into a store: images, texts or vectors. Run again, it takes in what is new or has changed.

    What cannot be read is noted (see `simstore rejected`) and ends nothing. Ctrl-C stops after the batch in hand; the same
    command goes on from there.
    """
    from simstore.readers import ReadOptions

    options = ReadOptions(
        text_column=text_column, key_column=key_column, label_column=label_column, vector_column=vector_column,
        image_column=image_column, label_from=label_from, format=format, max_pixels=max_pixels,
    )  # fmt: skip
    given: list[Any] = list(sources)
    if report is not None and not os.path.isdir(folder := os.path.dirname(report) or "."):
        refuse(f"there is no folder {folder!r}", ["--report"])
    done: IngestReport | None = None
    is_interrupted = False
    try:
        with _opened(store, given, options, embedder, metric, is_dry=dry_run) as opened, progress_bar() as progress:
            with _stopping() as stop:
                done = opened.ingest(
                    given, options=options, prune=prune, force=force, retry_errors=retry_errors, max_errors=max_errors,
                    timeout_s=timeout, workers=workers, batch_size=batch_size, dry_run=dry_run, stop=stop, progress=progress,
                )  # fmt: skip
            if done.is_interrupted:
                raise KeyboardInterrupt  # the store is closed without building graphs
            opened.close(progress=progress)
    except KeyboardInterrupt:
        if done is None:
            raise
        is_interrupted = True
    _tell(done, store, report, as_json=json)
    ended(INTERRUPTED if is_interrupted else PROBLEMS if strict and (done.rejected or done.rejected_before) else 0)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one interrupts."""
    stop = threading.Event()

    def on_interrupt(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        note("stopping after the batch in hand; Ctrl-C again stops at once")

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _opened(
    path: str, sources: list[Any], options: "ReadOptions", embedder: str | None, metric: str | None, *, is_dry: bool
) -> "Iterator[Store]":
    """The store to index into. A new one is made when the sources are known to be readable; for a dry run, elsewhere."""
    from simstore.store import open as open_store

    is_new = not (os.path.isdir(path) and os.listdir(path))
    made_by = None
    if is_new or embedder is not None:
        made_by = _embedder(path, sources, options, embedder, is_new=is_new)
    if is_dry and not is_new and made_by is not None and _record(path) is None:
        refuse("the store has no embedder, and a dry run does not give it one", ["--embedder"])
    settings: dict[str, Any] = {"embedder": made_by} | ({} if metric is None else {"metric": metric})
    if is_new and is_dry:
        with (
            tempfile.TemporaryDirectory(prefix="simstore-") as folder,
            open_store(Path(folder, "dry.sim"), **settings) as store,
        ):
            yield store
        return
    if made_by is not None and not is_new and not is_dry:
        _give_if_empty(path, made_by)
    with open_store(path, **settings) as store:
        yield store


def _give_if_empty(path: str, embedder: "Embedder") -> None:
    """Gives an embedder to a store that holds nothing, as after a first run in which another one failed on everything."""
    import simstore

    with simstore.open(path, background=False) as store:
        record = store._view().schema.embedder
        if record is not None and record["fingerprint"] != embedder.spec.fingerprint and not len(store):
            store.reembed(embedder)


def _embedder(path: str, sources: list[Any], options: "ReadOptions", name: str | None, *, is_new: bool) -> "Embedder | None":
    """The embedder to open the store with; None where it has its own, or needs none.

    Raises:
        EmbedderRequiredError: A new store needs one.
    """
    from simstore.readers import open_sources

    if name is None:
        _check_vectors(open_sources(sources, options))
        return None
    if not is_new and _has(path, name):
        return None
    learns = needs_texts(name)
    if learns and not is_new:
        _check_none_other(path, name)
    if not learns:
        if is_new:
            open_sources(sources, options)  # raises before anything is made
        return named(name)
    from simstore.ingest import texts_of

    with progress_bar() as progress:
        note(f"{name} goes through all texts once, before they are indexed")
        return named(name, texts=counted(texts_of(open_sources(sources, options)), progress))


def _check_none_other(path: str, name: str) -> None:
    """Raises EmbedderMismatchError if a store holds vectors of another embedder, before one learns from all texts in vain."""
    import simstore

    with simstore.open(path, mode="r", background=False) as store:
        record = store._view().schema.embedder
        if record is not None and len(store):
            raise EmbedderMismatchError(
                f"{path} holds vectors of the embedder {record['name']!r}: leave --embedder out to go on with it, or move the "
                f"store to {name} by `simstore reembed`"
            )


def _check_vectors(readers: Any) -> None:
    """Raises EmbedderRequiredError if there is something that is no vector."""
    names = {"image": "image-thumb or image-efficientnet-lite0", "text": "text-ngram or text-minilm"}
    for reader in readers:
        if reader.input_kind != "vector":
            known = names.get(reader.input_kind, "a .keras file")
            raise EmbedderRequiredError(
                f"{reader.source} holds {reader.input_kind}s: name what turns them into vectors by --embedder, as {known}; "
                "`simstore embedders` lists all"
            )


def _has(path: str, name: str) -> bool:
    """Whether the store's embedder is that of a name, and is saved in it."""
    from simstore.embedders import same_name

    record = _record(path)
    return record is not None and record["saved"] and same_name(record, name)


def _record(path: str) -> dict[str, Any] | None:
    """What the store remembers of its embedder."""
    import simstore

    with simstore.open(path, mode="r", background=False) as store:
        return store._view().schema.embedder


def _tell(done: "IngestReport", store: str, report: str | None, *, as_json: bool) -> None:
    from simstore.cli.index_report import print_report, write_report

    for guess in done.guesses:
        note(f"guessed: {guess}")
    if report is not None:
        write_report(report, done)
    if as_json:
        print_json(done.as_dict())
    else:
        print_report(done)
    if done.rejected or done.rejected_before:
        note(f"what was rejected, and why: simstore rejected {store}")
    if done.is_interrupted:
        note("stopped; what is done stays. Run the same command again to go on")
