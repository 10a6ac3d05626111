"""Confusion matrices in which a refusal to answer counts, too."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError
from simstore.similarity.labels import labels_of
from simstore.similarity.visualization.figures import finish, import_pyplot, label_name
from simstore.similarity.visualization.images import Items

__all__ = ["confusion_matrix"]

_MOST_NUMBERS = 30  # classes; with more the numbers are no longer legible


def confusion_matrix(
    y_pred: Items,
    y_true: Items,
    normalize: bool = True,
    labels: Mapping[Any, str] | Sequence[str] | None = None,
    title: str = "Confusion matrix",
    cmap: str = "Blues",
    show: bool = True,
    no_match_label: str | int | None = -1,
) -> tuple[Any, NDArray[np.float64]]:
    """Draws how often each class was taken for each other one, or for none of them.

    Classes are all that occur or are named in ``labels``, sorted. The unknown (``no_match_label`` or None) comes last where
    it occurs: as a column for what ``match`` refused, as a row for what is of no known class. Refusing that is right.

    Args:
        y_pred: Labels that ``model.match()`` returned, [n].
        y_true: The true labels, [n].
        normalize: Whether each row is divided by its sum, so that its numbers are shares of the true class.
        labels: Names of classes: a dict, or a list that is indexed by label.
        title: What stands above.
        cmap: matplotlib's name of the colours.
        show: Whether to open a window, if there is a screen.
        no_match_label: The label that stands for the unknown, as given to ``match``.

    Returns:
        The matplotlib axes, and the matrix [n_classes, n_classes]: true classes in rows, predicted ones in columns.

    Raises:
        InvalidArgumentError: There are not as many predictions as labels, or none.
        PackageMissingError: matplotlib is not installed.
    """
    predicted, true = _listed(y_pred, no_match_label), _listed(y_true, no_match_label)
    if len(predicted) != len(true) or not true:
        raise InvalidArgumentError(
            f"y_pred and y_true have one label for each item, at least one; here they have {len(predicted)} and {len(true)}"
        )
    classes = _classes({*predicted, *true}, labels)
    row_of = {label: row for row, label in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)))
    np.add.at(matrix, ([row_of[label] for label in true], [row_of[label] for label in predicted]), 1)
    accuracy = float(matrix.trace() / matrix.sum())
    if normalize:
        matrix /= np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # a class that only occurs as a prediction has no items
    names = ["unknown" if label is None else label_name(label, labels) for label in classes]
    axes = _drawn(matrix, names, cmap, normalize)
    axes.set_title(title)
    axes.set_ylabel("True label")
    axes.set_xlabel(f"Predicted label\naccuracy={accuracy:.4f}; misclass={1 - accuracy:.4f}")
    finish(axes.figure, show)
    return axes, matrix


def _listed(labels: Items, no_match_label: Any) -> list[Any]:
    """Labels as str, int or None, the unknown as None."""
    return [None if label == no_match_label else label for label in labels_of(labels)]


def _classes(found: set[Any], labels: Any) -> list[Any]:
    """All classes: numbers, then texts, then the unknown."""
    named = () if labels is None else labels if hasattr(labels, "keys") else range(len(labels))
    known = ({*found} | {*named}) - {None}
    return sorted(known, key=lambda label: (isinstance(label, str), label)) + [None] * (None in found)


def _drawn(matrix: NDArray[np.float64], names: list[str], cmap: str, normalize: bool) -> Any:
    n = len(names)
    side = min(max(5.0, 0.55 * n + 2), 20.0)
    figure, axes = import_pyplot().subplots(figsize=(side + 1, side), layout="constrained")
    figure.colorbar(axes.imshow(matrix, interpolation="nearest", cmap=cmap, vmin=0), shrink=0.8)
    axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), names)
    if n <= _MOST_NUMBERS:
        half = matrix.max() / 2
        for (row, column), value in np.ndenumerate(matrix):
            axes.text(
                column,
                row,
                "0" if value == 0 else f"{value:.2f}" if normalize else f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if value > half else "black",
            )
    return axes
