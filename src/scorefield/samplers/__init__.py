"""Samplers: how is x_s made from x_t?"""

from scorefield.samplers.ancestral import Ancestral
from scorefield.samplers.base import Sampler, Step, sample, trajectory
from scorefield.samplers.ddim import DDIM

__all__ = ["DDIM", "Ancestral", "Sampler", "Step", "sample", "trajectory"]
