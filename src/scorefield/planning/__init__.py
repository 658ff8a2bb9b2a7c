"""What training will take: memory counted on tensors without numbers, time from a short trial."""

from scorefield.planning.memory import step_memory
from scorefield.planning.plan import Plan, make_plan

__all__ = ["Plan", "make_plan", "step_memory"]
