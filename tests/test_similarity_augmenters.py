"""Augmenters: seeds, range and shape, and each operation against a naive one."""

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simstore.errors import InvalidArgumentError
from simstore.similarity.augmenters import Augmenter, BarlowAugmenter, ContrastiveAugmenter, SimCLRAugmenter, images
from simstore.similarity.samplers import MultiShotMemorySampler, SingleShotMemorySampler

Image = np.ndarray[Any, Any]


def pictures(n: int = 6, height: int = 9, width: int = 12, channels: int = 3) -> Image:
    return np.random.default_rng(1).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def unit(batch: Image) -> Image:
    return (batch / 255).astype(np.float32)


def drawn(seed: int = 1) -> Any:
    generator = np.random.default_rng(seed)
    return lambda: int(generator.integers(2**31))


def both(**options: Any) -> list[Any]:
    return [SimCLRAugmenter(7, 8, **options), BarlowAugmenter(width=8, height=7, **options)]


# -- what a caller sees ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("which", [0, 1])
def test_views_have_the_size_and_the_range_of_the_images(which: int, channels: int) -> None:
    batch = pictures(64, channels=channels)
    for x, highest in [(batch, 255.0), (unit(batch), 1.0), (batch.tolist(), 255.0), (tf.constant(unit(batch)), 1.0)]:
        views = both(seed=1)[which](x, num_augmentations_per_example=3)
        assert isinstance(views, list) and len(views) == 3
        for view in map(np.asarray, views):
            assert view.shape == (64, 7, 8, channels) and view.dtype == np.float32
            assert view.min() >= 0 and highest / 2 < view.max() <= highest
            assert view.std() > highest / 20
        assert not np.allclose(views[0], views[1])


@pytest.mark.parametrize("which", [0, 1])
def test_bytes_and_floats_get_the_same_views(which: int) -> None:
    batch = pictures()
    views = both(seed=3)[which](batch)
    for x, options, scale, low in [
        (unit(batch), {}, 255, 0),
        (batch.astype(np.float32), {"value_range": (0, 255)}, 1, 0),
        (unit(batch) * 2 - 1, {"value_range": (-1, 1)}, 127.5, 127.5),
    ]:
        other = both(seed=3, **options)[which](x)
        np.testing.assert_allclose(np.asarray(other[0]) * scale + low, views[0], atol=0.01)


@pytest.mark.parametrize("which", [0, 1])
def test_same_seed_same_views(which: int) -> None:
    batch = pictures()
    first, again, other = both(seed=5)[which], both(seed=5)[which], both(seed=6)[which]
    views = first(batch)
    np.testing.assert_array_equal(views, again(batch))
    assert not np.allclose(views, other(batch))
    later = first(batch)
    assert not np.allclose(views, later)
    np.testing.assert_array_equal(later, again(batch))
    np.testing.assert_array_equal(first.views(batch, 2, seed=9), other.views(batch, 2, seed=9))
    assert not np.allclose(first.views(batch, 2, seed=9), first.views(batch, 2, seed=10))


@pytest.mark.parametrize("which", [0, 1])
def test_works_within_tf_data(which: int) -> None:
    augmenter = both(seed=5)[which]
    ds = tf.data.Dataset.from_tensor_slices(pictures()).batch(4).map(lambda x: tuple(augmenter.augment(x, None, 2, False)))
    assert [tuple(view.shape for view in views) for views in ds] == [((4, 7, 8, 3),) * 2, ((2, 7, 8, 3),) * 2]


def test_warmup_and_evaluation_only_resize() -> None:
    batch = pictures()
    whole = np.asarray(images.resample(unit(batch), images.centre_box(unit(batch)), 7, 8)) * 255
    np.testing.assert_allclose(both(seed=1)[1](batch, is_warmup=True)[0], whole, atol=1e-3)
    np.testing.assert_allclose(SimCLRAugmenter(7, 8, is_training=False, crop=False)(batch)[1], whole, atol=1e-3)
    middle = SimCLRAugmenter(7, 8, is_training=False, eval_crop_proportion=1 / 3)(batch)[0]
    np.testing.assert_allclose(middle[0], naive_resample(batch[0], (3, 4, 3, 4), 7, 8), atol=1e-3)


def test_wrong_images_and_arguments() -> None:
    augmenter = SimCLRAugmenter(7, 8)
    for shape in [(6, 9, 12), (6, 9, 12, 4), (6, 9)]:
        with pytest.raises(InvalidArgumentError, match=r"images are \[n, height, width, 1 or 3\]"):
            augmenter(np.zeros(shape, np.uint8))
    with pytest.raises(InvalidArgumentError, match=r"pixels go from 0 to 255, but float32 images .* 0 to 1: give value_range"):
        augmenter(np.array([0, 255], np.float32).reshape(1, 1, 2, 1))
    for make, message in [
        (lambda: SimCLRAugmenter(0, 8), "at least 1 pixel"),
        (lambda: SimCLRAugmenter(7, 8, version="v3"), "version is 'v1' or 'v2'"),
        (lambda: SimCLRAugmenter(7, 8, eval_crop_proportion=0), "eval_crop_proportion"),
        (lambda: BarlowAugmenter(7, 8, value_range=(1, 0)), "value_range is"),
        (lambda: ContrastiveAugmenter(3), "process is a function"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            make()
    assert SimCLRAugmenter(7, 8, jitter_stength=0.5).jitter_strength == 0.5  # TensorFlow Similarity's spelling


# -- the operations ----------------------------------------------------------------------------------------------------


def naive_resample(image: Image, box: tuple[float, float, float, float], height: int, width: int) -> Image:
    """Bilinear, with a triangle as wide as the step where that is more than a pixel."""
    top, left, tall, wide = box

    def weights(start: float, length: float, n_out: int, n_in: int, out: int) -> list[float]:
        step = length / n_out
        place = start + (out + 0.5) * step - 0.5
        raw = [max(0.0, 1 - abs(place - pixel) / max(step, 1.0)) for pixel in range(n_in)]
        return [one / sum(raw) for one in raw]

    result = np.zeros((height, width, image.shape[2]))
    for row in range(height):
        for column in range(width):
            for i, down in enumerate(weights(top, tall, height, image.shape[0], row)):
                for j, across in enumerate(weights(left, wide, width, image.shape[1], column)):
                    result[row, column] += down * across * image[i, j]
    return result


@pytest.mark.parametrize(("height", "width"), [(9, 12), (5, 4), (14, 20)])
def test_resample_against_loops(height: int, width: int) -> None:
    batch = unit(pictures(2))
    boxes = [(0.0, 0.0, 9.0, 12.0), (2.3, 1.7, 4.1, 9.5)]
    columns = tuple(np.array(values, np.float32) for values in zip(*boxes, strict=True))
    result = np.asarray(images.resample(batch, columns, height, width))
    for image, box, found in zip(batch, boxes, result, strict=True):
        np.testing.assert_allclose(found, naive_resample(image, box, height, width), atol=1e-5)
    mirrored = images.resample(batch, columns, height, width, is_flipped=np.array([False, True]))
    np.testing.assert_allclose(mirrored[0], result[0], atol=1e-6)
    np.testing.assert_allclose(mirrored[1], result[1, :, ::-1], atol=1e-6)


def test_whole_image_at_its_size_is_itself() -> None:
    batch = unit(pictures())
    np.testing.assert_allclose(images.resample(batch, images.centre_box(batch), 9, 12), batch, atol=1e-6)


def test_boxes_lie_within_the_image_and_have_their_share() -> None:
    batch = np.zeros((4000, 30, 40, 1), np.float32)
    for box, low, high in [
        (images.random_area_box(batch, drawn(), area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)), 0.07, 1.0),
        (images.random_side_box(batch, drawn(), side=(0.75, 1.0)), 0.5625, 1.0),
    ]:
        top, left, tall, wide = map(np.asarray, box)
        assert (top >= 0).all() and (left >= 0).all()
        assert (top + tall <= 30.001).all() and (left + wide <= 40.001).all()
        share = tall * wide / 1200
        assert low <= share.min() < low + 0.05 and high - 0.05 < share.max() <= high + 1e-5
        ratio = (wide / 40) / (tall / 30)
        assert ratio.min() > 0.74 and ratio.max() < 1.34
        assert np.std(top) > 1 and np.std(left) > 1


def test_blur_against_loops() -> None:
    batch = unit(pictures(1))
    found = np.asarray(images.blur(batch, drawn(), probability=1.0, sigma=(1.3, 1.3)))[0]

    def weights(place: int, count: int) -> list[float]:
        raw = [math.exp(-((place - pixel) ** 2) / (2 * 1.3**2)) for pixel in range(count)]
        return [one / sum(raw) for one in raw]

    for row, column in [(0, 0), (4, 6), (8, 11)]:
        wanted = sum(
            down * across * batch[0, i, j]
            for i, down in enumerate(weights(row, 9))
            for j, across in enumerate(weights(column, 12))
        )
        np.testing.assert_allclose(found[row, column], wanted, atol=1e-5)
    np.testing.assert_allclose(images.blur(batch, drawn(), probability=0.0, sigma=(0.1, 2.0)), batch, atol=1e-6)
    even = np.full((1, 9, 12, 3), 0.3, np.float32)
    np.testing.assert_allclose(images.blur(even, drawn(), probability=1.0, sigma=(1.0, 2.0)), even, atol=1e-6)


def test_probabilities() -> None:
    batch = unit(pictures(1))
    many = np.broadcast_to(batch, (3000, 9, 12, 3))
    assert np.asarray(images.happens(many, 0.2, drawn())).mean() == pytest.approx(0.2, abs=0.03)
    inverted = np.asarray(images.solarize(many, drawn(), probability=0.3, threshold=0.5))
    is_inverted = (inverted != many).any(axis=(1, 2, 3))
    assert is_inverted.mean() == pytest.approx(0.3, abs=0.03)
    wanted = np.where(batch[0] >= 0.5, 1 - batch[0], batch[0])
    np.testing.assert_allclose(inverted[is_inverted], np.broadcast_to(wanted, inverted[is_inverted].shape), atol=1e-6)
    grey = np.asarray(jittered(many, grey_probability=0.2))
    is_grey = np.ptp(grey, axis=-1).max(axis=(1, 2)) < 1e-4
    assert is_grey.mean() == pytest.approx(0.2, abs=0.03)
    luma = batch[0] @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey[is_grey][0], np.repeat(luma[..., None], 3, axis=-1), atol=1e-4)
    np.testing.assert_allclose(grey[~is_grey][0], batch[0], atol=1e-4)


def jittered(batch: Image, **options: Any) -> Any:
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "is_additive": False}
    return images.color_jitter(batch, drawn(), **{**still, "jitter_probability": 1.0, "grey_probability": 0.0, **options})


def test_brightness_is_a_factor_or_a_summand() -> None:
    grey = np.full((4000, 1, 1, 1), 0.4, np.float32)
    factors = np.asarray(jittered(grey, brightness=0.5)).ravel() / 0.4
    assert 0.5 <= factors.min() < 0.52 and 1.48 < factors.max() <= 1.5 and factors.mean() == pytest.approx(1, abs=0.02)
    added = np.asarray(jittered(grey, brightness=0.3, is_additive=True)).ravel() - 0.4
    assert -0.3001 <= added.min() < -0.29 and 0.29 < added.max() <= 0.3001
    mixed = np.asarray(jittered(grey, brightness=0.5, jitter_probability=0.8)).ravel()
    assert (np.abs(mixed - 0.4) < 1e-6).mean() == pytest.approx(0.2, abs=0.03)


def test_contrast_keeps_the_mean_and_colour_the_luma() -> None:
    batch = (0.4 + 0.2 * unit(pictures(50))).astype(np.float32)  # in the middle: nothing is clipped
    found = np.asarray(jittered(batch, contrast=0.6))
    np.testing.assert_allclose(found.mean(axis=(1, 2)), batch.mean(axis=(1, 2)), atol=1e-5)
    ratio = found.std(axis=(1, 2)) / batch.std(axis=(1, 2))
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-3)
    assert 0.4 <= ratio.min() < 0.6 and 1.4 < ratio.max() <= 1.601
    found = np.asarray(jittered(batch, saturation=0.6, hue=0.2))
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found @ luma, batch @ luma, atol=1e-4)
    assert np.abs(found - batch).max() > 0.02
    even = np.repeat(batch[..., :1], 3, axis=-1)
    np.testing.assert_allclose(jittered(even, saturation=0.6, hue=0.2), even, atol=1e-4)


def test_hue_turns_a_colour_by_its_angle() -> None:
    """A third of a circle in YIQ, there and back in steps; the angles are uniform within ± hue."""
    colour = np.broadcast_to(np.array([0.55, 0.45, 0.5], np.float32), (2000, 1, 1, 3))
    to_iq = np.array([(0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    i, q = to_iq @ colour[0, 0, 0]
    found = np.asarray(jittered(colour, hue=0.2))[:, 0, 0] @ to_iq.T
    turned = np.angle((found[:, 0] + 1j * found[:, 1]) / (i + 1j * q)) / (2 * np.pi)
    assert -0.2001 <= turned.min() < -0.19 and 0.19 < turned.max() <= 0.2001
    np.testing.assert_allclose(np.hypot(found[:, 0], found[:, 1]), math.hypot(i, q), atol=1e-4)


# -- in samplers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_samplers_give_augmenters_their_seed(workers: int) -> None:
    """Also with threads: what a batch draws depends on its number alone."""

    def made(seed: int) -> list[Any]:
        got: list[Any] = []

        class Keeping(keras.Model):  # type: ignore[misc]
            def train_step(self, data: Any) -> dict[str, Any]:
                got.append(tuple(np.asarray(part) for part in data))
                return {"loss": keras.ops.zeros(())}

        model = Keeping()
        model.compile(run_eagerly=True)
        sampler = MultiShotMemorySampler(
            pictures(12), np.arange(12) // 4, 3, 2, 20, augmenter=SimCLRAugmenter(7, 8), seed=seed, workers=workers
        )
        model.fit(sampler, epochs=2, shuffle=False, verbose=0)
        return got

    first, again, other = made(1), made(1), made(2)
    assert len(first) == 40 and first[0][0].shape == (6, 7, 8, 3) and first[0][1].shape == (6,)
    for (x, y), (x_again, y_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)
    assert not np.allclose(first[0][0], other[0][0])


def test_single_shot_views_and_warmup() -> None:
    sampler = SingleShotMemorySampler(
        pictures(12), SimCLRAugmenter(9, 12, eval_crop_proportion=1.0), 4, steps_per_epoch=2, warmup=1, seed=1
    )
    x, y = sampler[0]
    assert x.shape == (8, 9, 12, 3) and x.dtype == np.float32
    np.testing.assert_allclose(x, pictures(12)[y], atol=1e-3)  # warm-up: twice the image
    assert sampler[1][1].shape == (8,)
    sampler.on_epoch_end()
    x, y = sampler[0]
    assert not np.allclose(x, pictures(12)[y], atol=1) and not np.allclose(x[:4], x[4:], atol=1)
    first, second = SingleShotMemorySampler(pictures(12), SimCLRAugmenter(7, 8), 4, separate_views=True)[0]
    assert first.shape == second.shape == (4, 7, 8, 3)


# -- by a function -----------------------------------------------------------------------------------------------------


def test_contrastive_augmenter_by_function_and_by_layer() -> None:
    batch = unit(pictures())
    calls: list[Any] = []

    def process(image: Any) -> Any:
        calls.append(tuple(image.shape))
        return image * 2

    views = ContrastiveAugmenter(process)(batch, None, 3)
    assert len(views) == 3 and set(calls) == {(9, 12, 3)}
    np.testing.assert_allclose(views[2], batch * 2)
    layer = keras.layers.RandomFlip("horizontal", seed=1)
    found = np.asarray(ContrastiveAugmenter(layer)(batch)[0])
    is_flipped = [bool(np.allclose(one, image[:, ::-1])) for one, image in zip(found, batch, strict=True)]
    is_kept = [bool(np.allclose(one, image)) for one, image in zip(found, batch, strict=True)]
    assert all(a != b for a, b in zip(is_flipped, is_kept, strict=True)) and any(is_flipped)


def test_an_augmenter_of_ones_own() -> None:
    class Twice(Augmenter):
        def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> list[Any]:
            return [x, x + 1][:num_augmentations_per_example]

    with pytest.raises(TypeError, match="abstract"):
        Augmenter()  # type: ignore[abstract]
    x, y = SingleShotMemorySampler(np.arange(5), Twice(), 3, seed=1)[0]
    np.testing.assert_array_equal(x, np.concatenate([y[:3], y[:3] + 1]))
