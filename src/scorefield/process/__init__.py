"""Processes: what is q(x_t given x_0)?"""

from scorefield.process.base import GaussianProcess, Process
from scorefield.process.categorical import CategoricalProcess, absorbing, uniform_categorical
from scorefield.process.continuous import ContinuousProcess, Interpolated, continuous_ve, continuous_vp, edm
from scorefield.process.discrete import DiscreteProcess, from_betas, from_sigmas
from scorefield.process.schedules import (
    cosine_betas,
    cosine_kappas,
    geometric_sigmas,
    kappas_from_betas,
    linear_betas,
    linear_kappas,
)

__all__ = [
    "CategoricalProcess",
    "ContinuousProcess",
    "DiscreteProcess",
    "GaussianProcess",
    "Interpolated",
    "Process",
    "absorbing",
    "continuous_ve",
    "continuous_vp",
    "cosine_betas",
    "cosine_kappas",
    "edm",
    "from_betas",
    "from_sigmas",
    "geometric_sigmas",
    "kappas_from_betas",
    "linear_betas",
    "linear_kappas",
    "uniform_categorical",
]
