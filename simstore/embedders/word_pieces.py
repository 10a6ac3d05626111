"""The layer of text-minilm: texts as BERT's word pieces."""

import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simstore.errors import PackageMissingError

__all__ = ["WordPieces"]


@keras.saving.register_keras_serializable("simstore.embedders")
class WordPieces(keras.layers.Layer):
    """Texts, string [n], as (ids, positions, mask), int32, int32 and bool [n, t]; t is the longest text's.

    The package tokenizers does it, so that a saved model needs that, but not the package of the weights.

    Args:
        tokenizer: The content of a tokenizer.json.
        most: Pieces of a text that count, with those that mark its ends; the rest of it is left out.
        kwargs: See ``keras.layers.Layer``.
    """

    def __init__(self, tokenizer: str, most: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokenizer, self.most = tokenizer, most
        self._making = threading.Lock()
        self._made: Any = None

    def check_installed(self) -> None:
        """Raises PackageMissingError if tokenizers is not installed; call() could only raise what TensorFlow makes of it."""
        self._tokenizer()

    def call(self, texts: Any) -> tuple[Any, Any, Any]:
        """The ids, positions and mask of texts."""
        ids = tf.numpy_function(self._ids, [tf.reshape(texts, (-1,))], tf.int32)
        ids.set_shape((texts.shape[0], None))
        positions = tf.broadcast_to(tf.range(tf.shape(ids)[1]), tf.shape(ids))
        return ids, positions, ids != 0

    def _ids(self, texts: Any) -> Any:
        tokenizer = self._tokenizer()
        found = [one.ids for one in tokenizer.encode_batch_fast([text.decode("utf-8", "replace") for text in texts])]
        ids = np.zeros((len(found), max(map(len, found), default=0)), np.int32)  # 0 is [PAD]
        for row, one in zip(ids, found, strict=True):
            row[: len(one)] = one
        return ids

    def _tokenizer(self) -> Any:
        """The tokenizer, made once for all threads.

        Raises:
            PackageMissingError: tokenizers is not installed.
        """
        with self._making:
            if self._made is None:
                try:
                    from tokenizers import Tokenizer
                except ImportError as err:
                    raise PackageMissingError.of("the word pieces of text-minilm", "tokenizers", "pretrained") from err
                made = Tokenizer.from_str(self.tokenizer)
                made.no_padding()
                made.enable_truncation(self.most)
                self._made = made
            return self._made

    def compute_output_spec(self, texts: Any) -> tuple[Any, Any, Any]:
        """int32, int32 and bool (n, t)."""
        ids, positions, mask = (keras.KerasTensor((texts.shape[0], None), dtype) for dtype in ("int32", "int32", "bool"))
        return ids, positions, mask

    def get_config(self) -> dict[str, Any]:
        """The arguments that the layer was made with."""
        config: dict[str, Any] = super().get_config()
        return config | {"tokenizer": self.tokenizer, "most": self.most}
