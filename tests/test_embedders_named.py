"""Embedders by name: files, "package.module:function", entry points; every error says what to do."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore

from simstore.embedders import (
    EmbedderInfo,
    FunctionEmbedder,
    KerasEmbedder,
    embedder_names,
    input_of,
    model_bytes,
    named_embedder,
    same_name,
    to_record,
)
from simstore.errors import InvalidArgumentError
from simstore.types import EmbedderSpec, ImageInput, TextInput

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", reason="needs the extra simstore[keras]")

MODULE = """
import numpy as np
import keras
from simstore.embedders import FunctionEmbedder, KerasEmbedder

def means(images):
    return np.asarray(images).mean(axis=(1, 2))
means.dim = 3

def bare(batch):
    return batch

def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])

def embedder():
    return FunctionEmbedder(bare, name="own name", dim=4)

def keras_embedder(width=2):
    return KerasEmbedder(keras.Sequential([keras.Input((3,)), keras.layers.Dense(width)]), name="own", batch_size=5)

def no_embedder():
    return 3

def fails():
    return {}["key"]

def from_function():
    return means

class Whole:
    dim = 2
    def __call__(self, batch):
        return np.asarray(batch)[:, :2]

class Holder:
    made = embedder()
    whole = Whole()

the_model = model()
made = embedder()
broken_dim = lambda batch: batch
broken_dim.dim = 0
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_embedders.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_embedders", "own_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


# -- package.module:object -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name", "dim"),
    [
        ("means", "own_embedders:means", 3),
        ("from_function", "own_embedders:from_function", 3),
        ("Whole", "own_embedders:Whole", 2),
        ("Holder.whole", "own_embedders:Holder.whole", 2),
        ("model", "own_embedders:model", 2),
        ("the_model", "own_embedders:the_model", 2),
        ("embedder", "own name", 4),
        ("made", "own name", 4),
        ("Holder.made", "own name", 4),
        ("keras_embedder", "own", 2),
    ],
)
def test_what_a_module_holds(path: str, name: str, dim: int) -> None:
    spec = named_embedder(f"own_embedders:{path}").spec
    assert (spec.name, spec.dim) == (name, dim)


def test_a_function_embeds_under_its_name() -> None:
    embedder = named_embedder("own_embedders:means")
    images = np.arange(48, dtype=np.float32).reshape(1, 4, 4, 3)
    assert embedder.embed(images).tolist() == [[22.5, 23.5, 24.5]]
    same = FunctionEmbedder(lambda batch: batch, name="own_embedders:means", dim=3)
    assert embedder.spec == same.spec
    assert input_of(embedder) is None


def test_batch_size_is_that_of_a_model_without_one() -> None:
    for name, size in (("model", 7), ("the_model", 7), ("keras_embedder", 5)):
        embedder = named_embedder(f"own_embedders:{name}", batch_size=7)
        assert isinstance(embedder, KerasEmbedder) and embedder.batch_size == size
    assert named_embedder("own_embedders:model").batch_size == 64  # type: ignore[attr-defined]
    with pytest.raises(InvalidArgumentError, match="batch_size is a whole number of at least 1, not 0"):
        named_embedder("own_embedders:model", batch_size=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_embedders:bare", r"is a function bare\(batch\) without dim; it should be an embedder.*function\.dim = 128"),
        ("own_embedders:no_embedder", r"no_embedder returned something of type int; it should be an embedder"),
        ("own_embedders:np", r"is something of type module; it should be an embedder"),
        ("own_embedders:fails", r"fails failed \(KeyError: 'key'\)"),
        ("own_embedders:broken_dim", r"dim is how many numbers a vector has, at least 1; not 0"),
        ("own_embedders:Holder.none", r"'Holder' has no 'none'; give an embedder"),
        ("own_embedders:nothing", r"'own_embedders' has no 'nothing'"),
        ("own_missing:means", r"module 'own_missing' cannot be imported \(ModuleNotFoundError.*PYTHONPATH"),
        ("own_broken:means", r"module 'own_broken' cannot be imported \(ModuleNotFoundError: No module named 'nowhere_to_be"),
        (":means", r"named 'package\.module:function', not ':means'"),
        ("own_embedders:", r"named 'package\.module:function'"),
        ("", r"an embedder's name is a text, not ''"),
        (None, r"an embedder's name is a text, not None"),
        ("image-thumbs", r"no embedder 'image-thumbs': did you mean 'image-thumb'\? Give one of image-thumb, text-ngram"),
        ("own_embedders.means", r"no embedder 'own_embedders\.means': Give one of"),
    ],
)
def test_what_is_no_embedder(name: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        named_embedder(name)


# -- files -----------------------------------------------------------------------------------------------------------


def saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


def test_a_file_is_named_by_its_stem(tmp_path: Path, stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    path = saved(model, tmp_path / "small net.keras")
    monkeypatch.chdir(tmp_path)
    for name in (str(path), "small net.keras", "./small net.keras"):
        embedder = named_embedder(name, batch_size=3)
        assert embedder.spec == KerasEmbedder(model, name="small net").spec
        np.testing.assert_allclose(embedder.embed(np.ones((4, 3))), model(np.ones((4, 3))), rtol=1e-6)
        assert not same_name(embedder.spec, name)
    store = stores(embedder=embedder)
    store.add("a", inputs=np.ones(3))
    store.close()
    assert stores(embedder=named_embedder(str(path))).search(input=np.ones(3), k=1).keys == ["a"]


def test_a_file_that_a_store_has_saved(tmp_path: Path) -> None:
    path = tmp_path / "ngram.keras"
    path.write_bytes(model_bytes(named_embedder("text-ngram", texts=["a text"])) or b"")
    ran = subprocess.run(  # a process that has not imported the layers
        [sys.executable, "-c", f"from simstore.embedders import named_embedder as n; print(n({str(path)!r}).embed(['x']).shape)"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.stdout == "(1, 256)\n", ran.stderr


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "no model")


def write_lambda(path: Path) -> None:
    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x * 2)]).save(path)


def write_two_outputs(path: Path) -> None:
    inputs = keras.Input((3,))
    keras.Model(inputs, [inputs, keras.layers.Dense(2)(inputs)]).save(path)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda path: None, "m.keras", r"m\.keras does not exist: give a file that model\.save"),
        (lambda path: path.mkdir(), "m.keras", r"m\.keras is no file: give a file"),
        (lambda path: write(path, b"no zip"), "m.keras", r"m\.keras is no \.keras file: give one that model\.save"),
        (lambda path: write(path, b""), "m.keras", r"is no \.keras file"),
        (lambda path: write(path, b"\x89HDF"), "m.h5", r"m\.h5 is no \.keras file.*converted by loading and saving"),
        (lambda path: write(path, b"pictures"), "m.png", r"m\.png is no \.keras file"),
        (write_zip, "m.keras", r"cannot load .*m\.keras \(KeyError"),
        (write_lambda, "m.keras", r"cannot load .*m\.keras.*Lambda layers are refused.*'package\.module:function'"),
        (write_two_outputs, "m.keras", r"has the output .*, not one of shape \(None, dim\)"),
    ],
)
def test_what_is_no_model_file(make: Callable[[Path], None], name: str, message: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(InvalidArgumentError, match=message):
        named_embedder(str(tmp_path / name))


# -- names -----------------------------------------------------------------------------------------------------------


def distribution(folder: Path, entries: str) -> None:
    """An installed package, as importlib.metadata finds it."""
    info = folder / "acme_embedders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-embedders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[simstore.embedders]\n{entries}")


def test_other_packages_name_embedders(tmp_path: Path) -> None:
    distribution(
        tmp_path,
        "acme-means = own_embedders:means\nacme-model = own_embedders:model\nacme-gone = own_embedders:gone\n"
        "image-thumb = own_embedders:means\n",
    )
    infos = {info.name: info for info in embedder_names()}
    about = "own_embedders:means of acme-embedders"
    assert infos["acme-means"] == EmbedderInfo("acme-means", "other", about, None, False, True, "", "acme-embedders")
    assert infos["image-thumb"].origin == "built-in"
    assert named_embedder("acme-means").spec == EmbedderSpec("acme-means", 3, named_embedder("acme-means").spec.fingerprint)
    assert named_embedder("acme-model", batch_size=9).batch_size == 9  # type: ignore[attr-defined]
    assert named_embedder("image-thumb").spec.dim == 768
    with pytest.raises(InvalidArgumentError, match=r"acme-gone: own_embedders:gone cannot be loaded \(AttributeError"):
        named_embedder("acme-gone")
    with pytest.raises(InvalidArgumentError, match=r"Give one of image-thumb, .*, acme-gone, acme-means, acme-model;"):
        named_embedder("nothing")


def test_the_built_in_ones_are_what_they_say() -> None:
    infos = [info for info in embedder_names() if info.origin == "built-in"]
    assert [info.name for info in infos] == ["image-thumb", "text-ngram", "image-efficientnet-lite0", "text-minilm"]
    for info in infos:
        assert (info.remedy == "") == info.installed
        if info.installed:
            embedder = named_embedder(info.name, texts=["a"], batch_size=3)
            assert (embedder.spec.name, embedder.spec.dim) == (info.name, info.dim)
            assert isinstance(embedder, KerasEmbedder) and embedder.is_saveable and embedder.batch_size == 3
            assert type(input_of(embedder)) is {"image": ImageInput, "text": TextInput}[info.kind]
            with pytest.raises(InvalidArgumentError, match="batch_size is"):
                named_embedder(info.name, texts=["a"], batch_size=0)


def test_names_without_keras_and_without_importing_it() -> None:
    code = """
import sys
import simstore.embedders
from simstore.errors import KerasMissingError
from simstore.embedders import embedder_names, named_embedder, same_name
assert same_name({"name": "text-ngram"}, "text-ngram")
simstore.embedders.embedder_names()
assert not {"keras", "tensorflow", "tokenizers", "safetensors"} & set(sys.modules)
sys.modules["keras"] = None
assert not any(info.installed for info in embedder_names() if info.origin == "built-in")
for name in ("image-thumb", "text-ngram", "image-efficientnet-lite0", "text-minilm", "x.keras"):
    try:
        named_embedder(name, texts=["a"])
    except KerasMissingError as err:
        assert "pip install 'simstore[keras]'" in str(err)
    else:
        raise AssertionError(name)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = named_embedder("image-thumb")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image-thumb").touch()  # what is built in is meant, and not this file
    for known in (embedder.spec, to_record(embedder)):
        assert same_name(known, "image-thumb")
        assert not same_name(known, "text-ngram") and not same_name(known, "image-thumb.keras")
    assert not same_name(None, "image-thumb")
    assert same_name(named_embedder("own_embedders:means").spec, "own_embedders:means")
