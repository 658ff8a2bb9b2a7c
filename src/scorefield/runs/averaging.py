"""Averages of another length, made of those that training stored.  [Karras et al. 2024a Sec. 3.2]"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scorefield.runs.opened import OpenedRun
from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import as_path, reading
from scorefield.runtime.weights import open_tensors
from scorefield.store.run_folder import RunFolder
from scorefield.training.checkpoint import save_weights
from scorefield.training.power_profiles import Profile, combination, difference, exponent

__all__ = ["Averaged", "average_run"]

_NAME = re.compile(r"step-(\d+)-profile-([0-9.e-]+)\.safetensors", re.ASCII)


@dataclass(frozen=True)
class Averaged:
    """What `average_run` did.

    Attributes:
        run: The new run.
        length: σ_rel of its weights.
        step: The step of the average.
        stored: How many stored averages it is made of.
        error: The norm of the difference between its profile and the wanted one, as a share of the wanted one's norm.
    """

    run: Path
    length: float
    step: int
    stored: int
    error: float


def average_run(run: OpenedRun, length: float, new: str | Path, step: int | None = None) -> Averaged:
    """Write a run whose weights are an average of another length.

    Args:
        run: A run that was trained with `training.ema_profiles`.
        length: σ_rel, from 0.001 to 0.2886.
        new: The folder of the new run.
        step: The step of the average. Default: the last step that averages are stored of.

    Raises:
        InputError: For a run without stored averages, a length or step out of range, and a folder that is not free.
    """
    exponent(length)
    target = RunFolder(as_path(new, "a run"))
    target.check_free()
    description = run.folder.read_config()
    trained = description.get("trained_on", {})
    files = _stored(run, step)
    wanted = Profile(max(profile.step for profile in files), float(f"{length:g}"))
    profiles = list(files)
    weights = combination(profiles, wanted)
    used = [(files[profile], weight) for profile, weight in zip(profiles, weights, strict=True) if weight]
    tensors = _combined(used, files[max(profiles)])
    said = f"EMA of length {wanted.length:g} at step {wanted.step}, from {len(used)} stored averages"
    with target.whole() as folder:
        save_weights(folder.weights, tensors)
        folder.write_config({**description, "trained_on": {**trained, "average": said}})
    return Averaged(target.path, wanted.length, wanted.step, len(used), difference(profiles, weights, wanted))


def _stored(run: OpenedRun, step: int | None) -> dict[Profile, Path]:
    """The stored averages up to a step."""
    run.recipe  # noqa: B018  (what is no run is said to be none)
    found = {}
    with reading(run.folder.profiles):
        for path in sorted(run.folder.profiles.glob("step-*.safetensors")):
            if match := _NAME.fullmatch(path.name):
                found[Profile(int(match[1]), float(match[2]))] = path
    if run.step is not None:  # what a training left behind that went back to an earlier checkpoint
        found = {profile: path for profile, path in found.items() if profile.step <= (run.step or 0)}
    if not found:
        raise InputError(
            f"{run.path} has no stored averages: train it with ema_profiles, such as [0.05, 0.1]",
            command="--set training.ema_profiles=[0.05,0.1]",
        )
    steps = sorted({profile.step for profile in found})
    if step is None:
        return found
    if positive_int("step", step) not in steps:
        raise InputError(f"averages are stored of the steps {', '.join(map(str, steps))}; got step {step}")
    return {profile: path for profile, path in found.items() if profile.step <= step}


def _combined(parts: Sequence[tuple[Path, float]], newest: Path) -> dict[str, Tensor]:
    """The combination of stored tensors, one file in memory at a time; what is not averaged is that of the newest."""
    last = _read(newest)
    if len(parts) == 1 and parts[0][1] == 1:
        return _read(parts[0][0])
    sums = {
        name: torch.zeros_like(tensor, dtype=torch.float64)
        for name, tensor in last.items()
        if tensor.is_floating_point()
    }
    for path, weight in parts:
        stored = _read(path)
        for name, total in sums.items():
            if name not in stored or stored[name].shape != total.shape:
                raise InputError(f"{path} holds another model: {name} is missing or has another shape")
            total += float(weight) * stored[name].double()
    return last | {name: total.to(last[name].dtype) for name, total in sums.items()}


def _read(path: Path) -> dict[str, Tensor]:
    with open_tensors(path, "a stored average", follow=False) as file:
        return file.tensors()
