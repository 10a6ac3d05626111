"""ResNet-50 for similarity learning."""

from typing import Any

import keras
from keras import layers

from simstore.similarity.architectures.backbone import checked_shape, loaded, preprocessed, similarity_model, train_only

__all__ = ["ResNet50Sim"]


def ResNet50Sim(
    input_shape: tuple[int, int, int],
    embedding_size: int = 128,
    weights: str | None = "imagenet",
    trainable: str | None = None,
    l2_norm: bool = True,
    include_top: bool = True,
    pooling: str | None = "gem",
    gem_p: float = 3.0,
    *,
    preproc_mode: str | None = None,
) -> Any:
    """A SimilarityModel on ResNet-50.

    Args:
        input_shape: (height, width, channels), at least 32 × 32; ImageNet's weights are for 3 channels.
        embedding_size: Width of the embedding.
        weights: "imagenet", which is downloaded; the path of a file of weights; or None for random ones.
        trainable: "full"; "partial" for the last block, conv5; or "frozen". By default "frozen", but "full" if weights is
            None. With weights, batch normalisation keeps its statistics.
        l2_norm: Whether the last layer is a MetricEmbedding; otherwise it is a Dense one.
        include_top: Whether there is such a layer.
        pooling: "gem" (generalised mean), "avg", "max", or None for the feature map, without top.
        gem_p: The power of "gem": 1 is the mean; the larger, the nearer to the maximum.
        preproc_mode: What to make of images from 0 to 255, see ``ResNet18Sim``. ImageNet's weights want "caffe". By default
            nothing, as in TensorFlow Similarity: then it has been done before, by resnet50.preprocess_input.

    Raises:
        InvalidArgumentError: The weights cannot be had, or another argument is wrong.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """
    shape = checked_shape(input_shape)
    backbone = loaded(keras.applications.ResNet50, weights, shape)
    train_only(backbone, trainable, weights, r"conv5")
    inputs = layers.Input(shape=shape)
    return similarity_model(
        inputs,
        backbone(preprocessed(inputs, preproc_mode)),
        embedding_size=embedding_size,
        l2_norm=l2_norm,
        include_top=include_top,
        pooling=pooling,
        gem_p=gem_p,
        name="resnet50sim",
    )
