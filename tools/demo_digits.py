"""The demo: train a small Keras model on real digits, index them, search, filter, go back in time, reopen, draw the answers.

    python tools/demo_digits.py [--dataset FILE.npz] [--out DIR]

Without --dataset it takes scikit-learn's 1,797 handwritten digits. FILE.npz holds images and their labels, as x_train,
y_train, x_test, y_test (Keras' MNIST is such a file), or as x, y.
"""

import argparse
import itertools
import json
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
from demo_model import trained_model
from demo_picture import draw_neighbours
from numpy.typing import NDArray

import simstore
from simstore import Hits, Store, field, label
from simstore.embedders import KerasEmbedder

ROOT = Path(__file__).resolve().parent.parent
MARKER = "made-by-demo.txt"
CHUNK = 4096
STEPS = itertools.count(1)

REOPEN = """
import json, pathlib, sys, time
import numpy, simstore

query = numpy.load(sys.argv[2])
times = [time.perf_counter()]
store = simstore.open(sys.argv[1])
times.append(time.perf_counter())
for _ in range(51):
    hits = store.search(input=query, k=5)
    times.append(time.perf_counter())
times_s = [after - before for before, after in zip(times, times[1:])]

import keras
(saved,) = pathlib.Path(sys.argv[1]).glob("embedder/*.keras")
model, direct_s = keras.saving.load_model(saved), []
for _ in range(51):
    start = time.perf_counter()
    keras.ops.convert_to_numpy(model(query[None], training=False))
    direct_s.append(time.perf_counter() - start)
print(json.dumps({"keys": hits.keys, "labels": hits.labels, "distances": hits.distances.tolist(), "times_s": times_s,
                  "direct_s": direct_s}))
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
        filter_answers(store, parts.queries)
        go_back(store, parts.queries)
        expected = store.search(input=parts.queries.images[0], k=5)
        draw(store, parts.queries, out / "neighbours.png")
    np.save(out / "query.npy", parts.queries.images[0])
    reopen(out, expected, parts.queries.labels[0])
    tell_end(out, time.perf_counter() - start)
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
    return f"{n:,} {noun if n == 1 else noun.removesuffix('y') + 'ies' if noun.endswith('y') else noun + 's'}"


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
            data=[{"image": image, "number": first + i} for i, image in enumerate(part.images)],
        )
        progress("indexed", first + len(part), len(digits))
    taken = time.perf_counter() - start
    say(f"{plural(len(store), 'item')} embedded and on the disk in {taken:.2f} s.")
    say(f"Labels: {counted(store.labels())}")


def counted(labels: dict[Any, int]) -> str:
    shown = ", ".join(f"{name}: {n:,}" for name, n in sorted(labels.items(), key=lambda pair: str(pair[0]))[:10])
    return shown + (", …" if len(labels) > 10 else "")


def compare_with_pixels(store: Store, parts: Parts) -> None:
    heading("Search for the held-out images, and compare with their raw pixels")
    queries = parts.queries
    start = time.perf_counter()
    answers = store.search_many(inputs=queries.images, k=5)
    taken = time.perf_counter() - start
    found = {f"embedding, {store.info().dim} numbers": answers.labels}
    found[f"raw pixels, {queries.images[0].size} numbers"] = labels_by_pixels(parts)
    say(f"{'right label, by':28}{'the nearest':>12}{'most of 5':>12}")
    for name, labels in found.items():
        nearest, majority = (accuracy(labels, queries.labels, k) for k in (1, 5))
        say(f"{name:28}{nearest:12.2%}{majority:12.2%}")
    print()
    say("Both find the same queries among the same items, pixels by their exact Euclidean distance; only the embedding")
    say(f"knows the labels of the {len(parts.training):,} images it was trained on.")
    say(f"Embedding and searching took {taken:.2f} s, {1e3 * taken / len(queries):.2f} ms a query.")


def labels_by_pixels(parts: Parts) -> NDArray[Any]:
    """The labels of the five nearest by pixels, [n_queries, 5], from a store that is thrown away."""
    progress = Progress()
    with (
        tempfile.TemporaryDirectory() as directory,
        simstore.open(Path(directory) / "pixels.sim", metric="l2", background=False) as store,
    ):
        for first in range(0, len(parts.indexed), CHUNK):
            part = parts.indexed[first : first + CHUNK]
            store.add(None, part.images.reshape(len(part), -1), labels=part.labels.tolist())
            progress("pixels stored of", first + len(part), len(parts.indexed))
        queries, labels = parts.queries.images.reshape(len(parts.queries), -1), []
        for at in range(0, len(queries), 100):
            labels.append(store.search_many(queries[at : at + 100], k=5, exact=True).labels)
            progress("pixels of query", at + 100, len(queries))
        return np.concatenate(labels)


def accuracy(found: NDArray[Any], labels: NDArray[Any], k: int) -> float:
    """How often the most frequent label of the k nearest is right; of equally frequent ones, the nearest counts."""
    majority = [Counter(row[:k]).most_common(1)[0][0] for row in found.tolist()]
    return float(np.mean([a == b for a, b in zip(majority, labels.tolist(), strict=True)]))


def change_and_change_back(store: Store, queries: Digits) -> None:
    heading("Add, replace, delete: the next answer knows")
    labels = queries.labels.tolist()
    other_at = next((i for i, label in enumerate(labels) if label != labels[0]), 1)
    image, other = queries.images[0], queries.images[other_at]
    before = tell_nearest(store, f"a held-out {labels[0]} finds", image)
    store.add("mine", inputs=image, labels=labels[0])
    added = tell_nearest(store, "after add('mine') of it", image)
    expect(added.key == "mine" and added.distance < 1e-5, "an added item is the nearest to itself")
    counts = store.upsert("mine", inputs=other, labels=labels[other_at])
    replaced = tell_nearest(store, f"after upsert('mine') as a {labels[other_at]}", image)
    expect(tuple(counts) == (0, 1), "the upsert replaced one item")
    expect(replaced.key == before.key, "a replaced item is no longer where it was")
    moved = tell_nearest(store, f"and that {labels[other_at]} finds", other)
    expect(moved.key == "mine", "a replaced item is where it was put")
    store.delete("mine")
    deleted = tell_nearest(store, "after delete('mine') it finds", other)
    expect(deleted.key != "mine" and "mine" not in store, "a deleted item is gone")


def tell_nearest(store: Store, what: str, image: Any) -> Any:
    hit = store.search(input=image, k=1)[0]
    say(f"{what:34} {hit.key}, label {hit.label}, distance {hit.distance:.4f}")
    return hit


def filter_answers(store: Store, queries: Digits) -> None:
    heading("Filter: only items that match, found as surely as among all")
    image, name, half = queries.images[0], queries.labels.tolist()[0], len(store) // 2
    store.create_index("number", progress=Progress())
    others, late = label != name, field("number") >= half
    for where in (others, late, others & late):
        hits = store.search(input=image, k=5, where=where)
        truth = store.search(input=image, k=5, where=where, exact=True)
        say(f"{where!r}: {store.count(where):,} items match; the nearest is a {hits[0].label}, {hits[0].key}")
        expect(hits.keys == truth.keys, "the filtered search finds what the exact one finds")
    expect(all(hit.label != name and hit.data["number"] >= half for hit in hits), "every answer matches the filter")
    print()
    for line in str(store.explain(input=image, k=5, where=late)).splitlines():
        say(line)


def go_back(store: Store, queries: Digits) -> None:
    heading("Snapshot, delete, look back, restore")
    name, n = queries.labels.tolist()[0], len(store)
    start = time.perf_counter()
    store.snapshot("whole", note="before the deletion")
    say(f"snapshot('whole'): {1e3 * (time.perf_counter() - start):.1f} ms, no copy")
    n_deleted = store.delete(where=label == name)
    changed = store.diff("whole")
    say(f"delete(where=label == {name!r}): {n_deleted:,} items are gone, {len(store):,} remain; diff() names as many")
    expect(len(changed.deleted) == n_deleted and not changed.added, "diff() names what was deleted")
    now = store.search(input=queries.images[0], k=1)[0]
    with simstore.open(store.info().path, snapshot="whole") as then:
        past = then.search(input=queries.images[0], k=1)[0]
        say(f"the nearest now is a {now.label}; in the snapshot, opened beside the store, still a {past.label}")
        expect(len(then) == n and now.label != name, "the snapshot sees what was deleted, and the store does not")
    restored = store.restore("whole")
    say(f"restore('whole'): {len(store):,} items again; to undo, restore {restored.undo!r}")
    after = store.diff("whole")
    expect(len(store) == n and not (after.added or after.changed or after.deleted), "nothing differs after the restore")
    for snapshot in store.snapshots():
        store.delete_snapshot(snapshot.name)
    compacted = store.compact(progress=Progress())
    before_mb, after_mb = compacted.before_size_bytes / 1e6, compacted.after_size_bytes / 1e6
    say(f"both snapshots deleted, compact() purges {compacted.n_purged:,} rows: {before_mb:.1f} MB are {after_mb:.1f} MB")
    expect(not store.check(), "the store is sound")


def look_after(store: Store) -> None:
    heading("Optimize and check")
    start = time.perf_counter()
    store.optimize(progress=Progress())
    say(
        f"optimize(): one graph over everything, {time.perf_counter() - start:.1f} s (large ones are begun while items come in)"
    )
    info = store.info()
    size_mb = (info.database_size_bytes + info.segments_size_bytes) / 1e6
    graphs = f"{plural(info.n_segments, 'segment')}, {info.n_tail} in the tail"
    say(f"info():     {plural(info.count, 'item')}, {graphs}, {size_mb:.1f} MB")
    problems = store.check(deep=True)
    expect(not problems, f"check(deep=True) finds {problems}")
    say("check(deep=True): every checksum, count and link holds")


def draw(store: Store, queries: Digits, path: Path) -> None:
    heading("Draw some answers")
    answers = store.search_many(inputs=queries.images, k=8)
    n_wrong = (answers.labels != queries.labels[:, None]).sum(axis=1)
    firsts = first_of_each_label(queries.labels.tolist(), 6)
    worst = [row for row in np.argsort(-n_wrong, kind="stable").tolist() if n_wrong[row] and row not in firsts][:3]
    rows = [*firsts, *worst]
    draw_neighbours(queries[rows], [answers[row] for row in rows], len(worst), path)
    say(f"{path}")
    say(f"{np.count_nonzero(n_wrong):,} of {plural(len(queries), 'query')} found another label among the 8 nearest: red there.")


def first_of_each_label(labels: list[Any], n: int) -> list[int]:
    """Where the first n different labels stand first."""
    return sorted({label: row for row, label in reversed(list(enumerate(labels)))}.values())[:n]


def reopen(out: Path, expected: Hits, label: Any) -> None:
    heading("Open it by its path alone, in another process, and search for an image")
    command = [sys.executable, "-c", REOPEN, str(out / "digits.sim"), str(out / "query.npy")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    expect(ran.returncode == 0, f"the other process failed:\n{ran.stderr}")
    answer = json.loads(ran.stdout.splitlines()[-1])
    opened_s, first_s, *rest_s = answer["times_s"]
    say(f"A held-out {label} finds:")
    for key, found, distance in zip(answer["keys"], answer["labels"], answer["distances"], strict=True):
        say(f"    {key}, label {found}, distance {distance:.4f}")
    expect(answer["keys"] == expected.keys, f"both processes find the same; this one found {expected.keys}")
    expect(np.allclose(answer["distances"], expected.distances, atol=1e-5), "both processes find the same distances")
    say(f"Opened in {1e3 * opened_s:.0f} ms. The first search imports Keras and loads the model: {first_s:.1f} s.")
    direct_s = float(np.median(answer["direct_s"][1:]))
    say(f"Every other one takes {1e3 * float(np.median(rest_s)):.1f} ms, from an image to its neighbours; a direct call of the")
    say(f"model alone takes {1e3 * direct_s:.1f} ms.")


def tell_end(out: Path, taken_s: float) -> None:
    heading(f"Your turn (all of this took {taken_s:.0f} s)")
    say(f"Start {sys.executable} and type:\n")
    print("import numpy, simstore")
    print(f"store = simstore.open({str(out / 'digits.sim')!r})")
    print(f"print(store.search(input=numpy.load({str(out / 'query.npy')!r}), k=5))", flush=True)


if __name__ == "__main__":
    sys.exit(main())
