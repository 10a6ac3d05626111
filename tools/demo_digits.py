"""The demo: train a small Keras model on real digits, index them, search, change things, reopen, draw the answers.

    python tools/demo_digits.py [--dataset FILE.npz] [--out DIR]

Without --dataset it takes scikit-learn's 1,797 handwritten digits. FILE.npz holds images and their labels, as x_train,
y_train, x_test, y_test (Keras' MNIST is such a file), or as x, y.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from demo_data import Digits, Parts, load_digits, load_file
from demo_model import quiet_stderr, trained_model
from demo_picture import draw_neighbours

import simstore
from simstore import BatchHits, Hits, Store
from simstore.embedders import KerasEmbedder

ROOT = Path(__file__).resolve().parent.parent
MARKER = "made-by-demo.txt"
CHUNK = 4096
STEPS = itertools.count(1)

REOPEN = """
import json, sys, time
import numpy, simstore

query = numpy.load(sys.argv[2])
times = [time.perf_counter()]
store = simstore.open(sys.argv[1])
times.append(time.perf_counter())
for _ in range(51):
    hits = store.search(input=query, k=5)
    times.append(time.perf_counter())
times_s = [after - before for before, after in zip(times, times[1:])]
print(json.dumps({"keys": hits.keys, "labels": hits.labels, "distances": hits.distances.tolist(), "times_s": times_s}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, metavar="FILE.npz", help="images and labels of your own")
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out", metavar="DIR", help="where to write (demo-out)")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    parts = load_digits() if options.dataset is None else load_file(options.dataset)
    out = fresh_folder(options.out.resolve())
    tell_data(parts)
    model = train(parts.training)
    with simstore.open(out / "digits.sim", embedder=KerasEmbedder(model)) as store:
        index(store, parts.indexed)
        compare_with_pixels(store, parts)
        change_and_change_back(store, parts.queries)
        look_after(store)
        expected = store.search(input=parts.queries.images[0], k=5)
        wrong_shown = draw(store, parts.queries, out / "neighbours.png")
    np.save(out / "query.npy", parts.queries.images[0])
    reopen(out, expected, parts.queries.labels[0])
    tell_end(out, wrong_shown, time.perf_counter() - start)
    return 0


# -- telling ---------------------------------------------------------------------------------------------------------


def heading(text: str) -> None:
    print(f"\n{next(STEPS)}. {text}\n", flush=True)


def say(text: str) -> None:
    print(f"   {text}", flush=True)


class Progress:
    """Says how far something is, every two seconds; nothing if it is done before."""

    def __init__(self) -> None:
        self._next = time.perf_counter() + 2

    def __call__(self, stage: str, done: int, total: int) -> None:
        if time.perf_counter() >= self._next and done < total:
            self._next = time.perf_counter() + 2
            say(f"… {stage} {done:,} of {total:,}")


def expect(condition: bool, what: str) -> None:
    """Ends the demo unless what it shows is so."""
    if not condition:
        raise SystemExit(f"This is not as it should be: {what}")


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


# -- the steps -------------------------------------------------------------------------------------------------------


def fresh_folder(out: Path) -> Path:
    """The folder to write to, without an earlier demo's store. What no demo made is never deleted."""
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise SystemExit(f"{out} is there already, and no demo made it: name a new or empty folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("tools/demo_digits.py made this folder, and makes digits.sim anew whenever it runs.\n")
    if (out / "digits.sim").exists():
        shutil.rmtree(out / "digits.sim")
    return out


def tell_data(parts: Parts) -> None:
    heading("The data")
    height, width, _ = parts.indexed.images.shape[1:]
    say(f"Images of {height} × {width}, {len(set(parts.indexed.labels.tolist()))} classes:")
    say(f"{len(parts.training):7,} to train the model" + (", which are indexed, too" if parts.is_training_indexed else ""))
    say(f"{len(parts.indexed):7,} to index")
    say(f"{len(parts.queries):7,} to search for, seen neither by the model nor by the store")


def train(digits: Digits) -> Any:
    heading("Train a small Keras model to embed them")
    start = time.perf_counter()
    model = trained_model(digits, Progress())
    say(f"{model.count_params():,} weights, trained in {time.perf_counter() - start:.1f} s (with importing Keras).")
    return model


def index(store: Store, digits: Digits) -> None:
    heading("Index: images in, vectors, labels and images stored")
    start, progress = time.perf_counter(), Progress()
    for first in range(0, len(digits), CHUNK):
        part = digits[first : first + CHUNK]
        store.add(
            [f"digit-{first + i:05d}" for i in range(len(part))],
            inputs=part.images,
            labels=part.labels.tolist(),
            data=[{"image": image} for image in part.images],
        )
        progress("indexed", first + len(part), len(digits))
    taken = time.perf_counter() - start
    say(f"{plural(len(store), 'item')} in {taken:.1f} s, each on the disk. Labels: {counted(store.labels())}")


def counted(labels: dict[Any, int]) -> str:
    shown = ", ".join(f"{label}: {n:,}" for label, n in sorted(labels.items(), key=lambda pair: str(pair[0]))[:10])
    return shown + (", …" if len(labels) > 10 else "")


def compare_with_pixels(store: Store, parts: Parts) -> None:
    heading("Search for the held-out images, and compare with their raw pixels")
    queries = parts.queries
    start = time.perf_counter()
    answers = store.search_many(inputs=queries.images, k=5)
    taken = time.perf_counter() - start
    by_pixels = pixel_answers(parts)
    n_pixels = queries.images[0].size
    say(f"{'right label, by':28}{'the nearest':>12}{'most of 5':>12}")
    for name, hits in ((f"embedding, {store.info().dim} numbers", answers), (f"raw pixels, {n_pixels} numbers", by_pixels)):
        nearest, majority = (accuracy(hits, queries.labels, k) for k in (1, 5))
        say(f"{name:28}{nearest:11.2%} {majority:11.2%}")
    say("")
    say(f"(Same items, same queries; pixels by Euclidean distance, exactly. The {len(queries):,} images")
    say(f"were embedded and searched for in {taken:.2f} s, {1e3 * taken / len(queries):.2f} ms each.)")


def pixel_answers(parts: Parts) -> BatchHits:
    """The five nearest of each query by pixels, from a store that is thrown away."""
    progress = Progress()
    with (
        tempfile.TemporaryDirectory() as directory,
        simstore.open(Path(directory) / "pixels.sim", metric="l2", background=False) as store,
    ):
        for first in range(0, len(parts.indexed), CHUNK):
            part = parts.indexed[first : first + CHUNK]
            store.add(None, part.images.reshape(len(part), -1), labels=part.labels.tolist())
            progress("pixels of", first + len(part), len(parts.indexed))
        return store.search_many(parts.queries.images.reshape(len(parts.queries), -1), k=5, exact=True)


def accuracy(answers: BatchHits, labels: Any, k: int) -> float:
    """How often the most frequent label of the k nearest is right; of equally frequent ones, the nearest counts."""
    found = [Counter(row[:k]).most_common(1)[0][0] for row in answers.labels.tolist()]
    return float(np.mean([a == b for a, b in zip(found, labels.tolist(), strict=True)]))


def change_and_change_back(store: Store, queries: Digits) -> None:
    heading("Add, replace, delete: the next answer knows")
    (a, b), first = two_unlike(queries), store.search(input=queries.images[0], k=1)[0]
    image, other = queries.images[a], queries.images[b]
    label, other_label = queries.labels[[a, b]].tolist()
    first = tell_nearest(store, f"A held-out {label} finds", image)
    store.add("mine", inputs=image, labels=label)
    added = tell_nearest(store, f"add('mine') of that {label}:", image)
    expect(added.key == "mine" and added.distance < 1e-5, "an added item is the nearest to itself")
    counts = store.upsert("mine", inputs=other, labels=other_label)
    replaced = tell_nearest(store, f"upsert('mine') as a {other_label}:", image)
    expect(counts == (0, 1) and replaced.key == first.key, "a replaced item is where it was put, and nowhere else")
    expect(store.search(input=other, k=1).keys == ["mine"], "a replaced item is the nearest to its new self")
    store.delete("mine")
    deleted = tell_nearest(store, "delete('mine'), then that one:", other)
    expect(deleted.key != "mine" and "mine" not in store, "a deleted item is gone")


def two_unlike(queries: Digits) -> tuple[int, int]:
    """Two queries with different labels."""
    labels = queries.labels.tolist()
    return 0, next((i for i, label in enumerate(labels) if label != labels[0]), 1)


def tell_nearest(store: Store, what: str, image: Any) -> Any:
    hit = store.search(input=image, k=1)[0]
    say(f"{what:34} {hit.key}, a {hit.label}, at distance {hit.distance:.4f}")
    return hit


def look_after(store: Store) -> None:
    heading("Optimize and check")
    start = time.perf_counter()
    store.optimize(progress=Progress())
    say(f"optimize(): one graph over everything, {time.perf_counter() - start:.1f} s")
    info = store.info()
    size_mb = (info.database_size_bytes + info.segments_size_bytes) / 1e6
    say(f"info():     {plural(info.count, 'item')}, {plural(info.n_segments, 'segment')}, {info.n_tail} in the tail, {size_mb:.1f} MB")
    problems = store.check()
    expect(not problems, f"check() finds {problems}")
    say("check():    every checksum, count and link holds")


def draw(store: Store, queries: Digits, path: Path) -> int:
    """Draws seven queries, and up to three with wrong neighbours. Returns how many of those there were."""
    answers = store.search_many(inputs=queries.images, k=8)
    is_wrong = (answers.labels != queries.labels[:, None].astype(object)).any(axis=1)
    rows = [*one_of_each(queries.labels[~is_wrong | True])[:7]]
    wrong = [row for row in np.flatnonzero(is_wrong).tolist() if row not in rows][:3]
    rows += wrong
    draw_neighbours(queries[rows], [answers[row] for row in rows], len(wrong), path)
    return len(wrong)
