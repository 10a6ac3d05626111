"""What every loss has in common: settings that are saved, a precision that suffices, and the reductions of Keras."""

import math
from typing import Any, ClassVar, TypedDict, Unpack

import keras
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity import distances
from simstore.similarity.losses.mining import Pairs, as_labels, pairs_of

__all__ = ["ContrastiveLoss", "LossOptions", "MetricLoss", "PairLoss", "check_positive"]


class LossOptions(TypedDict, total=False):
    """What every loss takes beside its own settings, as ``keras.losses.Loss``.

    Attributes:
        name: What it is called; by default as its class.
        reduction: "sum_over_batch_size" (the default), "mean", "sum", "mean_with_sample_weight", or "none" for one value
            per example.
        dtype: In what it is computed, at least float32, which is the default under a float16 policy, too.
    """

    name: str | None
    reduction: str | None
    dtype: Any


class _Loss(keras.losses.Loss):
    """A loss that knows its settings.

    Args:
        settings: Its own arguments, as ``get_config`` returns them.
        options: See LossOptions.
    """

    def __init__(self, settings: dict[str, Any], **options: Unpack[LossOptions]) -> None:
        name, reduction = options.get("name"), options.get("reduction", "sum_over_batch_size")
        super().__init__(name=name or type(self).__name__, reduction=reduction, dtype=_wide(options.get("dtype")))
        self.settings = settings

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        return {**super().get_config(), "dtype": self.dtype, **self.settings}


class MetricLoss(_Loss):
    """A loss of embeddings and their labels: ``loss(labels, embeddings)``.

    ``labels`` are integers [n] or [n, 1], ``embeddings`` floats [n, dim]. Labels stay integers: Keras' own ``Loss`` makes
    them floats, in which large ones become equal. ``call`` gets labels [n] and returns one loss per example, [n].

    A loss may have weights. They are in ``layer``, once ``build`` has made them; ``track`` (see there) puts them into a
    model, which trains and saves them.

    Args:
        distance: Between embeddings; also what a model's index uses.
        settings: The other arguments, as ``get_config`` returns them.
        options: See LossOptions.

    Attributes:
        distance: The Distance.
        has_weights: Whether ``build`` makes any.
        layer: The keras Layer that holds its weights; None if it has none, or not yet.
        is_training: Whether calls are of a training step. A model sets it before each; XBM remembers nothing while it is
            False.
    """

    has_weights: ClassVar[bool] = False

    def __init__(self, distance: distances.Distance | str, settings: dict[str, Any], **options: Unpack[LossOptions]) -> None:
        super().__init__(settings, **options)
        self.distance = distances.get(distance)
        self.layer: Any = None
        self.is_training = True
        self._reduced = _Reduced(name="reduced", reduction=self.reduction, dtype=self.dtype)

    def build(self, embedding_size: int) -> None:
        """Makes its weights for embeddings of that width, once. Most losses have none."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The reduced loss.

        Raises:
            InvalidArgumentError: The labels are not integers [n] or [n, 1], or the embeddings not [n, dim].
        """
        embeddings = _as_embeddings(y_pred, self.dtype, "embeddings")
        labels = as_labels(y_true, embeddings.shape[0])
        with keras.name_scope(self.name):
            losses = _nan_unless_finite(embeddings, self.call(labels, embeddings))
        return self._reduced(losses, losses, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        return {**super().get_config(), "distance": distances.to_config(self.distance)}


class PairLoss(MetricLoss):
    """A loss of the pairs of a batch. XBM can give it pairs with other keys.

    Args:
        fn: Called as fn(pairs, **settings), returns one loss per anchor, [n].
        distance: Between embeddings.
        settings: Its arguments.
        options: See LossOptions.
    """

    def __init__(
        self, fn: Any, distance: distances.Distance | str, settings: dict[str, Any], **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(distance, settings, **options)
        self.fn = fn

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One loss per example, [n]."""
        return self.of_pairs(pairs_of(self.distance, y_true, y_pred))

    def of_pairs(self, pairs: Pairs) -> Any:
        """One loss per anchor, [n]."""
        return self.fn(pairs, **self.settings)


class ContrastiveLoss(_Loss):
    """A loss of two embeddings of the same examples: ``loss(za, zb)``, both floats [n, dim].

    Args:
        fn: Called as fn(za, zb, **settings), returns one loss per example, [n].
        settings: Its arguments, as ``get_config`` returns them.
        options: See LossOptions.
    """

    def __init__(self, fn: Any, settings: dict[str, Any], **options: Unpack[LossOptions]) -> None:
        super().__init__(settings, **options)
        self.fn = fn

    def __call__(self, za: Any, zb: Any, sample_weight: Any = None) -> Any:
        """The reduced loss.

        Raises:
            InvalidArgumentError: The two are not [n, dim] of the same shape.
        """
        za, zb = _as_embeddings(za, self.dtype, "the first view"), _as_embeddings(zb, self.dtype, "the second view")
        if any(None not in axes and axes[0] != axes[1] for axes in zip(za.shape, zb.shape, strict=True)):
            raise InvalidArgumentError(
                f"the two views are embeddings of the same examples, of one shape [n, dim], not {za.shape} and {zb.shape}"
            )
        return super().__call__(za, zb, sample_weight)

    def call(self, za: Any, zb: Any) -> Any:
        """One loss per example, [n]."""
        return _nan_unless_finite(za + zb, self.fn(za, zb, **self.settings))


class _Reduced(keras.losses.Loss):
    """Keras' reduction of losses that are there already."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


def check_positive(**settings: float) -> None:
    """Refuses settings of 0 and less.

    Raises:
        InvalidArgumentError: One is not above 0.
    """
    for name, value in settings.items():
        if not value > 0:
            raise InvalidArgumentError(f"{name} is above 0, not {value!r}")


def _nan_unless_finite(embeddings: Any, losses: Any) -> Any:
    """Losses [n], NaN where an embedding [n, dim] is none: mining leaves such out, and training would go on without a sign."""
    return ops.where(ops.all(ops.isfinite(embeddings), axis=1), losses, math.nan)


def _as_embeddings(tensor: Any, dtype: str, what: str) -> Any:
    tensor = ops.convert_to_tensor(tensor)
    if len(tensor.shape) != 2:
        raise InvalidArgumentError(
            f"{what} are of shape [n, dim], not {tuple(tensor.shape)}: pool or flatten the model's output to one vector each"
        )
    return ops.cast(tensor, dtype)


def _wide(dtype: Any) -> str:
    """The dtype to compute in: float64 stays, all else is float32."""
    name = keras.dtype_policies.get(dtype or keras.config.floatx()).compute_dtype
    return "float64" if name == "float64" else "float32"
