"""Retrieval and classification metrics, matchers and thresholds, against tables made by hand and naive loops."""

import math
import os
import tracemalloc
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("keras", reason="needs the extra simstore[keras]")

from simstore.errors import InvalidArgumentError, InvalidLabelError
from simstore.similarity import classification_metrics as cm
from simstore.similarity.evaluators import Neighbors, calibrate, evaluate_classification, evaluate_retrieval
from simstore.similarity.labels import labels_of, same_label
from simstore.similarity.matchers import MatchMajorityVote, MatchNearest, make_classification_matcher
from simstore.similarity.retrieval_metrics import (
    BNDCG,
    MapAtK,
    PrecisionAtK,
    RecallAtK,
    make_retrieval_metric,
    make_retrieval_metrics,
)


def neighbors(labels: list[list[Any]], distances: list[list[float]]) -> Neighbors:
    column = np.empty((len(labels), len(labels[0])), object)
    for i, row in enumerate(labels):
        column[i] = row
    return Neighbors(column, np.array(distances, np.float32))


# -- labels --------------------------------------------------------------------------------------------------------------


def test_labels_of_every_kind_become_str_int_or_none() -> None:
    assert labels_of(np.array([[3], [1]])).tolist() == [3, 1]
    assert labels_of(np.array([3.0, 1.0], np.float32)).tolist() == [3, 1]
    assert labels_of(["a", None, np.int64(2), np.str_("b"), 4.0, np.array(5), [6]]).tolist() == ["a", None, 2, "b", 4, 5, 6]
    assert all(type(label) in (int, str) for label in labels_of([np.int8(1), np.str_("x")]))
    assert labels_of(iter([1, 2]), 2).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        (np.zeros((2, 3)), InvalidArgumentError, "[n] or [n, 1]"),
        (np.zeros((2, 2, 1)), InvalidArgumentError, "[2, 2, 1]"),
        (7, InvalidArgumentError, "a sequence"),
        ("abc", InvalidArgumentError, "a sequence"),
        ({0: "a", 1: "b"}, InvalidArgumentError, "a sequence with one for each example, not dict"),
        ({"a", "b"}, InvalidArgumentError, "a sequence with one for each example, not set"),
        ([1, 2, 3], InvalidArgumentError, "3 labels for 2 examples"),
        ([1, 0.5], InvalidLabelError, "labels[1]"),
        ([1, math.nan], InvalidLabelError, "labels[1]"),
        ([{}, 1], InvalidLabelError, "labels[0]"),
        ([[1, 2], [3, 4]], InvalidLabelError, "labels[0]"),
    ],
)
def test_what_is_no_label_is_refused(y: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        labels_of(y, 2)
    assert words in str(caught.value)


def test_none_is_no_label_and_kinds_differ() -> None:
    found = neighbors([[1, "1", None], [None, "a", 1]], [[0, 0, 0]] * 2)
    assert same_label(found.labels, labels_of([1, None])[:, None]).tolist() == [[True, False, False], [False] * 3]


# -- classification metrics ----------------------------------------------------------------------------------------------

TP, FP, TN, FN = (np.array(column, float) for column in ([0, 6, 8], [0, 2, 4], [4, 2, 0], [8, 2, 0]))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (cm.Precision(), [0.0, 0.75, 8 / 12]),
        (cm.Recall(), [0.0, 0.75, 1.0]),
        (cm.F1Score(), [0.0, 0.75, 0.8]),
        (cm.BinaryAccuracy(), [0.0, 0.5, 8 / 12]),
        (cm.FalsePositiveRate(), [0.0, 0.5, 1.0]),
        (cm.NegativePredictiveValue(), [4 / 12, 0.5, 0.0]),
    ],
)
def test_classification_metrics_of_a_table(metric: cm.ClassificationMetric, expected: list[float]) -> None:
    np.testing.assert_allclose(metric.compute(TP, FP, TN, FN, 12), expected, rtol=1e-15)


def test_classification_metrics_by_name() -> None:
    names = ["precision", "recall", "f1", "f1score", "f1_score", "binary_accuracy", "npv", "fpr", "false_positive_rate"]
    made = [type(cm.make_classification_metric(name)).__name__ for name in names]
    assert made == [
        "Precision", "Recall", "F1Score", "F1Score", "F1Score", "BinaryAccuracy", "NegativePredictiveValue",
        "FalsePositiveRate", "FalsePositiveRate",
    ]  # fmt: skip
    assert cm.make_classification_metric(cm.Recall(), "r").name == "r"
    assert cm.Recall(**cm.Recall("r").get_config()).name == "r"
    with pytest.raises(InvalidArgumentError, match="'precision', 'recall'"):
        cm.make_classification_metric("recal")


# -- matchers ------------------------------------------------------------------------------------------------------------


def test_match_nearest_counts_at_thresholds() -> None:
    found = neighbors([[1], ["b"], [2], [None], [1]], [[0.125], [0.25], [0.5], [0.0625], [np.inf]])
    counts = MatchNearest().counts([1, "b", 3, None, 2], *found, [0.0, 0.125, 0.25, 0.5, 9.0])
    assert [column.tolist() for column in counts[:4]] == [
        [0, 1, 2, 2, 2],  # right: 1 at 0.125, b at 0.25
        [0, 0, 0, 1, 1],  # wrong: 2 for 3 at 0.5; what has no label or is at inf is never accepted
        [3, 3, 3, 2, 2],
        [2, 1, 0, 0, 0],
    ]
    assert counts.n == 5
    assert [float(column) for column in MatchNearest().counts([1, "b", 3, None, 2], *found, np.inf)[:4]] == [2, 1, 2, 0]


def test_majority_vote() -> None:
    found = neighbors(
        [["a", "b", "b"], ["a", "b", "c"], [None, None, "c"], [1, None, None], [None] * 3],
        [[0.1, 0.2, 0.6], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.5, np.inf, np.inf], [np.inf] * 3],
    )
    labels, distances = MatchMajorityVote().predict(*found)
    assert labels.tolist() == ["b", "a", "c", 1, None]  # of equals the closest; the unlabelled have no vote
    np.testing.assert_allclose(distances, [0.3, 0.2, 0.2, 0.5, np.inf], rtol=1e-6)
    assert MatchMajorityVote(np.max).predict(*found)[1].tolist()[:2] == [np.float32(0.6), np.float32(0.3)]


def test_matchers_by_name_and_shapes() -> None:
    assert isinstance(make_classification_matcher("match_majority_vote"), MatchMajorityVote)
    with pytest.raises(InvalidArgumentError, match="'match_nearest'"):
        make_classification_matcher("nearby")
    with pytest.raises(InvalidArgumentError, match=r"\[2, k\]"):
        MatchNearest().counts([1, 2], *neighbors([[1]], [[0.1]]), [1.0])


# -- retrieval metrics ---------------------------------------------------------------------------------------------------

#          which of the 4 nearest match     and the distances
MASK = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
DISTANCES = np.array([[0.1, 0.2, 0.3, 0.4]] * 4)
QUERIES = ["a", "a", "b", "b"]
R = {"a": 2, "b": 4}
LOG3 = math.log2(3)


@pytest.mark.parametrize(
    ("metric", "per_query"),
    [
        (RecallAtK(k=1), [1, 0, 0, 1]),
        (RecallAtK(k=3), [1, 1, 0, 1]),
        (RecallAtK(k=3, distance_threshold=0.25), [1, 0, 0, 1]),
        (RecallAtK(k=1, drop_closest_lookup=True), [0, 0, 0, 1]),
        (PrecisionAtK(k=4), [0.5, 0.5, 0, 1]),
        (PrecisionAtK(k=3), [2 / 3, 1 / 3, 0, 1]),
        (PrecisionAtK(k=3, drop_closest_lookup=True), [1 / 3, 2 / 3, 0, 1]),
        (PrecisionAtK(r=R, clip_at_r=True, k=4), [0.5, 0, 0, 1]),
        (PrecisionAtK(r=R, k=4, distance_threshold=0.2), [0.5, 0, 0, 0.5]),
        (MapAtK(r=R, k=4), [(1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2, 0, 1]),
        (MapAtK(r=R, clip_at_r=True, k=4), [0.5, 0, 0, 1]),
        (MapAtK(k=4), [(1 + 2 / 3) / 4, (1 / 3 + 2 / 4) / 4, 0, 1]),
        (MapAtK(r=R, k=3, drop_closest_lookup=True), [0.5, 1 / 2 + 2 / 3, 0, 1]),  # R is 1 and 3
        (MapAtK(r={"a": 2}, k=4), [(1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2, 0, 0]),
        (BNDCG(k=4), [(1 + 0.5) / (1 + 1 / LOG3), (0.5 + 1 / math.log2(5)) / (1 + 1 / LOG3), 0, 1]),
        (BNDCG(k=2), [1, 0, 0, 1]),
        (BNDCG(k=2, drop_closest_lookup=True), [1 / LOG3, 1 / LOG3, 0, 1]),
    ],
)
def test_retrieval_metrics_of_a_table(metric: Any, per_query: list[float]) -> None:
    given = {"query_labels": QUERIES, "match_mask": MASK, "lookup_distances": DISTANCES}
    assert metric.compute(**given) == pytest.approx(np.mean(per_query), abs=1e-15)
    macro = type(metric)(**metric.get_config() | {"average": "macro"})
    uneven = {"query_labels": ["a", "b", "b", "b"], "match_mask": MASK, "lookup_distances": DISTANCES}
    if getattr(metric, "r", None) is None:
        assert macro.compute(**uneven) == pytest.approx((per_query[0] + np.mean(per_query[1:])) / 2, abs=1e-15)


def test_precision_at_one_without_the_query_itself_is_one_on_a_perfect_result() -> None:
    """TensorFlow Similarity sliced match_mask[:, 1:k], which is nothing, and divided by k."""
    metric = PrecisionAtK(k=1, drop_closest_lookup=True)
    assert metric.n_lookups == 2
    assert metric.compute(query_labels=[1, 2], match_mask=[[True, True]] * 2) == 1.0


def test_map_without_the_query_itself_is_one_on_a_perfect_result() -> None:
    assert MapAtK(r={1: 4}, k=3, drop_closest_lookup=True).compute(query_labels=[1], match_mask=[[True] * 4]) == 1.0


def test_retrieval_metrics_have_names_and_refuse_what_is_too_little() -> None:
    assert RecallAtK().name == "recall@5"
    assert PrecisionAtK(k=2, distance_threshold=0.5).name == "precision@2 : distance_threshold@0.5"
    assert MapAtK(r=R, clip_at_r=True, name="map@R").name == "map@R"
    assert isinstance(make_retrieval_metric("ndcg@k", 3), BNDCG)
    with pytest.raises(InvalidArgumentError, match="recall@5 needs a query, and 5 neighbours"):
        RecallAtK().compute(query_labels=QUERIES, match_mask=MASK)
    with pytest.raises(InvalidArgumentError, match="lookup_distances are needed"):
        RecallAtK(k=1, distance_threshold=0.1).compute(query_labels=QUERIES, match_mask=MASK)
    for build in (lambda: RecallAtK(k=0), lambda: RecallAtK(average="weighted"), lambda: PrecisionAtK(clip_at_r=True)):
        with pytest.raises(InvalidArgumentError):
            build()
    with pytest.raises(InvalidArgumentError, match="'recall@k'"):
        make_retrieval_metric("recal")


def test_evaluate_retrieval_against_a_naive_loop() -> None:
    rng = np.random.default_rng(3)
    queries = rng.integers(0, 4, 30).tolist()
    found = neighbors(rng.integers(0, 4, (30, 6)).tolist(), np.sort(rng.random((30, 6)), axis=1).tolist())
    results = evaluate_retrieval(queries, found, [RecallAtK(k=2), PrecisionAtK(k=6), BNDCG(k=4, distance_threshold=0.5), "map"])
    recall, precision, gain, average = [], [], [], []
    for label, labels, distances in zip(queries, found.labels.tolist(), found.distances.tolist(), strict=True):
        hits = [mine == label for mine in labels]
        recall.append(any(hits[:2]))
        precision.append(sum(hits) / 6)
        near = [hit and distance <= 0.5 for hit, distance in zip(hits, distances, strict=True)][:4]
        ideal = sum(1 / math.log2(i + 2) for i in range(sum(near)))
        gain.append(sum(hit / math.log2(i + 2) for i, hit in enumerate(near)) / ideal if ideal else 0.0)
        average.append(sum(sum(hits[: i + 1]) / (i + 1) for i in range(5) if hits[i]) / 5)
    expected = [np.mean(column) for column in (recall, precision, gain, average)]
    np.testing.assert_allclose(list(results.values()), expected, rtol=1e-12)
    assert list(results) == ["recall@2", "precision@6", "ndcg@4 : distance_threshold@0.5", "map@5"]


# -- classification and calibration --------------------------------------------------------------------------------------


def naive_counts(queries: list[Any], found: Neighbors, threshold: float) -> tuple[int, int, int, int]:
    tp = fp = tn = fn = 0
    for label, near, distance in zip(queries, found.labels[:, 0], found.distances[:, 0], strict=True):
        if distance <= threshold:
            tp, fp = (tp + 1, fp) if near == label else (tp, fp + 1)
        else:
            fn, tn = (fn + 1, tn) if near == label else (fn, tn + 1)
    return tp, fp, tn, fn


def random_case(n: int = 200, seed: int = 5) -> tuple[list[Any], Neighbors]:
    """Queries of the known classes 0 to 4 mostly close to one of their own, and unknown ones farther away."""
    rng = np.random.default_rng(seed)
    queries = rng.integers(0, 7, n).tolist()
    near = [label if label < 5 and rng.random() < 0.9 else int(rng.integers(0, 5)) for label in queries]
    distances = [float(rng.gamma(2, 0.1) + (0.25 if label >= 5 else 0)) for label in queries]
    return queries, neighbors([[label] for label in near], [[distance] for distance in distances])


def test_evaluate_classification_against_a_naive_loop() -> None:
    queries, found = random_case()
    thresholds = [0.0, 0.1, 0.2, 0.4, 5.0]
    results = evaluate_classification(queries, found, thresholds, ["precision", "recall", "f1", "fpr", "npv"])
    for i, threshold in enumerate(thresholds):
        tp, fp, tn, fn = naive_counts(queries, found, threshold)
        share = lambda part, whole: part / whole if whole else 0.0  # noqa: E731
        expected = [
            share(tp, tp + fp),
            share(tp, tp + fn),
            share(2 * tp, 2 * tp + fp + fn),
            share(fp, fp + tn),
            share(tn, tn + fn),
        ]
        got = [results[name][i] for name in ("precision", "recall", "f1", "fpr", "npv")]
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def naive_optimum(queries: list[Any], found: Neighbors) -> tuple[float, float]:
    best = (-1.0, 0.0)
    for threshold in sorted(set(found.distances[:, 0].tolist())):
        tp, fp, _, fn = naive_counts(queries, found, threshold)
        f1 = 2 * tp / (2 * tp + fp + fn)
        if f1 > best[0]:  # ascending: of equals the tightest stays
            best = (f1, threshold)
    return best


def test_calibration_finds_the_best_threshold_with_unknowns_in_the_set() -> None:
    queries, found = random_case()
    optimal = calibrate(queries, found).cutpoints["optimal"]
    assert (optimal["f1"], optimal["distance"]) == pytest.approx(naive_optimum(queries, found), rel=1e-12)
    assert optimal["value"] == optimal["f1"]
    tp, fp, _, fn = naive_counts(queries, found, optimal["distance"])
    assert (optimal["precision"], optimal["recall"]) == pytest.approx((tp / (tp + fp), tp / (tp + fn)), rel=1e-12)


def test_equally_good_thresholds_give_the_tightest() -> None:
    """f1 is 2/3 at 0.1 (1 right) and at 0.3 (2 right, 2 wrong, none missed): TensorFlow Similarity took 0.3."""
    found = neighbors([[1], [9], [9], [1]], [[0.1], [0.2], [0.25], [0.3]])
    queries = [1, 1, 1, 1]
    f1 = {t: 2 * c[0] / (2 * c[0] + c[1] + c[3]) for t in (0.1, 0.3) for c in [naive_counts(queries, found, t + 1e-6)]}
    assert f1 == {0.1: 2 / 3, 0.3: 2 / 3}
    assert calibrate(queries, found).cutpoints["optimal"]["distance"] == np.float32(0.1)


def test_targets_limit_what_is_accepted_or_ask_for_it() -> None:
    queries, found = random_case()
    thresholds = sorted(set(found.distances[:, 0].tolist()))
    counts = {t: naive_counts(queries, found, t) for t in thresholds}
    recall = {t: c[0] / (c[0] + c[3]) for t, c in counts.items()}
    precision = {t: c[0] / (c[0] + c[1]) for t, c in counts.items()}
    fpr = {t: c[1] / (c[1] + c[2]) for t, c in counts.items()}

    keeps = calibrate(queries, found, {"keeps_90": 0.9}, "recall").cutpoints["keeps_90"]
    assert keeps["distance"] == min(t for t in thresholds if recall[t] >= 0.9)

    sure = calibrate(queries, found, {"sure": 0.95}, "precision").cutpoints["sure"]
    meeting = [t for t in thresholds if precision[t] >= 0.95]
    most = max(counts[t][0] for t in meeting)
    assert sure["distance"] == min(t for t in meeting if counts[t][0] == most)
    assert sure["precision"] >= 0.95 and sure["recall"] > 0.4  # TensorFlow Similarity fell below its target

    strict = calibrate(queries, found, {"few": 0.1}, "fpr", extra_metrics=[]).cutpoints["few"]
    assert strict["fpr"] <= 0.1
    assert strict["distance"] in [t for t in thresholds if fpr[t] <= 0.1]


def test_a_target_out_of_reach_is_told() -> None:
    queries, found = random_case()
    results = calibrate(queries, found, {"dream": 1.01, "fine": 0.5}, "recall")
    assert set(results.cutpoints) == {"optimal", "fine"}
    assert results.unmet == {"dream": 1.0}


def test_thresholds_are_columns_with_a_row_for_each_step() -> None:
    queries, found = random_case()
    thresholds = calibrate(queries, found, rounding=1, extra_metrics=["precision"]).thresholds
    assert list(thresholds) == ["value", "distance", "f1", "precision"]
    assert thresholds["distance"] == sorted(thresholds["distance"])
    assert all(a != b for a, b in zip(thresholds["value"], thresholds["value"][1:], strict=False))
    assert [round(value, 1) for value in thresholds["f1"]] == thresholds["value"]


@pytest.mark.parametrize("targets", [{"x": "a"}, {"x": None}, {"x": math.nan}, {"x": True}, {1: 0.5}, [0.5], "x", 0.5])
def test_targets_are_numbers_by_name(targets: Any) -> None:
    queries, found = random_case(5)
    with pytest.raises(InvalidArgumentError, match="thresholds_targets"):
        calibrate(queries, found, targets)


def test_one_metric_alone_is_a_list_of_one() -> None:
    queries, found = random_case(5)
    assert "fpr" in calibrate(queries, found, extra_metrics="fpr").cutpoints["optimal"]
    for metric in ("fpr", cm.FalsePositiveRate()):
        assert list(evaluate_classification(queries, found, 0.5, metric)) == ["distance", "fpr"]
    assert evaluate_retrieval(queries, found, RecallAtK(k=1)) == evaluate_retrieval(queries, found, [RecallAtK(k=1)])
    assert [metric.name for metric in make_retrieval_metrics("map@k")] == ["map@5"]


def test_retrieval_metrics_of_one_name_are_refused() -> None:
    queries, found = random_case(5)
    with pytest.raises(InvalidArgumentError, match="two retrieval metrics are named 'recall@1'"):
        evaluate_retrieval(queries, found, [RecallAtK(k=1), RecallAtK(k=1, average="macro")])
    both = [RecallAtK(k=1), RecallAtK("macro_recall", k=1, average="macro")]
    assert list(evaluate_retrieval(queries, found, both)) == ["recall@1", "macro_recall@1"]


def test_calibration_refuses_what_cannot_be() -> None:
    queries, found = random_case(5)
    with pytest.raises(InvalidArgumentError, match="'optimal'"):
        calibrate(queries, found, {"optimal": 0.5})
    with pytest.raises(InvalidArgumentError, match="no query has a neighbour"):
        calibrate([1], neighbors([[None]], [[np.inf]]))
    with pytest.raises(InvalidArgumentError, match="with a label"):
        calibrate([1], neighbors([[None]], [[0.5]]))


def test_an_unlabelled_neighbour_is_rejected_at_every_threshold() -> None:
    """The second query is nearest to an item without a label, at 0.25: match() rejects it, so it costs no precision."""
    found = neighbors([[1], [None], [2]], [[0.125], [0.25], [0.5]])
    results = calibrate([1, 1, 2], found, {"all": 1.0}, "precision", extra_metrics=["recall", "npv", "fpr"])
    both = results.cutpoints["all"]
    assert (both["distance"], both["precision"], both["recall"], both["npv"], both["fpr"]) == (0.5, 1.0, 1.0, 1.0, 0.0)


def test_memory_is_linear_in_the_queries() -> None:
    """TensorFlow Similarity made a table of queries × thresholds, and a threshold of each query: 3.2 GB here."""
    n = 40_000
    rng = np.random.default_rng(0)
    queries = rng.integers(0, 10, n)
    found = Neighbors(rng.integers(0, 10, (n, 1)).astype(object), rng.random((n, 1), np.float32))
    tracemalloc.start()
    calibrate(queries, found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1000 * n
