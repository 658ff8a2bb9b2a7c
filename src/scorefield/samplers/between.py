"""Times between the levels of a table, for the solvers that ask for them."""

from __future__ import annotations

from typing import TypeVar

from scorefield.models.foreign import model_like, on_process
from scorefield.process.base import GaussianProcess
from scorefield.process.continuous import Interpolated
from scorefield.process.discrete import DiscreteProcess
from scorefield.runtime.checks import brief
from scorefield.runtime.errors import IncompatibleModel

__all__ = ["between_levels"]

M = TypeVar("M")


def between_levels(model: M) -> M:
    """The model, or classifier, with a level at every real t: on `Interpolated` where its process is a table
    of levels.

    A shallow copy, wrappers and all, that shares the network; the model itself where its process is
    continuous. A classifier that guides must be given its own before it is put around the model.

    Args:
        model: The model or classifier; one of one's own has the attribute `process`.

    Raises:
        IncompatibleModel: For models that have no meaning between levels: those of parametrization "mean" and of
            noise_input "rank".
    """
    asked = model_like(model)
    if isinstance(asked.process, GaussianProcess) and not asked.process.is_discrete:
        return model
    if not isinstance(asked.process, DiscreteProcess):
        raise IncompatibleModel(f"{brief(model)} has no table of levels that could be interpolated")
    if asked.keeps_to_levels is not None:
        raise IncompatibleModel(
            f"{asked.keeps_to_levels} is defined only at the integer t of a table, so this model has no times "
            "between its levels: use Ancestral, DDIM, Euler, Heun without churn or DPMSolver2M"
        )
    return on_process(model, Interpolated(asked.process))
