"""Each loss: by hand, and beside loops over pairs in float64."""

import math
from typing import Any

import keras
import naive_losses as naive
import numpy as np
import pytest
from keras import ops
from loss_cases import CASES, MORE, Case, arguments, every, expected, gradients
from naive_losses import Batch

from simstore.similarity.losses import (
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
)  # fmt: skip


@pytest.mark.parametrize("case", [*CASES, *MORE], ids=str)
def test_it_agrees_with_a_loop(case: Case) -> None:
    for seed, n in [(0, 12), (1, 12), (2, 3), (3, 40)]:
        loss, given = case.make(reduction="none", dtype="float64"), arguments(case, seed, n)
        got = ops.convert_to_numpy(loss(*given))
        assert got.dtype == np.float64 and got.shape == (n,)
        np.testing.assert_allclose(got, expected(case, loss, *given), rtol=1e-7, atol=1e-9)


@every
def test_float32_is_close(case: Case) -> None:
    loss, given = case.make(reduction="none"), arguments(case, 5)
    got = ops.convert_to_numpy(loss(*given))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected(case, loss, *given), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("case", [*CASES, *MORE], ids=str)
def test_its_gradient_is_that_of_the_loop(case: Case) -> None:
    loss, (first, second) = case.make(reduction="sum", dtype="float64"), arguments(case, 9)
    _, found = gradients(loss, first, second)
    way, step = np.random.default_rng(0).normal(size=second.shape), 1e-6
    if case.cls is CircleLoss:
        gamma, margin = case.settings["gamma"], case.settings["margin"]
        ahead, behind = (
            naive.circle(Batch(first, second + sign * step * way, "cosine"), gamma, margin, Batch(first, second, "cosine"))
            for sign in (1, -1)
        )
    else:
        ahead, behind = (expected(case, loss, first, second + sign * step * way) for sign in (1, -1))
    along = float(ops.convert_to_numpy(found[1 if case.has_views else 0] * way).sum())
    assert along == pytest.approx((ahead - behind).sum() / 2 / step, rel=1e-4)


SQUARE = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], "float32")  # of cosine distances 1 and, across, 2
TWO = SQUARE[:2]
E = math.e


@pytest.mark.parametrize(
    ("loss", "first", "second", "by_hand"),
    [
        (TripletLoss(margin=0.5), [0, 0, 1, 1], SQUARE, 0.0),  # the negative at 2 is the one farther away than 1
        (TripletLoss(negative_mining_strategy="hard", margin=0.5), [0, 0, 1, 1], SQUARE, 0.5),
        (TripletLoss(negative_mining_strategy="hard"), [0, 0, 1, 1], SQUARE, math.log(2)),
        (TripletLoss(negative_mining_strategy="easy"), [0, 0, 1, 1], SQUARE, math.log(1 + 1 / E)),
        (PNLoss(margin=0.5), [0, 0, 1, 1], SQUARE, 0.5),  # and that one is at 1 from the positive
        (PNLoss(), [0, 0, 1, 1], SQUARE, math.log(2)),
        (MultiSimilarityLoss(), [0, 0, 1, 1], SQUARE, math.log(1 + E) / 2 + math.log(1 + E**-20) / 40),
        (CircleLoss(gamma=2.0), [0, 0, 1, 1], SQUARE, math.log(1 + E**1.68 * (E**-0.32 + 1))),
        (SoftNearestNeighborLoss(), [0, 0, 1, 1], SQUARE, math.log(2 + E**-2)),  # squares 2, 2 and 4
        (SupConLoss(temperature=1.0), [0, 0, 1, 1], SQUARE, math.log(2 + 1 / E)),
        (LiftedStructLoss(), [0, 0, 1, 1], SQUARE, (math.log(2 + 2 / E) + 1) ** 2 / 2),
        (MultiNegativesRankLoss(scale=1.0), TWO, TWO, math.log(E + 1) - 1),
        (SimCLRLoss(temperature=1.0), 2 * TWO, 3 * TWO, math.log(E + 2) - 1),
        (SimSiamLoss(), TWO, [(1, 1), (1, 1)], -math.sqrt(0.5) / 2 + 0.001),
        (SimSiamLoss("cosine_distance"), TWO, [(1, 1), (1, 1)], (1 - math.sqrt(0.5)) / 2 + 0.001),
        (SimSiamLoss("angular_distance"), TWO, [(1, 1), (1, 1)], 0.25 / 2 + 0.001),
        (Barlow(), [(1, 1), (-1, -1)], [(2, 3), (-2, -3)], 2 * 5e-3),  # four correlations of 1
        (VicReg(), [(1, 0), (-1, 0)], [(1, 1), (-1, -1)], 25 * 0.5 + 25 * (1 - 0.01) / 4 + 2 * 2**2 / 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Loss) else "",
)
def test_it_is_what_it_is_by_hand(loss: Any, first: Any, second: Any, by_hand: float) -> None:
    if not isinstance(first, list) or isinstance(first[0], tuple):
        first = np.array(first, "float32")
    assert float(loss(first, np.array(second, "float32"))) == pytest.approx(by_hand, rel=1e-5, abs=1e-6)


def test_class_losses_by_hand() -> None:
    for loss, by_hand in [
        (ArcFaceLoss(2, scale=1.0), math.log(1 + E ** -math.cos(0.5))),
        (ProxyAnchorLoss(2, margin=0.0, alpha=1.0), math.log(1 + 1 / E) + math.log(2)),
    ]:
        loss.build(2)
        loss.layer.vectors.assign(3 * TWO)
        assert float(loss([0, 1], TWO)) == pytest.approx(by_hand, rel=1e-5)
