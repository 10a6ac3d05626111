"""What similarity learning is good for, on digits: known classes, unseen ones, unknown ones; and how fast it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.context import Context
from bench.progress import progress
from bench.report import Row, Target, at_least, at_most, row_of
from bench.settings import K, Settings
from bench.timing import interleave, seconds

__all__ = ["known_case", "lookup_case", "unknown_case", "unseen_case"]

Embed = Callable[[NDArray[Any]], NDArray[np.float32]]

_SHOTS = 10
_ACCEPTED = 0.955  # of the known digits that a threshold is calibrated on: of others it then accepts 95 %, too
_BLOCK = 500  # queries compared at once


@dataclass(frozen=True, slots=True)
class _Digits:
    """Images uint8 [n, height, width, 1] and labels [n], to train on and index, and to ask for."""

    name: str
    x: NDArray[Any]
    y: NDArray[Any]
    queries: NDArray[Any]
    labels: NDArray[Any]


# -- known classes -----------------------------------------------------------------------------------------------------


def known_case(context: Context) -> Iterator[Row]:
    """The accuracy of the nearest neighbour among all training digits; beside it, raw pixels and a classifier."""
    s, digits = context.settings, _digits(context.settings)
    model = _known_model(s)
    with progress("nearest neighbours"):
        embed = _embed_by(model)
        by_model = _accuracy(embed(digits.x), digits.y, embed(digits.queries), digits.labels)
        by_pixels = _accuracy(_flat(digits.x), digits.y, _flat(digits.queries), digits.labels)
    how = f"{s.epochs} epochs of {s.steps} steps of 200 digits"
    asked = f"{len(digits.queries):,} test digits among {len(digits.y):,}"
    yield Row("1-NN of hello_world's model", by_model, "%", f"{asked}; {how}", at_least(0.985))
    yield Row("  1-NN of raw pixels", by_pixels, "%", "the same, Euclidean")
    yield Row("  softmax classifier", _classifier_accuracy(s), "%", "the same layers and batches, cross-entropy")


def lookup_case(context: Context) -> Iterator[Row]:
    """One lookup among all training digits, and the index of all of them to their embedding."""
    from simstore.embedders import KerasEmbedder

    s, digits, model = context.settings, _digits(context.settings), _known_model(context.settings)
    embedder = KerasEmbedder(model.embedder().model, batch_size=256)  # as the model itself
    embedder.embed(digits.x[:1000])

    def index() -> None:
        model.create_index()
        model.index(digits.x, digits.y)

    with progress("index"):
        ratio = interleave(index, lambda: embedder.embed(digits.x), repeats=s.repeats_or(3))
        model.store.optimize()
    with progress("lookups"):
        model.single_lookup(digits.queries[0])
        times = [seconds(partial(model.single_lookup, image, k=K)) for image in digits.queries[: s.queries]]
    low, high = np.quantile(times, [0.1, 0.9]) * 1e3
    note = f"from a digit to its {K} nearest of {len(digits.y):,}"
    yield Row("single_lookup, median", median(times) * 1e3, "ms", note, at_most(5.0), low, high)
    yield row_of(f"index({len(digits.y):,}), to embedding alone", ratio, f"{ratio.first_s:.2f} s", at_most(1.3))


@lru_cache(1)
def _known_model(settings: Settings) -> Any:
    from examples.hello_world import digit_model, digit_sampler

    from simstore.similarity.losses import MultiSimilarityLoss

    digits = _digits(settings)
    with progress("training"):
        _seed(settings.seed)
        model = digit_model(digits.x.shape[1:])
        model.compile("adam", loss=MultiSimilarityLoss())
        model.fit(digit_sampler(digits.name, settings.steps, seed=settings.seed), epochs=settings.epochs, verbose=0)
    return model


def _classifier_accuracy(settings: Settings) -> float:
    import keras
    from examples.hello_world import digit_features, digit_sampler

    digits = _digits(settings)
    with progress("training a classifier"):
        _seed(settings.seed)
        inputs = keras.layers.Input(digits.x.shape[1:])
        model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(digit_features(inputs)))
        model.compile("adam", loss="sparse_categorical_crossentropy")
        model.fit(digit_sampler(digits.name, settings.steps, seed=settings.seed), epochs=settings.epochs, verbose=0)
        told = model.predict(digits.queries, batch_size=256, verbose=0)
    return float((told.argmax(axis=1) == digits.labels).mean())


# -- unseen classes ----------------------------------------------------------------------------------------------------


def unseen_case(context: Context) -> Iterator[Row]:
    """Trained on 0 to 5, ten examples of each of 6 to 9: the recipe, what it is without its parts, and raw pixels."""
    from examples.hello_world import digit_model
    from examples.unseen_classes import moving_model

    s = context.settings
    pixels = _unseen_row(s, "  raw pixels, Euclidean", lambda _seed: _flat)
    yield _unseen_row(
        s, "unseen classes, 10 shots: the recipe", lambda seed: _embed_by(_seen_model(s, seed)), at_least(pixels.value)
    )
    yield pixels
    unlike: dict[str, dict[str, Any]] = {
        "without turned classes": {"n_turns": 1},
        "not moved": {"make_model": lambda shape: moving_model(shape, is_moved=False)},
        "with hello_world's model": {"make_model": digit_model},
        "with that alone": {"make_model": digit_model, "n_turns": 1},
    }
    for name, parts in unlike.items():
        yield _unseen_row(s, f"  {name}", partial(_embed_unlike, s, parts))


def _unseen_row(settings: Settings, name: str, make: Callable[[int], Embed], target: Target | None = None) -> Row:
    """The mean accuracy over the seeds; make gives for each what embeds."""
    from examples.unseen_classes import UNSEEN, of_classes

    from simstore.similarity.samplers import select_examples

    digits = _digits(settings)
    queries, labels = of_classes(digits.queries, digits.labels, UNSEEN)
    found = []
    with progress(name.strip(), settings.seeds) as step:
        for seed in range(settings.seed, settings.seed + settings.seeds):
            embed = make(seed)
            shots, of = select_examples(digits.x, digits.y, class_list=UNSEEN, num_examples_per_class=_SHOTS, seed=seed)
            found.append(_accuracy(embed(shots), of, embed(queries), labels))
            step(len(found))
    spread = np.std(found, ddof=1) if len(found) > 1 else 0.0
    return Row(name, float(np.mean(found)), "%", f"± {spread:.1%} over {len(found)} seeds", target)


# -- unknown classes ---------------------------------------------------------------------------------------------------


def unknown_case(context: Context) -> Iterator[Row]:
    """Trained on 0 to 5 and calibrated on half of the test digits: what it accepts and rejects of the other half."""
    from examples.unseen_classes import SEEN, of_classes

    s, digits = context.settings, _digits(context.settings)
    accepted, rejected, right = [], [], []
    with progress("unknown classes", s.seeds) as step:
        for seed in range(s.seed, s.seed + s.seeds):
            model = _seen_model(s, seed)
            model.create_index()
            model.index(*of_classes(digits.x, digits.y, SEEN))
            first, second = np.array_split(np.random.default_rng(seed).permutation(len(digits.labels)), 2)
            model.calibrate(
                digits.queries[first], digits.labels[first], {"accepts": _ACCEPTED}, calibration_metric="recall", verbose=0
            )
            matches = np.array(model.match(digits.queries[second], "accepts"))
            true, is_known = digits.labels[second], np.isin(digits.labels[second], SEEN)
            accepted.append(np.mean(matches[is_known] >= 0))
            rejected.append(np.mean(matches[~is_known] < 0))
            right.append(np.mean(matches[is_known & (matches >= 0)] == true[is_known & (matches >= 0)]))
            step(len(accepted))
    for name, values, target in (
        ("known digits accepted", accepted, at_least(0.95)),
        ("unknown digits rejected", rejected, at_least(0.9)),
        ("  right, of the known accepted", right, None),
    ):
        note = f"{min(values):.1%} to {max(values):.1%} over {len(values)} seeds"
        yield Row(name, float(np.mean(values)), "%", note, target)


# -- what they share ---------------------------------------------------------------------------------------------------


@lru_cache(16)
def _seen_model(settings: Settings, seed: int) -> Any:
    return _trained(settings, seed)


def _trained(settings: Settings, seed: int, **parts: Any) -> Any:
    from examples.unseen_classes import trained

    digits = _digits(settings)
    return trained(digits.x, digits.y, steps=settings.steps * 5, seed=seed, verbose=0, **parts)


@lru_cache(1)
def _digits(settings: Settings) -> _Digits:
    """MNIST's, or scikit-learn's where other data is asked for."""
    from simstore.similarity.samplers import load_dataset

    name = str(settings.mnist) if settings.data == "mnist" else "digits"
    return _Digits(name, *load_dataset(name, splits="train"), *load_dataset(name, splits="test"))


def _seed(seed: int) -> None:
    import keras

    keras.utils.set_random_seed(seed)


def _embed_by(model: Any) -> Embed:
    embed: Embed = model.embedder().embed
    return embed


def _embed_unlike(settings: Settings, parts: dict[str, Any], seed: int) -> Embed:
    """What a model that is trained in another way makes of images."""
    return _embed_by(_trained(settings, seed, **parts))


def _flat(images: NDArray[Any]) -> NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32)


def _accuracy(base: NDArray[Any], of: NDArray[Any], queries: NDArray[Any], labels: NDArray[Any]) -> float:
    """How often the nearest vector, compared with all, has the query's label."""
    squares = np.einsum("ij,ij->i", base, base)
    blocks = [queries[i : i + _BLOCK] for i in range(0, len(queries), _BLOCK)]
    nearest = np.concatenate([(squares - 2 * block @ base.T).argmin(axis=1) for block in blocks])
    return float((of[nearest] == labels).mean())
