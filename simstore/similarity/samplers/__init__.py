"""Samplers: balanced batches for training, of examples in memory, in files, in a tf.data dataset or in TFRecords.

Every one takes seed=; the same seed gives the same batches.
"""

from simstore.similarity.samplers.datasets import load_dataset, register_dataset
from simstore.similarity.samplers.files import MultiShotFileSampler, load_image
from simstore.similarity.samplers.memory import MultiShotMemorySampler, SingleShotMemorySampler
from simstore.similarity.samplers.sampler import Sampler
from simstore.similarity.samplers.selection import select_examples
from simstore.similarity.samplers.tfdata import TFDataSampler
from simstore.similarity.samplers.tfdataset import TFDatasetMultiShotMemorySampler
from simstore.similarity.samplers.tfrecords import TFRecordDatasetSampler

__all__ = [
    "MultiShotFileSampler",
    "MultiShotMemorySampler",
    "Sampler",
    "SingleShotMemorySampler",
    "TFDataSampler",
    "TFDatasetMultiShotMemorySampler",
    "TFRecordDatasetSampler",
    "load_dataset",
    "load_image",
    "register_dataset",
    "select_examples",
]
