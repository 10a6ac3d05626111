"""Learning rate schedules."""

import math
from typing import Any

import keras
from keras import ops

from simstore.errors import InvalidArgumentError

__all__ = ["WarmupCosineDecay"]


@keras.saving.register_keras_serializable("simstore.similarity")
class WarmupCosineDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0 to the maximum, then falls along half a cosine to alpha times the maximum.

    At step t the rate is, in units of the maximum, t / warmup_steps up to warmup_steps, and then
    alpha + (1 − alpha) (1 + cos(π f)) / 2, with f the part of the steps after the warm-up that is over.

    Args:
        max_learning_rate: The rate at the end of the warm-up.
        total_steps: After so many, the warm-up included, the rate stays.
        warmup_steps: The first so many; fewer than total_steps.
        alpha: The last rate, in units of the first.
        name: What it is called.

    Raises:
        InvalidArgumentError: The warm-up is as long as the whole, or negative.

    Example:
        >>> optimizer = keras.optimizers.Adam(WarmupCosineDecay(1e-3, total_steps=1000, warmup_steps=100))
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        warmup_steps: int,
        alpha: float = 0.0,
        name: str = "WarmupCosineDecay",
    ) -> None:
        super().__init__()
        if not 0 <= warmup_steps < total_steps:
            raise InvalidArgumentError(f"warmup_steps is from 0 to below total_steps, {total_steps}, not {warmup_steps}")
        self.max_learning_rate = max_learning_rate
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.alpha = alpha
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The rate of a step, a float tensor."""
        step = ops.minimum(ops.cast(step, "float32"), float(self.total_steps))
        over = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        falling = self.alpha + (1.0 - self.alpha) * 0.5 * (1.0 + ops.cos(math.pi * over))
        rising = step / max(self.warmup_steps, 1)
        return self.max_learning_rate * ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        names = ("max_learning_rate", "total_steps", "warmup_steps", "alpha", "name")
        return {name: getattr(self, name) for name in names}
