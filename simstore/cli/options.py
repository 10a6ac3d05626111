"""Arguments and options that several commands have."""

from typing import Annotated

import typer

__all__ = [
    "AsInt",
    "AsJson",
    "Ef",
    "EmbedderName",
    "Exact",
    "MetricName",
    "Recall",
    "SnapshotName",
    "StorePath",
    "WhereText",
    "WithVectors",
]

StorePath = Annotated[str, typer.Argument(metavar="STORE", help="The store's directory.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
WhereText = Annotated[
    str | None,
    typer.Option(
        "--where", "-w", metavar="FILTER",
        help="Only items that match, as \"year>=2020 and label in (cat,dog)\", or the same as a JSON dict.",
    ),
]  # fmt: skip
WithVectors = Annotated[bool, typer.Option("--with-vectors", help="Print the vectors, too.")]
SnapshotName = Annotated[str | None, typer.Option("--snapshot", metavar="NAME", help="The state that a snapshot remembers.")]
AsInt = Annotated[bool, typer.Option("--int", help="Keys are ints; otherwise a key is a str, or an int if no str is there.")]
EmbedderName = Annotated[
    str | None,
    typer.Option("--embedder", "-e", metavar="NAME", help="A name of `simstore embedders`, a .keras file, or module:function."),
]  # fmt: skip
MetricName = Annotated[
    str | None, typer.Option("--metric", metavar="NAME", help="Of a new store: cosine (the default), l2 or ip.")
]
Ef = Annotated[int | None, typer.Option("--ef", metavar="N", help="How many candidates a search keeps; more find better.")]
Recall = Annotated[
    float | None, typer.Option("--recall", metavar="SHARE", help="In place of --ef: the share of true neighbours to be found.")
]
Exact = Annotated[bool, typer.Option("--exact", help="Compare with every item.")]
