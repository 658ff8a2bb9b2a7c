"""Times between the levels of a table, for the solvers that ask for them."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from scorefield.models.denoiser import layers
from scorefield.process.continuous import ContinuousProcess, Interpolated
from scorefield.runtime.errors import IncompatibleModel

__all__ = ["between_levels", "need_between_levels"]


def between_levels(model: Any) -> Any:
    """The model, or classifier, with a level at every real t: on `Interpolated` where its process is a table
    of levels.

    A shallow copy, wrappers and all, that shares the network; the model itself where its process is
    continuous. A classifier that guides must be given its own before it is put around the model.
    IncompatibleModel for models that have no meaning between levels: those of parametrization "mean" and of
    noise_input "rank".
    """
    if isinstance(model.process, ContinuousProcess):
        return model
    *_, inner = layers(model)
    for name, value in (("parametrization", "mean"), ("noise_input", "rank")):
        if getattr(inner, name, None) == value:
            raise IncompatibleModel(
                f'{name}="{value}" is defined at the integer t of a table only, so this model cannot be asked about times between '
                "its levels: Ancestral, DDIM, Euler, Heun without churn and DPMSolver2M keep to the levels"
            )
    return _on(model, Interpolated(model.process))


def need_between_levels(sampler: object, model: Any) -> None:
    """IncompatibleModel unless the model's process has a level at every real t."""
    if not isinstance(model.process, ContinuousProcess):
        raise IncompatibleModel(
            f"{sampler} asks for times between the levels of this process, which is a table of them: give it "
            "sf.samplers.between_levels(model), whose process is sf.process.Interpolated, or use a sampler that keeps to the levels, "
            "such as DPMSolver2M or Heun without churn"
        )


def _on(model: Any, process: ContinuousProcess) -> Any:
    model = copy.copy(model)
    if isinstance(model, nn.Module):  # of which a shallow copy shares the table of its parts
        model._modules = dict(model._modules)
    model.process = process
    if hasattr(model, "model"):
        model.model = _on(model.model, process)
    return model
