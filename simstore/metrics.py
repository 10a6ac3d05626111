"""Which way is closer: the three metrics, and how the kernel's raw distances become true ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError

__all__ = ["METRICS", "Metric", "metric_named"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A distance; smaller is closer.

    Attributes:
        name: "cosine" (1 - cos), "l2" (Euclidean) or "ip" (1 - inner product).
        is_ip: The kernel computes 1 - <q, v>; else squared l2.
        normalises: Vectors are scaled to unit length before they are compared; a zero vector has no place then.
    """

    name: str
    is_ip: bool
    normalises: bool

    def true_distances(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """True distances of the kernel's raw ones. For unit vectors 1 - cos = |q - v|² / 2."""
        if self.name == "l2":
            return np.sqrt(raw)
        return raw * np.float32(0.5) if self.normalises else raw


METRICS = {
    metric.name: metric
    for metric in (
        Metric("cosine", is_ip=False, normalises=True),
        Metric("l2", is_ip=False, normalises=False),
        Metric("ip", is_ip=True, normalises=False),
    )
}


def metric_named(name: str) -> Metric:
    """The metric of that name.

    Raises:
        InvalidArgumentError: There is none.
    """
    metric = METRICS.get(name) if isinstance(name, str) else None
    if metric is None:
        raise InvalidArgumentError(f"metric must be one of {', '.join(map(repr, METRICS))}, not {name!r}")
    return metric
