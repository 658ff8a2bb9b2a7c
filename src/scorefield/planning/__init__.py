"""Memory, operations and time of training, estimated before training."""

from scorefield.planning.activation_memory import step_memory
from scorefield.planning.estimate import Plan, make_plan
from scorefield.planning.facts import Cost, cost

__all__ = ["Cost", "Plan", "cost", "make_plan", "step_memory"]
