"""Views of the same images, side by side."""

import math
from typing import Any

import numpy as np

from simstore.errors import InvalidArgumentError
from simstore.similarity.visualization.figures import INK, draw_image, finish, import_pyplot
from simstore.similarity.visualization.images import Items, as_image, scaled, side_by_side

__all__ = ["visualize_views"]


def visualize_views(
    views: Items,
    labels: Items | None = None,
    predictions: Items | None = None,
    num_imgs: int | None = None,
    views_per_col: int = 4,
    fig_size: tuple[float, float] | None = None,
    max_pixel_value: float | None = None,
    cmap: str = "gray",
    show: bool = True,
) -> Any:
    """Draws the views of each image side by side: what an augmenter makes of it, or what a model is to take for one thing.

    Args:
        views: For each view the images in the same order, [n_views, n_images, height, width] with or without channels.
        labels: A label for each image.
        predictions: What a model said of each image: a number, or a name.
        num_imgs: How many images to draw. By default all.
        views_per_col: How many images stand in one row.
        fig_size: Width and height in inches. By default as the images need.
        max_pixel_value: What is white. By default 255 for uint8, 1 or the brightest pixel for other types.
        cmap: matplotlib's name of the colours for images with one channel.
        show: Whether to open a window, if there is a screen.

    Returns:
        The matplotlib figure.

    Raises:
        InvalidArgumentError: The views are no images, or not equally many.
        PackageMissingError: matplotlib is not installed.
    """
    n_images = _n_images(views, num_imgs)
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values is not None and len(values) < n_images:
            raise InvalidArgumentError(f"{name} has one for each image, {n_images}, not {len(values)}")
    if views_per_col < 1:
        raise InvalidArgumentError(f"views_per_col is at least 1, not {views_per_col}")
    pictures = _pictures(views, n_images, max_pixel_value)
    n_columns = min(views_per_col, n_images)
    n_rows = math.ceil(n_images / n_columns)
    width = 1.5 * sum(picture.shape[1] / picture.shape[0] for picture in pictures[:n_columns])
    figure, axes = import_pyplot().subplots(
        n_rows, n_columns, figsize=fig_size or (width, 1.85 * n_rows), squeeze=False, layout="constrained"
    )
    for index, (axis, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        draw_image(axis, picture, cmap)
        axis.set_title(_title(index, labels, predictions), fontsize=9, color=INK)
    for axis in axes.flat[n_images:]:
        axis.axis("off")
    return finish(figure, show)


def _n_images(views: Items, num_imgs: int | None) -> int:
    lengths = {len(view) for view in views}
    if len(lengths) != 1 or 0 in lengths:
        raise InvalidArgumentError(
            f"views holds the same images once per view, at least one; here the views have {sorted(lengths)} images"
        )
    if num_imgs is not None and num_imgs < 1:
        raise InvalidArgumentError(f"num_imgs is at least 1, or None for all, not {num_imgs}")
    return min(num_imgs or lengths.copy().pop(), lengths.pop())


def _pictures(views: Items, n_images: int, max_pixel_value: float | None) -> list[Any]:
    """For each image its views in one row."""
    flat = [as_image(view[index], "a view") for index in range(n_images) for view in views]
    if max_pixel_value is None:
        images = scaled(flat)
    else:
        images = [np.clip(image.astype(np.float32) / max_pixel_value, 0, 1) for image in flat]
    return [side_by_side(images[start : start + len(views)]) for start in range(0, len(images), len(views))]


def _title(index: int, labels: Items | None, predictions: Items | None) -> str:
    title = str(index) if labels is None else f"Label: {_said(labels[index])}"
    return title if predictions is None else f"{title} | Pred: {_said(predictions[index])}"


def _said(value: Any) -> str:
    """A number, a name, or the only element of an array."""
    if not isinstance(value, str) and np.size(value) == 1:
        value = np.asarray(value).item()
    return f"{value:.5f}" if isinstance(value, float) else str(value)
