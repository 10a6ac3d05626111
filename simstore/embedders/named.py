"""Embedders by name."""

import difflib
import importlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from simstore.embedders.catalogue import BUILT_IN, entry_points
from simstore.embedders.pointed import embedder_of_object, pointed_object
from simstore.embedders.protocol import Embedder
from simstore.errors import InvalidArgumentError
from simstore.types import EmbedderSpec

__all__ = ["named_embedder", "same_name"]


def named_embedder(name: str, *, texts: Iterable[str] | None = None, batch_size: int | None = None) -> Embedder:
    """A new embedder, by name. A store that has saved its embedder needs no other: see same_name().

    Args:
        name: One of

            - a name that embedder_names() lists: "image-thumb", "text-ngram", …;
            - the path of a .keras file;
            - "package.module:object": an embedder, a Keras model, a function without arguments that returns one of these,
              or a function batch → array [n, dim] with an attribute dim. A store knows a function by this name alone.
        texts: What will be embedded, for "text-ngram", which passes over it once; others have no use for it.
        batch_size: How many inputs a Keras model gets at once, at most; by default what suits it.

    Raises:
        InvalidArgumentError: There is none of that name, or what it names is no embedder.
        KerasMissingError, PackageMissingError: What it needs is not installed; says what to install.

    Example:
        >>> embedder = named_embedder("image-thumb")  # doctest: +SKIP
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(f"an embedder's name is a text, not {name!r}")
    if name in BUILT_IN:
        return _built_in(name, texts, batch_size)
    entry = entry_points().get(name)
    if entry is not None:
        try:
            found = entry.load()
        except Exception as err:  # whatever its code raises
            raise InvalidArgumentError(f"{name}: {entry.value} cannot be loaded ({type(err).__name__}: {err})") from err
        return embedder_of_object(found, name, batch_size)
    if _is_path(name):
        from simstore.embedders.keras_file import embedder_of_file

        return embedder_of_file(Path(name), batch_size)
    if ":" in name:
        return embedder_of_object(pointed_object(name), name, batch_size)
    raise _unknown(name)


def same_name(embedder: EmbedderSpec | Mapping[str, Any] | None, name: str) -> bool:
    """Whether a store's embedder was made under a name: if it was saved, too, there is no need for a new one.

    A file's name says nothing of the model within: for paths it is always False. Make the embedder, and the store compares
    fingerprints.

    Args:
        embedder: The spec, as of store.info().embedder, or the store's record of it; None for none.
        name: As for named_embedder().
    """
    is_known = name in BUILT_IN or name in entry_points()
    if embedder is None or (_is_path(name) and not is_known):
        return False
    return (embedder.name if isinstance(embedder, EmbedderSpec) else embedder["name"]) == name


def _built_in(name: str, texts: Iterable[str] | None, batch_size: int | None) -> Embedder:
    """Its module makes it: text-ngram's text_ngram.py has text_ngram(batch_size=…)."""
    module = name.replace("-", "_")
    make = getattr(importlib.import_module(f"simstore.embedders.{module}"), module)
    options = {} if batch_size is None else {"batch_size": batch_size}
    made: Embedder = make(texts, **options) if BUILT_IN[name].needs_texts else make(**options)
    return made


def _is_path(name: str) -> bool:
    return name.endswith((".keras", ".h5", ".hdf5")) or os.sep in name or (":" not in name and os.path.exists(name))


def _unknown(name: str) -> InvalidArgumentError:
    names = [*BUILT_IN, *sorted(entry_points())]
    close = difflib.get_close_matches(name, names, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return InvalidArgumentError(
        f"there is no embedder {name!r}: {meant}Give one of {', '.join(names)}; the path of a .keras file; or "
        "'package.module:function'"
    )
