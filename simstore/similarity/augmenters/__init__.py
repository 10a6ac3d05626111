"""Augmenters: from a batch of images, views of them that show the same. For the samplers' ``augmenter=``, or by themselves."""

from simstore.similarity.augmenters.augmenter import Augmenter
from simstore.similarity.augmenters.barlow import BarlowAugmenter
from simstore.similarity.augmenters.contrastive import ContrastiveAugmenter
from simstore.similarity.augmenters.simclr import SimCLRAugmenter

__all__ = ["Augmenter", "BarlowAugmenter", "ContrastiveAugmenter", "SimCLRAugmenter"]
