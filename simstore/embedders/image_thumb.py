"""image-thumb: an embedder of images that needs no weights, a thumbnail as a vector."""

from typing import Any

from simstore.embedders.keras import KerasEmbedder, import_keras

__all__ = ["image_thumb"]

SIDE = 16  # pixels


def image_thumb(batch_size: int = 256) -> KerasEmbedder:
    """The embedder "image-thumb": images uint8 [n, 16, 16, 3], RGB; vectors [n, 768] of length 1, the same in whatever batch.

    A pixel counts as its distance from the middle grey, 127.5, so that bright and dark images point in opposite
    directions, and no image of whole numbers, not even a black one, is a vector of zeros. Subtracting each image's own
    mean instead finds fewer near-duplicates, and makes nothing of an image of one colour.

    Raises:
        KerasMissingError: Keras or its backend is not installed.
    """
    return KerasEmbedder(_model(), batch_size=batch_size, name="image-thumb")


def _model() -> Any:
    keras = import_keras()
    from simstore.embedders.unit_length import UnitLength

    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="pixels")
    centred = keras.layers.Rescaling(1.0, offset=-127.5, dtype="float32", name="centred")(pixels)
    flat = keras.layers.Flatten("channels_last", dtype="float32", name="flat")(centred)
    return keras.Model(pixels, UnitLength(dtype="float32", name="vector")(flat), name="image-thumb")
