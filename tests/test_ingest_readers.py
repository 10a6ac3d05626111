"""ingest() with the readers of this package and Keras models: what `simstore index` does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from sources import contents

from simstore import Store
from simstore.errors import EmbedderRequiredError, StorageFullError
from simstore.readers import Example, ReadOptions
from simstore.store.intake import Intake

pytest.importorskip("keras")
pytest.importorskip("PIL")

from PIL import Image

from simstore.embedders import FunctionEmbedder, KerasEmbedder, input_of, named_embedder
from simstore.types import ImageInput


def write_images(root: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(n):
        path = root / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), np.uint8)).save(path)


def test_a_folder_of_images_and_a_small_model(stores: OpenStore, tmp_path: Path) -> None:
    """Images come in the size that the model takes, told by what the store remembers of it: the model is not loaded to ask."""
    import keras

    write_images(tmp_path / "images", 9)
    (tmp_path / "images" / "text.png").write_text("no image at all")
    layers = [keras.Input((5, 4, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(6)]
    store = stores(embedder=KerasEmbedder(keras.Sequential(layers)))
    report = store.ingest(tmp_path / "images")
    assert (report.added, report.n_embedded, store.labels()) == (9, 9, {"class0": 5, "class1": 4})
    assert sum(report.rejected.values()) == 1
    store.close()
    store = stores("store.sim")
    embedder = store._embedder
    assert embedder is not None and input_of(embedder) == ImageInput(5, 4, 3)
    report = store.ingest(tmp_path / "images")
    assert (report.unchanged, report.rejected_before, report.n_embedded) == (9, 1, 0)
    assert "not loaded yet" in repr(embedder)


def test_texts_and_their_first_pass(stores: OpenStore, tmp_path: Path) -> None:
    from simstore.ingest import texts_of
    from simstore.readers import open_sources

    lines = [f"{i},the {word} number {i},{word}" for i, word in enumerate(["cat", "dog", "bird"] * 30)]
    path = tmp_path / "texts.csv"
    path.write_text("\n".join(["id,text,label", *lines]))
    options = ReadOptions(text_column="text")
    texts = list(texts_of(open_sources(path, options)))
    assert len(texts) == 90 and texts[4] == "the dog number 4"
    store = stores(embedder=named_embedder("text-ngram", texts=texts))
    report = store.ingest(path, options=options)
    assert report.added == 90 and report.guesses and store.labels() == {"cat": 30, "dog": 30, "bird": 30}
    assert store.search(input="the dog number 4", k=1)[0].key == store.search(input=texts[4], k=1)[0].key
    assert store.ingest(path, options=options).unchanged == 90


def test_an_iterable_of_examples_and_a_store_without_embedder(store: Store) -> None:
    examples = [Example(f"k{i}", np.eye(3)[i % 3] * (i + 1), i, {"n": i}) for i in range(70)]
    report = store.ingest(examples, options=ReadOptions(as_vectors=True))
    assert report.added == 70 and store.get("k7").data["n"] == 7
    examples[3] = Example("k3", np.ones(3))
    assert store.ingest(examples, options=ReadOptions(as_vectors=True)).replaced == 1
    with pytest.raises(EmbedderRequiredError):
        store.ingest([Example("t", "a text")])


def test_what_an_iterable_gave_before_it_raised_is_taken_in(store: Store) -> None:
    def examples() -> Iterator[Example]:
        yield from (Example(i, np.ones(3) * (i + 1)) for i in range(1_200))
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        store.ingest(examples(), options=ReadOptions(as_vectors=True))
    assert len(store) == 1_200


def test_a_full_disk_in_mid_run_says_how_to_go_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [Example(i, np.ones(3) * (i + 1)) for i in range(5_000)]
    write, n = Intake.write, 0

    def full(self: Intake, *args: Any, **more: Any) -> Any:
        nonlocal n
        n += 1
        if n == 3:
            raise StorageFullError("no space left; nothing was changed")
        return write(self, *args, **more)

    monkeypatch.setattr(Intake, "write", full)
    with pytest.raises(StorageFullError, match=r"^2,000 examples were added before there was no space left: .*run again"):
        store.ingest(examples, options=ReadOptions(as_vectors=True))
    assert len(store) == 2_000
    assert store.ingest(examples, options=ReadOptions(as_vectors=True)).added == 3_000


def test_images_of_a_function_come_as_they_are(stores: OpenStore, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    shapes: list[Any] = []

    def function(batch: Any) -> Any:
        shapes.extend(image.shape for image in batch)
        return np.ones((len(batch), 2))

    store = stores(embedder=FunctionEmbedder(function, name="ones", dim=2))
    store.ingest(tmp_path / "images")
    assert sorted(shapes) == [(20, 30, 3), (21, 30, 3), (22, 30, 3)] and len(contents(store)) == 3
