"""Image models for similarity learning: a known backbone, pooling, and a MetricEmbedding on top."""

from simstore.similarity.architectures.efficientnet import EfficientNetSim
from simstore.similarity.architectures.resnet18 import ResNet18Sim
from simstore.similarity.architectures.resnet50 import ResNet50Sim

__all__ = ["EfficientNetSim", "ResNet18Sim", "ResNet50Sim"]
