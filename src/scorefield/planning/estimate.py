"""Estimate of the memory, operations and time of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from scorefield.models.network_model import ModelBase
from scorefield.planning.activation_memory import largest_block, step_memory
from scorefield.planning.facts import cost, readable
from scorefield.planning.trial import Setting, Trial, try_steps
from scorefield.runs.build import Recipe, expected_data, meta_model, recipe_of, with_overrides
from scorefield.runtime.bounds import COUNT
from scorefield.runtime.checks import brief, positive_int
from scorefield.runtime.errors import InputError
from scorefield.runtime.precision import autocast_dtype, pick_device

__all__ = ["Plan", "make_plan"]

_GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """Bytes are of one device, FLOPs and seconds of one step of the whole batch.

    Attributes:
        name: Of the recipe or run.
        devices: How many devices.
        device: "cpu" or "cuda".
        precision: Of the network.
        batch: Examples of a step, over all devices.
        steps: Steps of the training.
        parameters: Number of parameters.
        weights: What a network's parameters take.
        gradients: What their gradients take.
        optimizer: What the optimizer's state takes.
        average: What the moving average takes.
        step: The most that one step takes beyond weights, optimizer and average, gradients included.
        kept: Of it what autograd keeps for an example.
        process: What Python and the libraries take on a CPU, 0 where it was not measured.
        memory: GiB of one device, as given, or None.
        plain: The sum in plain training.
        checkpointed: The sum where activations are recomputed; None for networks that cannot.
        sharded: The sum where the weights are sharded; None for one device.
        parts: The smallest `accumulation` with which it fits plainly, or None.
        fits: Whether and how it fits, in words.
        flops: FLOPs of a step.
        flops_per_second: Of one device, given or measured; None for neither.
        measured: Where that rate comes from.
        seconds: Of a step; None without a rate.
        days: Of the training; None without a rate.
    """

    name: str
    devices: int
    device: str
    precision: str
    batch: int
    steps: int
    parameters: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    step: int
    kept: int
    process: int
    memory: float | None
    plain: int
    checkpointed: int | None
    sharded: int | None
    parts: int | None
    fits: str
    flops: float
    flops_per_second: float | None
    measured: str
    seconds: float | None
    days: float | None

    def rows(self) -> list[tuple[str, str]]:
        """For people."""
        each = self.batch // self.devices
        rows = [
            (
                "planned for",
                f"{self.devices} × {self.device}, {self.precision}, batch {self.batch} ({each} a device)",
            ),
            ("parameters", f"{self.parameters:,}"),
            ("weights", f"{readable(self.weights)}B, gradients as much"),
            ("optimizer, moving average", f"{readable(self.optimizer)}B, {readable(self.average)}B"),
            ("activations kept for the backward pass", f"{readable(self.kept)}B an example"),
            ("peak of a step", f"{readable(self.step)}B besides weights, optimizer and EMA"),
            (
                "memory per device, plain",
                f"{readable(self.plain)}B" + (", including the process itself" if self.process else ""),
            ),
        ]
        if self.checkpointed is not None:
            rows.append(
                ("… with net.checkpoint=true", f"{readable(self.checkpointed)}B, with a third more FLOPs")
            )
        if self.sharded is not None:
            rows.append((f"… sharded over {self.devices} (shard)", f"{readable(self.sharded)}B"))
        rows += [("fits", self.fits), ("FLOPs per step", readable(self.flops))]
        if self.seconds is None or self.days is None or self.flops_per_second is None:
            rows.append(("time", self.measured))
        else:
            rows.append(("speed of one device", f"{readable(self.flops_per_second)}FLOP/s, {self.measured}"))
            rows.append(
                (
                    "time",
                    f"{_time(self.seconds)} a step, {_time(86_400 * self.days)} for {self.steps:,} steps",
                )
            )
        return rows


def make_plan(
    what: str | Recipe,
    devices: int = 1,
    memory: float | None = None,
    batch: int | None = None,
    flops: float | None = None,
    device: str | None = None,
    allow: Sequence[str] = (),
) -> Plan:
    """The plan of training a recipe or a run.

    Args:
        what: Name or file of a recipe, the folder of a run, or a recipe.
        devices: How many devices.
        memory: GiB of one device. Default: memory is counted and not compared.
        batch: Examples of a step, over all devices. Default: the recipe's own.
        flops: Sustained FLOP/s of one device. Default: measured on this machine by a trial of a few steps.
        device: "cpu" or "cuda". Default: "cuda" for several devices, otherwise the fastest one found.
        allow: Modules of the user's own that a recipe or run may name.

    Raises:
        InputError: For unknown recipes, a batch that the devices cannot share equally, and numbers that are
            not positive.
    """
    recipe, is_run = (what, False) if isinstance(what, Recipe) else recipe_of(what, allow)
    kind = device or ("cuda" if devices > 1 else pick_device(None).type)
    spec = expected_data(recipe)
    recipe = recipe.on(kind, spec)
    batch = recipe.training.batch_size if batch is None else batch
    _check(devices, memory, batch, flops, device)
    setting = Setting(recipe, spec, kind, _precision(recipe, kind), devices, batch // devices)
    model = meta_model(recipe, setting.spec)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    needs = _memory(setting, weights, 4 * parameters, model)
    operations = cost(model).training
    trial = Trial(flops, "given") if flops else try_steps(setting, operations, needs.plain)
    needs, rate = needs.beside(trial.process, trial.largest), trial.rate
    limit = None if memory is None else memory * _GIB
    parts = _parts(limit, needs.plain, needs.kept, setting.each)
    seconds = None if rate is None else operations * batch / (rate * devices)
    return Plan(
        name=f"{what} ({recipe.name})" if is_run else recipe.name,
        devices=devices,
        device=kind,
        precision="fp32" if setting.dtype is None else "bf16",
        batch=batch,
        steps=recipe.training.steps,
        parameters=parameters,
        weights=weights,
        gradients=4 * parameters,
        optimizer=8 * parameters,
        average=weights,
        step=needs.step,
        kept=needs.kept,
        process=trial.process,
        memory=memory,
        plain=needs.plain,
        checkpointed=needs.checkpointed,
        sharded=needs.sharded,
        parts=parts,
        fits=_fits(limit, needs, parts),
        flops=float(operations * batch),
        flops_per_second=rate,
        measured=trial.said,
        seconds=seconds,
        days=None if seconds is None else seconds * recipe.training.steps / 86_400,
    )


class _Memory(NamedTuple):
    """Bytes of a device, as in Plan."""

    step: int
    kept: int
    plain: int
    checkpointed: int | None
    sharded: int | None

    def beside(self, process: int, largest: int) -> _Memory:
        """With what the process takes by itself, and at least what a trial took."""
        checkpointed, sharded = (
            None if one is None else one + process for one in (self.checkpointed, self.sharded)
        )
        return self._replace(
            plain=max(self.plain + process, largest), checkpointed=checkpointed, sharded=sharded
        )


def _memory(setting: Setting, weights: int, gradients: int, model: ModelBase) -> _Memory:
    recipe, spec, kind, dtype, devices, each = setting
    states = 2 * weights + 2 * gradients  # weights, their average, two moments
    beside = states + (gradients if devices > 1 else 0)  # and the buckets in which gradients are summed
    step = step_memory(recipe, spec, each, dtype, kind)
    fewer = max(each // 2, 1)
    kept = (
        (step - step_memory(recipe, spec, fewer, dtype, kind)) // (each - fewer)
        if each > fewer
        else max(step - gradients, 0)
    )
    lean = _checkpointed(recipe)
    checkpointed = None if lean is None else beside + step_memory(lean, spec, each, dtype, kind)
    sharded = (
        None if devices == 1 else (states + gradients) // devices + kept * each + 2 * largest_block(model)
    )
    return _Memory(step, kept, beside + step, checkpointed, sharded)


def _precision(recipe: Recipe, kind: str) -> torch.dtype | None:
    if kind == "cuda":  # of a device that need not be here
        return None if recipe.training.precision == "fp32" else torch.bfloat16
    return autocast_dtype(recipe.training.precision, torch.device(kind))


def _parts(limit: float | None, plain: int, kept: int, each: int) -> int | None:
    """The smallest number of equal parts of a device's share with which it fits."""
    if limit is None:
        return None
    fits = (k for k in range(1, each + 1) if each % k == 0 and plain - kept * (each - each // k) <= limit)
    return next(fits, None)


def _check(devices: int, memory: float | None, batch: int, flops: float | None, device: str | None) -> None:
    for what, value in (("devices", devices), ("memory", memory), ("batch", batch), ("flops", flops)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{what} must be positive and finite, got {value}")
    positive_int("batch", batch, at_most=COUNT)
    positive_int("devices", devices, at_most=COUNT)
    if batch % devices:
        raise InputError(
            f"a batch of {batch} cannot be divided equally among {devices} devices: make it a multiple of "
            f"{devices}"
        )
    if device not in (None, "cpu", "cuda"):
        raise InputError(f"plans are made for cpu and cuda, got {brief(device)}")


def _checkpointed(recipe: Recipe) -> Recipe | None:
    """The recipe with a network that computes again on the way back; None where the network cannot, or does
    already.
    """
    lean = with_overrides(recipe, ["net.checkpoint=true"])
    if recipe.net.get("checkpoint"):
        return None
    try:
        meta_model(lean, expected_data(lean))
    except InputError:
        return None
    return lean


def _fits(limit: float | None, needs: _Memory, parts: int | None) -> str:
    if limit is None:
        return "give --memory, the GiB of one device"
    if needs.plain <= limit:
        return "yes"
    ways = [f"with training.accumulation={parts}"] if parts is not None else []
    ways += (
        ["with net.checkpoint=true"] if needs.checkpointed is not None and needs.checkpointed <= limit else []
    )
    ways += ["with training.shard=true"] if needs.sharded is not None and needs.sharded <= limit else []
    return " or ".join(ways) or "no: use a smaller batch or network, or more devices"


def _time(seconds: float) -> str:
    units: list[tuple[str, float]] = [("days", 86_400), ("hours", 3600), ("min", 60), ("s", 1)]
    name, size = next(
        ((name, size) for name, size in units if seconds >= (2 * size if size > 1 else 1)), ("ms", 1e-3)
    )
    return f"{seconds / size:.3g} {name}"
