"""How many examples of each class a batch has."""

from itertools import islice
from typing import Any

import numpy as np
from keras import ops

from simstore.errors import InvalidArgumentError

__all__ = ["batch_class_ratio"]


def batch_class_ratio(sampler: Any, num_batches: int = 100) -> float:
    """The mean number of examples per class in a batch. Losses of pairs need 2 at least.

    Args:
        sampler: A Sampler, or anything that gives (x, y) batches: an iterable, a tf.data.Dataset.
        num_batches: How many batches to look at, at most.

    Raises:
        InvalidArgumentError: It gave no batch.
    """
    ratios = []
    for batch in islice(_batches(sampler), num_batches):
        labels = np.ravel(ops.convert_to_numpy(batch[1]))
        ratios.append(len(labels) / len(np.unique(labels)))
    if not ratios:
        raise InvalidArgumentError("batch_class_ratio needs a batch at least, and the sampler gave none")
    return float(np.mean(ratios))


def _batches(sampler: Any) -> Any:
    """A PyDataset iterates by its length: iter() would ask it for batches past the end."""
    return (sampler[i] for i in range(len(sampler))) if hasattr(sampler, "__getitem__") else iter(sampler)
