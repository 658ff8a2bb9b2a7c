"""Memory, operations and time of training, estimated before training."""

from scorefield.planning.activation_memory import step_memory
from scorefield.planning.estimate import Plan, make_plan

__all__ = ["Plan", "make_plan", "step_memory"]
