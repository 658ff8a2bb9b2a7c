"""Processes: what is q(x_t given x_0)?"""

from scorefield.process.base import GaussianProcess, Process
from scorefield.process.categorical import (
    CategoricalProcess,
    absorbed_categories,
    absorbing,
    uniform_categorical,
    uniform_categories,
)
from scorefield.process.continuous import ContinuousProcess, Interpolated, edm, flow, sub_vp, ve, vp
from scorefield.process.discrete import (
    DiscreteProcess,
    cosine,
    from_betas,
    from_sigmas,
    geometric,
    linear,
    zero_terminal_snr,
)
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
    "absorbed_categories",
    "absorbing",
    "cosine",
    "cosine_betas",
    "cosine_kappas",
    "edm",
    "flow",
    "from_betas",
    "from_sigmas",
    "geometric",
    "geometric_sigmas",
    "kappas_from_betas",
    "linear",
    "linear_betas",
    "linear_kappas",
    "sub_vp",
    "uniform_categorical",
    "uniform_categories",
    "ve",
    "vp",
    "zero_terminal_snr",
]
