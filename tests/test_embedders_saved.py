"""Keras models in stores: what is saved, what refused, what a damaged file does, and a store used by its path alone."""

import io
import re
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from numpy.typing import NDArray
from test_embedders_keras import halved, keras, restored, saved, small_model

from simstore.embedders import FunctionEmbedder, KerasEmbedder, from_record, model_bytes, to_record
from simstore.errors import CorruptStoreError, EmbedderMismatchError, EmbedderRequiredError, InvalidArgumentError


def test_a_preprocess_function_cannot_be_saved() -> None:
    embedder = KerasEmbedder(small_model(), preprocess=halved)
    record = to_record(embedder)
    assert (record["saved"], record["preprocess"]) == (False, "halved")
    assert model_bytes(embedder) is None
    assert from_record(record, Path("none")) is None


def test_save_false_keeps_the_model_out() -> None:
    embedder = KerasEmbedder(small_model(), save=False)
    assert to_record(embedder)["saved"] is False
    assert model_bytes(embedder) is None


def test_the_optimizer_stays_out() -> None:
    def size(preprocess: Any, *, trained: bool) -> int:
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(512)])
        if trained:
            model.compile("adam", "mse")
            model.fit(np.ones((4, 64)), np.zeros((4, 512)), verbose=0)
        return len(model_bytes(KerasEmbedder(model, preprocess=preprocess)) or b"")

    for preprocess in (None, keras.layers.Rescaling(1.0)):
        assert size(preprocess, trained=True) < 1.2 * size(preprocess, trained=False)


def test_a_lambda_layer_is_refused_when_it_is_saved() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x * 2)])
    embedder = KerasEmbedder(model)
    assert embedder.embed([[1, 2, 3]]).tolist() == [[2, 4, 6]]
    with pytest.raises(InvalidArgumentError, match=r"Lambda layers are refused.*save=False"):
        model_bytes(embedder)


def test_a_layer_that_forgets_its_arguments_is_found_when_it_is_saved() -> None:
    @keras.saving.register_keras_serializable("simstore-tests")
    class Forgetful(keras.layers.Layer):
        def __init__(self, factor: float = 1.0) -> None:
            super().__init__()
            self.factor = factor
            self.scale = self.add_weight(shape=(int(factor),), initializer="ones")

        def call(self, inputs: Any) -> Any:
            return inputs * self.factor

        def get_config(self) -> dict[str, Any]:
            return {"name": self.name}

    with pytest.raises(InvalidArgumentError, match=r"save=False"):
        model_bytes(KerasEmbedder(keras.Sequential([keras.Input((3,)), Forgetful(2.0)])))


def test_a_layer_that_is_not_registered_where_it_is_loaded(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("simstore-tests")
    class Registered(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs

    record, path = saved(KerasEmbedder(keras.Sequential([keras.Input((3,)), Registered()])), tmp_path)
    keras.saving.get_custom_objects().pop("simstore-tests>Registered")
    again = from_record(record, path)
    assert again is not None
    with pytest.raises(EmbedderRequiredError, match=r"import the module that registers them.*embedder=KerasEmbedder"):
        again.embed([[1, 2, 3]])


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "bit", "another zip"])
def test_a_damaged_file(damage: str, tmp_path: Path) -> None:
    record, path = saved(KerasEmbedder(small_model()), tmp_path)
    content = bytearray(path.read_bytes())
    empty_zip = io.BytesIO()
    zipfile.ZipFile(empty_zip, "w").close()
    content[content.index(b'"Sequential"')] ^= 1
    bad = {"empty": b"", "text": b"no zip", "cut": content[:-100], "bit": content, "another zip": empty_zip.getvalue()}
    path.unlink()
    if damage != "missing":
        path.write_bytes(bad[damage])
    again = from_record(record, path)
    assert again is not None
    with pytest.raises(CorruptStoreError, match=r"open the store with embedder=KerasEmbedder\(model\)") as caught:
        again.embed([[1, 2, 3]])
    assert str(path) in str(caught.value)


def test_the_file_of_another_model(tmp_path: Path) -> None:
    record, path = saved(KerasEmbedder(small_model()), tmp_path)
    other = KerasEmbedder(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    path.write_bytes(model_bytes(other) or b"")
    again = from_record(record, path)
    assert again is not None
    with pytest.raises(CorruptStoreError) as caught:
        again.embed([[1, 2, 3]])
    assert record["fingerprint"] in str(caught.value)
    assert other.spec.fingerprint in str(caught.value)


def test_threads_load_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simstore.embedders import keras_file

    loads: list[Path] = []
    load = keras_file.load_embedder

    def counted(path: Path, record: dict[str, Any]) -> KerasEmbedder:
        loads.append(path)
        time.sleep(0.05)
        return load(path, record)

    monkeypatch.setattr(keras_file, "load_embedder", counted)
    again = restored(KerasEmbedder(small_model()), tmp_path)
    results: list[NDArray[np.float32]] = []
    threads = [threading.Thread(target=lambda: results.append(again.embed([[1.0, 2.0, 3.0]]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(results) == 8
    assert all((result == results[0]).all() for result in results)


# -- stores ----------------------------------------------------------------------------------------------------------

INPUTS = np.random.default_rng(3).standard_normal((50, 3)).astype(np.float32)


def run(code: str) -> str:
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_store_is_searched_in_a_new_process_by_its_path_alone(stores: OpenStore, tmp_path: Path) -> None:
    model = small_model(name="net")
    embedder = KerasEmbedder(model, preprocess=keras.layers.Rescaling(2.0), batch_size=5)
    store = stores("keras.sim", embedder=embedder)
    store.add([f"k{i}" for i in range(50)], inputs=INPUTS, labels=list(range(50)))
    query = INPUTS[7] + np.float32(0.01)
    expected = store.search(input=query, k=3)
    store.close()
    np.save(tmp_path / "query.npy", query)
    model.save(tmp_path / "own.keras")
    said = run(f"""
import sys
import numpy as np, simstore
query = np.load({str(tmp_path / "query.npy")!r})
with simstore.open({str(tmp_path / "keras.sim")!r}) as store:
    fingerprint = store.info().embedder.fingerprint
    assert store.search(store.get("k7").vector, k=1).keys == ["k7"]
    assert not {{"keras", "tensorflow"}} & set(sys.modules)
    hits = store.search(input=query, k=3)
    print(hits.keys, hits.distances.tolist())
    store.upsert("k7", inputs=-query)
    assert store.search(input=-query, k=1).keys == ["k7"]
    assert store.check(deep=True) == []

import keras
from simstore.embedders import KerasEmbedder
keras.layers.Dense(3)  # so that names are counted differently here
own = keras.saving.load_model({str(tmp_path / "own.keras")!r})
given = KerasEmbedder(own, preprocess=keras.layers.Rescaling(2.0))
assert given.spec.fingerprint == fingerprint == {embedder.spec.fingerprint!r}
with simstore.open({str(tmp_path / "keras.sim")!r}, embedder=given) as store:
    assert store.check(deep=True) == []
""")
    keys, distances = re.fullmatch(r"(\[.*\]) (\[.*\])\n", said).groups()
    assert keys == str(expected.keys)
    np.testing.assert_allclose(np.array(distances[1:-1].split(", "), float), expected.distances, atol=1e-6)


def test_a_store_refuses_another_model(stores: OpenStore, tmp_path: Path) -> None:
    model = small_model()
    first = KerasEmbedder(model)
    stores(embedder=first).close()
    model.set_weights([KERNEL_MOVED, model.get_weights()[1]])
    with pytest.raises(EmbedderMismatchError) as caught:
        stores(embedder=KerasEmbedder(model))
    assert first.spec.fingerprint in str(caught.value)
    assert KerasEmbedder(model).spec.fingerprint in str(caught.value)
    with pytest.raises(InvalidArgumentError, match=r"has changed since.*make a new KerasEmbedder"):
        stores(embedder=first)
    stores()  # its own is there


KERNEL_MOVED = np.full((3, 2), 0.5, np.float32)


def test_many_threads_search_with_inputs(stores: OpenStore) -> None:
    store = stores(embedder=KerasEmbedder(small_model()))
    store.add([f"k{i}" for i in range(50)], inputs=INPUTS)
    expected = [store.search(input=x, k=3).keys for x in INPUTS]
    store.close()
    again = stores()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda x: again.search(input=x, k=3).keys, INPUTS)) == expected


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_store_whose_model_is_damaged_still_answers_vectors(damage: str, stores: OpenStore) -> None:
    embedder = KerasEmbedder(small_model())
    store = stores(embedder=embedder)
    store.add([f"k{i}" for i in range(50)], inputs=INPUTS)
    vector = store.get("k3").vector
    path = Path(store.info().path) / "embedder" / f"{embedder.spec.fingerprint}.keras"
    store.close()
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    again = stores()
    assert again.search(vector, k=1).keys == ["k3"]
    assert [problem.where for problem in again.check(deep=True)] == ["embedder"]
    for use in (lambda: again.search(input=INPUTS[3]), lambda: again.add("new", inputs=INPUTS[3])):
        with pytest.raises(CorruptStoreError, match="missing" if damage == "missing" else "damaged"):
            use()
    again.close()
    path.unlink(missing_ok=True)  # as check() says
    given = stores(embedder=embedder)
    assert given.search(input=INPUTS[3], k=1).keys == ["k3"]
    given.close()
    own = stores()  # it was saved again
    assert own.check(deep=True) == [] and own.search(input=INPUTS[3], k=1).keys == ["k3"]


@pytest.mark.parametrize("line", ["file.written", "file.synced", "file.renamed", "file.directory-synced"])
def test_what_a_killed_save_left_is_removed(line: str, stores: OpenStore, tmp_path: Path) -> None:
    code = f"""
import os
from simstore.storage import steps
steps.reached = lambda name: os._exit(9) if name == {line!r} and os.path.isdir({str(tmp_path / "store.sim" / "embedder")!r}) else None
import keras, simstore
from simstore.embedders import KerasEmbedder
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
simstore.open({str(tmp_path / "store.sim")!r}, embedder=KerasEmbedder(model))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 9
    assert len(list((tmp_path / "store.sim" / "embedder").iterdir())) == 1
    store = stores()
    assert list((tmp_path / "store.sim" / "embedder").iterdir()) == [] and store.check(deep=True) == []
    store.close()
    assert stores(embedder=KerasEmbedder(small_model())).info().embedder is not None


def test_a_model_that_cannot_be_saved_makes_no_items_and_says_what_to_do(stores: OpenStore) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x * 2)])
    with pytest.raises(InvalidArgumentError, match=r"Lambda layers are refused.*save=False"):
        stores(embedder=KerasEmbedder(model))
    store = stores(embedder=KerasEmbedder(model, save=False))
    store.add("a", inputs=[1, 2, 3])
    assert store.get("a").vector.tolist() == [2, 4, 6]
    store.close()
    with pytest.raises(EmbedderRequiredError, match=r"could not be saved with it: open it with embedder="):
        stores().search(input=[1, 2, 3])


def test_a_function_is_required_again(stores: OpenStore) -> None:
    def first_two(batch: Any) -> Any:
        return np.asarray(batch)[:, :2]

    store = stores(embedder=FunctionEmbedder(first_two, name="first-two", dim=2))
    store.add([f"k{i}" for i in range(50)], inputs=INPUTS)
    store.close()
    without = stores()
    with pytest.raises(EmbedderRequiredError, match=r"'first-two'.*embedder="):
        without.search(input=INPUTS[0])
    without.close()
    with pytest.raises(EmbedderMismatchError, match=r"'first-two'.*'other'"):
        stores(embedder=FunctionEmbedder(first_two, name="other", dim=2))
    again = stores(embedder=FunctionEmbedder(first_two, name="first-two", dim=2))
    assert again.search_many(inputs=INPUTS, k=1).keys[:, 0].tolist() == [f"k{i}" for i in range(50)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.ones(4), r"takes inputs of shape \(3,\), and was given some of shape \(4,\)"),
        (np.ones((3, 3)), r"given some of shape \(3, 3\)"),
        ("text", "takes numbers, and was given str"),
        ({"a": 1}, "takes numbers, and was given dict"),
        ([1, 2, "3"], "takes numbers"),
    ],
)
def test_inputs_that_the_model_does_not_take(wrong: Any, message: str, stores: OpenStore) -> None:
    store = stores(embedder=KerasEmbedder(small_model()))
    for use in (lambda: store.search(input=wrong), lambda: store.add("a", inputs=wrong)):
        with pytest.raises(InvalidArgumentError, match=message):
            use()
    assert len(store) == 0


@pytest.mark.parametrize("missing", ["keras", "tensorflow"])
def test_a_store_where_keras_is_not_installed(missing: str, stores: OpenStore, tmp_path: Path) -> None:
    store = stores(embedder=KerasEmbedder(small_model()))
    store.add(["a", "b"], inputs=INPUTS[:2])
    store.close()
    run(f"""
import sys
sys.modules[{missing!r}] = None
import numpy as np, simstore
with simstore.open({str(tmp_path / "store.sim")!r}) as store:
    assert store.search(store.get("a").vector, k=1).keys == ["a"]
    try:
        store.search(input=np.ones(3))
    except simstore.SimstoreError as err:
        assert isinstance(err, ImportError) and "pip install 'simstore[keras]'" in str(err), err
        assert {missing!r} in str(err), err
    else:
        raise AssertionError
    assert store.check(deep=True) == []
""")
