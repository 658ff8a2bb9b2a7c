"""Evaluation: figures that say how good samples are, each next to that of held-out real images."""

from scorefield.evaluation.copies import copying_ratio, nearest_distances
from scorefield.evaluation.features import FeatureNet, train_classifier
from scorefield.evaluation.frechet import Moments, frechet_distance
from scorefield.evaluation.quality import Quality, quality

__all__ = [
    "FeatureNet",
    "Moments",
    "Quality",
    "copying_ratio",
    "frechet_distance",
    "nearest_distances",
    "quality",
    "train_classifier",
]
