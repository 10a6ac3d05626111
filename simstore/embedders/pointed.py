"""Embedders of "package.module:function", and of entry points."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from simstore.embedders.function import FunctionEmbedder
from simstore.embedders.protocol import Embedder
from simstore.errors import InvalidArgumentError, SimstoreError
from simstore.types import EmbedderSpec

__all__ = ["embedder_of_object", "pointed_object"]

WANTED = (
    "an embedder, a Keras model, a function without arguments that returns one of these, or a function batch → array "
    "[n, dim] with an attribute dim: function.dim = 128"
)


def pointed_object(name: str) -> Any:
    """What "package.module:name" names; name may have dots.

    Raises:
        InvalidArgumentError: The module cannot be imported, or has no such name.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise InvalidArgumentError(f"an embedder is named 'package.module:function', not {name!r}")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as err:  # whatever its code raises
        raise InvalidArgumentError(
            f"{name}: the module {module_name!r} cannot be imported ({type(err).__name__}: {err}); it has to be installed, "
            "or in a directory of PYTHONPATH"
        ) from err
    for part in path.split("."):
        if not hasattr(found, part):
            raise InvalidArgumentError(f"{name}: {getattr(found, '__name__', found)!r} has no {part!r}; give {WANTED}")
        found = getattr(found, part)
    return found


def embedder_of_object(found: Any, name: str, batch_size: int | None) -> Embedder:
    """The embedder that an object is, makes, or is the function of.

    Args:
        found: See WANTED.
        name: What a store will know it by, if it has no name of its own.
        batch_size: Of a Keras model.

    Raises:
        InvalidArgumentError: It is something else, or fails.
    """
    made = _embedder(found, name, batch_size)
    if made is None and callable(found) and _needs_nothing(found):
        try:
            result = found()
        except SimstoreError:
            raise
        except Exception as err:  # whatever its code raises
            raise InvalidArgumentError(f"{name} failed ({type(err).__name__}: {err})") from err
        made = _embedder(result, name, batch_size)
        if made is None:
            raise InvalidArgumentError(f"{name} returned {_described(result)}; it should be {WANTED}")
    if made is None:
        raise InvalidArgumentError(f"{name} is {_described(found)}; it should be {WANTED}")
    return made


def _embedder(found: Any, name: str, batch_size: int | None) -> Embedder | None:
    if isinstance(found, type):
        return None  # its instances may be embedders
    if isinstance(getattr(found, "spec", None), EmbedderSpec) and callable(getattr(found, "embed", None)):
        return found  # type: ignore[no-any-return]
    if any(base.__module__.partition(".")[0] == "keras" and base.__name__ == "Model" for base in type(found).__mro__):
        from simstore.embedders.keras import KerasEmbedder

        return KerasEmbedder(found, name=name, batch_size=64 if batch_size is None else batch_size)
    if callable(found) and hasattr(found, "dim"):
        return FunctionEmbedder(found, name=name, dim=found.dim)
    return None


def _needs_nothing(found: Callable[..., Any]) -> bool:
    """Whether a function can be called without arguments."""
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):  # ValueError: a function of C, without a signature
        return False
    return True


def _described(found: Any) -> str:
    if inspect.isfunction(found):
        return f"a function {found.__name__}{inspect.signature(found)} without dim"
    return f"something of type {type(found).__name__}"
