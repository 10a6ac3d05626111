"""The losses with their oracles, for the tests of what each is and of what all keep to."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import naive_losses as naive
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from naive_losses import Batch

from simstore.similarity import losses
from simstore.similarity.losses import (
    XBM,
    ArcFaceLoss,
    Barlow,
    CircleLoss,
    LiftedStructLoss,
    MultiNegativesRankLoss,
    MultiSimilarityLoss,
    PNLoss,
    ProxyAnchorLoss,
    SimCLRLoss,
    SimSiamLoss,
    SoftNearestNeighborLoss,
    SupConLoss,
    TripletLoss,
    VicReg,
    track,
)  # fmt: skip
from simstore.similarity.losses.class_loss import ClassLoss

N_CLASSES, DIM = 5, 4
DISTANCES = ("cosine", "euclidean", "squared_euclidean", "manhattan", "inner_product", "snr")


@dataclass(frozen=True)
class Case:
    """A loss and its oracle: of (labels, embeddings, class vectors), or of (za, zb) for two views."""

    cls: type
    settings: dict[str, Any]
    oracle: Callable[..., Any]

    def __str__(self) -> str:
        return "-".join([self.cls.__name__, *map(str, self.settings.values())])

    @property
    def has_views(self) -> bool:
        return issubclass(self.cls, losses.ContrastiveLoss)

    def make(self, **options: Any) -> Any:
        settings = {**self.settings, "loss": TripletLoss("l2")} if self.cls is XBM else self.settings
        loss = self.cls(**settings, **options)
        if not self.has_views:
            loss.build(DIM)
        return loss


def pairs(cls: type, oracle: Callable[..., Any], distance: str, *values: Any, **settings: Any) -> Case:
    """A loss of pairs; the oracle takes its settings in order."""
    given = tuple(settings.values()) + values
    return Case(cls, {"distance": distance, **settings}, lambda y, x, _: oracle(Batch(y, x, distance), *given))


def views(cls: type, oracle: Callable[..., Any], **settings: Any) -> Case:
    return Case(cls, settings, lambda a, b: oracle(a, b, *settings.values()))


def classes(cls: type, oracle: Callable[..., Any], **settings: Any) -> Case:
    return Case(cls, {"num_classes": N_CLASSES, **settings}, lambda y, x, w: oracle(y, x, w, *settings.values()))


CASES = [
    pairs(TripletLoss, naive.triplet, "cosine", positive_mining_strategy="hard", negative_mining_strategy="semi-hard", margin=0.3),
    pairs(PNLoss, naive.pn, "cosine", positive_mining_strategy="hard", negative_mining_strategy="semi-hard", margin=0.3),
    pairs(MultiSimilarityLoss, naive.multi_similarity, "cosine", alpha=2.0, beta=40.0, epsilon=0.1, lmda=0.5, center=1.0),
    pairs(CircleLoss, naive.circle, "cosine", gamma=80.0, margin=0.4),
    pairs(SoftNearestNeighborLoss, naive.soft_nn, "squared_euclidean", temperature=1.0),
    pairs(SupConLoss, naive.sup_con, "cosine", temperature=0.1),
    pairs(LiftedStructLoss, naive.lifted, "cosine", positive_mining_strategy="hard", margin=1.0),
    Case(XBM, {"memory_size": 6, "warmup_steps": 0}, lambda y, x, _: naive.triplet(Batch(y, x, "euclidean"), "hard", "semi-hard", None)),
    classes(ArcFaceLoss, naive.arc_face, margin=0.5, scale=64.0),
    classes(ProxyAnchorLoss, naive.proxy_anchor, margin=0.1, alpha=32.0),
    Case(MultiNegativesRankLoss, {}, lambda a, b: naive.multi_negatives(a, b, "inner_product", 20.0)),
    views(SimCLRLoss, naive.sim_clr, temperature=0.05, use_hidden_norm=True),
    views(SimSiamLoss, naive.sim_siam, projection_type="negative_cosine_sim", margin=0.001),
    views(Barlow, naive.barlow, lambda_=5e-3, margin=1e-12),
    views(VicReg, naive.vic_reg, std_const=1e-4, lambda_=25.0, mu=25.0, nu=1.0),
]  # fmt: skip

MORE = [
    *[
        pairs(cls, oracle, distance, positive_mining_strategy=positive, negative_mining_strategy=negative, margin=margin)
        for ((cls, oracle), positive, negative, margin), distance in zip(
            itertools.product(
                [(TripletLoss, naive.triplet), (PNLoss, naive.pn)],
                ("easy", "hard"), ("hard", "semi-hard", "easy"), (None, 0.5),
            ),
            itertools.cycle(("cosine", *DISTANCES)),
        )
    ],
    *[pairs(cls, oracle, distance, *values) for (cls, oracle, *values), distance in itertools.product(
        [
            (MultiSimilarityLoss, naive.multi_similarity, 2.0, 40.0, 0.1, 0.5, 1.0),
            (SupConLoss, naive.sup_con, 0.1),
            (SoftNearestNeighborLoss, naive.soft_nn, 1.0),
        ],
        DISTANCES,
    )],
    pairs(MultiSimilarityLoss, naive.multi_similarity, "manhattan", alpha=1.0, beta=3.0, epsilon=0.5, lmda=0.2, center=4.0),
    pairs(CircleLoss, naive.circle, "cosine", gamma=8.0, margin=0.25),
    pairs(LiftedStructLoss, naive.lifted, "euclidean", positive_mining_strategy="easy", margin=0.5),
    pairs(LiftedStructLoss, naive.lifted, "snr", positive_mining_strategy="hard", margin=1.0),
    classes(ArcFaceLoss, naive.arc_face, margin=1.5, scale=4.0),
    Case(MultiNegativesRankLoss, {"distance": "cosine", "scale": 7.0}, lambda a, b: naive.multi_negatives(a, b, "cosine", 7.0)),
    views(SimCLRLoss, naive.sim_clr, temperature=0.5, use_hidden_norm=False),
    views(SimSiamLoss, naive.sim_siam, projection_type="cosine_distance", margin=0.0),
    views(SimSiamLoss, naive.sim_siam, projection_type="angular_distance", margin=0.001),
    views(Barlow, naive.barlow, lambda_=0.1, margin=0.5),
    views(VicReg, naive.vic_reg, std_const=0.01, lambda_=1.0, mu=2.0, nu=3.0),
]  # fmt: skip

every = pytest.mark.parametrize("case", CASES, ids=str)
with_labels = pytest.mark.parametrize("case", [case for case in CASES if not case.has_views], ids=str)


def batch(seed: int, n: int = 12, n_classes: int = N_CLASSES) -> tuple[Any, Any]:
    """Labels, and embeddings or a view; some classes have one example."""
    random = np.random.default_rng(seed)
    return random.integers(0, n_classes, n), random.normal(size=(n, DIM))


def arguments(case: Case, seed: int, n: int = 12) -> tuple[Any, Any]:
    labels, embeddings = batch(seed, n)
    return (embeddings + batch(seed + 100, n)[1] / 2, embeddings) if case.has_views else (labels, embeddings)


def expected(case: Case, loss: Any, first: Any, second: Any) -> Any:
    if case.has_views:
        return case.oracle(first, second)
    has_vectors = isinstance(loss, ClassLoss)
    return case.oracle(first, second, ops.convert_to_numpy(loss.layer.vectors).astype("float64") if has_vectors else None)


def value_of(loss: Any, *given: Any, **more: Any) -> Any:
    return ops.convert_to_numpy(loss(*given, **more))


def model_of(loss: Any, **how: Any) -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(DIM)(inputs))
    track(model, loss)
    model.compile(keras.optimizers.SGD(0.01), loss, **how)
    return model


def gradients(loss: Any, first: Any, second: Any) -> tuple[Any, list[Any]]:
    """The loss, and its gradients by what is differentiable."""
    weights = list(getattr(loss, "layer", None).trainable_weights) if getattr(loss, "layer", None) else []
    second = ops.convert_to_tensor(second)
    given = [second] if isinstance(loss, losses.MetricLoss) else [ops.convert_to_tensor(first, dtype=second.dtype), second]
    with tf.GradientTape() as tape:
        for tensor in given:
            tape.watch(tensor)
        value = loss(first if len(given) == 1 else given[0], second)
    found = tape.gradient(value, given + [weight.value for weight in weights], unconnected_gradients="zero")
    return value, found
