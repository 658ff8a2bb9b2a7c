"""Processes: what is q(x_t given x_0)?"""

from scorefield.process.base import GaussianProcess
from scorefield.process.continuous import ContinuousProcess, Interpolated, continuous_ve, continuous_vp
from scorefield.process.discrete import DiscreteProcess, from_betas, from_sigmas
from scorefield.process.schedules import cosine_betas, geometric_sigmas, linear_betas

__all__ = [
    "ContinuousProcess",
    "DiscreteProcess",
    "GaussianProcess",
    "Interpolated",
    "continuous_ve",
    "continuous_vp",
    "cosine_betas",
    "from_betas",
    "from_sigmas",
    "geometric_sigmas",
    "linear_betas",
]
