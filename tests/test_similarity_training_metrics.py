"""Metrics of distances within and between classes, by hand."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity import training_metrics
from simstore.similarity.distances import DISTANCES
from simstore.similarity.losses import TripletLoss
from simstore.similarity.training_metrics import DistanceGapMetric, DistanceMetric, batch_class_ratio, dist_gap

# two batches on a line; the last example of the second one has no positive
#            class 0     class 1                class 0     class 1     class 2
FIRST = ([0, 0, 0, 1, 1], [[0.0], [1.0], [3.0], [7.0], [9.0]])
SECOND = ([0, 0, 1, 1, 2], [[0.0], [2.0], [3.0], [3.5], [20.0]])
# farthest positive   3 2 3 2 2  |  2 2 0.5 0.5 –
# closest positive    1 1 2 2 2  |  2 2 0.5 0.5 –
# closest negative    7 6 4 4 6  |  3 1 1 1.5 16.5
# farthest negative   9 8 6 7 9  |  20 18 17 16.5 20
TABLE = {
    "max_pos": (3, 3),
    "avg_pos": (12 / 5, 17 / 9),
    "min_pos": (1, 0.5),
    "sum_pos": (12, 17),
    "max_neg": (9, 20),
    "avg_neg": (27 / 5, 50 / 10),
    "min_neg": (4, 1),
    "sum_neg": (27, 50),
    "dist_gap": (1, -2),
}


@pytest.mark.parametrize("name", TABLE)
def test_by_hand(name: str) -> None:
    metric = getattr(training_metrics, name)("l2")
    for _ in range(2):
        got = []
        for labels, embeddings in (FIRST, SECOND):
            metric.update_state(np.array(labels)[:, None], np.array(embeddings))
            got.append(float(metric.result()))
        assert got == pytest.approx(list(TABLE[name]), rel=1e-4)
        metric.reset_state()


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"aggregate": "mean", "positive_mining_strategy": "easy"}, 8 / 5),
        ({"aggregate": "max", "positive_mining_strategy": "easy"}, 2),
        ({"aggregate": "avg", "anchor": "negative", "negative_mining_strategy": "easy"}, 39 / 5),
        ({"aggregate": "min", "anchor": "negative", "negative_mining_strategy": "easy"}, 6),
        ({"aggregate": "min"}, 2),
    ],
)
def test_strategies_by_hand(settings: dict[str, Any], value: float) -> None:
    metric = DistanceMetric("l2", **settings)
    metric.update_state(*FIRST)
    assert float(metric.result()) == pytest.approx(value, rel=1e-4)


def test_weights() -> None:
    weights = np.array([1.0, 0.5, 0.0, 2.0, 0.0])  # of 3, 2, 3, 2, 2
    for aggregate, value in {"mean": 8 / 3.5, "sum": 8, "max": 3, "min": 2}.items():
        metric = DistanceMetric("l2", aggregate)
        metric.update_state(*FIRST, sample_weight=weights)
        assert float(metric.result()) == pytest.approx(value, rel=1e-4)
    metric = DistanceMetric("l2", "max")
    metric.update_state(*FIRST, sample_weight=[0, 1, 0, 1, 1])
    assert float(metric.result()) == pytest.approx(2, rel=1e-4)


def test_without_pairs_there_is_no_number() -> None:
    for name in TABLE:
        metric = getattr(training_metrics, name)("cosine")
        for update in (None, ([0, 1], [[1.0, 0.0], [0.0, 1.0]]), ([0, 0], [[1.0, 0.0], [0.0, 1.0]])):
            if update:
                metric.update_state(*update)
            has = update is not None and (name != "dist_gap") and (("neg" in name) == (update[0][1] == 1))
            got = float(metric.result())
            assert got == (2.0 if has else 0.0) if "sum" in name else math.isnan(got) != has
            metric.reset_state()


@pytest.mark.parametrize("distance", DISTANCES, ids=str)
def test_it_is_saved(distance: Any) -> None:
    for metric in (DistanceMetric(distance, "max", "negative", "mine", "easy", "easy"), DistanceGapMetric(distance, "gap")):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
        assert type(again) is type(metric) and again.get_config() == metric.get_config()
        for one in (metric, again):
            one.update_state(*SECOND)
        assert np.array_equal(metric.result(), again.result(), equal_nan=True)


def test_names() -> None:
    assert DistanceMetric("l2").name == "mean_pos" and DistanceMetric("l2", "avg", "negative").name == "avg_neg"
    assert dist_gap("l2").name == "dist_gap" and training_metrics.min_neg("l2").name == "min_neg"


def test_a_model_logs_them_and_is_saved_with_them(tmp_path: Path) -> None:
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))
    model.compile(keras.optimizers.SGD(0.0), TripletLoss("l2"), metrics=[dist_gap("l2"), training_metrics.avg_pos("l2")])
    x, y = (np.concatenate(both) for both in zip(FIRST[::-1], SECOND[::-1], strict=True))
    logs = model.fit(x, y, batch_size=5, epochs=2, shuffle=False, verbose=0).history
    assert logs["dist_gap"] == pytest.approx([-2, -2], rel=1e-4) and logs["mean_pos"] == pytest.approx([17 / 9] * 2, rel=1e-4)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.evaluate(x, y, batch_size=5, verbose=0, return_dict=True)["dist_gap"] == pytest.approx(-2, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregate": "median"}, "aggregate is one of 'mean', 'avg', 'max', 'min', 'sum', not 'median'"),
        ({"anchor": "pos"}, "anchor is one of 'positive', 'negative', not 'pos'"),
        ({"positive_mining_strategy": "semi-hard"}, "positive_mining_strategy is one of 'hard', 'easy'"),
        ({"negative_mining_strategy": "semi-hard"}, "negative_mining_strategy is one of 'hard', 'easy'"),
    ],
)
def test_wrong_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        DistanceMetric("l2", **settings)
    with pytest.raises(InvalidArgumentError, match="labels are integers, not float32"):
        DistanceMetric("l2").update_state([0.5, 1.0], [[1.0], [2.0]])


# -- batch_class_ratio


class Batches(keras.utils.PyDataset):
    """Batches of 6 in three classes, then of 4 in one class."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        y = [[0, 0, 1, 1, 2, 2], [5, 5, 5, 5]][index]
        return np.zeros((len(y), 1)), np.array(y)


def test_class_ratio() -> None:
    batches = Batches()
    assert batch_class_ratio(batches) == (2 + 4) / 2
    assert batch_class_ratio(batches, num_batches=1) == 2
    assert batch_class_ratio(batches[i] for i in range(2)) == 3
    data = tf.data.Dataset.from_tensor_slices((np.zeros((6, 1)), np.array([[0], [0], [1], [1], [1], [1]]))).repeat().batch(6)
    assert batch_class_ratio(data, num_batches=3) == 3
    assert batch_class_ratio([(None, ops.convert_to_tensor([1, 1, 1]))]) == 3
    with pytest.raises(InvalidArgumentError, match="the sampler gave none"):
        batch_class_ratio([])
