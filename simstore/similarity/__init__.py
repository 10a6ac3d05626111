"""Similarity learning on Keras 3: what TensorFlow Similarity began, with a Store as the index.

Train an embedding model, index items with it, look up neighbours, and calibrate the distance at which two items count as
the same. Modules and names are TensorFlow Similarity's (0.17); what changed, and why, stands in the README.

Example:
    >>> from simstore.similarity.layers import MetricEmbedding  # doctest: +SKIP
    >>> from simstore.similarity.losses import MultiSimilarityLoss  # doctest: +SKIP
    >>> from simstore.similarity.models import SimilarityModel  # doctest: +SKIP
"""

from simstore.embedders.keras import import_keras

import_keras()  # every module here needs it: without Keras this is where one learns what to install

# keras.saving.load_model finds the classes of modules that were imported
from simstore.similarity import augmenters, distances, layers, losses, models, schedules, training_metrics  # noqa: E402, F401
