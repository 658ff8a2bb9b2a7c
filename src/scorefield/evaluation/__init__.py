"""Evaluation of samples, models and classifiers; each metric beside its value on held-out data."""

from scorefield.evaluation.catalogue import open_features
from scorefield.evaluation.copies import copying_ratio, nearest_distances
from scorefield.evaluation.efficientnet import imagenet_features
from scorefield.evaluation.evaluator import (
    AccuracyReport,
    Evaluation,
    EvaluationOptions,
    EvaluationTarget,
    evaluate,
    evaluate_each,
)
from scorefield.evaluation.extractors import Extractor, ModuleFeatures, Observed
from scorefield.evaluation.features import FeatureNet, train_classifier
from scorefield.evaluation.frechet import Moments, enough, frechet_distance
from scorefield.evaluation.inception import inception_features
from scorefield.evaluation.inception_score import Score, inception_score
from scorefield.evaluation.kernel import KernelDistance, kernel_distance
from scorefield.evaluation.metric_value import MetricValue
from scorefield.evaluation.noisy_accuracy import NoisyAccuracy, noisy_accuracy
from scorefield.evaluation.precision_and_recall import PrecisionRecall, precision_recall
from scorefield.evaluation.reference import Reference

__all__ = [
    "AccuracyReport",
    "Evaluation",
    "EvaluationOptions",
    "Extractor",
    "FeatureNet",
    "MetricValue",
    "KernelDistance",
    "ModuleFeatures",
    "Moments",
    "NoisyAccuracy",
    "Observed",
    "PrecisionRecall",
    "Reference",
    "Score",
    "EvaluationTarget",
    "copying_ratio",
    "enough",
    "evaluate",
    "evaluate_each",
    "frechet_distance",
    "imagenet_features",
    "inception_features",
    "inception_score",
    "kernel_distance",
    "nearest_distances",
    "noisy_accuracy",
    "open_features",
    "precision_recall",
    "train_classifier",
]
