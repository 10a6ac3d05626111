"""What the pictures drawn by matplotlib share."""

from typing import Any

from numpy.typing import NDArray

from simstore.errors import PackageMissingError
from simstore.similarity.visualization.images import Image

__all__ = ["RIGHT", "WRONG", "draw_image", "finish", "frame", "import_pyplot", "label_name"]

RIGHT, WRONG, INK, QUIET = "#2a7d4f", "#d62839", "#1f2430", "#7a8194"
_CANNOT_SHOW = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}  # backends that only write files


def import_pyplot() -> Any:
    """matplotlib.pyplot.

    Raises:
        PackageMissingError: It is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as err:
        raise PackageMissingError(f"pictures need matplotlib ({err}): pip install 'simstore[viz]'") from err
    return pyplot


def finish(figure: Any, show: bool) -> Any:
    """The figure, shown if that was asked for and there is a screen; pyplot forgets it otherwise, or it would keep it."""
    pyplot = import_pyplot()
    if show and pyplot.get_backend().lower() not in _CANNOT_SHOW:
        pyplot.show()
    else:
        pyplot.close(figure)
    return figure


def draw_image(axis: Any, image: Image, cmap: str) -> None:
    """An image between 0 and 1 on an axis without ticks; cmap colours one with a single channel."""
    pixels: NDArray[Any] = image[:, :, 0] if image.shape[2] == 1 else image
    axis.imshow(pixels, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def frame(axis: Any, colour: str, width: float) -> None:
    """A frame around an axis."""
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=width, visible=True)


def label_name(label: Any, class_mapping: Any) -> str:
    """How a label is shown: by its name in a mapping or a list, if that has it."""
    if label is None:
        return "no label"
    if class_mapping is None:
        return str(label)
    if hasattr(class_mapping, "keys"):
        return str(class_mapping.get(label, label))
    is_place = not isinstance(label, str) and 0 <= label < len(class_mapping)
    return str(class_mapping[label] if is_place else label)
