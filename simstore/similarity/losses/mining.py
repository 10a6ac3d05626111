"""Which pairs of a batch a loss looks at: masks by label, and mining among them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity.distances import Distance, pairwise_distances

__all__ = [
    "Mined",
    "Pairs",
    "as_labels",
    "check_strategies",
    "log_sum_exp",
    "masked_max",
    "masked_min",
    "mine_negatives",
    "mine_positives",
    "pairs_of",
]

_FAR = 1e30  # stands for infinity: differences of it are numbers, and so are their gradients


@dataclass(frozen=True, slots=True)
class Pairs:
    """Each anchor with each key. In a plain batch the keys are the anchors themselves.

    Attributes:
        distances: Float tensor [n_anchors, n_keys], smaller is closer.
        positives: Bool tensor of that shape: another example of the anchor's class.
        negatives: Bool tensor of that shape: an example of another class.
        from_keys: Takes n_anchors positions of keys, gives the distances of these from all keys, [n_anchors, n_keys].
    """

    distances: Any
    positives: Any
    negatives: Any
    from_keys: Callable[[Any], Any]


class Mined(NamedTuple):
    """One key for each anchor.

    Attributes:
        distances: Its distance, [n]; 0 where there is none.
        indices: Its position among the keys, [n]; any where there is none.
        found: Whether there is one, bool [n].
    """

    distances: Any
    indices: Any
    found: Any


def as_labels(y_true: Any, n: int | None) -> Any:
    """Labels as an integer tensor [n].

    Args:
        y_true: Integers (or bools) [n] or [n, 1].
        n: How many embeddings there are, if that is known.

    Raises:
        InvalidArgumentError: They are of another type or shape, or not n.
    """
    try:
        labels = ops.convert_to_tensor(y_true)
        dtype = keras.backend.standardize_dtype(labels.dtype)
    except (TypeError, ValueError) as err:
        raise InvalidArgumentError(f"labels are integers: {err}") from err
    if dtype == "bool":
        labels = ops.cast(labels, "int32")
    elif not dtype.startswith(("int", "uint")):
        raise InvalidArgumentError(
            f"labels are integers, not {dtype}: convert floats, y.astype('int64'), and number the names of classes, "
            "np.unique(y, return_inverse=True)[1]"
        )
    shape = tuple(labels.shape)
    if len(shape) == 2 and shape[1] in (1, None):
        labels, shape = ops.reshape(labels, (-1,)), shape[:1]
    if len(shape) != 1:
        raise InvalidArgumentError(f"labels are of shape [n] or [n, 1], not {shape}: of one-hot labels take the argmax")
    if None not in (n, shape[0]) and shape[0] != n:
        raise InvalidArgumentError(f"each embedding has a label, but there are {n} embeddings and {shape[0]} labels")
    return labels


def pairs_of(
    distance: Distance,
    labels: Any,
    embeddings: Any,
    key_labels: Any = None,
    key_embeddings: Any = None,
    is_key: Any = None,
) -> Pairs:
    """The pairs of a batch, or of a batch with more keys.

    Args:
        distance: Between embeddings.
        labels: Of the anchors, [n_anchors].
        embeddings: The anchors, [n_anchors, dim].
        key_labels: Of the keys, [n_keys].
        key_embeddings: The keys, [n_keys, dim]: the anchors first, in their order, then the others.
        is_key: Which of the keys count, bool [n_keys]. By default all.
    """
    in_batch = key_embeddings is None
    keys, labels_of_keys = (embeddings, labels) if in_batch else (key_embeddings, key_labels)
    distances = pairwise_distances(distance, embeddings, keys)
    is_same = ops.equal(ops.expand_dims(labels, 1), ops.expand_dims(labels_of_keys, 0))
    positives, negatives = ops.logical_and(is_same, ops.logical_not(is_diagonal(distances))), ops.logical_not(is_same)
    if is_key is not None:
        positives, negatives = ops.logical_and(positives, is_key), ops.logical_and(negatives, is_key)

    def from_keys(indices: Any) -> Any:
        if in_batch:
            return ops.take(distances, indices, axis=0)
        return pairwise_distances(distance, ops.take(keys, indices, axis=0), keys)

    return Pairs(distances, positives, negatives, from_keys)


def is_diagonal(matrix: Any) -> Any:
    """Bool tensor of a matrix' shape, True on its diagonal."""
    rows, columns = ops.shape(matrix)
    return ops.equal(ops.expand_dims(ops.arange(rows), 1), ops.expand_dims(ops.arange(columns), 0))


def masked_max(values: Any, mask: Any) -> Mined:
    """The largest value of each row, of those in the mask."""
    return _largest(values, mask, 1.0)


def masked_min(values: Any, mask: Any) -> Mined:
    """The smallest value of each row, of those in the mask."""
    return _largest(values, mask, -1.0)


def _largest(values: Any, mask: Any, sign: float) -> Mined:
    candidates = ops.where(mask, values * sign, -_FAR)
    found = ops.any(mask, axis=1)
    return Mined(ops.where(found, ops.max(candidates, axis=1) * sign, 0.0), ops.argmax(candidates, axis=1), found)


def log_sum_exp(values: Any, mask: Any) -> Any:
    """log Σ exp(value) of each row, of the values in the mask, [n]. Without any it is far below zero, and finite."""
    return ops.logsumexp(ops.where(mask, values, -_FAR), axis=1)


def check_strategies(positive_mining_strategy: str, negative_mining_strategy: str | None = None) -> None:
    """Refuses names of strategies that there are not.

    Raises:
        InvalidArgumentError: There is none of that name.
    """
    if positive_mining_strategy not in ("hard", "easy"):
        raise InvalidArgumentError(f"positive_mining_strategy is 'hard' or 'easy', not {positive_mining_strategy!r}")
    if negative_mining_strategy not in ("hard", "semi-hard", "easy", None):
        raise InvalidArgumentError(
            f"negative_mining_strategy is 'hard', 'semi-hard' or 'easy', not {negative_mining_strategy!r}"
        )


def mine_positives(pairs: Pairs, strategy: str) -> Mined:
    """One positive for each anchor: "hard" is the farthest, "easy" the closest."""
    return (masked_max if strategy == "hard" else masked_min)(pairs.distances, pairs.positives)


def mine_negatives(pairs: Pairs, strategy: str, positives: Mined) -> Mined:
    """One negative for each anchor.

    "hard" is the closest, "easy" the farthest, "semi-hard" the closest of those farther away than the anchor's positive,
    or the farthest if there are none of these.
    """
    if strategy == "hard":
        return masked_min(pairs.distances, pairs.negatives)
    farthest = masked_max(pairs.distances, pairs.negatives)
    if strategy == "easy":
        return farthest
    is_farther = pairs.distances > ops.expand_dims(positives.distances, 1)
    semi_hard = masked_min(pairs.distances, ops.logical_and(pairs.negatives, is_farther))
    return Mined(
        ops.where(semi_hard.found, semi_hard.distances, farthest.distances),
        ops.where(semi_hard.found, semi_hard.indices, farthest.indices),
        farthest.found,
    )
