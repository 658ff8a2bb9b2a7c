"""Objectives: what is minimised?"""

from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.categorical_vlb import CategoricalVLB
from scorefield.objectives.classify import Classify
from scorefield.objectives.denoising import Simple
from scorefield.objectives.score_matching import (
    denoising_score_matching,
    explicit_score_matching,
    explicit_sliced_score_matching,
    implicit_score_matching,
    projections,
    score_from_energy,
    sliced_score_matching,
    sliced_score_matching_vr,
)
from scorefield.objectives.scores import NCSN, ScoreMatching
from scorefield.objectives.times import (
    ImportanceTimes,
    ListedTimes,
    LogitNormalTimes,
    ShiftedTimes,
    UniformTimes,
)
from scorefield.objectives.vlb import VLB, Hybrid, ddim_weights

__all__ = [
    "NCSN",
    "VLB",
    "CategoricalVLB",
    "Classify",
    "Hybrid",
    "ImportanceTimes",
    "ListedTimes",
    "LogitNormalTimes",
    "Loss",
    "Objective",
    "ScoreMatching",
    "ShiftedTimes",
    "Simple",
    "UniformTimes",
    "ddim_weights",
    "denoising_score_matching",
    "explicit_score_matching",
    "explicit_sliced_score_matching",
    "implicit_score_matching",
    "projections",
    "score_from_energy",
    "sliced_score_matching",
    "sliced_score_matching_vr",
]
