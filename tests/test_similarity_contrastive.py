"""ContrastiveModel: two views, no labels."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("keras", reason="needs the extra simstore[keras]")

import keras
from keras import layers
from similarity_models import Array, digits, values

import simstore
from simstore.errors import EmbedderMismatchError, InvalidArgumentError
from simstore.similarity import losses
from simstore.similarity.models import ContrastiveModel, create_contrastive_model
from simstore.similarity.retrieval_metrics import RecallAtK

LOSSES = {
    "simsiam": losses.SimSiamLoss, "simclr": lambda: losses.SimCLRLoss(temperature=0.2),
    "barlow": losses.Barlow, "vicreg": losses.VicReg,
}  # fmt: skip


def backbone(**options: Any) -> Any:
    return keras.Sequential(
        [keras.Input((8, 8)), layers.Flatten(), layers.Dense(64, activation="relu", **options), layers.Dense(64)]
    )


def views(images: Array, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    noisy = [images + rng.normal(0, 0.15, images.shape).astype(np.float32) for _ in range(2)]
    return noisy[0], noisy[1]


def small(algorithm: str = "simsiam", **options: Any) -> Any:
    keras.utils.set_random_seed(3)
    model = create_contrastive_model(backbone(), algorithm=algorithm, dim=32, **options)
    model.compile(keras.optimizers.Adam(2e-3), loss=LOSSES[algorithm]())
    return model


@pytest.mark.parametrize("algorithm", list(LOSSES))
def test_every_algorithm_learns_is_saved_and_goes_on(algorithm: str, tmp_path: Path) -> None:
    images, labels = digits()
    model = small(algorithm)
    first = model.evaluate(*views(images[:256], 9), verbose=0)
    history = model.fit(*views(images[:640], 1), batch_size=64, epochs=4, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] < history[0]
    assert model.evaluate(*views(images[:256], 9), verbose=0) < first
    model.index(images[:1000], labels[:1000])
    assert model.evaluate_retrieval(images[1000:1400], labels[1000:1400], [RecallAtK(k=1)])["recall@1"] > 0.9
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded) is ContrastiveModel and loaded.algorithm == algorithm
    np.testing.assert_array_equal(loaded.predict(images[:20], verbose=0), model.predict(images[:20], verbose=0))
    assert loaded.embedder().spec.fingerprint == model.embedder().spec.fingerprint
    assert int(loaded.optimizer.iterations) == 40
    again = loaded.fit(*views(images[:640], 2), batch_size=64, epochs=1, verbose=0).history["loss"][0]
    assert again < history[0]


def test_every_part_is_trained() -> None:
    images, _ = digits()
    model = small()
    before = {weight.path: values(weight) for weight in model.trainable_variables}
    assert len(before) == sum(len(part.trainable_variables) for part in (model.backbone, model.projector, model.predictor))
    model.fit(*views(images[:256], 1), epochs=1, verbose=0)
    still = [weight.path for weight in model.trainable_variables if np.array_equal(before[weight.path], values(weight))]
    assert still == []


class Product(keras.losses.Loss):
    """100 a + b, of the means of the two: which came first can be told."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return 100 * keras.ops.mean(y_true, axis=-1) + keras.ops.mean(y_pred, axis=-1)


def constant(value: float, dim: int = 2) -> Any:
    """x → value · x."""
    return keras.Sequential(
        [keras.Input((dim,)), layers.Dense(dim, use_bias=False, kernel_initializer=keras.initializers.Identity(value))]
    )


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("simsiam", (100 * 6 + 5 * 60) + (100 * 60 + 5 * 6)),  # L(z1, p2) + L(z2, p1), p = 5 z
        ("simclr", (100 * 6 + 60) + (100 * 60 + 6)),
        ("barlow", 100 * 6 + 60),
        ("vicreg", 100 * 6 + 60),
    ],
)
def test_which_view_meets_which(algorithm: str, expected: float) -> None:
    predictor = constant(5) if algorithm == "simsiam" else None
    model = ContrastiveModel(constant(2), constant(3), predictor, algorithm)
    model.compile("sgd", loss=Product())
    loss = model.evaluate(np.full((4, 2), 1.0), np.full((4, 2), 10.0), verbose=0)
    assert loss == pytest.approx(expected)


def test_simsiam_stops_the_gradient_of_the_projection() -> None:
    """With L = 100 a + b only b has a gradient, which is that of the predictions: d/dw of (5 z2 + 5 z1)."""
    model = ContrastiveModel(constant(2), constant(3), constant(5), "simsiam")
    model.compile(keras.optimizers.SGD(1.0), loss=Product(), run_eagerly=True)  # TensorFlow's graphs update weights too early
    before = values(model.predictor.trainable_variables[0])
    model.train_on_batch(np.full((1, 2), 1.0), np.full((1, 2), 10.0))
    moved = before - values(model.predictor.trainable_variables[0])
    np.testing.assert_allclose(moved, np.full((2, 2), (6 + 60) / 2), rtol=1e-5)


def test_regularisation_counts() -> None:
    x = np.ones((4, 8, 8), np.float32)
    plain = ContrastiveModel(backbone(), constant(1, 64), algorithm="barlow")
    heavy = ContrastiveModel(backbone(kernel_regularizer=keras.regularizers.L2(0.5)), constant(1, 64), algorithm="barlow")
    for model in (plain, heavy):
        model.compile("sgd", loss=Product())
    heavy.set_weights(plain.get_weights())
    kernel = plain.backbone.layers[1].get_weights()[0]
    extra = heavy.evaluate(x, x, verbose=0) - plain.evaluate(x, x, verbose=0)
    assert extra == pytest.approx(0.5 * float((kernel.astype(float) ** 2).sum()), rel=1e-4)


@pytest.mark.parametrize("embedding", ["backbone", "projector"])
def test_embeddings_are_features_or_projections_at_unit_length(embedding: str, tmp_path: Path) -> None:
    images, labels = digits()
    model = small(embedding=embedding)
    assert ContrastiveModel.from_config(model.get_config()).embedding == embedding
    whole = (model.backbone if embedding == "backbone" else model).predict(images[:30], verbose=0)
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    model.attach(tmp_path / "s.sim")
    model.index(images[:30], labels[:30])
    np.testing.assert_allclose(np.stack(model.to_data_frame()["embedding"]), expected, rtol=1e-5, atol=1e-6)
    model.store.close()
    with simstore.open(tmp_path / "s.sim") as store:
        assert store.search(input=images[7], k=1)[0].key == 7
    model.create_index()
    model.index(images[:10])
    model.train_on_batch(*views(images[:64], 1))
    with pytest.raises(EmbedderMismatchError):
        model.single_lookup(images[0])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'simsiam', 'simclr', 'barlow', 'vicreg', not 'moco'"):
        ContrastiveModel(backbone(), constant(1, 64), algorithm="moco")
    with pytest.raises(InvalidArgumentError, match="'backbone' or 'projector', not 'predictor'"):
        small(embedding="predictor")
    with pytest.raises(InvalidArgumentError, match="simsiam needs a predictor"):
        ContrastiveModel(backbone(), constant(1, 64))
    with pytest.raises(InvalidArgumentError, match="barlow has no use for a predictor"):
        ContrastiveModel(backbone(), constant(1, 64), constant(1, 64), "barlow")
    with pytest.raises(InvalidArgumentError, match="backbone is a functional"):
        ContrastiveModel(keras.Sequential([keras.Input((8, 8)), layers.Dense(3)]), constant(1, 3), algorithm="barlow")
    model = small("barlow")
    with pytest.raises(InvalidArgumentError, match="pairs of batches"):
        model.fit(np.ones((4, 8, 8)), verbose=0)
    for labels in (np.arange(4), np.arange(4)[:, None], np.eye(4)):
        with pytest.raises(InvalidArgumentError, match="labels are not learned from"):
            model.fit(np.ones((4, 8, 8)), labels, verbose=0)
    with pytest.raises(InvalidArgumentError, match="EvalCallback"):
        model.compile("adam", loss=losses.Barlow(), metrics=["accuracy"])
    silent = create_contrastive_model(backbone(), algorithm="barlow")
    silent.compile("adam")
    with pytest.raises(InvalidArgumentError, match="with a loss of two views"):
        silent.fit(np.ones((4, 8, 8)), np.ones((4, 8, 8)), verbose=0)
