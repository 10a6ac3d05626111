"""Pictures of what a model has learned. Those drawn by matplotlib need simstore[viz]; the projector's page needs nothing."""

from simstore.similarity.visualization.confusion import confusion_matrix
from simstore.similarity.visualization.neighbors import viz_neigbors_imgs, viz_neighbors_imgs
from simstore.similarity.visualization.projection import Projection, projector
from simstore.similarity.visualization.views import visualize_views

__all__ = [
    "Projection",
    "confusion_matrix",
    "projector",
    "visualize_views",
    "viz_neigbors_imgs",
    "viz_neighbors_imgs",
]
