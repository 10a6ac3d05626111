"""EfficientNet for similarity learning."""

from typing import Any

import keras
from keras import layers

from simstore.errors import InvalidArgumentError
from simstore.similarity.architectures.backbone import checked_shape, loaded, similarity_model, train_only

__all__ = ["EfficientNetSim"]

_SIZES = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "B4": 380, "B5": 456, "B6": 528, "B7": 600}


def EfficientNetSim(
    input_shape: tuple[int, int, int],
    embedding_size: int = 128,
    variant: str = "B0",
    weights: str | None = "imagenet",
    trainable: str | None = None,
    l2_norm: bool = True,
    include_top: bool = True,
    pooling: str | None = "gem",
    gem_p: float = 3.0,
) -> Any:
    """A SimilarityModel on EfficientNet. It takes images from 0 to 255 and normalises them itself.

    Args:
        input_shape: (height, width, channels), at least 32 × 32. The variants were made for 224 (B0), 240, 260, 300, 380, 456,
            528 and 600 (B7) pixels, and ImageNet's weights for 3 channels.
        embedding_size: Width of the embedding.
        variant: "B0" to "B7".
        weights: "imagenet", which is downloaded; the path of a file of weights; or None for random ones.
        trainable: "full"; "partial" for the last three blocks; or "frozen". By default "frozen", but "full" if weights is
            None. With weights, batch normalisation keeps its statistics.
        l2_norm: Whether the last layer is a MetricEmbedding; otherwise it is a Dense one.
        include_top: Whether there is such a layer.
        pooling: "gem" (generalised mean), "avg", "max", or None for the feature map, without top.
        gem_p: The power of "gem": 1 is the mean; the larger, the nearer to the maximum.

    Raises:
        InvalidArgumentError: The weights cannot be had, or another argument is wrong.

    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.
    """
    variant = variant.upper()
    if variant not in _SIZES:
        raise InvalidArgumentError(f"variant is one of {', '.join(_SIZES)}, not {variant!r}")
    shape = checked_shape(input_shape)
    backbone = loaded(getattr(keras.applications, f"EfficientNet{variant}"), weights, shape)
    train_only(backbone, trainable, weights, r"block[567]|top")
    inputs = layers.Input(shape=shape)
    return similarity_model(
        inputs,
        backbone(inputs),
        embedding_size=embedding_size,
        l2_norm=l2_norm,
        include_top=include_top,
        pooling=pooling,
        gem_p=gem_p,
        name=f"efficientnet_{variant.lower()}_sim",
    )
