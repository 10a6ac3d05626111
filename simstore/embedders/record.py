"""What a store remembers of its embedder, how it gets it back, and how it tells another one."""

from pathlib import Path
from typing import Any

from simstore.embedders.function import FunctionEmbedder
from simstore.embedders.inputs import input_of, recorded
from simstore.embedders.keras import KerasEmbedder
from simstore.embedders.protocol import Embedder
from simstore.embedders.saved import SavedEmbedder
from simstore.errors import CorruptStoreError, EmbedderMismatchError, InvalidArgumentError
from simstore.types import EmbedderSpec

__all__ = ["check_same", "from_record", "model_bytes", "to_record"]


def to_record(embedder: Embedder) -> dict[str, Any]:
    """What a store remembers of an embedder, msgpack-able.

    Returns:
        kind ("keras", "function" or "other"), name, dim, fingerprint, batch_size (None unless keras), preprocess (the
        name of what runs before the model, or None), saved (whether model_bytes has a model to keep in the store) and input
        (what inputs it takes, so that nobody loads it to ask; None if it does not tell). Older stores have no input.

    Raises:
        InvalidArgumentError: It is no embedder, or its model has changed since it was made.
    """
    if isinstance(embedder, SavedEmbedder):
        return dict(embedder.record)
    spec = _checked_spec(embedder)
    record = {"kind": "other", "name": spec.name, "dim": spec.dim, "fingerprint": spec.fingerprint}
    record |= {"batch_size": None, "preprocess": None, "saved": False, "input": None}
    if isinstance(embedder, FunctionEmbedder):
        record["kind"] = "function"
    elif isinstance(embedder, KerasEmbedder):
        embedder.check_unchanged()
        record |= {"kind": "keras", "batch_size": embedder.batch_size, "preprocess": embedder.preprocess_name}
        record |= {"saved": embedder.is_saveable, "input": recorded(input_of(embedder))}
    return record


def model_bytes(embedder: Embedder) -> bytes | None:
    """The content of the .keras file to keep in the store, or None where the record says that it is not saved.

    Raises:
        InvalidArgumentError: The model cannot be saved, or has changed since the embedder was made.
        CorruptStoreError: It is another store's saved embedder, and its file is not there.
    """
    if isinstance(embedder, SavedEmbedder):
        try:
            return embedder.path.read_bytes()
        except OSError as err:
            raise CorruptStoreError(f"the model {embedder.path} cannot be read: {err}") from err
    if isinstance(embedder, KerasEmbedder) and embedder.is_saveable:
        from simstore.embedders.keras_file import saved_bytes

        return saved_bytes(embedder)
    return None


def from_record(record: dict[str, Any], model_path: Path | None) -> Embedder | None:
    """The embedder of a store: its spec is known at once, its model is loaded at the first embed().

    Args:
        record: From to_record.
        model_path: Where the store keeps the model.

    Returns:
        None where it was not saved, and has to be given.
    """
    return SavedEmbedder(record, model_path) if record["saved"] and model_path is not None else None


def check_same(record: dict[str, Any], embedder: Embedder) -> None:
    """Raises EmbedderMismatchError unless the embedder makes the vectors that the store was made with.

    Names are not compared: Keras numbers the models of a process.
    """
    spec = _checked_spec(embedder)
    if (spec.dim, spec.fingerprint) == (record["dim"], record["fingerprint"]):
        return
    alone = ", or leave embedder= out, and the store uses its own" if record["saved"] else ""
    raise EmbedderMismatchError(
        f"the store was made with the embedder {record['name']!r} (dim {record['dim']}, fingerprint "
        f"{record['fingerprint']}), and this is {spec.name!r} (dim {spec.dim}, fingerprint {spec.fingerprint}): "
        f"vectors of the two cannot be compared. Give the one it was made with{alone}; or open it without embedder=, and "
        "store.reembed(embedder) moves it to this one"
    )


def _checked_spec(embedder: Any) -> EmbedderSpec:
    """An embedder's spec.

    Raises:
        InvalidArgumentError: It is no embedder; says how to make one of what it is.
    """
    spec = getattr(embedder, "spec", None)
    if not isinstance(spec, EmbedderSpec) or not callable(getattr(embedder, "embed", None)):
        is_model = any(base.__module__.partition(".")[0] == "keras" for base in type(embedder).__mro__)
        remedy = "KerasEmbedder(model)" if is_model else "a KerasEmbedder(model), or a FunctionEmbedder(fn, name=…, dim=…)"
        raise InvalidArgumentError(
            f"embedder has a spec (an EmbedderSpec) and embed(batch); {type(embedder).__name__} has not: give {remedy}"
        )
    if not isinstance(spec.name, str) or not isinstance(spec.fingerprint, str) or not spec.fingerprint:
        raise InvalidArgumentError(f"an embedder's name and fingerprint are texts, not {spec.name!r} and {spec.fingerprint!r}")
    if not isinstance(spec.dim, int) or spec.dim < 1:
        raise InvalidArgumentError(f"an embedder's dim is a whole number of at least 1, not {spec.dim!r}")
    return spec
