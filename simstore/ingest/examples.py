"""What goes from stage to stage: examples as columns, and what is to be written beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np

from simstore.ingest.stamps import Stamp
from simstore.storage import Place, RejectedRecord
from simstore.types import Key, Label

__all__ = ["Aside", "Before", "Examples", "Lot", "Update"]


T = TypeVar("T")


class Before(NamedTuple):
    """What there was of an example: its item's row, if there is one, and whether it was rejected."""

    row: int | None
    was_rejected: bool


class Update(NamedTuple):
    """An item whose vector stays."""

    key: Key
    label: Label
    data: Any
    is_relabelled: bool


@dataclass(slots=True)
class Examples:
    """Examples to be embedded and written, as columns.

    Attributes:
        marks: The stamps of each.
        packed: Its data, with the stamp, as an item holds it.
        before: What there was of each; None for nothing.
        inputs: An array [n, …] or a list of n; the vectors themselves, float32 [n, dim], where ``are_vectors``.
    """

    keys: list[Key]
    labels: list[Label]
    marks: list[Stamp]
    packed: list[bytes]
    before: list[Before | None]
    inputs: Any
    are_vectors: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def size_bytes(self) -> int:
        """How much memory the inputs take."""
        if isinstance(self.inputs, np.ndarray):
            return self.inputs.nbytes
        return sum(size_bytes(one) for one in self.inputs)

    def part(self, first: int, stop: int) -> "Examples":
        """Examples first … stop - 1."""
        cut = slice(first, stop)
        columns = self.keys[cut], self.labels[cut], self.marks[cut], self.packed[cut], self.before[cut], self.inputs[cut]
        return Examples(*columns, self.are_vectors)

    def only(self, chosen: Sequence[int]) -> "Examples":
        """Those of chosen numbers."""
        if len(chosen) == len(self):
            return self
        inputs = self.inputs[list(chosen)] if isinstance(self.inputs, np.ndarray) else [self.inputs[i] for i in chosen]

        def of(column: list[T]) -> list[T]:
            return [column[i] for i in chosen]

        columns = of(self.keys), of(self.labels), of(self.marks), of(self.packed), of(self.before)
        return Examples(*columns, inputs, self.are_vectors)

    @classmethod
    def none(cls) -> "Examples":
        """None, to be added to."""
        return cls([], [], [], [], [], [])

    @classmethod
    def joined(cls, parts: "Sequence[Examples]") -> "Examples":
        """Several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        inputs = [part.inputs for part in parts]
        return cls(
            list(chain.from_iterable(part.keys for part in parts)),
            list(chain.from_iterable(part.labels for part in parts)),
            list(chain.from_iterable(part.marks for part in parts)),
            list(chain.from_iterable(part.packed for part in parts)),
            list(chain.from_iterable(part.before for part in parts)),
            np.concatenate(inputs) if _are_alike(inputs) else list(chain.from_iterable(inputs)),
            bool(parts) and parts[0].are_vectors,
        )


def _are_alike(inputs: list[Any]) -> bool:
    first = inputs[0] if inputs else None
    return isinstance(first, np.ndarray) and all(
        isinstance(one, np.ndarray) and one.shape[1:] == first.shape[1:] and one.dtype == first.dtype for one in inputs
    )


def size_bytes(one: Any) -> int:
    """About how much memory an input takes."""
    return int(getattr(one, "nbytes", 0)) or (len(one) if isinstance(one, (str, bytes)) else 64)


@dataclass(slots=True)
class Aside:
    """What is written beside examples, or without any."""

    rejected: list[RejectedRecord] = field(default_factory=list)
    cleared: list[Place] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rejected or self.cleared or self.updates)

    def add(self, other: "Aside") -> None:
        """Takes over another's."""
        self.rejected += other.rejected
        self.cleared += other.cleared
        self.updates += other.updates


class Lot(NamedTuple):
    """Examples with their vectors as inputs, what is written beside them, and the fingerprint of the embedder, if any."""

    examples: Examples
    aside: Aside
    made_by: str | None
