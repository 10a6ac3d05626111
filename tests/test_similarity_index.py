"""The index of a model on lasting stores and in files: attach, save_index, load_index, other processes."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("keras", reason="needs the extra simstore[keras]")

import keras
from conftest import OpenStore
from similarity_models import digits, digits_model, plain_model

import simstore
from simstore.embedders import KerasEmbedder
from simstore.errors import (
    AlreadyOpenError,
    CorruptStoreError,
    DimensionError,
    EmbedderMismatchError,
    InvalidArgumentError,
    NotCalibratedError,
    ReadOnlyStoreError,
    StorageFullError,
    StoreExistsError,
    StoreNotFoundError,
)
from simstore.similarity import calibration, replacing
from simstore.similarity.indexer import Index
from simstore.similarity.matchers import MatchMajorityVote
from simstore.similarity.models import SimilarityModel
from simstore.storage.files import LocalFiles, storage_error

POINTS = np.array([[0, 0, 1], [0, 3, 1], [4, 0, 1], [4, 3, 1], [9, 9, 9]], np.float32)
LABELS = ["a", "b", "a", None, 7]
QUERIES = POINTS[:2] + np.float32(0.5)


@pytest.fixture
def model() -> Any:
    return plain_model()


def trained_on(model: Any) -> Any:
    model.fit(POINTS, POINTS * 2, epochs=1, verbose=0)
    return model


def in_new_process(code: str) -> str:
    """What a script prints in a process of its own."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- attached stores -----------------------------------------------------------------------------------------------------


def test_a_store_that_a_trained_model_indexed_answers_raw_inputs_in_a_new_process_by_its_path(tmp_path: Path) -> None:
    """Keras finds classes that are registered, and no others: MetricEmbedding, and SimilarityModel where it is saved whole."""
    images, labels = digits()
    model = digits_model()
    model.attach(tmp_path / "digits.sim")
    model.index(images[:200], labels[:200], keys=[f"digit-{i}" for i in range(200)])
    expected = [(near.key, near.label) for near in model.single_lookup(images[300], k=5)]
    np.save(tmp_path / "query.npy", images[300])
    model.store.close()
    with simstore.open(tmp_path / "whole.sim", embedder=KerasEmbedder(model)) as store:
        store.add([f"digit-{i}" for i in range(200)], inputs=images[:200], labels=labels[:200])
    code = f"""
import numpy as np, simstore
for name in ("digits", "whole"):
    with simstore.open({str(tmp_path)!r} + f"/{{name}}.sim") as store:
        print([(hit.key, hit.label) for hit in store.search(input=np.load({str(tmp_path / "query.npy")!r}), k=5)])
"""
    assert in_new_process(code).splitlines() == [repr(expected)] * 2


def test_attach_makes_a_store_and_goes_on_with_it(model: Any, tmp_path: Path) -> None:
    store = model.attach(tmp_path / "s.sim")
    assert model.store is store and store.embedder is None
    model.index(POINTS, LABELS)
    assert store.embedder is not None and store.embedder.fingerprint == model.embedder().spec.fingerprint
    assert store.search(input=POINTS[2], k=1)[0].key == 2
    model.calibrate(QUERIES, ["a", "b"])
    assert store.check(deep=True) == []
    model.create_index("l2")  # closes what attach opened
    again = plain_model()
    again.attach(tmp_path / "s.sim")
    assert again.index_size() == 5 and again.match(QUERIES) == ["a", "b"]
    again.index_single(POINTS[0] * 3)
    assert again.index_summary().is_temporary is False
    again.store.close()


def test_attach_takes_an_open_store_and_leaves_it_open(model: Any, stores: OpenStore) -> None:
    store = stores("mine.sim", metric="l2")
    assert model.attach(store) is store
    model.index(POINTS)
    assert model.attach(store) is store
    model.create_index("l2")
    assert len(store) == 5 and model.index_size() == 0


def test_a_model_without_a_distance_takes_that_of_the_store(stores: OpenStore) -> None:
    inputs = keras.Input((3,))
    fresh = SimilarityModel(inputs, keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")(inputs))
    fresh.attach(stores("ip.sim", metric="ip"))
    fresh.index(POINTS)
    assert fresh.index_summary().distance == "inner_product"
    assert fresh.single_lookup([1, 1, 1], k=1)[0].distance == 1 - 27


def test_a_store_of_another_model_is_refused(model: Any, stores: OpenStore, tmp_path: Path) -> None:
    store = stores("s.sim", metric="l2")
    model.attach(store)
    model.index(POINTS)
    other = trained_on(plain_model())
    with pytest.raises(EmbedderMismatchError, match="holds 5 embeddings of another model"):
        other.attach(store)
    assert other.index_size() == 0  # it has kept the index that it had
    trained_on(model)
    with pytest.raises(EmbedderMismatchError, match="Was it trained since"):
        model.single_lookup(POINTS[0])
    model.reset_index()
    assert len(store) == 0
    model.index(POINTS)
    assert store.embedder is not None and store.embedder.fingerprint == model.embedder().spec.fingerprint


def test_a_store_that_another_call_has_moved_is_refused(model: Any, stores: OpenStore) -> None:
    store = stores("s.sim", metric="l2")
    model.attach(store)
    model.index(POINTS, data=POINTS)
    store.reembed(trained_on(plain_model()).embedder())
    with pytest.raises(EmbedderMismatchError):
        model.single_lookup(POINTS[0])


def test_stores_that_do_not_fit_are_refused(model: Any, stores: OpenStore, tmp_path: Path) -> None:
    for i, options in enumerate(({"dim": 4}, {})):
        store = stores(f"{i}.sim", metric="l2", **options)
        store.add(None, np.eye(4 if options else 3, dtype=np.float32))
        with pytest.raises(DimensionError if options else InvalidArgumentError, match="of 4" if options else "does not say"):
            model.attach(store)
        store.close()
    with pytest.raises(InvalidArgumentError, match="'euclidean', which takes a store of metric 'l2'"):
        model.attach(stores("cosine.sim"))
    stores("closed.sim").close()
    with pytest.raises(InvalidArgumentError, match=r"'euclidean', which takes a store of metric 'l2'.*distance='cosine'"):
        model.attach(tmp_path / "closed.sim")
    with pytest.raises(DimensionError, match="the model makes embeddings of 3 numbers"):
        model.attach(tmp_path / "0.sim")
    with pytest.raises(InvalidArgumentError, match="65"):
        Index.lasting(tmp_path / "new.sim", 65_537, None)
    assert not (tmp_path / "new.sim").exists()
    with pytest.raises(InvalidArgumentError, match="path"):
        model.attach(5)
    simstore.open(tmp_path / "closed.sim").close()  # what was refused is not left open


def test_an_empty_store_of_another_width_takes_the_model(model: Any, stores: OpenStore, tmp_path: Path) -> None:
    stores("s.sim", metric="l2", dim=7).close()
    store = model.attach(tmp_path / "s.sim")
    model.index(POINTS)
    assert store.info().dim == 3
    store.close()


def test_a_store_whose_vectors_are_this_model_s_can_say_so(model: Any, stores: OpenStore) -> None:
    store = stores("s.sim", metric="l2")
    store.add(None, model.predict(POINTS, verbose=0))
    path = store.info().path
    store.close()
    model.attach(stores(path, embedder=model.embedder()))
    assert model.single_lookup(POINTS[3], k=1)[0].key == 3


def test_a_store_that_is_only_read(model: Any, stores: OpenStore) -> None:
    store = stores("s.sim", metric="l2")
    model.attach(store)
    model.index(POINTS, LABELS)
    store.close()
    model.attach(stores("s.sim", mode="r"))
    assert model.single_lookup(POINTS[1], k=1)[0].label == "b"
    for change in (lambda: model.index(POINTS), lambda: model.calibrate(QUERIES, ["a", "b"]), model.reset_index):
        with pytest.raises(ReadOnlyStoreError):
            change()


def test_a_model_that_keras_cannot_load_again_is_kept_out_of_the_store(stores: OpenStore, tmp_path: Path) -> None:
    inputs = keras.Input((3,))
    model = SimilarityModel(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    model.compile("sgd", distance="l2", loss="mse")
    model.attach(stores("s.sim", metric="l2"))
    with pytest.raises(InvalidArgumentError, match="cannot be saved in a store"):
        model.index(POINTS)
    model.create_index("l2")
    model.index(POINTS)  # a temporary store keeps no model
    with pytest.raises(InvalidArgumentError, match="cannot be saved in a store"):
        model.save_index(tmp_path / "saved.sim")
    assert not (tmp_path / "saved.sim").exists()
    model.save_index(tmp_path / "saved.sim", with_model=False)
    model.load_index(tmp_path / "saved.sim")
    assert model.single_lookup(POINTS[1], k=1)[0].key == 1
    model.attach(stores("own.sim", metric="l2", embedder=model.embedder(save=False)))
    assert model.index(POINTS) == [0, 1, 2, 3, 4]


def test_many_threads_index_and_look_up(model: Any, stores: OpenStore) -> None:
    store = stores("s.sim", metric="l2")
    model.attach(store)
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for i in range(first, first + 10):
                model.index_single([float(i), 0, 1], i, key=i)
                assert model.single_lookup([float(i), 0, 1], k=1)[0].label == i
        except BaseException as err:
            failures.append(err)

    model.index_single([-5.0, 0, 1], -5, key=-5)
    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 40, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(store) == 41


# -- saved indexes -------------------------------------------------------------------------------------------------------


def test_load_then_save_keeps_the_index(model: Any, tmp_path: Path) -> None:
    """TensorFlow Similarity saved an empty index, once it had loaded one."""
    model.index(POINTS, LABELS, data=POINTS)
    model.calibrate(QUERIES, ["a", "b"], {"sure": 0.9})
    model.save_index(tmp_path / "index")
    loaded = plain_model()
    loaded.load_index(tmp_path / "index")
    loaded.save_index(tmp_path / "index")
    loaded.save_index(tmp_path / "copy")
    for path in ("index", "copy"):
        again = plain_model()
        again.load_index(tmp_path / path)
        assert again.lookup(POINTS, k=3) == model.lookup(POINTS, k=3)
        assert again.match(QUERIES, "all") == model.match(QUERIES, "all")
    assert sorted(os.listdir(tmp_path)) == ["copy", "index"]


def test_a_saved_index_is_a_store_of_its_own(model: Any, tmp_path: Path, stores: OpenStore) -> None:
    model.index(POINTS, LABELS)
    model.save_index(tmp_path / "saved.sim")
    model.index_single(POINTS[0])  # not in the copy
    store = stores("saved.sim")
    assert len(store) == 5 and store.search(input=POINTS[4], k=1)[0].label == 7
    loaded = plain_model()
    with pytest.raises(AlreadyOpenError):
        loaded.load_index(tmp_path / "saved.sim")
    store.close()
    loaded.load_index(tmp_path / "saved.sim")
    loaded.reset_index()  # of the copy
    loaded.load_index(tmp_path / "saved.sim")
    assert loaded.index_size() == 5


def test_an_index_of_another_model_is_not_loaded(model: Any, tmp_path: Path) -> None:
    model.index(POINTS)
    model.save_index(tmp_path / "saved.sim")
    trained_on(model)
    with pytest.raises(EmbedderMismatchError):
        model.save_index(tmp_path / "saved.sim")
    with pytest.raises(EmbedderMismatchError):
        model.load_index(tmp_path / "saved.sim")
    with pytest.raises(DimensionError, match="embeddings of 4 numbers"):
        plain_model(4).load_index(tmp_path / "saved.sim")
    with pytest.raises(InvalidArgumentError, match="'cosine', which takes a store of metric 'cosine'"):
        plain_model(distance="cosine").load_index(tmp_path / "saved.sim")
    with pytest.raises(StoreNotFoundError):
        model.load_index(tmp_path / "nowhere")


def test_weights_assigned_directly_are_noticed_where_an_index_is_saved(model: Any, tmp_path: Path) -> None:
    """No call of the model's tells it; a store with its vectors and the new weights would be wrong for ever."""
    dense = model.layers[-1]
    model.index(POINTS, LABELS)
    dense.set_weights([np.eye(3, dtype=np.float32) * -2])
    with pytest.raises(EmbedderMismatchError, match="Was it trained since"):
        model.save_index(tmp_path / "saved.sim")
    assert os.listdir(tmp_path) == []
    with pytest.raises(EmbedderMismatchError):  # found out once, it stays known
        model.single_lookup(POINTS[0])
    model.reset_index()
    model.index(POINTS, LABELS)
    model.save_index(tmp_path / "saved.sim")
    model.load_index(tmp_path / "saved.sim")
    assert model.index_size() == 5


def test_weights_assigned_directly_are_noticed_by_calls_that_cost_much(model: Any) -> None:
    dense = model.layers[-1]
    model.index(POINTS, LABELS)
    dense.set_weights([np.eye(3, dtype=np.float32) * -2])
    with pytest.raises(EmbedderMismatchError):
        model.index(np.ones((256, 3), np.float32))
    model.reset_index()
    dense.set_weights([np.eye(3, dtype=np.float32) * 3])
    model.index(POINTS, LABELS)  # the first items are of the weights as they are
    assert model.index_summary().is_current
    dense.set_weights([np.eye(3, dtype=np.float32)])
    with pytest.raises(EmbedderMismatchError):
        model.calibrate(QUERIES, ["a", "b"])


class FullDisk(LocalFiles):
    """Runs out of space at a rename to one name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def rename(self, source: Path, target: Path) -> None:
        if target.name == self.name and source.name.startswith("tmp-"):
            raise storage_error(OSError(28, "No space left on device"), f"renaming {source}")
        super().rename(source, target)


def test_a_failed_save_keeps_the_old_copy(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow Similarity wrote over the files that were there."""
    model.index(POINTS[:2], LABELS[:2])
    model.save_index(tmp_path / "saved.sim")
    model.index(POINTS[2:], LABELS[2:])
    monkeypatch.setattr(replacing, "LocalFiles", lambda: FullDisk("saved.sim"))
    with pytest.raises(StorageFullError):
        model.save_index(tmp_path / "saved.sim")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["saved.sim"]
    loaded = plain_model()
    loaded.load_index(tmp_path / "saved.sim")
    assert loaded.index_size() == 2


def test_a_save_beyond_a_limit_on_files_keeps_the_old_copy(model: Any, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits are POSIX's")
    model.index(np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32))
    model.save_index(tmp_path / "saved.sim")
    before, (soft, hard) = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageFullError, match="ulimit -f"):
            model.save_index(tmp_path / "saved.sim")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == ["saved.sim"]
    model.load_index(tmp_path / "saved.sim")
    assert model.index_size() == 2000


@pytest.mark.parametrize("use", ["load_index", "attach"])
def test_a_save_that_was_killed_keeps_the_old_copy(model: Any, use: str, tmp_path: Path) -> None:
    """Between the two renames only the old copy's other name is there. No new store takes its place."""
    model.index(POINTS[:2])
    model.save_index(tmp_path / "saved.sim")
    (tmp_path / "saved.sim").rename(tmp_path / ".saved.sim.previous")
    loaded = plain_model()
    getattr(loaded, use)(tmp_path / "saved.sim")
    assert loaded.index_size() == 2 and not (tmp_path / ".saved.sim.previous").exists()


def test_what_is_no_index_is_not_overwritten(model: Any, tmp_path: Path) -> None:
    model.index(POINTS)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    for name in ("notes.txt", "folder"):
        with pytest.raises(StoreExistsError, match="no saved index"):
            model.save_index(tmp_path / name)
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "folder" / "mine").exists()
    with pytest.raises(StoreNotFoundError):
        model.save_index(tmp_path / "no" / "such" / "place")


def test_saving_an_attached_store_to_its_own_path_does_nothing(model: Any, tmp_path: Path) -> None:
    store = model.attach(tmp_path / "s.sim")
    model.index(POINTS)
    model.save_index(tmp_path / "s.sim")
    assert len(store) == 5 and os.listdir(tmp_path) == ["s.sim"]
    other = plain_model()
    other.index(POINTS[:1])
    with pytest.raises(AlreadyOpenError):
        other.save_index(tmp_path / "s.sim")
    store.close()


# -- calibration ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def calibrated(model: Any, stores: OpenStore) -> Any:
    model.attach(stores("s.sim", metric="l2"))
    model.index(POINTS, LABELS)
    model.calibrate(QUERIES, ["a", "b"], {"sure": 0.9})
    return model


def test_a_calibration_survives_reopening_and_goes_into_a_backup(calibrated: Any, stores: OpenStore, tmp_path: Path) -> None:
    store, expected = calibrated.store, calibrated.match(QUERIES, "all")
    store.backup(tmp_path / "backup.sim")
    store.close()
    for path in ("s.sim", "backup.sim"):
        again = plain_model()
        again.attach(stores(path))
        assert again.match(QUERIES, "all") == expected
        assert again.index_summary().calibrated_by == "f1_score"


@pytest.mark.parametrize("aggregate", [np.mean, np.median, np.min, np.max])
def test_a_saved_calibration_has_its_matcher(model: Any, tmp_path: Path, aggregate: Any) -> None:
    model.index(POINTS, LABELS)
    expected = model.calibrate(QUERIES, ["a", "b"], k=3, matcher=MatchMajorityVote(aggregate)).cutpoints
    model.save_index(tmp_path / "saved.sim")
    again = plain_model()
    again.load_index(tmp_path / "saved.sim")
    assert again.match(POINTS) == model.match(POINTS)
    assert again.evaluate_classification(QUERIES, ["a", "b"])["optimal"]["f1"] == expected["optimal"]["f1"]


def test_a_saved_calibration_asks_for_a_matcher_that_it_cannot_have(model: Any, tmp_path: Path) -> None:
    matcher = MatchMajorityVote(lambda distances, axis: distances[0])
    model.index(POINTS, LABELS)
    model.calibrate(QUERIES, ["a", "b"], k=3, matcher=matcher)
    model.save_index(tmp_path / "saved.sim")
    model.load_index(tmp_path / "saved.sim")
    for use in (lambda: model.match(POINTS), lambda: model.evaluate_classification(QUERIES, ["a", "b"])):
        with pytest.raises(InvalidArgumentError, match=r"'match_majority_vote' that no file keeps.*matcher="):
            use()
    assert model.match(QUERIES, matcher=matcher) == ["a", "b"]


def test_a_calibration_does_not_outlive_the_weights(calibrated: Any) -> None:
    store = calibrated.store
    trained_on(calibrated)
    store.reembed(calibrated.embedder(), inputs=lambda item: POINTS[item.key])
    with pytest.raises(NotCalibratedError, match="before training"):
        calibrated.match(QUERIES)


def test_a_damaged_calibration_is_noticed(calibrated: Any) -> None:
    path = Path(calibrated.store.info().path)
    file = path / "calibration.msgpack"
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptStoreError, match="calibrate again"):
        calibration.read(path)
    file.unlink()
    assert calibration.read(path) is None


def test_a_failed_calibration_keeps_the_one_before(calibrated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = calibrated.match(QUERIES, "all")
    monkeypatch.setattr(calibration, "_FILES", FullDisk("calibration.msgpack"))
    with pytest.raises(StorageFullError):
        calibrated.calibrate(QUERIES, ["x", "y"])
    monkeypatch.undo()
    assert calibrated.match(QUERIES, "all") == before
