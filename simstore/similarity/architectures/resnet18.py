"""ResNet-18 for similarity learning, for small images."""

from typing import Any

import keras
from keras import layers

from simstore.similarity.architectures.backbone import checked_shape, preprocessed, similarity_model

__all__ = ["ResNet18Sim"]

_EPSILON = 1.001e-5  # of batch normalisation, as in keras.applications


def ResNet18Sim(
    input_shape: tuple[int, int, int],
    embedding_size: int = 128,
    l2_norm: bool = True,
    include_top: bool = True,
    pooling: str | None = "gem",
    gem_p: float = 3.0,
    preproc_mode: str | None = "torch",
) -> Any:
    """A SimilarityModel on ResNet-18, untrained.

    Its first convolution is 3 × 3 without stride and without pooling, as is usual for images of 32 to 64 pixels.

    Args:
        input_shape: (height, width, channels), from 32 to 224 pixels.
        embedding_size: Width of the embedding.
        l2_norm: Whether the last layer is a MetricEmbedding; otherwise it is a Dense one.
        include_top: Whether there is such a layer.
        pooling: "gem" (generalised mean), "avg", "max", or None for the feature map, without top.
        gem_p: The power of "gem": 1 is the mean; the larger, the nearer to the maximum.
        preproc_mode: What to make of images from 0 to 255, which TensorFlow Similarity computed and threw away.
            "torch": scale to 0 to 1 and normalise each channel by ImageNet's mean and standard deviation.
            "caffe": RGB to BGR and subtract ImageNet's mean.
            "tf": scale to −1 to 1, any number of channels.
            None: nothing.

    Raises:
        InvalidArgumentError: An argument is wrong.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """
    shape = checked_shape(input_shape)
    inputs = layers.Input(shape=shape)
    return similarity_model(
        inputs,
        _resnet18(shape)(preprocessed(inputs, preproc_mode)),
        embedding_size=embedding_size,
        l2_norm=l2_norm,
        include_top=include_top,
        pooling=pooling,
        gem_p=gem_p,
        name="resnet18sim",
    )


def _resnet18(shape: tuple[int, int, int]) -> Any:
    inputs = layers.Input(shape=shape)
    x = layers.Activation("relu", name="conv1_relu")(_convolved(inputs, 64, 3, 1, "conv1"))
    for number, filters in enumerate((64, 128, 256, 512)):
        stride = 1 if number == 0 else 2
        x = _block(x, filters, stride, has_projection=True, name=f"conv{number + 2}_block1")
        x = _block(x, filters, 1, has_projection=False, name=f"conv{number + 2}_block2")
    return keras.Model(inputs, x, name="resnet18")


def _block(x: Any, filters: int, stride: int, *, has_projection: bool, name: str) -> Any:
    """Two convolutions, added to what came in."""
    shortcut = _convolved(x, filters, 1, stride, f"{name}_0") if has_projection else x
    x = layers.Activation("relu", name=f"{name}_1_relu")(_convolved(x, filters, 3, stride, f"{name}_1"))
    x = layers.Add(name=f"{name}_add")([shortcut, _convolved(x, filters, 3, 1, f"{name}_2")])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _convolved(x: Any, filters: int, kernel_size: int, stride: int, name: str) -> Any:
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="lecun_uniform",
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
