"""Losses for embeddings: of labelled examples (MetricLoss), and of two views of the same examples (ContrastiveLoss).

Each is a function in keras.ops (``…_loss``) and a class for ``model.compile(loss=…)``, which Keras saves.
"""

from simstore.similarity.losses.arcface_loss import ArcFaceLoss, arcface_loss
from simstore.similarity.losses.barlow import Barlow, barlow_loss
from simstore.similarity.losses.circle_loss import CircleLoss, circle_loss
from simstore.similarity.losses.lifted_structure_loss import LiftedStructLoss, lifted_struct_loss
from simstore.similarity.losses.metric_loss import ContrastiveLoss, MetricLoss, PairLoss
from simstore.similarity.losses.mining import Pairs, pairs_of
from simstore.similarity.losses.multinegrank_loss import MultiNegativesRankLoss, multineg_ranking_loss
from simstore.similarity.losses.multisim_loss import MultiSimilarityLoss, multisimilarity_loss
from simstore.similarity.losses.pn_loss import PNLoss, pn_loss
from simstore.similarity.losses.proxy_anchor_loss import ProxyAnchorLoss, proxy_anchor_loss
from simstore.similarity.losses.simclr import SimCLRLoss, simclr_loss
from simstore.similarity.losses.simsiam import SimSiamLoss, simsiam_loss
from simstore.similarity.losses.softnn_loss import SoftNearestNeighborLoss, soft_nn_loss
from simstore.similarity.losses.supcon_loss import SupConLoss, supcon_loss
from simstore.similarity.losses.track import set_training, track
from simstore.similarity.losses.triplet_loss import TripletLoss, triplet_loss
from simstore.similarity.losses.vicreg import VicReg, vicreg_loss
from simstore.similarity.losses.xbm_loss import XBM

__all__ = [
    "XBM",
    "ArcFaceLoss",
    "Barlow",
    "CircleLoss",
    "ContrastiveLoss",
    "LiftedStructLoss",
    "MetricLoss",
    "MultiNegativesRankLoss",
    "MultiSimilarityLoss",
    "PNLoss",
    "PairLoss",
    "Pairs",
    "ProxyAnchorLoss",
    "SimCLRLoss",
    "SimSiamLoss",
    "SoftNearestNeighborLoss",
    "SupConLoss",
    "TripletLoss",
    "VicReg",
    "arcface_loss",
    "barlow_loss",
    "circle_loss",
    "lifted_struct_loss",
    "multineg_ranking_loss",
    "multisimilarity_loss",
    "pairs_of",
    "pn_loss",
    "proxy_anchor_loss",
    "set_training",
    "simclr_loss",
    "simsiam_loss",
    "soft_nn_loss",
    "supcon_loss",
    "track",
    "triplet_loss",
    "vicreg_loss",
]
