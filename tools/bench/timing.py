"""Two things timed in turns, so that a noisy machine is noisy to both."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

__all__ = ["Ratio", "interleave", "ratio_of", "seconds"]

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer the first took than the second.

    Attributes:
        median: Of the ratios of each repetition.
        low: Their 10th percentile.
        high: Their 90th percentile.
        first_s: The first's median time.
        second_s: The second's median time.
    """

    median: float
    low: float
    high: float
    first_s: float
    second_s: float

    def each(self, n_first: int, n_second: int) -> "Ratio":
        """The same for one of each, where the first did n_first of them and the second n_second."""
        more = n_second / n_first
        return replace(
            self, median=self.median * more, low=self.low * more, high=self.high * more, first_s=self.first_s / n_first,
            second_s=self.second_s / n_second,
        )  # fmt: skip


def interleave(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    repeats: int,
    between: Callable[[], object] = lambda: None,
    clock: Clock = time.perf_counter,
) -> Ratio:
    """Times both ``repeats`` times: A B, B A, A B, … Whichever comes first meets the caches the other left behind.

    Args:
        first: One thing to do.
        second: The other.
        repeats: How many pairs of times to take.
        clock: Gives seconds.
        between: Called after each pair, untimed.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for which in (0, 1) if repeat % 2 == 0 else (1, 0):
            start = clock()
            (first, second)[which]()
            times[which].append(clock() - start)
        between()
    return ratio_of(*times)


def seconds(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """How long something takes."""
    start = clock()
    work()
    return clock() - start


def ratio_of(first: list[float], second: list[float]) -> Ratio:
    """The ratio of times that were taken in pairs."""
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    low, high = np.percentile(ratios, [10, 90])
    return Ratio(median(ratios), float(low), float(high), median(first), median(second))
