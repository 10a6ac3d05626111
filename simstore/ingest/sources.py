"""What ingest() is given, opened as readers that suit the store's embedder."""

from typing import Any

from simstore.errors import InvalidArgumentError
from simstore.readers import Reader
from simstore.store import Store

__all__ = ["opened"]


def opened(store: Store, source: Any, options: Any) -> list[Reader]:
    """The readers of what was given; readers are taken as they are."""
    listed = source if isinstance(source, (list, tuple)) else [source]
    if listed and all(isinstance(one, Reader) for one in listed):
        return list(listed)
    raise InvalidArgumentError(f"no reader: {source!r}")
