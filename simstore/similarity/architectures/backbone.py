"""What the architectures share: loading a backbone, choosing what of it trains, and the head."""

import re
from collections.abc import Callable
from typing import Any

from keras import layers, ops

from simstore.errors import InvalidArgumentError

__all__ = ["loaded", "preprocessed", "similarity_model", "train_only"]

Shape = tuple[int, int, int]
# of ImageNet, by channel, R G B
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # B G R, from 0 to 255


def checked_shape(input_shape: Any) -> Shape:
    """(height, width, channels)."""
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(isinstance(axis, int) and axis > 0 for axis in shape):
        raise InvalidArgumentError(f"input_shape is (height, width, channels), not {input_shape}")
    return shape


def loaded(make: Callable[..., Any], weights: str | None, input_shape: Shape) -> Any:
    """A model of keras.applications without its top.

    Raises:
        InvalidArgumentError: It does not take this shape, or its weights cannot be had.
    """
    try:
        return make(weights=weights, include_top=False, input_shape=input_shape)
    except ValueError as err:
        raise InvalidArgumentError(f"{make.__name__} with weights={weights!r} and input_shape={input_shape}: {err}") from err
    except Exception as err:
        if weights is None:
            raise
        raise InvalidArgumentError(
            f"weights={weights!r} cannot be had ({err}): download them where there is a network and give the file's path, "
            "or take weights=None to train from scratch"
        ) from err


def train_only(backbone: Any, trainable: str | None, weights: str | None, last_block: str) -> None:
    """Sets what of the backbone trains.

    Args:
        backbone: A model of keras.applications.
        trainable: "full", "partial" (the layers that last_block matches) or "frozen". By default "frozen" with weights, and
            "full" without: random ones are not worth keeping.
        weights: What it was loaded with. With any, batch normalisation keeps its statistics.
        last_block: A pattern of layer names.
    """
    trainable = trainable or ("full" if weights is None else "frozen")
    if trainable not in ("full", "partial", "frozen"):
        raise InvalidArgumentError(f"trainable is 'full', 'partial' or 'frozen', not {trainable!r}")
    backbone.trainable = trainable != "frozen"
    for layer in backbone.layers if backbone.trainable else ():
        is_kept = weights is not None and isinstance(layer, layers.BatchNormalization)
        layer.trainable = not is_kept and (trainable == "full" or re.match(last_block, layer.name) is not None)


def preprocessed(x: Any, mode: str | None) -> Any:
    """Images from 0 to 255 as the backbone wants them; see ``ResNet18Sim`` for the modes."""
    if mode is None:
        return x
    if mode not in ("caffe", "tf", "torch"):
        raise InvalidArgumentError(f"preproc_mode is 'caffe', 'tf', 'torch' or None, not {mode!r}")
    if mode == "tf":
        return layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    if x.shape[-1] != 3:
        raise InvalidArgumentError(f"preproc_mode={mode!r} is for 3 channels, not {x.shape[-1]}: 'tf' takes any")
    if mode == "caffe":
        return layers.Rescaling(1.0, offset=[-mean for mean in _CAFFE_MEAN])(ops.flip(x, axis=-1))
    scale = [1 / (255 * sd) for sd in _SD]
    return layers.Rescaling(scale, offset=[-mean / sd for mean, sd in zip(_MEAN, _SD, strict=True)])(x)


def similarity_model(
    inputs: Any,
    features: Any,
    *,
    embedding_size: int,
    l2_norm: bool,
    include_top: bool,
    pooling: str | None,
    gem_p: float,
    name: str,
) -> Any:
    """Pooling and embedding on top of features, as a SimilarityModel."""
    from simstore.similarity.layers import GeneralizedMeanPooling2D, MetricEmbedding
    from simstore.similarity.models import SimilarityModel

    if pooling == "gem":
        x = GeneralizedMeanPooling2D(p=gem_p, name="gem_pool")(features)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(features)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(name="max_pool")(features)
    elif pooling is None:
        x = features
    else:
        raise InvalidArgumentError(f"pooling is 'gem', 'avg', 'max' or None, not {pooling!r}")
    if include_top and pooling is not None:
        x = MetricEmbedding(embedding_size)(x) if l2_norm else layers.Dense(embedding_size)(x)
    return SimilarityModel(inputs, x, name=name)
