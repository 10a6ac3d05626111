"""The layer of text-ngram: texts as weighted sums of their hashed character n-grams."""

from typing import Any

import keras
import tensorflow as tf

__all__ = ["HashedNgrams"]

_KEY = (0x73696D73, 0x746F7265)  # of the hash: another one makes other vectors of the same texts


@keras.saving.register_keras_serializable("simstore.embedders")
class HashedNgrams(keras.layers.Layer):
    """Texts, string [n], to vectors float32 [n, dim]: v[h(g)] = Σ ±idf(g) over the n-grams g of a text.

    A text is lower-cased, its white space becomes single spaces, and one stands before and behind it. One that is
    shorter than n characters is a single n-gram, so that even an empty text has one. SipHash tells an n-gram's place in
    the idf table, its place in the vector, and its sign: the same on every machine.

    Args:
        n: Characters of an n-gram.
        dim: The width of the vectors.
        table: The length of the idf table; n-grams share its entries.
        kwargs: See ``keras.layers.Layer``.

    Weinberger et al., Feature Hashing for Large Scale Multitask Learning, https://arxiv.org/abs/0902.2206
    """

    def __init__(self, n: int = 5, dim: int = 256, table: int = 1 << 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n, self.dim, self.table = n, dim, table
        self.idf = self.add_weight(shape=(table,), initializer="ones", dtype="float32", trainable=False, name="idf")

    def call(self, texts: Any) -> Any:
        """The vectors float32 [n, dim], none of them all zeros."""
        hashes, splits = self.hashed(texts)
        n_texts = tf.size(texts, out_type=tf.int64)
        text = tf.repeat(tf.range(n_texts), splits[1:] - splits[:-1])
        place = hashes // self.table % self.dim
        signs = tf.cast(1 - 2 * (hashes // (self.table * self.dim)), tf.float32)
        weights = signs * tf.gather(tf.convert_to_tensor(self.idf), hashes % self.table)
        sums = tf.math.unsorted_segment_sum(weights, text * self.dim + place, n_texts * self.dim)
        vectors = tf.reshape(sums, (-1, self.dim))
        # Few n-grams may cancel each other out; the first one then stands for all.
        first = tf.one_hot(tf.gather(place, splits[:-1]), self.dim)
        return tf.where(tf.reduce_all(vectors == 0, axis=1, keepdims=True), first, vectors)

    def hashed(self, texts: Any) -> tuple[Any, Any]:
        """The n-grams of all texts, one after the other, as int64 from 0 to 2 · table · dim; and where each text begins."""
        lower = tf.strings.lower(tf.reshape(texts, (-1,)), encoding="utf-8")
        spaced = tf.strings.strip(tf.strings.regex_replace(lower, r"\s+", " "))
        characters = tf.strings.unicode_split(tf.strings.join([" ", spaced, " "]), "UTF-8")
        ngrams = tf.raw_ops.StringNGrams(
            data=characters.flat_values, data_splits=characters.row_splits, separator="", ngram_widths=[self.n],
            left_pad="", right_pad="", pad_width=0, preserve_short_sequences=True,
        )  # fmt: skip
        return tf.strings.to_hash_bucket_strong(ngrams.ngrams, 2 * self.table * self.dim, _KEY), ngrams.ngrams_splits

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """(n, dim)."""
        return input_shape[0], self.dim

    def compute_output_spec(self, texts: Any) -> Any:
        """float32 (n, dim)."""
        return keras.KerasTensor(self.compute_output_shape(texts.shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments that the layer was made with."""
        config: dict[str, Any] = super().get_config()
        return config | {"n": self.n, "dim": self.dim, "table": self.table}
