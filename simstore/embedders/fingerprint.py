"""The fingerprint of a model: the same after saving and loading, under any names; another after training."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

__all__ = ["canonical", "fingerprint_of"]

# These change without changing what a model computes: by training, compiling, freezing, by being called first or saved.
IGNORED = frozenset({"build_config", "build_input_shape", "compile_config", "shared_object_id", "trainable"})


def fingerprint_of(parts: Iterable[str | NDArray[Any]]) -> str:
    """The xxh3-128, in hex, of a sequence of texts and arrays (values, shapes and dtypes)."""
    digest = xxhash.xxh3_128()
    for part in parts:
        if isinstance(part, str):
            data = part.encode()
            digest.update(f"str {len(data)}\n".encode())
            digest.update(data)
        else:
            digest.update(f"array {part.dtype.name} {list(part.shape)}\n".encode())
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def canonical(config: dict[str, Any]) -> str:
    """A Keras configuration as JSON, without what has no influence on the output.

    Keras numbers the layers of a process (dense_7); layers are named here by the place where they stand, so that a
    model that is built again has the fingerprint it had. What is None is left out: newer versions of Keras add
    arguments.

    Args:
        config: The "config" of a serialised layer or model.
    """
    kept = _without_ignored(config)
    names = {kept["name"]: "model"}
    _collect_names(kept, names)
    return json.dumps(_renamed(kept, names), sort_keys=True, separators=(",", ":"))


def _without_ignored(config: Any) -> Any:
    if isinstance(config, list):
        return [_without_ignored(entry) for entry in config if not _is_input_of_sequential(entry)]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "__lambda__":
        return "lambda"  # its code holds file names and line numbers
    kept = {key: value for key, value in config.items() if key not in IGNORED and value is not None}
    return {key: _without_ignored(value) for key, value in kept.items()}


def _is_input_of_sequential(entry: Any) -> bool:
    """A Sequential model gets its input layer when it is first called; a functional one has it from the start."""
    return isinstance(entry, dict) and entry.get("class_name") == "InputLayer" and "inbound_nodes" not in entry


def _collect_names(config: Any, names: dict[str, str]) -> None:
    if isinstance(config, list):
        for entry in config:
            _collect_names(entry, names)
    elif isinstance(config, dict):
        if _is_layer(config):
            names.setdefault(config["config"]["name"], f"layer {len(names)}")
        for key in sorted(config):
            _collect_names(config[key], names)


def _is_layer(config: dict[str, Any]) -> bool:
    inner = config.get("config")
    is_named = isinstance(inner, dict) and isinstance(inner.get("name"), str)
    return is_named and not str(config.get("class_name")).endswith("DTypePolicy")


def _renamed(config: Any, names: dict[str, str]) -> Any:
    """The configuration with new names where a name stands, or a reference [layer, node, tensor]."""
    if isinstance(config, dict):
        return {
            key: names.get(value, value) if key == "name" and isinstance(value, str) else _renamed(value, names)
            for key, value in config.items()
        }
    if not isinstance(config, list):
        return config
    if [type(entry) for entry in config] == [str, int, int]:
        return [names.get(config[0], config[0]), *config[1:]]
    return [_renamed(entry, names) for entry in config]
