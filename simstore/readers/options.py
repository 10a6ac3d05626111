"""How a data set is to be read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simstore.errors import InvalidArgumentError
from simstore.readers.reader import FORMATS
from simstore.types import ImageInput

__all__ = ["ReadOptions"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a data set is to be read. None: guessed, and told in the reader's notes.

    Args:
        text_column, key_column, label_column, vector_column, image_column: Names of columns, of members of an npz file or
            features of a TFRecord; image_column holds the bytes of image files; "" as key_column or label_column: none, and no
            guess.
        label_from: For images, and rows without a label column: "parent" takes the name of the file's folder, "none" no
            label; anything else is a regular expression that is searched in the path relative to the root (with "/"), and
            its group "label", or first group, or the match is the label. None: the folder's name, for images in subfolders.
        format: One of FORMATS; None looks into the files.
        as_vectors: Whether arrays are the vectors themselves, or inputs for an embedder. None: rows [n, dim] are vectors.
        image_input: The images that the embedder takes; None keeps their size, in RGB.
        max_pixels: Larger images are refused before they are decoded.
        features: For TFRecord, what features hold: {"text": str, "label": int, "image": bytes, "weights": [float]}.
        batched: For a tf.data.Dataset, whether its elements are batches; None looks at its element_spec.
        name: What stands for the path of a source in memory.

    Raises:
        InvalidArgumentError: A value is not allowed.
    """

    text_column: str | None = None
    key_column: str | None = None
    label_column: str | None = None
    vector_column: str | None = None
    image_column: str | None = None
    label_from: str | None = None
    format: str | None = None
    as_vectors: bool | None = None
    image_input: ImageInput | None = None
    max_pixels: int = 100_000_000
    features: Mapping[str, Any] | None = None
    batched: bool | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise InvalidArgumentError(f"format={self.format!r}: it is one of {', '.join(FORMATS)}")
        if self.max_pixels < 1:
            raise InvalidArgumentError(f"max_pixels={self.max_pixels}: at least 1")
        if self.image_input is not None and self.image_input.channels not in (1, 3, 4):
            raise InvalidArgumentError(
                f"images of {self.image_input.channels} channels: they have 1 (grey), 3 (RGB) or 4 (RGBA)"
            )
        if self.label_from not in (None, "parent", "none"):
            try:
                re.compile(str(self.label_from))
            except re.error as err:
                raise InvalidArgumentError(
                    f"label_from={self.label_from!r} is no regular expression ({err}): give one, or 'parent', or 'none'"
                ) from err
