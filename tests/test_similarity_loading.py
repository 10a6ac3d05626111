"""One import is enough for Keras to load whatever simstore.similarity has."""

import subprocess
import sys
from pathlib import Path

import keras

from simstore.similarity.layers import GeneralizedMeanPooling1D, MetricEmbedding
from simstore.similarity.losses import MultiSimilarityLoss
from simstore.similarity.models import SimilarityModel
from simstore.similarity.training_metrics import DistanceGapMetric

SCRIPT = """
import sys, keras
others = {"matplotlib", "pandas", "sklearn", "PIL"} - set(sys.modules)  # Keras imports what it finds
import simstore.similarity
model = keras.saving.load_model(sys.argv[1])
print(type(model).__name__, model.loss.name, model.layers[-1].units, *others & set(sys.modules))
"""


def test_one_import_is_enough(tmp_path: Path) -> None:
    """And it brings nothing else along."""
    inputs = keras.layers.Input((4, 3))
    model = SimilarityModel(inputs, MetricEmbedding(2)(GeneralizedMeanPooling1D()(inputs)))
    model.compile(keras.optimizers.Adam(), loss=MultiSimilarityLoss(), metrics=[DistanceGapMetric("cosine")])
    model.save(tmp_path / "m.keras")
    run = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path / "m.keras"], capture_output=True, text=True)
    assert run.stdout.split() == ["SimilarityModel", "MultiSimilarityLoss", "2"], run.stderr
