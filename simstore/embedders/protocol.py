"""What an embedder is, and what a store remembers of one."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simstore.errors import EmbedderMismatchError, InvalidArgumentError
from simstore.types import EmbedderSpec

__all__ = ["Embedder", "check_same"]


@runtime_checkable
class Embedder(Protocol):
    """Turns inputs into vectors."""

    @property
    def spec(self) -> EmbedderSpec:
        """Name, dim and fingerprint; equal fingerprints make equal vectors."""
        ...

    def embed(self, batch: Any) -> NDArray[np.float32]:
        """The vectors of n inputs, float32 [n, dim]."""
        ...


def checked_spec(name: Any, dim: Any, fingerprint: str) -> EmbedderSpec:
    """A spec of sound values.

    Raises:
        InvalidArgumentError: The name is no text, or dim no positive int.
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(f"an embedder's name is a non-empty str, not {name!r}")
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
        raise InvalidArgumentError(f"an embedder's dim is a whole number of at least 1, not {dim!r}")
    return EmbedderSpec(name, int(dim), fingerprint)


def check_same(record: Mapping[str, Any], embedder: Embedder) -> None:
    """Raises EmbedderMismatchError unless the embedder is the one that a store remembers."""
    spec = embedder.spec
    if spec.fingerprint == record["fingerprint"] and spec.dim == record["dim"]:
        return
    raise EmbedderMismatchError(
        f"this store was made with the embedder {record['name']!r} (dim {record['dim']}, fingerprint {record['fingerprint']}), "
        f"and {spec.name!r} (dim {spec.dim}, fingerprint {spec.fingerprint}) was given: its vectors would not compare; leave "
        "embedder out, give the same one, or make a new store"
    )
