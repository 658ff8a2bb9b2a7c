"""Samplers: how is x_s made from x_t?"""

from scorefield.samplers.adaptive import Adaptive
from scorefield.samplers.ancestral import Ancestral
from scorefield.samplers.base import Sampler, Step, sample, trajectory
from scorefield.samplers.between import between_levels
from scorefield.samplers.categories import CategoricalAncestral, CategoricalDDIM
from scorefield.samplers.ddim import DDIM
from scorefield.samplers.dpm_solver import DPMSolver2M, DPMSolver2S, DPMSolver3M
from scorefield.samplers.forward_path import forward
from scorefield.samplers.inpaint import Inpaint
from scorefield.samplers.langevin import Langevin, PredictorCorrector
from scorefield.samplers.ode import Euler, Heun
from scorefield.samplers.unipc import UniPC

__all__ = [
    "DDIM",
    "DPMSolver2M",
    "DPMSolver2S",
    "DPMSolver3M",
    "Adaptive",
    "Ancestral",
    "CategoricalAncestral",
    "CategoricalDDIM",
    "PredictorCorrector",
    "Euler",
    "Heun",
    "Inpaint",
    "Langevin",
    "Sampler",
    "Step",
    "UniPC",
    "between_levels",
    "forward",
    "sample",
    "trajectory",
]
