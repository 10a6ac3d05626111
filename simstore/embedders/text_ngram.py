"""text-ngram: an embedder of texts that needs no weights, but a first pass over the texts."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.embedders.batches import MOST_CHARACTERS
from simstore.embedders.keras import KerasEmbedder, import_keras
from simstore.errors import InvalidArgumentError

__all__ = ["text_ngram"]

_MOST_TEXTS = 1024  # hashed at once
_STEP = 2.0**-10  # idf weights are multiples of it: their sums are exact, whatever the order


def text_ngram(texts: Iterable[str] | None, batch_size: int = 256) -> KerasEmbedder:
    """The embedder "text-ngram": texts; vectors [n, 256] of length 1, of hashed character 5-grams, the same in any batch.

    Args:
        texts: Those that will be embedded, or like them; they are read once, and not kept. An n-gram weighs
            ln((1 + N) / (1 + n)), where n of the N texts have it.
        batch_size: How many texts are embedded at once, at most.

    Raises:
        KerasMissingError: Keras or TensorFlow is not installed.
        InvalidArgumentError: There are no texts, or they are something else.
    """
    keras = import_keras()
    if texts is None:
        raise InvalidArgumentError(
            "text-ngram weighs n-grams by how many texts have them, and needs a first pass over the texts: "
            "named_embedder('text-ngram', texts=…)"
        )
    if keras.config.backend() != "tensorflow":
        raise InvalidArgumentError(f"text-ngram runs on TensorFlow, and Keras' backend is {keras.config.backend()}")
    model = _model(keras)
    layer = model.get_layer("ngrams")
    layer.idf.assign(_idf(layer, texts))
    return KerasEmbedder(model, batch_size=batch_size, name="text-ngram")


def _model(keras: Any) -> Any:
    from simstore.embedders.hashed_ngrams import HashedNgrams
    from simstore.embedders.unit_length import UnitLength

    texts = keras.Input((), dtype="string", name="texts")
    sums = HashedNgrams(dtype="float32", name="ngrams")(texts)
    return keras.Model(texts, UnitLength(dtype="float32", name="vector")(sums), name="text-ngram")


def _idf(layer: Any, texts: Iterable[str]) -> NDArray[np.float32]:
    """The weight of each entry of the layer's table, float32 [table]: at least _STEP, so that no vector becomes zero."""
    n_texts, n_with = 0, np.zeros(layer.table, np.int64)
    for some in _batches(texts):
        hashes, splits = (part.numpy() for part in layer.hashed(some))
        text = np.repeat(np.arange(len(some)), np.diff(splits))
        pairs = np.unique(text * layer.table + hashes % layer.table)
        n_with += np.bincount(pairs % layer.table, minlength=layer.table)
        n_texts += len(some)
    if n_texts == 0:
        raise InvalidArgumentError("text-ngram needs texts for its first pass, and was given none")
    return np.maximum(np.round(np.log((1 + n_texts) / (1 + n_with)) / _STEP), 1).astype(np.float32) * np.float32(_STEP)


def _batches(texts: Iterable[str]) -> Iterator[list[bytes]]:
    """The texts, as many at once as memory has room for."""
    if isinstance(texts, (str, bytes)):
        raise InvalidArgumentError("texts= is an iterable of texts, not a single one: give it as [text]")
    some: list[bytes] = []
    n_characters = 0
    for text in texts:
        if not isinstance(text, str):
            raise InvalidArgumentError(f"texts= holds str, not {type(text).__name__}")
        some.append(text.encode("utf-8", "replace"))
        n_characters += len(text)
        if len(some) == _MOST_TEXTS or n_characters >= MOST_CHARACTERS:
            yield some
            some, n_characters = [], 0
    if some:
        yield some
