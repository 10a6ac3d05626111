"""Items as JSON lines: {"key": …, "label": …, "data": …} with "vector" (numbers, or base64 of float32), "text" or "image"."""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from simstore.errors import InvalidArgumentError

__all__ = ["INPUTS", "NewItem", "batches_of", "items_of"]

InputName = Literal["vector", "text", "image"]
INPUTS: Final[tuple[InputName, ...]] = ("vector", "text", "image")
_NAMES: Final = frozenset(("key", "label", "data", *INPUTS))
_N_ITEMS, _N_BYTES = 1000, 8 << 20


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to be added; ``kind`` says what its input is."""

    key: Any
    kind: InputName
    input: Any
    label: Any = None
    data: Any = None
    line: int = field(default=0, compare=False)


def items_of(lines: Iterable[str]) -> Iterator[NewItem]:
    """The items of JSON lines; empty ones are passed over.

    Raises:
        InvalidArgumentError: A line is none; it is named.
    """
    for n, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _item(json.loads(line), n)
            except (ValueError, TypeError, RecursionError) as err:
                raise InvalidArgumentError(
                    f'line {n}: {err}; a line is as {{"key": "a", "vector": [0.1, 0.2], "label": "cat", "data": {{"year": 1}}}}'
                ) from err


def _item(given: Any, n: int) -> NewItem:
    from simstore.transfer import from_json

    if not isinstance(given, dict):
        raise ValueError(f"no JSON object but {given!r:.60}")
    unknown = sorted(given.keys() - _NAMES)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is unknown; there are {', '.join(sorted(_NAMES))}")
    kinds = [kind for kind in INPUTS if kind in given]
    if len(kinds) != 1:
        raise ValueError(f"one of {', '.join(INPUTS)} is needed, not {' and '.join(kinds) or 'none'}")
    value = _vector(given["vector"]) if kinds[0] == "vector" else given[kinds[0]]
    if kinds[0] != "vector" and not isinstance(value, str):
        raise ValueError(f"{kinds[0]} is a str, not {value!r:.60}")
    return NewItem(from_json(given.get("key")), kinds[0], value, from_json(given.get("label")), from_json(given.get("data")), n)


def _vector(given: Any) -> Any:
    import numpy as np

    if isinstance(given, str):
        return np.frombuffer(base64.b64decode(given, validate=True), "<f4")
    with np.errstate(over="ignore"):  # it is infinite then, which the store refuses
        return np.array(given, np.float32)


def batches_of(items: Iterable[NewItem]) -> Iterator[list[NewItem]]:
    """Up to a thousand at once, or some megabytes; of one kind each, with keys or without, and in their order."""
    batch: list[NewItem] = []
    size = 0
    for item in items:
        if batch and ((item.kind, item.key is None) != (batch[0].kind, batch[0].key is None) or size > _N_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += getattr(item.input, "nbytes", 1000)
        if len(batch) == _N_ITEMS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
