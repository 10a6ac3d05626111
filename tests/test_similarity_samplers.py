"""Samplers of memory and of files: counts, seeds, slices, errors."""

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from simstore.errors import InvalidArgumentError
from simstore.similarity.samplers import (
    MultiShotFileSampler,
    MultiShotMemorySampler,
    Sampler,
    SingleShotMemorySampler,
    load_image,
    select_examples,
)

X = np.arange(60).reshape(30, 2)  # example i is [2i, 2i + 1]
Y = np.repeat([3, 5, 7, 11, 13], [10, 8, 6, 4, 2])


def label_of(example: Any) -> int:
    return int(Y[int(example[0]) // 2])


def batches(sampler: Sampler, epochs: int = 1) -> list[tuple[Any, Any]]:
    found = []
    for _ in range(epochs):
        found += [sampler[i] for i in range(len(sampler))]
        sampler.on_epoch_end()
    return found


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second)
    for (x, y), (other_x, other_y) in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)


# -- several of each class ---------------------------------------------------------------------------------------------


def test_batches_have_exact_counts_and_no_example_twice() -> None:
    sampler = MultiShotMemorySampler(X, Y, 3, 4, steps_per_epoch=50, class_list=[3, 5, 7, 11], seed=1)
    assert len(sampler) == 50 and sampler.batch_size == 12
    seen = set()
    for x, y in batches(sampler):
        assert x.shape == (12, 2) and y.dtype == np.int64
        assert sorted(Counter(y.tolist()).values()) == [4, 4, 4]
        assert len({int(one[0]) for one in x}) == 12
        assert [label_of(one) for one in x] == y.tolist()
        seen |= set(y.tolist())
    assert seen == {3, 5, 7, 11}


def test_every_class_comes_as_often_as_any() -> None:
    sampler = MultiShotMemorySampler(X, Y, 2, 2, steps_per_epoch=1000, seed=2)
    counts = Counter(label for _, y in batches(sampler) for label in set(y.tolist()))
    assert set(counts) == {3, 5, 7, 11, 13}
    assert all(abs(count - 400) < 80 for count in counts.values())  # 400 expected, standard deviation 15.5


def test_same_seed_same_batches_and_another_epoch_others() -> None:
    def made(seed: int | None) -> list[Any]:
        return batches(MultiShotMemorySampler(X, Y, 2, 2, 10, seed=seed), epochs=2)

    assert_same(made(4), made(4))
    first, again = made(4)[:10], made(4)[10:]
    for other in (made(5)[:10], made(None)[:10], again):
        assert any(not np.array_equal(x, other_x) for (x, _), (other_x, _) in zip(first, other, strict=True))


def test_order_of_asking_changes_nothing() -> None:
    sampler, other = (MultiShotMemorySampler(X, Y, 2, 2, 10, seed=4) for _ in range(2))
    assert_same([sampler[i] for i in range(10)], [other[i] for i in reversed(range(10))][::-1])
    assert_same([sampler[3]], [sampler.generate_batch(3)])
    unseeded = MultiShotMemorySampler(X, Y, 2, 2)
    assert_same([unseeded[3]], [unseeded[3]])


@pytest.mark.parametrize(("workers", "steps_per_epoch"), [(1, None), (3, None), (1, 10)])
def test_fit_gets_the_seeds_batches_in_each_epoch(workers: int, steps_per_epoch: int | None) -> None:
    """Also where fit has shorter epochs than the sampler, and goes on with batches that were made ahead."""
    wanted = batches(MultiShotMemorySampler(X, Y, 2, 2, 20, seed=6), epochs=3)
    got: list[Any] = []

    class Keeping(keras.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> dict[str, Any]:
            got.append(tuple(np.asarray(part) for part in data))
            return {"loss": keras.ops.zeros(())}

    model = Keeping()
    model.compile(run_eagerly=True)
    sampler = MultiShotMemorySampler(X, Y, 2, 2, 20, seed=6, workers=workers)
    model.fit(sampler, epochs=3 if steps_per_epoch is None else 6, steps_per_epoch=steps_per_epoch, shuffle=False, verbose=0)
    assert_same(got, wanted)


def test_slices_at_both_ends() -> None:
    sampler = MultiShotMemorySampler(X, Y, 2, 2, seed=1)
    x, y = sampler.get_slice()
    assert x.shape == (30, 2) and sampler.num_examples == 30 and sampler.example_shape == (2,)
    assert sorted(x[:, 0].tolist()) == list(range(0, 60, 2))
    assert [label_of(one) for one in x] == y.tolist()
    assert y.tolist() != Y.tolist()  # shuffled
    for begin, size, rows in [(0, 1, [0]), (29, 1, [29]), (28, -1, [28, 29]), (30, 0, []), (30, -1, []), (4, 3, [4, 5, 6])]:
        part_x, part_y = sampler.get_slice(begin, size)
        np.testing.assert_array_equal(part_x, x[rows])
        np.testing.assert_array_equal(part_y, y[rows])
    for begin, size in [(30, 1), (31, -1), (0, 31), (-1, 2), (0, -2)]:
        with pytest.raises(InvalidArgumentError, match=r"reaches over the end|at least"):
            sampler.get_slice(begin, size)


def test_chosen_classes_and_examples_per_class() -> None:
    sampler = MultiShotMemorySampler(X, Y, 2, 2, class_list=[3, 7, 13], total_examples_per_class=3, seed=1)
    assert sampler.class_list == [3, 7, 13]
    assert Counter(sampler.get_slice()[1].tolist()) == {3: 3, 7: 3, 13: 2}
    same = MultiShotMemorySampler(X, Y, 2, 2, class_list=np.array([7, 3, 13, 3]), total_examples_per_class=3, seed=1)
    assert_same([sampler.get_slice()], [same.get_slice()])
    other = MultiShotMemorySampler(X, Y, 2, 2, class_list=[3, 7, 13], total_examples_per_class=3, seed=2)
    assert not np.array_equal(np.sort(sampler.get_slice()[0][:, 0]), np.sort(other.get_slice()[0][:, 0]))


def test_small_classes_are_drawn_from_repeatedly_only_if_asked() -> None:
    with pytest.raises(InvalidArgumentError, match=r"2 of 5 classes .*=6 .*class 11 has 4.*replace=True"):
        MultiShotMemorySampler(X, Y, 5, 6)
    sampler = MultiShotMemorySampler(X, Y, 5, 6, steps_per_epoch=5, replace=True, seed=1)
    for x, y in batches(sampler):
        assert set(Counter(y.tolist()).values()) == {6}
        for label, n_different in [(3, 6), (5, 6), (7, 6)]:  # those with six are drawn without replacement
            assert len({int(one[0]) for one in x[y == label]}) == n_different


@pytest.mark.parametrize("to", [list, keras.ops.convert_to_tensor, lambda values: np.asarray(values)])
def test_lists_tensors_and_columns_of_labels(to: Any) -> None:
    wanted = batches(MultiShotMemorySampler(X, Y, 2, 2, 3, seed=1))
    assert_same(batches(MultiShotMemorySampler(to(X), to(Y[:, None]), 2, 2, 3, seed=1)), wanted)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(30), r"shape \[n\] or \[n, 1\], not \[30, 30\].*argmax"),
        (np.float32(3), r"not \[\]"),
        (Y[:-1], "30 examples and y 29 labels"),
        (Y.astype(str), "whole numbers.*np.unique"),
        (Y.astype(float), "whole numbers, not float64"),
        ([None] * 30, "whole numbers, not object"),
    ],
)
def test_wrong_labels(y: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        MultiShotMemorySampler(X, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes_per_batch": 6}, r"classes_per_batch=6, but there are only 5 classes: 3, 5, 7, 11, 13"),
        ({"classes_per_batch": 2, "class_list": [3]}, "only 1 classes: 3"),
        ({"class_list": [3, 4]}, r"class_list names \[4\]; y has the classes 3, 5"),
        ({"class_list": []}, "names no class"),
        ({"classes_per_batch": 0}, "classes_per_batch is a whole number of at least 1, not 0"),
        ({"examples_per_class_per_batch": 1.5}, "at least 1, not 1.5"),
        ({"steps_per_epoch": True}, "steps_per_epoch"),
        ({"total_examples_per_class": 0}, "num_examples_per_class"),
        ({"total_examples_per_class": 1}, "5 of 5 classes have fewer than examples_per_class_per_batch=2"),
        ({"seed": -1}, "seed is a whole number of at least 0"),
        ({"augmenter": 3}, "augmenter is an Augmenter or a function"),
        ({"warmup": -2}, "warmup"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        MultiShotMemorySampler(X, Y, **options)


def test_wrong_examples() -> None:
    with pytest.raises(InvalidArgumentError, match="empty"):
        MultiShotMemorySampler([], [])
    with pytest.raises(InvalidArgumentError, match="different shapes"):
        MultiShotMemorySampler([np.zeros(2), np.zeros(3)], [0, 1])
    with pytest.raises(IndexError):
        MultiShotMemorySampler(X, Y)[1000]


# -- augmenters --------------------------------------------------------------------------------------------------------


def test_augmenter_gets_batch_labels_views_and_warmup() -> None:
    calls = []

    def augmenter(x: Any, y: Any, n_views: int, is_warmup: bool) -> Any:
        calls.append((n_views, is_warmup))
        return (x * 10, y + 1)

    sampler = MultiShotMemorySampler(X, Y, 2, 2, 1, augmenter=augmenter, warmup=1, num_augmentations_per_example=3, seed=1)
    plain = MultiShotMemorySampler(X, Y, 2, 2, 1, seed=1)
    for (x, y), (plain_x, plain_y) in zip(batches(sampler, 2), batches(plain, 2), strict=True):
        np.testing.assert_array_equal(x, plain_x * 10)
        np.testing.assert_array_equal(y, plain_y + 1)
    assert calls == [(3, True), (3, False)]
    assert not MultiShotMemorySampler(X, Y).is_warmup  # −1: there is none


def test_views_follow_one_another_with_their_labels() -> None:
    sampler = MultiShotMemorySampler(X, Y, 2, 2, augmenter=lambda x, y, n_views, is_warmup: [x, -x], seed=1)
    x, y = sampler[0]
    plain_x, plain_y = MultiShotMemorySampler(X, Y, 2, 2, seed=1)[0]
    np.testing.assert_array_equal(x, np.concatenate([plain_x, -plain_x]))
    np.testing.assert_array_equal(y, np.concatenate([plain_y, plain_y]))


def test_augmenter_that_returns_something_else() -> None:
    with pytest.raises(InvalidArgumentError, match=r"returns the tuple \(x, y\) or a list of views, not ndarray"):
        MultiShotMemorySampler(X, Y, augmenter=lambda x, y, n_views, is_warmup: x)[0]


# -- one of each class -------------------------------------------------------------------------------------------------


def two_views(x: Any, y: Any, n_views: int, is_warmup: bool) -> list[Any]:
    return [x + 1000 * number for number in range(n_views)]


def test_single_shot_has_every_example_once_before_any_comes_again() -> None:
    sampler = SingleShotMemorySampler(X, two_views, 4, num_augmentations_per_example=1, steps_per_epoch=5, seed=1)
    found = batches(sampler, epochs=4)  # 20 batches; a pass has 30 // 4 = 7
    for start in (0, 7):
        rows = [row for _, y in found[start : start + 7] for row in y.tolist()]
        assert len(set(rows)) == 28
    for x, y in found:
        np.testing.assert_array_equal(x, X[y])
    assert found[0][1].tolist() != found[7][1].tolist()
    again = SingleShotMemorySampler(X, two_views, 4, num_augmentations_per_example=1, steps_per_epoch=5, seed=1)
    assert_same([again[i] for i in (3, 0)], [found[3], found[0]])


def test_single_shot_batches_are_the_views() -> None:
    sampler = SingleShotMemorySampler(X, two_views, 3, num_augmentations_per_example=3, seed=1)
    x, y = sampler[0]
    assert x.shape == (9, 2) and set(Counter(y.tolist()).values()) == {3}
    np.testing.assert_array_equal(x, np.concatenate([X[y[:3]], X[y[:3]] + 1000, X[y[:3]] + 2000]))
    np.testing.assert_array_equal(sampler.get_slice(29, 1)[0], X[29:])
    np.testing.assert_array_equal(sampler.get_slice(0, 2)[1], [0, 1])


def test_single_shot_pairs_for_a_contrastive_model() -> None:
    sampler = SingleShotMemorySampler(X, two_views, 3, separate_views=True, seed=1)
    first, second = sampler[0]
    np.testing.assert_array_equal(first + 1000, second)
    with pytest.raises(InvalidArgumentError, match="is 2 then, not 3"):
        SingleShotMemorySampler(X, two_views, 3, num_augmentations_per_example=3, separate_views=True)
    with pytest.raises(InvalidArgumentError, match="list of two views"):
        SingleShotMemorySampler(X, lambda x, y, n_views, is_warmup: (x, y), 3, separate_views=True)[0]


def test_single_shot_errors() -> None:
    with pytest.raises(InvalidArgumentError, match="examples_per_batch=31, but there are only 30"):
        SingleShotMemorySampler(X, two_views, 31)
    with pytest.raises(InvalidArgumentError, match="augmenter is None"):
        SingleShotMemorySampler(X, None, 3)  # type: ignore[arg-type]


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve PNG files, number i all of brightness 20 i, some of 8 × 6 and some of 16 × 12."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        size = (8, 6) if number % 2 else (16, 12)
        image.new("L" if number < 6 else "RGB", size, 20 * number if number < 6 else (20 * number,) * 3).save(path)
    return paths


def test_image_files(image_files: list[Path]) -> None:
    read = functools.partial(load_image, target_size=(6, 8))
    sampler = MultiShotFileSampler(image_files, np.arange(12) // 4, read, 3, 2, 4, seed=1, workers=2)
    assert sampler.example_shape == (6, 8, 3) and sampler.num_examples == 12
    for x, y in batches(sampler):
        assert x.dtype == np.float32 and sorted(Counter(y.tolist()).values()) == [2, 2, 2]
        numbers = np.rint(x[:, 0, 0, 0] * 255 / 20).astype(int)
        np.testing.assert_allclose(x, np.broadcast_to((numbers * 20 / 255)[:, None, None, None], x.shape), atol=1e-6)
        np.testing.assert_array_equal(numbers // 4, y)
    x, y = sampler.get_slice(11, 1)
    assert round(float(x[0, 0, 0, 0]) * 255 / 20) // 4 == y[0]


def test_image_files_as_strings_and_errors(image_files: list[Path], tmp_path: Path) -> None:
    small = [str(path) for path in image_files[1::2]]
    sampler = MultiShotFileSampler(small, [0, 0, 0, 1, 1, 1], classes_per_batch=2, seed=1)
    assert sampler[0][0].shape == (4, 6, 8, 3)
    with pytest.raises(InvalidArgumentError, match="different shapes"):
        MultiShotFileSampler(image_files, np.zeros(12, int), classes_per_batch=1, examples_per_class_per_batch=12)[0]
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InvalidArgumentError, match=r"text\.png is no image that Pillow can read"):
        load_image(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "absent.png")


# -- select_examples ---------------------------------------------------------------------------------------------------


def test_select_examples() -> None:
    x, y = select_examples(X, Y, class_list=[3, 13], num_examples_per_class=4, seed=1)
    assert Counter(y.tolist()) == {3: 4, 13: 2} and len({int(one[0]) for one in x}) == 6
    assert [label_of(one) for one in x] == y.tolist()
    again = select_examples(X, Y, class_list=[3, 13], num_examples_per_class=4, seed=1)
    assert_same([(x, y)], [again])
    assert sorted(select_examples(X, Y)[0][:, 0].tolist()) == list(range(0, 60, 2))
    names, labels = select_examples(X, Y.astype(str), class_list=["13"], seed=1)
    assert sorted(names[:, 0].tolist()) == [56, 58] and labels.tolist() == ["13", "13"]
    with pytest.raises(InvalidArgumentError, match="class_list names"):
        select_examples(X, Y, class_list=[1])
