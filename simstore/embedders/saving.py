"""How a store remembers its embedder, and gets it back."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simstore.embedders.function import FunctionEmbedder
from simstore.embedders.protocol import Embedder, checked_spec
from simstore.errors import InvalidArgumentError

if TYPE_CHECKING:
    from simstore.embedders.keras import KerasEmbedder

__all__ = ["from_record", "model_bytes", "to_record"]


def to_record(embedder: Embedder) -> dict[str, Any]:
    """What a store remembers of an embedder; msgpack-able.

    Raises:
        InvalidArgumentError: It is no embedder.
    """
    if not isinstance(embedder, Embedder):
        raise InvalidArgumentError(
            f"embedder is an Embedder, such as KerasEmbedder(model) or FunctionEmbedder(fn, name=…, dim=…), not a "
            f"{type(embedder).__name__}"
        )
    spec = checked_spec(embedder.spec.name, embedder.spec.dim, embedder.spec.fingerprint)
    keras = _as_keras(embedder)
    kind = "keras" if keras is not None else "function" if isinstance(embedder, FunctionEmbedder) else "other"
    return {
        "kind": kind,
        "name": spec.name,
        "dim": spec.dim,
        "fingerprint": spec.fingerprint,
        "batch_size": None if keras is None else keras.batch_size,
        "saved": keras is not None and keras.is_saveable,
    }


def _as_keras(embedder: Embedder) -> "KerasEmbedder | None":
    """The embedder if it is a KerasEmbedder, told without importing Keras for one that is not."""
    if not type(embedder).__module__.startswith("simstore.embedders.keras"):
        return None
    from simstore.embedders.keras import KerasEmbedder

    return embedder if isinstance(embedder, KerasEmbedder) else None


def model_bytes(embedder: Embedder) -> bytes | None:
    """The content of the .keras file that a store keeps, or None for an embedder that cannot be saved."""
    keras = _as_keras(embedder)
    return None if keras is None or not keras.is_saveable else keras.saved_model()


def from_record(record: Mapping[str, Any], model_path: Path) -> Embedder | None:
    """The embedder that a store saved: it loads its model when it first embeds. None if it was not saved."""
    if not record.get("saved"):
        return None
    from simstore.embedders.lazy import LazyKerasEmbedder

    spec = checked_spec(record["name"], record["dim"], record["fingerprint"])
    return LazyKerasEmbedder(spec, model_path, record["batch_size"])
