"""A query and its neighbours, side by side."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from simstore.similarity.labels import labels_of
from simstore.similarity.types import Lookup
from simstore.similarity.visualization.figures import (
    INK,
    QUIET,
    RIGHT,
    WRONG,
    draw_image,
    finish,
    frame,
    import_pyplot,
    label_name,
)
from simstore.similarity.visualization.images import as_image, is_image, scaled

__all__ = ["viz_neigbors_imgs", "viz_neighbors_imgs"]

_COLUMNS = 11  # a query and ten neighbours; more go to the next row


def viz_neighbors_imgs(
    example: Any,
    example_class: Any,
    neighbors: Sequence[Lookup],
    class_mapping: Mapping[Any, str] | Sequence[str] | None = None,
    fig_size: tuple[float, float] | None = None,
    cmap: str = "viridis",
    show: bool = True,
) -> Any:
    """Draws a query and its nearest neighbours; a red frame marks those of another class, on any colours.

    Args:
        example: The query's image, [height, width] or [height, width, 1, 3 or 4] of any type. Anything else, such as
            a text or None, is written in its place.
        example_class: The query's label. None: not known, and no neighbour is marked.
        neighbors: What ``single_lookup`` found, or one query's part of what ``lookup`` did. Their data are shown if they
            are images, else written; without data there is an empty panel. One without a label is not marked.
        class_mapping: Names of labels: a dict, or a list that is indexed by label.
        fig_size: Width and height in inches. By default as the number of neighbours needs.
        cmap: matplotlib's name of the colours for images with one channel.
        show: Whether to open a window, if there is a screen.

    Returns:
        The matplotlib figure, for ``figure.savefig(path)``.

    Raises:
        PackageMissingError: matplotlib is not installed.

    Example:
        >>> figure = viz_neighbors_imgs(qx[0], qy[0], model.single_lookup(qx[0]))  # doctest: +SKIP
    """
    n_columns = min(len(neighbors) + 1, _COLUMNS)
    n_rows = math.ceil((len(neighbors) + 1) / n_columns)
    pyplot = import_pyplot()
    figure, axes = pyplot.subplots(
        n_rows, n_columns, figsize=fig_size or (1.6 * n_columns, 2.1 * n_rows), squeeze=False, layout="constrained"
    )
    expected = labels_of([example_class])[0]
    contents = _contents([example, *(neighbor.data for neighbor in neighbors)])
    titles = [
        "query" if expected is None else label_name(expected, class_mapping),
        *(_title(neighbor, class_mapping) for neighbor in neighbors),
    ]
    colours = [INK, *(_colour(neighbor.label, expected) for neighbor in neighbors)]
    for axis, content, title, colour in zip(axes.flat, contents, titles, colours, strict=False):
        _draw(axis, content, cmap)
        axis.set_anchor("N")
        axis.set_title(title, fontsize=10, color=colour, weight="normal" if colour is QUIET else "bold")
        frame(axis, colour, 3 if colour is WRONG else 1.5)
    for axis in axes.flat[len(contents) :]:
        axis.axis("off")
    return finish(figure, show)


viz_neigbors_imgs = viz_neighbors_imgs  # as TensorFlow Similarity spells it


def _title(neighbor: Lookup, class_mapping: Any) -> str:
    return f"{label_name(neighbor.label, class_mapping)}  d: {neighbor.distance:.5f}"


def _colour(label: Any, expected: Any) -> str:
    if expected is None or label is None:
        return QUIET
    return RIGHT if label == expected else WRONG


def _contents(values: Sequence[Any]) -> list[Any]:
    """Images scaled, everything else as text."""
    images = iter(scaled([as_image(value, "example") for value in values if is_image(value)]))
    return [next(images) if is_image(value) else _text(value) for value in values]


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else repr(value)
    return textwrap.fill(textwrap.shorten(text, 90, placeholder=" …"), 18)


def _draw(axis: Any, content: Any, cmap: str) -> None:
    if not isinstance(content, str):
        draw_image(axis, content, cmap)
        return
    axis.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axis.text(0.5, 0.5, content, ha="center", va="center", fontsize=8, color=INK)
