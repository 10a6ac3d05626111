"""Hello world: train a model to tell digits apart, index some, look one up, and see which answers to believe.

    python tools/examples/hello_world.py [--dataset NAME] [--epochs 5] [--steps 200] [--out DIR]

NAME is the path of an .npz file as Keras' mnist.npz, mnist, or digits: scikit-learn's, which need no download. By default it
is ../shared/data/mnist.npz, beside the repository, if that is there, else digits. It writes pictures of a query with its
neighbours and of what was taken for what, and a map of the embeddings as a page for the browser.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # the environment comes first
from keras import layers

from simstore import label
from simstore.similarity.augmenters import ContrastiveAugmenter
from simstore.similarity.layers import MetricEmbedding
from simstore.similarity.losses import MultiSimilarityLoss
from simstore.similarity.models import SimilarityModel
from simstore.similarity.retrieval_metrics import PrecisionAtK
from simstore.similarity.samplers import TFDatasetMultiShotMemorySampler, load_dataset
from simstore.similarity.visualization import confusion_matrix, projector, viz_neighbors_imgs

ROOT = Path(__file__).resolve().parents[2]
MNIST = ROOT.parent / "shared" / "data" / "mnist.npz"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=str(MNIST) if MNIST.exists() else "digits", metavar="NAME", help="which digits")
    parser.add_argument("--epochs", type=int, default=5, help="rounds of training (default: 5, one or two minutes)")
    parser.add_argument("--steps", type=int, default=200, help="batches in an epoch (default: 200)")
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out", metavar="DIR", help="where to write (demo-out)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    sampler = digit_sampler(options.dataset, options.steps)
    model = digit_model(sampler.example_shape)
    model.compile("adam", loss=MultiSimilarityLoss())
    model.fit(sampler, epochs=options.epochs, verbose=2)

    x, y = sampler.get_slice(0, 1000)
    model.index(x, y, data=x)
    qx, qy = load_dataset(options.dataset, splits="test")
    print(model.evaluate_retrieval(qx, qy, [PrecisionAtK(k=1)], verbose=0))
    neighbors = model.single_lookup(qx[0], k=8)
    viz_neighbors_imgs(qx[0], qy[0], neighbors, cmap="gray").savefig(options.out / "neighbors.png")

    # A match that is farther than a threshold is none. To see it work the nines go: now they are of no known class.
    model.store.delete(where=label == 9)
    half = len(qx) // 2
    model.calibrate(qx[:half], qy[:half], verbose=0)
    known = [None if digit == 9 else digit for digit in qy[half:].tolist()]
    axes, _ = confusion_matrix(model.match(qx[half:]), known)
    axes.figure.savefig(options.out / "confusion.png")

    few = slice(0, 2000)
    page = projector(model.embedder().embed(qx[few]), labels=qy[few], images=qx[few], title="Digits not seen in training")
    print(f"pictures and a map: {page.save(options.out / 'map.html').parent}")
    return 0


def digit_sampler(dataset: str, steps: int, *, seed: int = 0) -> Any:
    """Batches of 20 images of each digit, a little shifted: the model is better for it at those that it has not seen."""
    moved = layers.RandomTranslation(0.05, 0.05, fill_mode="constant")
    return TFDatasetMultiShotMemorySampler(
        dataset, classes_per_batch=10, examples_per_class_per_batch=20, steps_per_epoch=steps, splits="train",
        augmenter=ContrastiveAugmenter(moved), seed=seed,
    )  # fmt: skip


def digit_model(shape: tuple[int, ...]) -> Any:
    """A small convolutional network, to vectors of 64 numbers."""
    inputs = layers.Input(shape)
    return SimilarityModel(inputs, MetricEmbedding(64)(digit_features(inputs)))


def digit_features(inputs: Any) -> Any:
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(64, 3, activation="relu")(x)
    x = layers.Flatten()(x)
    return layers.Dense(64, activation="relu")(x)


if __name__ == "__main__":
    sys.exit(main())
