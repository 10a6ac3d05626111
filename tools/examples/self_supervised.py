"""Self-supervised: learn from images without a single label, then index ten labelled ones of each class.

    python tools/examples/self_supervised.py [--dataset NAME] [--algorithm simclr] [--epochs 5] [--steps 100] [--out DIR]

A ContrastiveModel learns to embed two views of an image, moved at random, alike, and views of others apart. Beside the
accuracy of its embeddings stands that of raw pixels, with the same labels. A picture shows pairs of views.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # the environment comes first
import numpy as np
from keras import layers

from simstore.similarity.augmenters import ContrastiveAugmenter
from simstore.similarity.losses import Barlow, SimCLRLoss, SimSiamLoss, VicReg
from simstore.similarity.models import create_contrastive_model
from simstore.similarity.retrieval_metrics import PrecisionAtK
from simstore.similarity.samplers import SingleShotMemorySampler, load_dataset, select_examples
from simstore.similarity.visualization import visualize_views

ROOT = Path(__file__).resolve().parents[2]
MNIST = ROOT.parent / "shared" / "data" / "mnist.npz"
LOSSES = {"simclr": lambda: SimCLRLoss(temperature=0.2), "simsiam": SimSiamLoss, "barlow": Barlow, "vicreg": VicReg}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=str(MNIST) if MNIST.exists() else "digits", metavar="NAME", help="which digits")
    parser.add_argument("--algorithm", choices=LOSSES, default="simclr", help="how to learn (default: simclr)")
    parser.add_argument("--epochs", type=int, default=5, help="rounds of training (default: 5, about a minute)")
    parser.add_argument("--steps", type=int, default=100, help="batches in an epoch (default: 100)")
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out", metavar="DIR", help="where to write (demo-out)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    x, y = load_dataset(options.dataset, splits="train")  # y is for the ten labelled images alone
    sampler = SingleShotMemorySampler(
        x, ContrastiveAugmenter(moved()), 256, steps_per_epoch=options.steps, separate_views=True, seed=0
    )
    visualize_views([view[:8] for view in sampler[0]], max_pixel_value=255).savefig(options.out / "views.png")

    model = create_contrastive_model(backbone(x.shape[1:]), algorithm=options.algorithm)
    model.compile(keras.optimizers.Adam(2e-3), loss=LOSSES[options.algorithm]())
    model.fit(sampler, epochs=options.epochs, verbose=2)

    shots, labels = select_examples(x, y, num_examples_per_class=10, seed=0)
    qx, qy = load_dataset(options.dataset, splits="test")
    model.index(shots, labels, data=shots)
    learned = model.evaluate_retrieval(qx, qy, [PrecisionAtK(k=1)], verbose=0)["precision@1"]
    print(f"by embeddings: {learned:.1%} of {len(qx):,} find the right class next to them; by raw pixels: ", end="")
    print(f"{pixel_accuracy(shots, labels, qx, qy):.1%}")
    return 0


def moved() -> Any:
    """A view of each image: turned, sheared, zoomed and shifted at random."""
    return keras.Sequential(
        [
            layers.RandomRotation(0.06, "constant"),
            layers.RandomShear(0.2, 0.2, fill_mode="constant"),
            layers.RandomZoom(0.2, 0.2, "constant"),
            layers.RandomTranslation(0.12, 0.12, "constant"),
        ]
    )


def backbone(shape: tuple[int, ...]) -> Any:
    """A small convolutional network, to features [128]."""
    inputs = layers.Input(shape)
    x = layers.Rescaling(1 / 255)(inputs)
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(inputs, layers.Dense(128)(layers.Flatten()(x)))


def pixel_accuracy(shots: Any, labels: Any, qx: Any, qy: Any) -> float:
    """How often the nearest image, by Euclidean distance of the pixels, is of the right class."""
    flat, queries = (images.reshape(len(images), -1).astype(np.float32) for images in (shots, qx))
    nearest = [np.square(flat - query).sum(axis=1).argmin() for query in queries]
    return float((labels[nearest] == qy).mean())


if __name__ == "__main__":
    sys.exit(main())
