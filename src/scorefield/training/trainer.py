"""The training loop: an iterator of steps that can stop and go on as if it had never stopped.

Every draw of step k is a function of (seed, k, position in the batch), so the whole random state of a run is two integers.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from scorefield.core.compute import autocast_dtype, pick_device
from scorefield.core.errors import InputError, ScorefieldError
from scorefield.core.noise import NoiseSource
from scorefield.core.options import parse
from scorefield.data import Dataset, Order, dequantize, flip, shift, tensor
from scorefield.objectives.base import Objective
from scorefield.training import checkpoint
from scorefield.training.ema import EMA
from scorefield.training.options import TrainingOptions
from scorefield.training.run import RunFolder

__all__ = ["Diverged", "TrainStep", "Trainer", "train"]

_ENVIRONMENT = ("torch", "threads", "world", "device", "precision")


class Diverged(ScorefieldError):
    """The loss or the gradient stopped being finite."""


@dataclass(frozen=True, slots=True)
class TrainStep:
    """One optimizer step. step: how many are done; loss: mean over the batch; examples_per_second: over this step."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    examples_per_second: float
    parts: Mapping[str, float] = field(default_factory=dict)


def train(
    objective: Objective,
    data: Dataset | Tensor | tuple[Tensor, Tensor],
    *,
    run: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    describe: Mapping[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """Train an objective's model: an iterator of TrainStep that saves as it goes.

    data: a source of `sf.data`, a tensor (N, *), or a pair of examples and labels.   run: the folder that will describe
    itself (config.toml, model.safetensors, checkpoints, metrics.jsonl); nothing is kept without it.   resume: go on from
    the newest whole checkpoint of `run`; N steps, a stop and M more equal N + M.   device: "cpu", "cuda", "mps", or what
    Accelerate finds.   describe: further tables for config.toml.   options: see TrainingOptions (steps, batch_size, lr, …).

    Raises InputError for bad options or a `run` that already holds a run, and Diverged when the loss stops being finite.
    """
    return Trainer(objective, data, parse(TrainingOptions, options), run, resume=resume, device=device, describe=describe)


class Trainer(Iterator[TrainStep]):
    """What `train` returns. `step` says how many steps are done; `save` writes a checkpoint now; `ema_model` is ready to sample."""

    def __init__(
        self,
        objective: Objective,
        data: Dataset | Tensor | tuple[Tensor, Tensor],
        options: TrainingOptions,
        run: str | Path | None = None,
        *,
        resume: bool = False,
        device: str | None = None,
        describe: Mapping[str, Any] | None = None,
    ) -> None:
        self.options = options
        self.data = _as_dataset(data)
        self.accelerator = _accelerator(device, options, run, getattr(objective.model, "has_energy", False))
        _check_share(options, self.accelerator.num_processes)
        _check_data(objective, self.data, options)
        self._conditional = self.data.labels is not None and bool(getattr(objective.model, "num_classes", 0))
        self.folder = None if run is None else RunFolder(Path(run))
        self.step = 0
        objective.to(self.accelerator.device)
        objective.train()
        model: Any = objective.model
        if hasattr(model, "autocast_dtype"):
            model.autocast_dtype = autocast_dtype(options.precision, self.accelerator.device)
        self.ema = EMA(objective.model, options.ema)
        betas = (0.9, options.beta2)
        fused = self.accelerator.device.type in ("cpu", "cuda")
        decay = options.weight_decay
        optimizer = torch.optim.AdamW(objective.parameters(), lr=options.lr, betas=betas, weight_decay=decay, fused=fused)
        self._objective, self._optimizer = self.accelerator.prepare(objective, optimizer)
        self._order = Order(len(self.data), options.batch_size, options.seed)
        self.warnings: list[str] = []
        if self.folder is not None:
            self._open(self.folder, resume, describe or {})

    @property
    def objective(self) -> Objective:
        """The objective without what Accelerate wrapped around it."""
        return self.accelerator.unwrap_model(self._objective)

    def ema_model(self) -> Any:
        """A copy of the model with the averaged weights, in evaluation mode."""
        model = copy.deepcopy(self.objective.model)
        model.load_state_dict(self.ema.shadow)
        return model.eval()

    def __next__(self) -> TrainStep:
        if self.step >= self.options.steps:
            raise StopIteration
        start = time.perf_counter()
        loss, parts = self._forward_backward()
        grad_norm = self._gradient_norm()
        if not (torch.isfinite(loss) and torch.isfinite(grad_norm)):
            raise Diverged(self._divergence(loss, grad_norm))
        lr = self._set_lr()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.ema.update(self.objective.model, self.step)
        rate = self.options.batch_size / (time.perf_counter() - start)
        done = TrainStep(self.step, float(loss), float(grad_norm), lr, rate, {k: float(v) for k, v in parts.items()})
        self._record(done)
        return done

    def save(self) -> Path | None:
        """Write a checkpoint and the averaged weights now; the checkpoint's folder, or None without a run."""
        if self.folder is None or not self.accelerator.is_main_process:
            return None
        groups = {
            "weights": self.objective.state_dict(),
            "ema": self.ema.shadow,
            "optimizer": _optimizer_tensors(self._optimizer),
        }
        if hasattr(self.objective.times, "state_dict"):
            groups["times"] = self.objective.times.state_dict()
        state = {"step": self.step, "seed": self.options.seed, **self._environment()}
        path = checkpoint.save(self.folder.checkpoints, self.step, groups, state, self.options.keep)
        checkpoint.save_weights(self.folder.weights, self.ema.shadow)
        return path

    def _open(self, folder: RunFolder, resume: bool, describe: Mapping[str, Any]) -> None:
        if resume:
            self._resume(folder)
        elif self.accelerator.is_main_process:
            folder.create({**self._description(), **describe})
        if self.options.trackers and self.accelerator.is_main_process:
            self.accelerator.init_trackers("tracker")

    def _resume(self, folder: RunFolder) -> None:
        found = checkpoint.newest(folder.require().checkpoints)
        if found is None:
            raise InputError(f"{folder.path} has no checkpoint to resume from; train it anew in another folder")
        if found.state["seed"] != self.options.seed:
            raise InputError(f"{folder.path} was trained with seed {found.state['seed']}: resume it with the same seed")
        fingerprint = folder.read_config().get("trained_on", {}).get("fingerprint")
        if fingerprint != self.data.fingerprint():
            raise InputError(
                f"{folder.path} was trained on other data (fingerprint {fingerprint}, now {self.data.fingerprint()}): to go on with "
                "this data start a new run from its weights (--init)"
            )
        self.warnings += [f"passed over a damaged checkpoint: {name}" for name in found.skipped]
        for key, now in self._environment().items():
            if found.state.get(key) != now:
                self.warnings.append(
                    f"{key} was {found.state.get(key)} and is now {now}: results agree to rounding, not bit for bit"
                )
        try:
            self.objective.load_state_dict(found.groups["weights"])
        except RuntimeError as error:
            raise InputError(
                f"{found.path} holds another model: {str(error).splitlines()[0]} Resume with the run's own"
            ) from None
        self.ema.load(found.groups["ema"])
        _load_optimizer(self._optimizer, found.groups["optimizer"])
        if "times" in found.groups:
            self.objective.times.load_state_dict(found.groups["times"])
        self.step = int(found.state["step"])
        if self.accelerator.is_main_process:
            folder.truncate_metrics(self.step)
            folder.write_config({**folder.read_config(), "training": self.options.model_dump()})

    def agree(self, stop: bool) -> bool:
        """Whether any process wants to stop: all must leave the loop after the same step."""
        if self.accelerator.num_processes == 1:
            return stop
        votes = self.accelerator.gather(torch.tensor([float(stop)], device=self.accelerator.device))
        return bool(votes.any())

    def _environment(self) -> dict[str, Any]:
        """What bit-exactness depends on beside the seed."""
        dtype = getattr(self.objective.model, "autocast_dtype", None)
        precision = "fp32" if dtype is None else str(dtype).removeprefix("torch.")
        device = self.accelerator.device.type
        values = (torch.__version__, torch.get_num_threads(), self.accelerator.num_processes, device, precision)
        return dict(zip(_ENVIRONMENT, values, strict=True))

    def _description(self) -> dict[str, Any]:
        """Everything that rebuilds the model without the data and without the code that made it."""
        objective, spec = self.objective, self.data.spec
        model = objective.model
        facts = {"source": self.data.source, "examples": len(self.data), "fingerprint": self.data.fingerprint()}
        data = {"shape": list(spec.shape), "range": list(spec.range), "classes": list(spec.classes)}
        process = getattr(model, "process", None)
        return {
            **({} if process is None else {"process": dict(process.spec)}),
            "net": dict(getattr(_network(objective), "spec", {"kind": "custom"})),
            "model": model.spec,
            "objective": objective.spec,
            "training": self.options.model_dump(),
            "trained_on": {**facts, **data, **({} if spec.bins is None else {"bins": spec.bins})},
        }

    def _forward_backward(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the mean loss over the global batch; (that mean, the means of its parts)."""
        rank, world, cuts = self.accelerator.process_index, self.accelerator.num_processes, self.options.accumulation
        indices = self._order.indices(self.step, rank, world).chunk(cuts)
        positions = self._order.positions(self.step, rank, world).chunk(cuts)
        totals: dict[str, Tensor] = {}
        drawn: list[tuple[Tensor | None, Tensor | None]] = []
        with _dropout_stream(self.options.seed, self.step, rank, self.accelerator.device):
            for cut in range(cuts):
                noise = NoiseSource(self.options.seed, positions[cut], self.step)
                x0, y = self._batch(indices[cut], noise)
                with nullcontext() if cut == cuts - 1 else self.accelerator.no_sync(self._objective):
                    loss = self._objective(x0, y, noise)
                    mean = loss.per_example.mean() / cuts
                    self.accelerator.backward(mean)
                drawn.append((loss.t, loss.unweighted))
                terms = {"loss": mean.detach(), **{k: v.mean() / cuts for k, v in loss.parts.items()}}
                totals = {k: totals.get(k, torch.zeros_like(v)) + v for k, v in terms.items()}
        if world > 1:
            totals = self.accelerator.reduce(totals, reduction="mean")
        self._observe(drawn)
        return totals.pop("loss"), totals

    def _observe(self, drawn: list[tuple[Tensor | None, Tensor | None]]) -> None:
        """Tell importance-sampled times the losses of the whole batch, in the same order on every process."""
        times = self.objective.times
        if not hasattr(times, "update"):
            return
        device = self.accelerator.device
        t, losses = (torch.cat([part.to(device) for part in parts if part is not None]) for parts in zip(*drawn, strict=True))
        t, losses = self.accelerator.gather(t), self.accelerator.gather(losses)
        if bool(torch.isfinite(losses).all()):  # a loss that is not finite stops the run, and is not history
            times.update(t, losses)

    def _batch(self, indices: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor | None]:
        x0, y = self.data.batch(indices)
        if self.options.dequantize:
            x0 = dequantize(self.data.levels[indices], noise.uniform(x0.shape), self.data.spec)
        if self.options.flip:
            x0 = flip(x0, noise.uniform((len(x0), 1))[:, 0])
        if self.options.shift:
            x0 = shift(x0, _offsets(noise.uniform((len(x0), 2)), self.options.shift))
        if y is not None and self.options.label_dropout:
            model: Any = self.objective.model
            y = torch.where(noise.uniform((len(x0), 1))[:, 0] < self.options.label_dropout, model.null_label, y)
        device = self.accelerator.device
        return x0.to(device), y.to(device) if y is not None and self._conditional else None

    def _gradient_norm(self) -> Tensor:
        limit = self.options.clip or float("inf")
        norm = self.accelerator.clip_grad_norm_(self._objective.parameters(), limit)
        return torch.as_tensor(norm)

    def _set_lr(self) -> float:
        options = self.options
        lr = options.lr * min(1.0, (self.step + 1) / options.warmup if options.warmup else 1.0)
        if options.anneal:
            lr *= 1 - self.step / options.steps
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _record(self, done: TrainStep) -> None:
        options, last = self.options, done.step == self.options.steps
        if self.folder is not None and self.accelerator.is_main_process and (done.step % options.log_every == 0 or last):
            values = {"loss": done.loss, "grad_norm": done.grad_norm, "lr": done.lr, **done.parts}
            self.folder.append_metrics({"step": done.step, **values, "examples_per_second": done.examples_per_second})
            if options.trackers:
                self.accelerator.log(values, step=done.step)
        if done.step % options.checkpoint_every == 0 or last:
            self.save()

    def _divergence(self, loss: Tensor, grad_norm: Tensor) -> str:
        what = f"the loss is {float(loss)}" if not torch.isfinite(loss) else f"the gradient norm is {float(grad_norm)}"
        good = checkpoint.newest(self.folder.checkpoints) if self.folder is not None else None
        last = f"the last good checkpoint is {good.path}" if good else "no checkpoint was saved before it"
        return f"training stopped at step {self.step + 1}: {what}; {last}. Lower the learning rate, or use precision fp32"


def _as_dataset(data: Dataset | Tensor | tuple[Tensor, Tensor]) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Tensor):
        return tensor(data)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return tensor(*data)
    raise InputError(f"data must come from sf.data, or be a tensor or a pair (examples, labels); got {type(data).__name__}")


def _accelerator(device: str | None, options: TrainingOptions, run: str | Path | None, energy: bool) -> Accelerator:
    chosen = None if device is None else pick_device(device)
    if options.trackers and run is None:
        raise InputError("trackers write into the run folder: give run=")
    logging: dict[str, Any] = {"log_with": options.trackers, "project_dir": str(run)} if options.trackers else {}
    # The constant of an energy never reaches its gradient, so some parameters get none; several processes must know that.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)] if energy else []
    try:
        accelerator = Accelerator(kwargs_handlers=handlers, cpu=chosen is not None and chosen.type == "cpu", **logging)
    except ValueError as error:  # an unknown tracker, or another kind of device used before in this process
        raise InputError(f"Accelerate refuses these options: {error}") from None
    if chosen is not None and accelerator.device.type != chosen.type:
        raise InputError(f"this process already trains on {accelerator.device.type}: use a new process for {chosen.type}")
    return accelerator


def _check_share(options: TrainingOptions, world: int) -> None:
    parts = world * options.accumulation
    if options.batch_size % parts:
        raise InputError(
            f"batch_size {options.batch_size} cannot be cut into {world} processes × {options.accumulation} parts: "
            f"make it a multiple of {parts}"
        )


def _network(objective: Objective) -> Any:
    return getattr(objective.model, "net", None)


def _check_data(objective: Objective, data: Dataset, options: TrainingOptions) -> None:
    """What the model and the options ask of the data; a model without an idea of an example takes the data's."""
    model: Any = objective.model
    spec = getattr(model, "data", None)
    if spec is None:
        model.data = data.spec
    elif spec.shape != data.spec.shape:
        raise InputError(f"the model is for examples of shape {spec.shape}, but {data.source} has shape {data.spec.shape}")
    if getattr(model, "num_classes", 0) and data.spec.num_classes > model.num_classes:
        raise InputError(f"the model knows {model.num_classes} classes, but {data.source} has {data.spec.num_classes}")
    if objective.needs_labels and data.labels is None:
        raise InputError(
            f"this objective learns from labels, and {data.source} has no labels: use a folder with a subfolder for each class, "
            "an .npz with `labels`, or a pair (examples, labels)"
        )
    for what, asked in (("flip mirrors", options.flip), ("shift moves", options.shift)):
        if asked and len(data.spec.shape) != 3:
            raise InputError(f"{what} images, and an example of {data.source} has shape {data.spec.shape}: leave it out")
    if options.label_dropout and (data.labels is None or getattr(model, "null_label", None) is None):
        raise InputError(
            "label_dropout replaces labels by none, so it needs data with labels and a class-conditional network with a row for none: "
            "build the network with null_label=True, or leave it out"
        )
    if options.dequantize and data.spec.bins is None:
        raise InputError(f"dequantize needs data of integer levels, and {data.source} is continuous: leave it out")


def _offsets(u: Tensor, far: int) -> Tensor:
    """u in [0, 1) -> the integers −far … far, all equally likely."""
    return (u.double() * (2 * far + 1)).long() - far


@contextmanager
def _dropout_stream(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global generator: give each step its own stream and put the user's state back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # An odd multiplier mixes the three numbers; neighbouring steps need distinct seeds, not independent ones.
        torch.manual_seed((seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + rank * 0x8CB92BA72F3D8DD7) % 2**63)
        yield


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    saved = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**saved, "state": state})
