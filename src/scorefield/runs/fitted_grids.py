"""Grids fitted to a run, kept in its folder: each is made once for its weights, its number of steps and what is sampled."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from scorefield.generation.sampling import Sampling
from scorefield.process.base import GaussianProcess
from scorefield.runtime.atomic import make_folder, write_file
from scorefield.runtime.errors import InputError
from scorefield.runtime.progress import Reporter
from scorefield.runtime.reading import read_json
from scorefield.samplers.fitting import fitting_calls, reference_count
from scorefield.store.run_folder import RunFolder

__all__ = ["fitted_grid"]


def fitted_grid(sampling: Sampling, n: int | None, folder: RunFolder, progress: Reporter) -> Tensor:
    """The grid of n steps fitted to what `sampling` samples: that of the run's folder, or a new one that is kept there.

    Args:
        sampling: What is sampled, on any grid.
        n: Number of steps.
        folder: The run's.
        progress: Receives the cost, before anything is computed.

    Raises:
        InputError: Without a number of steps.
        IncompatibleModel: For a model without noise levels, and for a sampler that adds noise.
    """
    if n is None:
        raise InputError("a fitted grid needs a number of steps: give steps", command="--steps K")
    made_for = {name: value for name, value in sampling.identity(0).items() if name not in ("seed", "grid")}
    made_for["steps"] = n
    key = hashlib.sha256(json.dumps(made_for, sort_keys=True).encode()).hexdigest()[:16]
    path = folder.grids / f"{key}.json"
    if path.is_file():
        kept = read_json(path, "a fitted grid")
        if isinstance(kept, dict) and kept.get("made_for") == made_for and "times" in kept:
            return torch.tensor(kept["times"])
    if isinstance(sampling.model.process, GaussianProcess):  # others are refused by the fit itself
        count, calls = (
            reference_count(sampling.spec.shape, n),
            fitting_calls(sampling.model.process, n, sampler=sampling.sampler),
        )
        progress.say(
            f"fitting a grid of {n} steps to this run: at most {calls:,} network calls with {count} samples, as much as "
            f"{calls * count // sampling.calls:,} samples on it take; kept in {path.parent}"
        )
    times = sampling.fitted_grid(n)
    try:
        make_folder(path.parent)
        write_file(path, json.dumps({"made_for": made_for, "times": times.tolist()}, indent=1))
    except OSError as fault:  # the run of someone else
        progress.say(f"the grid is not kept: {fault}")
    return times
