"""Time of a training step, measured on a few steps with synthetic data."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from scorefield.core.noise import NoiseSource
from scorefield.core.shapes import DataSpec
from scorefield.runs.build import Recipe, build_model, build_objective, with_some_sigma
from scorefield.runtime.free_memory import free_memory, system_bytes
from scorefield.training.ema import EMA

__all__ = ["Setting", "Trial", "try_steps"]

_TRIAL_FLOPS = 3e11  # of one step of the trial: seconds on a processor
_TRIAL_STEPS, _TRIAL_SECONDS = 5, 4.0


class Setting(NamedTuple):
    """What is planned: `each` examples a step on each of `devices`."""

    recipe: Recipe
    spec: DataSpec
    kind: str
    dtype: torch.dtype | None
    devices: int
    each: int


class Trial(NamedTuple):
    """What a trial of a few steps has measured.

    Attributes:
        rate: FLOP/s of a device, None where it could not be tried.
        said: Where it comes from, or why there is none.
        process: Bytes of the process on a CPU before the trial.
        largest: Bytes that it had at most during one of a whole batch, the gaps in the heap of the C library
            included; 0 where that is not known.
    """

    rate: float | None
    said: str
    process: int = 0
    largest: int = 0


def try_steps(setting: Setting, operations: int, needed: int) -> Trial:
    """A few steps of training, of as large a part of the batch as takes seconds.

    Args:
        setting: What is trained, and where.
        operations: FLOPs of training on one example.
        needed: Bytes that training takes on the device, as they were counted.
    """
    kind, batch = setting.kind, setting.each
    if kind == "cuda" and not torch.cuda.is_available():
        return Trial(
            None,
            "unknown: this machine has no such device; give --flops (about a third of the data sheet's)",
        )
    while batch > 1 and (operations * batch > _TRIAL_FLOPS or needed > _free(kind) // 2):
        batch, needed = batch // 2, needed // 2
    if operations * batch > 10 * _TRIAL_FLOPS or needed > _free(kind) // 2:
        return Trial(
            None,
            "unknown: the network is too large for a trial on this machine; give --flops, the sustained FLOP/s "
            "of a device",
        )
    _trial(setting, min(batch, 2), steps=1)
    gc.collect()
    _give_back()
    process, whole = (
        _resident() if kind == "cpu" else 0,
        kind == "cpu" and batch == setting.each and _forget_largest(),
    )
    seconds = _trial(setting, batch, steps=_TRIAL_STEPS)
    return Trial(
        operations * batch / seconds,
        f"measured on {batch} examples per step",
        process,
        _largest() if whole else 0,
    )


def _trial(setting: Setting, batch: int, steps: int) -> float:
    """The median time of a step of training on made-up data, in seconds, after one that is not counted."""
    recipe, spec, device = setting.recipe, setting.spec, torch.device(setting.kind)
    model = build_model(with_some_sigma(recipe), spec).to(device)
    model.run_in(setting.dtype)
    objective = build_objective(recipe, model).train()
    optimizer, average = (
        torch.optim.AdamW(objective.parameters(), fused=True),
        EMA(model, recipe.training.ema),
    )
    x0 = (
        torch.zeros(batch, *spec.shape)
        if spec.bins is None
        else spec.from_bins(torch.randint(spec.bins, (batch, *spec.shape)))
    )
    y = torch.randint(spec.num_classes, (batch,)) if objective.needs_labels or model.num_classes > 0 else None
    taken: list[float] = []
    for step in range(steps + 1):
        start = time.perf_counter()
        noise = NoiseSource(0, torch.arange(batch), step)
        x = x0.to(device)
        loss = objective(x, None if y is None else y.to(device), noise, **model.conditioning(x, {}))
        loss.per_example.mean().backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(step + 1)
        _finish(device)
        taken.append(time.perf_counter() - start)
        if sum(taken[1:]) > _TRIAL_SECONDS:
            break
    return statistics.median(taken[1:] or taken)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _give_back() -> None:
    """Return freed memory to the system, so that what is resident is in use; the command keeps it otherwise
    (`cli/memory.py`).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _free(kind: str) -> int:
    """Bytes that can be had now."""
    if kind == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return free_memory()


def _forget_largest() -> bool:
    """Have Linux count the largest size of this process from here on; whether it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _largest() -> int:
    """Bytes of memory that this process has had at most."""
    return system_bytes("/proc/self/status", "VmHWM")


def _resident() -> int:
    """Bytes of memory that this process has now; 0 where the system does not tell."""
    return system_bytes("/proc/self/status", "VmRSS")
