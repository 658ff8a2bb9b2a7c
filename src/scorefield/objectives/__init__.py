"""Objectives: what is minimised?"""

from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.denoising import Simple

__all__ = ["Loss", "Objective", "Simple"]
