"""ContrastiveModel: learns from two views of each example, without labels."""

from typing import Any

import keras
from keras import layers, ops

from simstore.errors import InvalidArgumentError
from simstore.similarity.distances import Distance
from simstore.similarity.models.compiling import Compiling, distance_of

__all__ = ["ALGORITHMS", "ContrastiveModel", "create_contrastive_model"]

ALGORITHMS = ("simsiam", "simclr", "barlow", "vicreg")


@keras.saving.register_keras_serializable("simstore.similarity")
class ContrastiveModel(Compiling, keras.Model):
    """A backbone, and a projector on it, that are trained to embed two views of an example alike.

    ``fit`` takes pairs of batches (view 1, view 2) of the same examples. With z = projector(backbone(view)), the loss L is

    - simsiam: L(stop_gradient(z1), predictor(z2)) + L(stop_gradient(z2), predictor(z1)) (Chen & He, 2021)
    - simclr: L(z1, z2) + L(z2, z1) (Chen et al., 2020)
    - barlow: L(z1, z2) (Zbontar et al., 2021)
    - vicreg: L(z1, z2) (Bardes et al., 2022)

    and the regularisation losses of all layers. Calling the model, and ``predict``, give z. What is indexed is the backbone's
    features, at unit length: the projector learns to forget what the loss has no use for (Chen et al., section 4.2; on the
    digits of scikit-learn 1-NN accuracy falls from 0.96 to 0.83 with simsiam).

    Args:
        backbone: A functional or Sequential model from inputs to features [None, d].
        projector: A model from those to z [None, dim].
        predictor: A model from z to [None, dim], for simsiam alone.
        algorithm: "simsiam", "simclr", "barlow" or "vicreg".
        embedding: What is indexed: "backbone", or "projector" as in TensorFlow Similarity.

    Raises:
        InvalidArgumentError: Another algorithm or embedding; a predictor is missing or too many; an output is not [None, d].
    """

    def __init__(
        self,
        backbone: keras.Model,
        projector: keras.Model,
        predictor: keras.Model | None = None,
        algorithm: str = "simsiam",
        embedding: str = "backbone",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if algorithm not in ALGORITHMS:
            raise InvalidArgumentError(f"algorithm is one of {', '.join(map(repr, ALGORITHMS))}, not {algorithm!r}")
        if embedding not in ("backbone", "projector"):
            raise InvalidArgumentError(f"embedding is 'backbone' or 'projector', not {embedding!r}")
        if (predictor is not None) != (algorithm == "simsiam"):
            has = "needs a predictor" if predictor is None else "has no use for a predictor: leave it out"
            raise InvalidArgumentError(f"{algorithm} {has}")
        for name, part in (("backbone", backbone), ("projector", projector), ("predictor", predictor)):
            _check_features(name, part)
        self.backbone, self.projector, self.predictor = backbone, projector, predictor
        self.algorithm, self.embedding = algorithm, embedding
        self.build(None)

    def build(self, input_shape: Any) -> None:
        """Nothing is left to be built: the parts are."""
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """z of a batch, [n, dim]."""
        return self.projector(self.backbone(inputs, training=training), training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of two views, x and y, of which y_pred is the first one's z."""
        if y is None:
            raise InvalidArgumentError(
                "a ContrastiveModel learns from pairs of batches (view 1, view 2), and was given one batch"
            )
        if self.loss is None:
            raise InvalidArgumentError("compile the model with a loss of two views: SimSiamLoss, SimCLRLoss, Barlow or VicReg")
        self._check_view(y)
        z1, z2 = y_pred, self(y, training=training)
        return sum([ops.mean(self._contrastive(z1, z2, training)), *self.losses])

    def _check_view(self, y: Any) -> None:
        """Raises InvalidArgumentError for labels where the second view is to be."""
        if len(self.backbone.inputs) != 1 or not hasattr(y, "shape"):
            return
        given, wanted = _axes(y.shape), _axes(self.backbone.inputs[0].shape)
        if len(given) != len(wanted) or any(
            None not in pair and pair[0] != pair[1] for pair in zip(given, wanted, strict=True)
        ):
            raise InvalidArgumentError(
                f"a ContrastiveModel learns from pairs of batches (view 1, view 2) of inputs {self.backbone.inputs[0].shape}, and "
                f"the second was of shape {tuple(y.shape)}: labels are not learned from. Make two views of each example"
            )

    def _contrastive(self, z1: Any, z2: Any, training: bool) -> Any:
        loss = keras.losses.get(self.loss)
        if self.predictor is not None:
            p1, p2 = self.predictor(z1, training=training), self.predictor(z2, training=training)
            return loss(ops.stop_gradient(z1), p2) + loss(ops.stop_gradient(z2), p1)
        return loss(z1, z2) + loss(z2, z1) if self.algorithm == "simclr" else loss(z1, z2)

    def get_backbone(self) -> keras.Model:
        """The backbone, to be fine-tuned or probed."""
        return self.backbone

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        parts = {"backbone": self.backbone, "projector": self.projector, "predictor": self.predictor}
        described = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return (
            {"name": self.name, "trainable": self.trainable}
            | described
            | {
                "algorithm": self.algorithm,
                "embedding": self.embedding,
            }
        )

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "ContrastiveModel":
        """The model again."""
        parts = ("backbone", "projector", "predictor")
        made = {name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects) for name in parts}
        return cls(**config | made)

    def _check_metrics(self, *metrics: Any) -> None:
        if any(metrics):
            raise InvalidArgumentError(
                "a ContrastiveModel has no labels to compare with: EvalCallback evaluates its embeddings"
            )

    def _distance_of(self, loss: Any) -> Distance | str:
        return distance_of(loss) or "cosine"

    def _embedding_model(self) -> keras.Model:
        inputs = self.backbone.inputs[0]
        features = self.backbone(inputs)
        return keras.Model(
            inputs, layers.UnitNormalization()(features if self.embedding == "backbone" else self.projector(features))
        )


def create_contrastive_model(
    backbone: keras.Model,
    projector: keras.Model | None = None,
    predictor: keras.Model | None = None,
    algorithm: str = "simsiam",
    *,
    dim: int = 128,
    **kwargs: Any,
) -> ContrastiveModel:
    """A ContrastiveModel with the projector, and for simsiam the predictor, that the papers use.

    Hidden layers are as wide as the backbone's features; each is batch-normalised.

    Args:
        backbone, projector, predictor, algorithm: See ContrastiveModel.
        dim: The width of z, of a projector that is made here.
    """
    width = int(backbone.output_shape[-1])
    if projector is None:
        n_hidden = 1 if algorithm == "simclr" else 2
        projector = _perceptron(width, [width] * n_hidden, dim, normalised=algorithm == "simsiam", name="projector")
    if predictor is None and algorithm == "simsiam":
        dim = int(projector.output_shape[-1])
        predictor = _perceptron(dim, [max(1, dim // 4)], dim, normalised=False, name="predictor")
    return ContrastiveModel(backbone, projector, predictor, algorithm, **kwargs)


def _perceptron(width: int, hidden: list[int], dim: int, *, normalised: bool, name: str) -> keras.Model:
    stack: list[Any] = [keras.Input((width,))]
    for units in hidden:
        stack += [layers.Dense(units, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    stack.append(layers.Dense(dim, use_bias=not normalised))
    if normalised:
        stack.append(layers.BatchNormalization(center=False, scale=False))
    return keras.Sequential(stack, name=name)


def _axes(shape: Any) -> tuple[Any, ...]:
    """An example's axes; Keras adds and takes off a last one of 1."""
    axes = tuple(shape)[1:]
    return axes[:-1] if axes and axes[-1] == 1 else axes


def _check_features(name: str, model: Any) -> None:
    """Raises InvalidArgumentError unless a part is a built model with an output [None, d]."""
    if model is None:
        return
    shape = getattr(model, "output_shape", None) if getattr(model, "built", False) else None
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise InvalidArgumentError(
            f"{name} is a functional or Sequential model that knows its input and has one output [None, d], not {shape}: "
            "pool or flatten it"
        )
