"""Samplers: balanced batches for training, of examples in memory, in files, in a tf.data dataset or in TFRecords."""

from simstore.similarity.samplers.files import MultiShotFileSampler, load_image
from simstore.similarity.samplers.memory import MultiShotMemorySampler, SingleShotMemorySampler
from simstore.similarity.samplers.sampler import Sampler
from simstore.similarity.samplers.selection import select_examples

__all__ = [
    "MultiShotFileSampler",
    "MultiShotMemorySampler",
    "Sampler",
    "SingleShotMemorySampler",
    "load_image",
    "select_examples",
]
