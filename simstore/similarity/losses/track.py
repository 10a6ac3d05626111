"""Puts the weights of losses into a model."""

from typing import Any

import keras

from simstore.errors import InvalidArgumentError
from simstore.similarity.losses.metric_loss import MetricLoss

__all__ = ["set_training", "track"]


def track(model: Any, loss: Any) -> None:
    """Has a functional model train and save what its losses learn: call it before ``model.compile(loss=loss)``.

    Keras trains only the weights of a model. ``model.loss_layers`` then holds the layers of the losses that have weights,
    ArcFaceLoss, ProxyAnchorLoss and XBM, and these are trained and saved as all layers are. Those of losses that were
    tracked before are dropped. SimilarityModel.compile calls it, also when the model is loaded, just before the weights are.

    A plain keras.Model has to be tracked again when it was loaded, since Keras makes it without ``loss_layers``:

        model = keras.saving.load_model("m.keras")
        track(model, model.loss)
        model.load_weights("m.keras")
        model.compile(optimizer, model.loss)  # the optimizer knew nothing of the new weights

    Args:
        model: A functional keras.Model.
        loss: What compile() gets: a loss, or a list or dict of losses. Any that are not from here are left alone.

    Raises:
        InvalidArgumentError: The model is a Sequential one; or the width of its embeddings is not to be known, or is not
            what a loss was made for.
    """
    losses = [one for one in _ours(loss) if one.has_weights]
    if losses and isinstance(model, keras.Sequential):
        raise InvalidArgumentError(
            f"a Sequential model holds nothing but its layers, and {losses[0].name} has weights: make it functional, "
            "keras.Model(model.inputs, model.outputs)"
        )
    for one in losses:
        one.build(_embedding_size(model, one))
    for layer in getattr(model, "loss_layers", ()):
        model._tracker.untrack(layer)  # assigning would keep them, and train what no loss reads
    if losses or hasattr(model, "loss_layers"):
        model.loss_layers = [one.layer for one in losses]


def set_training(loss: Any, is_training: bool) -> None:
    """Tells losses whether they are called in a training step: call it in ``compute_loss``, which knows.

    Args:
        loss: As of ``track``.
        is_training: What ``compute_loss`` got as ``training``.
    """
    for one in _ours(loss):
        one.is_training = is_training


def _ours(loss: Any) -> list[MetricLoss]:
    return [one for one in keras.tree.flatten(loss) if isinstance(one, MetricLoss)]


def _embedding_size(model: Any, loss: Any) -> int:
    given: int | None = getattr(loss, "embedding_size", None)
    shape = getattr(model, "output_shape", None)
    if given is not None and not (isinstance(shape, tuple) and len(shape) == 2):
        return given
    if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[1], int):
        return shape[1]
    raise InvalidArgumentError(
        f"{loss.name} needs the width of the embeddings, and the output of the model {model.name!r} is {shape}, not "
        "(None, dim): call loss.build(embedding_size) first"
    )
