"""A map of embeddings as one HTML page: what lies together, and what it looks like."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError
from simstore.similarity.labels import Labels, labels_of
from simstore.similarity.visualization.figures import label_name
from simstore.similarity.visualization.images import Items
from simstore.similarity.visualization.reduction import reduced
from simstore.similarity.visualization.tiles import tiles_of

__all__ = ["Projection", "projector"]

_METHOD_NAMES = {"pca": "principal components", "tsne": "t-SNE"}


@dataclass(frozen=True, slots=True)
class Projection:
    """A map of embeddings. A notebook shows it; ``save`` writes it as a page that needs no network and no server.

    Attributes:
        coordinates: Where each embedding lies, [n, 2].
        method: How they were found: "tsne" or "pca".
        page: The HTML page.
        height: In pixels, within a notebook.
    """

    coordinates: NDArray[np.float64] = field(repr=False)
    method: str
    page: str = field(repr=False)
    height: int = 600

    def save(self, path: str | Path) -> Path:
        """Writes the page, over what was there; returns its path."""
        path = Path(path)
        path.write_text(self.page, "utf-8")
        return path

    def _repr_html_(self) -> str:
        page = html.escape(self.page, quote=True)
        return f'<iframe srcdoc="{page}" sandbox="allow-scripts" width="100%" height="{self.height}" frameborder="0"></iframe>'


def projector(
    embeddings: Any,
    labels: Items | None = None,
    class_mapping: Mapping[Any, str] | Sequence[str] | None = None,
    images: Items | None = None,
    image_size: int = 64,
    tooltips_info: Mapping[str, Items] | None = None,
    pt_size: float = 3,
    colorize: bool = True,
    plot_size: int = 600,
    method: str | None = None,
    seed: int = 0,
    title: str = "Embeddings",
) -> Projection:
    """A map of embeddings on a plane, to move in with the mouse; the item under it shows its image, label and more.

    Args:
        embeddings: [n, dim].
        labels: A label for each, str, int or None. Classes can be hidden on the map.
        class_mapping: Names of labels: a dict, or a list that is indexed by label.
        images: An image for each, [n, height, width] with or without channels, of one size.
        image_size: Images with longer sides are made smaller, to so many pixels.
        tooltips_info: More to show of each item: lists of n values, by name.
        pt_size: Radius of a point in pixels.
        colorize: Whether each class has a colour of its own.
        plot_size: Height in pixels within a notebook.
        method: "tsne" (van der Maaten and Hinton, 2008; needs scikit-learn) or "pca"; by default t-SNE if scikit-learn is
            installed and there are 10 to 5,000 embeddings.
        seed: Of t-SNE.
        title: What stands above the map.

    Returns:
        The map: a notebook shows it; ``.save("map.html")`` writes the page.

    Raises:
        InvalidArgumentError: Embeddings that are not finite numbers [n, dim], or not as many labels, images or values.
        PackageMissingError: method="tsne" without scikit-learn.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> projector(rng.normal(size=(100, 8)), labels=[0, 1] * 50, method="pca").coordinates.shape
        (100, 2)
    """
    vectors = _vectors(embeddings)
    n = len(vectors)
    columns = {"images": images, **{f"tooltips_info[{name!r}]": values for name, values in (tooltips_info or {}).items()}}
    for name, values in columns.items():
        if values is not None and len(values) != n:
            raise InvalidArgumentError(f"{name} has one for each of the {n} embeddings, not {len(values)}")
    given = None if labels is None else labels_of(labels, n)
    coordinates, used = reduced(vectors, method, seed)
    data = {
        "points": _screen(coordinates),
        "about": f"{n:,} items, {vectors.shape[1]} dimensions, by {_METHOD_NAMES[used]}",
        "radius": pt_size,
        "colorize": colorize and given is not None,
        "info": {str(name): [str(value) for value in values] for name, values in (tooltips_info or {}).items()},
        "tiles": None if images is None else asdict(tiles_of(images, image_size)),
        **_classes(given, class_mapping, n),
    }
    return Projection(coordinates, used, _page(title, data), plot_size)


def _vectors(embeddings: Any) -> NDArray[np.floating[Any]]:
    vectors = np.asarray(embeddings)
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind not in "fiu":
        raise InvalidArgumentError(f"embeddings are numbers [n, dim], at least one, not {vectors.dtype} {list(vectors.shape)}")
    vectors = vectors.astype(np.float64 if vectors.dtype.itemsize > 4 else np.float32)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise InvalidArgumentError(f"embeddings[{row}] has NaN or infinite numbers")
    return vectors


def _screen(coordinates: NDArray[np.float64]) -> list[list[float]]:
    """x and y of all points between 0 and 1, at one scale; y goes down."""
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    size = float((high - low).max()) or 1.0
    centred = (coordinates - (low + high) / 2) * [1, -1] / size + 0.5
    rounded: list[list[float]] = np.round(centred, 5).T.tolist()
    return rounded


def _classes(labels: Labels | None, class_mapping: Any, n: int) -> dict[str, list[Any]]:
    """The names of all classes, numbers first, and the class of each item: -1 without a label."""
    if labels is None:
        return {"classes": [], "classOf": [-1] * n}
    found = sorted({*labels} - {None}, key=lambda label: (isinstance(label, str), label))
    place = {label: i for i, label in enumerate(found)}
    return {
        "classes": [label_name(label, class_mapping) for label in found],
        "classOf": [place.get(label, -1) for label in labels],
    }


def _page(title: str, data: dict[str, Any]) -> str:
    """The template with title and data. No label can end the script element: ``<`` is escaped."""
    template = resources.files(__package__).joinpath("projector.html").read_text("utf-8")
    before, between, after = template.split("{{title}}")
    head, tail = after.split("{{data}}")
    name, text = html.escape(title), json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return before + name + between + name + head + text + tail
