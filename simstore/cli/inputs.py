"""Inputs for a store's embedder, from what stands on a command line or in an item."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from simstore.errors import InvalidArgumentError

if TYPE_CHECKING:
    from simstore.embedders import Embedder
    from simstore.store import Store
    from simstore.types import ImageInput, Item

__all__ = ["MAX_PIXELS", "embedder_of", "image_at", "image_decoder", "inputs_of_items", "source_file_of", "texts_of_items"]

MAX_PIXELS = 100_000_000


def embedder_of(store: "Store") -> "Embedder":
    """The embedder of an open store.

    Raises:
        EmbedderRequiredError: It has none, or one that has to be given.
    """
    return store._embedders.of(store._view().schema)


def image_at(path: str, image_input: "ImageInput | None", *, max_pixels: int = MAX_PIXELS) -> Any:
    """The pixels of an image file, as an embedder takes them.

    Raises:
        RejectedError: It is not there, or no image.
    """
    from simstore.readers.image_files import read_image
    from simstore.readers.images import decode_image

    return decode_image(read_image(path), image_input, max_pixels=max_pixels)


def image_decoder(embedder: "Embedder", *, max_pixels: int = MAX_PIXELS) -> Callable[[str], Any]:
    """path → pixels, in the size that an embedder takes.

    Raises:
        InvalidArgumentError: It takes no images.
    """
    from simstore.embedders import input_of
    from simstore.types import ImageInput

    wanted = input_of(embedder)
    if wanted is not None and not isinstance(wanted, ImageInput):
        raise InvalidArgumentError(f"the embedder {embedder.spec.name!r} takes no images, but {wanted}")
    return lambda path: image_at(path, wanted, max_pixels=max_pixels)


def source_file_of(data: Any) -> str | None:
    """The file that is an item's one example, as `simstore index` notes it; None for rows of files, and for other items."""
    source = data.get("_source") if isinstance(data, dict) else None
    if not isinstance(source, dict) or source.get("row") is not None:
        return None
    return source.get("file") or None


def texts_of_items(store: "Store", field: str) -> Iterator[str]:
    """The texts in a field of the items' data; items that have none there are passed over."""
    from simstore.where.paths import path_of, value_at

    path = path_of(field, place="--field")
    for item in store.scan():
        text = value_at(item.data, path)
        if isinstance(text, str):
            yield text


def field_of_items(field: str) -> Callable[["Item"], Any]:
    """item → a field of its data.

    Raises:
        InvalidFilterError: It is no path.
    """
    from simstore.where.kinds import MISSING
    from simstore.where.paths import path_of, value_at

    path = path_of(field, place="--field")

    def value(item: "Item") -> Any:
        found = value_at(item.data, path)
        if found is MISSING:
            raise InvalidArgumentError(f"the item {item.key!r} has no field {field!r} in its data: name another --field")
        return found

    return value


def inputs_of_items(embedder: "Embedder", field: str | None) -> Callable[["Item"], Any]:
    """item → its input: a field of its data, or the image file that it was made from."""
    if field is not None:
        return field_of_items(field)
    decode = image_decoder(embedder)

    def pixels(item: "Item") -> Any:
        file = source_file_of(item.data)
        if file is None:
            raise InvalidArgumentError(
                f"the item {item.key!r} does not come from an image file: name the field of its data that holds the input by "
                "--field, or index the data set into a new store"
            )
        return decode(file)

    return pixels
