"""Architectures: what they return, what of them trains, and what they make of pixels."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from simstore.errors import InvalidArgumentError
from simstore.similarity.architectures import EfficientNetSim, ResNet18Sim, ResNet50Sim, backbone
from simstore.similarity.losses import MultiSimilarityLoss
from simstore.similarity.models import SimilarityModel
from simstore.similarity.samplers import MultiShotMemorySampler

SHAPE = (32, 32, 3)
IMAGES = np.random.default_rng(1).integers(0, 256, (4, *SHAPE), dtype=np.uint8)


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(1)


def parameters(model: Any) -> int:
    return int(sum(np.prod(weight.shape) for weight in model.trainable_weights))


@pytest.mark.parametrize("make", [EfficientNetSim, ResNet50Sim])
def test_backbones_of_keras_without_weights(make: Any) -> None:
    model = make(SHAPE, embedding_size=8, weights=None)
    assert isinstance(model, SimilarityModel) and model.output_shape == (None, 8)
    assert parameters(model) > 3e6  # nothing is frozen that is random
    embeddings = np.asarray(model(IMAGES))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_parameters_are_those_of_the_papers() -> None:
    model = ResNet18Sim(SHAPE, embedding_size=8)
    # Counted by hand. conv1: 3·3·3·64. Blocks: stage f → g has 9fg + 9gg + fg, then 2·9gg; BN: 2 per channel that trains.
    stages = [(64, 64), (64, 128), (128, 256), (256, 512)]
    convolutions = 27 * 64 + sum(9 * f * g + 9 * g * g + f * g + 18 * g * g for f, g in stages)
    norms = 2 * 64 + sum(2 * 5 * g for _, g in stages)
    assert parameters(model) == convolutions + norms + 512 * 8 + 8
    assert model.get_layer("resnet18").output_shape == (None, 4, 4, 512)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"pooling": None}, (None, 4, 4, 512)),
        ({"include_top": False}, (None, 512)),
        ({"include_top": False, "pooling": "avg"}, (None, 512)),
        ({"pooling": "max"}, (None, 128)),
        ({"l2_norm": False, "embedding_size": 5}, (None, 5)),
    ],
)
def test_head(options: dict[str, Any], shape: tuple[int | None, ...]) -> None:
    assert ResNet18Sim(SHAPE, **options).output_shape == shape


def test_what_trains_with_weights(tmp_path: Path) -> None:
    """Weights of one's own, in a file, stand for those of ImageNet."""
    path = tmp_path / "some.weights.h5"
    keras.applications.ResNet50(weights=None, include_top=False).save_weights(path)

    def trained(trainable: str | None) -> set[str]:
        resnet = ResNet50Sim(SHAPE, weights=str(path), trainable=trainable).get_layer("resnet50")
        return {layer.name for layer in resnet.layers if layer.trainable_weights}

    assert trained(None) == trained("frozen") == set()
    partial, full = trained("partial"), trained("full")
    assert partial == {name for name in full if name.startswith("conv5")} and partial < full
    assert all(name.endswith("_conv") for name in full) and len(full) == 53  # batch normalisation stays as it was
    loaded = ResNet50Sim(SHAPE, weights=str(path)).get_layer("resnet50")
    other = keras.applications.ResNet50(weights=None, include_top=False)
    other.load_weights(path)
    for one, two in zip(loaded.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_partial_training_without_weights() -> None:
    net = EfficientNetSim(SHAPE, weights=None, trainable="partial").get_layer("efficientnetb0")
    trained = {layer.name for layer in net.layers if layer.trainable_weights}
    assert {name[:6] for name in trained} == {"block5", "block6", "block7", "top_co", "top_bn"}


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: Any, **options: Any) -> Any:
        raise Exception("URL fetch failure")

    monkeypatch.setattr("keras.src.applications.resnet.file_utils.get_file", no_network)
    with pytest.raises(InvalidArgumentError, match=r"weights='imagenet' cannot be had \(URL fetch failure\).*weights=None"):
        ResNet50Sim(SHAPE)


@pytest.mark.parametrize("mode", ["torch", "tf", "caffe"])
def test_pixels_become_what_keras_applications_make_of_them(mode: str) -> None:
    inputs = keras.Input(SHAPE)
    ours = keras.Model(inputs, backbone.preprocessed(inputs, mode))
    wanted = keras.src.applications.imagenet_utils.preprocess_input(IMAGES.astype(np.float32), "channels_last", mode)
    np.testing.assert_allclose(ours(IMAGES), wanted, atol=2e-5)
    model = ResNet18Sim(SHAPE, preproc_mode=mode)
    plain = ResNet18Sim(SHAPE, preproc_mode=None)
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(model(IMAGES), plain(wanted), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet18Sim((32, 32)), r"input_shape is \(height, width, channels\)"),
        (lambda: ResNet18Sim((28, 28, 1)), "preproc_mode='torch' is for 3 channels, not 1: 'tf' takes any"),
        (lambda: ResNet18Sim(SHAPE, preproc_mode="max"), "preproc_mode is 'caffe', 'tf', 'torch' or None"),
        (lambda: ResNet18Sim(SHAPE, pooling="mean"), "pooling is 'gem', 'avg', 'max' or None"),
        (lambda: ResNet50Sim(SHAPE, weights=None, trainable="some"), "trainable is 'full', 'partial' or 'frozen'"),
        (lambda: ResNet50Sim((8, 8, 3), weights=None), r"ResNet50 with weights=None and input_shape=\(8, 8, 3\)"),
        (lambda: EfficientNetSim(SHAPE, variant="B8"), "variant is one of B0, B1"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_trains_saves_and_loads(tmp_path: Path) -> None:
    model = ResNet18Sim((12, 12, 1), embedding_size=4, preproc_mode="tf")
    model.compile("adam", loss=MultiSimilarityLoss())
    images = np.random.default_rng(1).integers(0, 256, (8, 12, 12, 1), dtype=np.uint8)
    model.fit(MultiShotMemorySampler(images, np.arange(8) % 2, 2, 2, 1, seed=1), epochs=1, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded(images), model(images), atol=1e-6)
