"""Accelerator and optimizer of a training run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType

from scorefield.objectives.base import Objective
from scorefield.runtime.distributed import Processes, join_processes
from scorefield.runtime.errors import InputError
from scorefield.runtime.precision import pick_device
from scorefield.training.training_options import TrainingOptions

__all__ = ["join_training", "make_accelerator", "make_optimizer"]

_PATIENCE = timedelta(hours=1)  # longer than any preview or checkpoint that the others wait for


def join_training(device: str | None) -> Processes:
    """This process among those that train together; see `join_processes`."""
    return join_processes(device, _PATIENCE)


def make_accelerator(
    device: str | None, options: TrainingOptions, run: str | Path | None, energy: bool
) -> Accelerator:
    """Accelerate's view of this process among those launched.

    Args:
        device: "cpu", "cuda" or "mps". Default: what Accelerate finds.
        options: How the model is trained.
        run: Folder of the run, or None.
        energy: Whether the model is a gradient.

    Raises:
        InputError: Where it cannot be had.
    """
    chosen = None if device is None else pick_device(device)
    if options.compile and options.shard:
        raise InputError("compile and shard cannot be combined (untested): choose one of them")
    for what, asked in (
        ("trackers write into", options.trackers),
        ("rollback reads", options.on_divergence == "rollback"),
    ):
        if asked and run is None:
            raise InputError(f"{what} the run folder: give run=")
    logging: dict[str, object] = (
        {"log_with": options.trackers, "project_dir": str(run)} if options.trackers else {}
    )
    # The constant of an energy never reaches its gradient, so some parameters get none; several processes
    # must know that.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)] if energy else []
    try:
        accelerator = Accelerator(
            kwargs_handlers=handlers, cpu=chosen is not None and chosen.type == "cpu", **logging
        )
    except ValueError as error:  # an unknown tracker, or another kind of device used before in this process
        raise InputError(f"Accelerate refuses these options: {error}") from None
    there = {getattr(tracker, "value", getattr(tracker, "name", tracker)) for tracker in accelerator.log_with}
    if missing := [name for name in options.trackers if name not in (*there, "all")]:
        raise InputError(
            f"the tracker {missing[0]} is not installed: pip install {missing[0]}, or remove it from trackers"
        )
    if chosen is not None and accelerator.device.type != chosen.type:
        raise InputError(
            f"this process already trains on {accelerator.device.type}: use a new process for {chosen.type}"
        )
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise InputError(
            f"Accelerate is configured for {accelerator.distributed_type.value}, whose sharded weights scorefield "
            "cannot save: configure plain data parallelism (MULTI_GPU), and shard with training.shard=true"
        )
    return accelerator


def make_optimizer(
    objective: Objective, options: TrainingOptions, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW as the options say, fused where that exists."""
    betas, fused = (0.9, options.beta2), device.type in ("cpu", "cuda")
    return torch.optim.AdamW(
        objective.parameters(), lr=options.lr, betas=betas, weight_decay=options.weight_decay, fused=fused
    )
