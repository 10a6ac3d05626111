"""A Keras embedder as the bytes of a .keras file, and back."""

import importlib
import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simstore.embedders.keras import KerasEmbedder, import_keras, model_fingerprint
from simstore.errors import CorruptStoreError, EmbedderRequiredError, InvalidArgumentError, StorageError

__all__ = ["embedder_of_file", "load_embedder", "saved_bytes"]

REMEDY = "open the store with embedder=KerasEmbedder(model) of the model that it was made with"


def saved_bytes(embedder: KerasEmbedder) -> bytes:
    """The .keras file of an embedder: its model or, with a preprocess layer, a Sequential of the two. No optimizer.

    The file is loaded again before it is handed out: a store is never made with a model that it could not load.

    Raises:
        InvalidArgumentError: The model cannot be saved, or has changed since the embedder was made.
    """
    name = embedder.spec.name
    embedder.check_unchanged()
    with tempfile.TemporaryDirectory(prefix="simstore-") as directory:
        path = Path(directory) / "model.keras"
        try:
            fingerprint = _save(_whole(embedder, path), path, embedder.preprocess is not None)
        except Exception as err:  # Keras raises what it likes
            raise InvalidArgumentError(
                f"the model {name!r} cannot be saved in a store: Keras cannot save it, or would not load it again "
                f"({_first_line(err)}). Lambda layers are refused, because loading one runs code from the file: use "
                "layers or keras.ops instead. Or keep the model out of the store, KerasEmbedder(model, save=False), "
                "and give it whenever you open the store"
            ) from err
        if fingerprint != embedder.spec.fingerprint:
            raise InvalidArgumentError(
                f"the model {name!r} is another one after saving and loading: see that the get_config() of its own "
                "layers returns all that they are made with, or use KerasEmbedder(model, save=False)"
            )
        return path.read_bytes()


def load_embedder(path: Path, record: dict[str, Any]) -> KerasEmbedder:
    """The embedder of a store's record, from its file.

    Raises:
        CorruptStoreError: The file is missing, damaged, or another model's.
        EmbedderRequiredError: Keras cannot load it here.
        KerasMissingError: Keras or its backend is not installed.
    """
    import_keras()
    _check_file(path)
    try:
        loaded, fingerprint = _load(path, record["preprocess"] is not None)
    except Exception as err:  # Keras raises what it likes
        raise EmbedderRequiredError(
            f"Keras {import_keras().__version__} cannot load the store's model {record['name']!r} "
            f"({_first_line(err)}): if it has layers of your own, import the module that registers them first; "
            f"or {REMEDY}. The file is {path}"
        ) from err
    if fingerprint != record["fingerprint"]:
        raise CorruptStoreError(
            f"{path} holds a model with the fingerprint {fingerprint}, "
            f"and the store was made with {record['fingerprint']}: {REMEDY}"
        )
    preprocess, model = loaded.layers if record["preprocess"] is not None else (None, loaded)
    embedder = KerasEmbedder(model, preprocess=preprocess, batch_size=record["batch_size"], name=record["name"])
    embedder.known_as(record["fingerprint"])
    return embedder


def embedder_of_file(path: Path, batch_size: int | None) -> KerasEmbedder:
    """The embedder of a .keras file that no store has made, named like the file.

    Raises:
        InvalidArgumentError: There is no such file, Keras cannot load it, or its output is not [None, dim].
        KerasMissingError: Keras or its backend is not installed.
    """
    keras = import_keras()
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise InvalidArgumentError(f"{path} {what}: give a file that model.save('….keras') has written")
    if not zipfile.is_zipfile(path):
        raise InvalidArgumentError(
            f"{path} is no .keras file: give one that model.save('….keras') has written; older formats are converted by "
            "loading and saving them so"
        )
    try:
        model, _ = _load_model(path)
    except Exception as err:  # Keras raises what it likes
        raise InvalidArgumentError(
            f"Keras {keras.__version__} cannot load {path} ({_first_line(err)}). Lambda layers are refused, because loading "
            "one runs code from the file; a model with layers of your own comes from a function, "
            "'package.module:function', that imports them and returns the model"
        ) from err
    return KerasEmbedder(model, name=path.stem, batch_size=64 if batch_size is None else batch_size)


def _check_file(path: Path) -> None:
    """Raises CorruptStoreError unless the file is there and its checksums hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            archive.getinfo("config.json")
    except FileNotFoundError as err:
        raise CorruptStoreError(f"the store's model {path} is missing: {REMEDY}, or bring the file back") from err
    except OSError as err:
        raise StorageError(f"the store's model {path} cannot be read: {err}") from err
    except Exception as err:  # zipfile: BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, …
        raise CorruptStoreError(f"the store's model {path} is damaged ({err}): {REMEDY}, or bring the file back") from err
    if damaged is not None:
        raise CorruptStoreError(f"the store's model {path} is damaged (in {damaged}): {REMEDY}, or bring the file back")


def _whole(embedder: KerasEmbedder, scratch: Path) -> Any:
    """What is saved of an embedder. The optimizer's state is up to twice the size of the model, and stays out."""
    model = embedder.model
    if getattr(model, "optimizer", None) is not None:
        with _keras_warnings_ignored():
            import_keras().saving.save_model(model, scratch)
        model, _ = _load(scratch, with_preprocess=False)
    return model if embedder.preprocess is None else import_keras().Sequential([embedder.preprocess, model])


def _save(model: Any, path: Path, with_preprocess: bool) -> str:
    """Saves a model, loads it again, and returns the fingerprint of what was loaded."""
    with _keras_warnings_ignored():
        import_keras().saving.save_model(model, path)
    return _load(path, with_preprocess)[1]


def _load(path: Path, with_preprocess: bool) -> tuple[Any, str]:
    """The model of a file and its fingerprint, taken of the configuration as it stands in the file."""
    loaded, config = _load_model(path)
    if not with_preprocess:
        return loaded, model_fingerprint(loaded, config, None, None)
    preprocess, model = loaded.layers
    of_layers = [entry["config"] for entry in config["layers"] if entry["class_name"] != "InputLayer"]
    return loaded, model_fingerprint(model, of_layers[1], preprocess, of_layers[0])


def _load_model(path: Path) -> tuple[Any, Any]:
    """The model of a file, and its configuration as it stands there. Nothing runs that the file brings."""
    with zipfile.ZipFile(path) as archive:
        whole = json.loads(archive.read("config.json"))
    _import_own(whole)
    with _keras_warnings_ignored():
        return import_keras().saving.load_model(path, compile=False, safe_mode=True), whole["config"]


def _import_own(config: Any) -> None:
    """Imports the modules of this package whose classes a configuration names: Keras finds what is registered, and no more."""
    if isinstance(config, dict):
        module = config.get("module")
        if isinstance(module, str) and module.startswith(("simstore.embedders.", "simstore.similarity.")):
            importlib.import_module(module)
    if isinstance(config, (dict, list)):
        for part in config.values() if isinstance(config, dict) else config:
            _import_own(part)


@contextmanager
def _keras_warnings_ignored() -> Iterator[None]:
    """Keras warns of Sequentials that were not called yet, numpy of how Keras reads variables; neither matters here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_line(err: Exception) -> str:
    lines = str(err).strip().splitlines()
    return f"{type(err).__name__}: {lines[0]:.200}" if lines else type(err).__name__
