"""Samplers: how is x_s made from x_t?"""

from scorefield.samplers.ancestral import Ancestral
from scorefield.samplers.base import Sampler, Step, sample, trajectory
from scorefield.samplers.categorical import CategoricalAncestral, CategoricalDDIM
from scorefield.samplers.ddim import DDIM
from scorefield.samplers.langevin import Corrected, Langevin
from scorefield.samplers.ode import Euler, Heun

__all__ = [
    "DDIM",
    "Ancestral",
    "CategoricalAncestral",
    "CategoricalDDIM",
    "Corrected",
    "Euler",
    "Heun",
    "Langevin",
    "Sampler",
    "Step",
    "sample",
    "trajectory",
]
