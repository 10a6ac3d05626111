"""The demo's picture: queries, each with its nearest neighbours beside it."""

from pathlib import Path
from typing import Any

import numpy as np
from demo_data import Digits
from numpy.typing import NDArray

from simstore import Hits

INK, QUIET, RIGHT, WRONG = "#1f2430", "#7a8194", "#c9ced8", "#d62839"


def draw_neighbours(queries: Digits, answers: list[Hits], n_wrong: int, path: Path) -> None:
    """A row for each query: its image, then those of its hits (from their data), with label and distance.

    Args:
        n_wrong: How many of the rows are there because they have the most wrong neighbours; they are the last ones.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    n_rows, n_columns = len(queries), len(answers[0])
    ratios = [1.0, 0.35, *[1.0] * n_columns]
    figure, axes = pyplot.subplots(
        n_rows,
        len(ratios),
        figsize=(sum(ratios) * 1.05, n_rows * 1.27 + 1.15),
        width_ratios=ratios,
        squeeze=False,
        dpi=130,
    )
    for row, image, label, hits in zip(axes, queries.images, queries.labels.tolist(), answers, strict=True):
        show(row[0], image, f"{label}", INK, bold=True)
        row[1].axis("off")
        for axis, hit in zip(row[2:], hits, strict=True):
            is_right = hit.label == label
            show(axis, hit.data["image"], f"{hit.label}", INK if is_right else WRONG, note=f"{hit.distance:.3f}")
            frame(axis, RIGHT if is_right else WRONG, 0.8 if is_right else 2.4)
    titles(figure, n_rows, n_wrong)
    figure.savefig(path, facecolor="white")
    pyplot.close(figure)


def show(axis: Any, image: NDArray[Any], label: str, colour: str, *, note: str = "", bold: bool = False) -> None:
    """An image with its label, and a note, over it."""
    pixels = image.astype(np.float32) / (float(image.max()) or 1.0)
    axis.imshow(pixels.squeeze(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    weight = "bold" if bold or colour == WRONG else "normal"
    axis.set_title(label, fontsize=11, color=colour, fontweight=weight, loc="left" if note else "center", pad=3)
    if note:
        axis.set_title(note, fontsize=8, color=QUIET, loc="right", pad=3)
    frame(axis, INK, 1.6)


def frame(axis: Any, colour: str, width: float) -> None:
    """A frame around an image."""
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=width)


def titles(figure: Any, n_rows: int, n_wrong: int) -> None:
    """What is to be seen, over the picture and under it."""
    height = n_rows * 1.27 + 1.15
    figure.subplots_adjust(left=0.03, right=0.97, top=1 - 0.95 / height, bottom=0.45 / height, wspace=0.16, hspace=0.36)
    figure.text(0.03, 1 - 0.33 / height, "Held-out images and their nearest neighbours", fontsize=15, color=INK, weight="bold")
    below = "Left: the query. Right: what the store found, closest first; over each its label and its cosine distance."
    figure.text(0.03, 1 - 0.58 / height, below, fontsize=9, color=QUIET)
    chosen = "The first query of each of some labels" + (
        f"; last, the {n_wrong} with the most wrong answers" if n_wrong else ""
    )
    figure.text(0.03, 0.2 / height, f"{chosen}.", fontsize=9, color=QUIET)
    figure.text(0.97, 0.2 / height, "■  red: another label than the query's", fontsize=9, color=WRONG, ha="right")
