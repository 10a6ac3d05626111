"""How fast data sets are taken in, beside what is the least that it takes; and in how much memory."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simstore
from bench.context import Context
from bench.peers import batches
from bench.process import Task, waiting
from bench.progress import progress
from bench.report import Row, at_least, at_most, row_of
from bench.settings import THREADS, Settings
from bench.timing import interleave, seconds
from simstore.readers import ReadOptions

__all__ = ["again_case", "images_case", "model_case", "stream_case", "vectors_case"]

_REPEATS = 5
_IMAGES, _MODEL_BATCH, _SIDE = 8_000, 256, 16
_DIGITS_N = 60_000
_MB = 1e6


def vectors_case(context: Context) -> Iterator[Row]:
    """An npy file, to store.add of the same vectors with the same keys and data, in batches of 1,000."""
    s, base = context.settings, context.dataset.base
    path, n = context.fresh("vectors") / "vectors.npy", len(base)
    path.parent.mkdir()
    np.save(path, base)
    with _store(context, "first.sim", metric=context.dataset.metric) as store:
        store.ingest(path)
        items = [(item.key, item.data) for item in store.scan()]
    keys, data = [key for key, _ in items], [data for _, data in items]

    def add() -> None:
        with _store(context, "added.sim", metric=context.dataset.metric) as store:
            for rows in batches(n, s.batch):
                store.add(keys[rows], base[rows], data=data[rows])
            store._finalizer()

    def ingest() -> None:
        with _store(context, "ingested.sim", metric=context.dataset.metric) as store:
            store.ingest(path)
            store._finalizer()

    with progress("vectors"):
        ratio = interleave(add, ingest, repeats=s.repeats_or(_REPEATS))
    note = f"{n / ratio.second_s:,.0f} vectors/s, store.add {n / ratio.first_s:,.0f}; no graph in either"
    yield row_of(f"npy: {n:,} x {base.shape[1]}, to store.add", ratio, note, at_least(0.9))


def model_case(context: Context) -> Iterator[Row]:
    """Digits in an npy file and a Keras CNN, to a loop that calls the model on batches of an array in memory."""
    from simstore.embedders import KerasEmbedder

    s = context.settings
    digits = _digits(s)
    path = context.fresh("digits") / "digits.npy"
    path.parent.mkdir()
    np.save(path, digits)
    model = _cnn(digits.shape[1:])
    embedder = KerasEmbedder(model, batch_size=_MODEL_BATCH)
    embedder.embed(digits[: _MODEL_BATCH * 2])

    def bare() -> None:
        for rows in batches(len(digits), _MODEL_BATCH):
            np.asarray(model(digits[rows], training=False))

    def compiled() -> None:
        for rows in batches(len(digits), _MODEL_BATCH):
            embedder.embed(digits[rows])

    def ingest() -> None:
        with _store(context, "digits.sim", embedder=embedder) as store:
            store.ingest(path, options=ReadOptions(as_vectors=False))
            store._finalizer()

    n = len(digits)
    with progress("digits"):
        ratio = interleave(bare, ingest, repeats=s.repeats_or(_REPEATS))
        compiled_ratio = interleave(compiled, ingest, repeats=s.repeats_or(_REPEATS))
    note = f"{n / ratio.second_s:,.0f} digits/s, model(batch) {n / ratio.first_s:,.0f}; batches of {_MODEL_BATCH}, no graph"
    yield row_of(f"{n:,} digits and a CNN, to model(batch)", ratio, note, at_least(0.9))
    yield row_of("  to the compiled model alone", compiled_ratio, "KerasEmbedder.embed(batch) in a loop")


def images_case(context: Context) -> Iterator[Row]:
    """PNGs and image-thumb, to decoding and resizing them with Pillow on as many threads."""
    s = context.settings
    folder, embedder = _images(context), _thumb()
    files = sorted(folder.iterdir())
    with ThreadPoolExecutor(THREADS) as pool, progress("images"):
        bare = partial(_all, pool, files)
        bare()
        index = partial(_index, context, folder, embedder)
        ratio = interleave(bare, index, repeats=s.repeats_or(3))
        work = interleave(bare, index, repeats=1, clock=time.process_time)
    n = len(files)
    note = f"{n / ratio.second_s:,.0f} images/s, Pillow {n / ratio.first_s:,.0f}, on {THREADS} threads; no graph in either"
    yield row_of(f"{n:,} PNGs, image-thumb, to Pillow alone", ratio, note, at_least(0.9))
    note = f"{work.second_s:.1f} s of all threads, Pillow {work.first_s:.1f} s: that others use the machine shows less here"
    yield row_of("  in CPU time", work, note)


def again_case(context: Context) -> Iterator[Row]:
    """The same folder once more: nothing has changed."""
    folder, embedder = _images(context), _thumb()
    with progress("images, once more"):
        first_s = seconds(lambda: _index(context, folder, embedder))
        with simstore.open(context.folder / "images.sim", background=False) as store:
            reports = [store.ingest(folder) for _ in range(context.settings.repeats_or(3))]
            store._finalizer()
    again_s = [report.seconds for report in reports]
    low, high = np.percentile([first_s / one for one in again_s], [10, 90])
    note = f"{first_s:.2f} s, then {np.median(again_s):.3f} s for {reports[0].unchanged + reports[0].rejected_before:,} files"
    yield Row("second run, unchanged", first_s / float(np.median(again_s)), "x", note, at_least(50), float(low), float(high))
    n_embedded = sum(report.n_embedded for report in reports)
    yield Row("  embeddings computed", n_embedded, "n", "", at_most(0))


def stream_case(context: Context) -> Iterator[Row]:
    """The memory of a process that takes in vectors made on the fly, beyond what it had after the first batches."""
    gigabytes = context.settings.gigabytes
    told = context.folder / "stream.json"
    task: Task = ("stream", str(context.fresh("stream.sim")), str(gigabytes), str(told))
    with progress(f"{gigabytes:g} GB of vectors"), waiting([task]):
        result = json.loads(told.read_text("utf-8"))
    grown = result["most"] - result["start"]
    note = (
        f"{result['start'] / _MB:.0f} MB, then {result['most'] / _MB:.0f} MB at most; {result['n']:,} x 768, mapped pages aside"
    )
    yield Row(f"memory while {gigabytes:g} GB stream in, grown", grown / 1024, "KB", note, at_most(300_000))


# -- what they share ---------------------------------------------------------------------------------------------------


def _store(context: Context, name: str, **options: Any) -> simstore.Store:
    return simstore.open(context.fresh(name), background=False, **options)


def _index(context: Context, folder: Path, embedder: Any) -> None:
    with _store(context, "images.sim", embedder=embedder) as store:
        store.ingest(folder, workers=THREADS)
        store._finalizer()


def _thumb() -> Any:
    from simstore.embedders import named_embedder

    embedder = named_embedder("image-thumb")
    embedder.embed(np.zeros((2, _SIDE, _SIDE, 3), np.uint8))
    return embedder


def _images(context: Context) -> Path:
    """A folder of so many of the PNGs of --images; where there are none, of PNGs that are made."""
    s, folder = context.settings, context.folder / "images"
    n = min(_IMAGES, s.n or _IMAGES)
    if folder.exists():
        return folder
    folder.mkdir()
    found = sorted(path for path in s.images.rglob("*.png") if path.exists())[:n]
    for i, path in enumerate(found):
        shutil.copyfile(path, folder / f"{i:05}-{path.name}")
    if not found:
        _make_images(folder, n, s.seed)
    return folder


def _make_images(folder: Path, n: int, seed: int) -> None:
    from PIL import Image

    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(30, 0).repeat(30, 1)
        Image.fromarray(pixels).save(folder / f"{i:05}.png")


def _all(pool: ThreadPoolExecutor, files: list[Path]) -> None:
    for _ in pool.map(_thumbnail, files):
        pass


def _thumbnail(path: Path) -> NDArray[np.uint8] | None:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the bound below is what ingest() has
    try:
        with Image.open(path) as image:
            if image.width * image.height > ReadOptions().max_pixels:
                return None
            return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE)))
    except (OSError, SyntaxError, ValueError):  # ingest() rejects it
        return None


def _digits(settings: Settings) -> NDArray[np.uint8]:
    """MNIST's, or scikit-learn's where that is not here: uint8 [n, height, width, 1]."""
    n = min(_DIGITS_N, settings.n or _DIGITS_N)
    if settings.mnist.is_file():
        with np.load(settings.mnist) as arrays:
            return np.ascontiguousarray(arrays["x_train"][:n, :, :, None])
    from sklearn.datasets import load_digits

    images = load_digits().images[:n, :, :, None] * (255 / 16)
    return np.ascontiguousarray(images.astype(np.uint8))


def _cnn(shape: tuple[int, ...]) -> Any:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    parts: list[Callable[..., Any]] = [
        layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu", padding="same"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(64),
    ]
    return keras.Sequential([keras.Input(shape, dtype="uint8"), *parts])
