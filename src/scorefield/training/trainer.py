"""The training loop: an iterator of steps that can stop and go on as if it had never stopped.

Every draw of step k is a function of (seed, k, position in the batch), so the whole random state of a run is
two integers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from scorefield.data import Dataset, TrainingData, as_source
from scorefield.models.foreign import model_like
from scorefield.objectives.base import Objective
from scorefield.objectives.times import LearnedTimes
from scorefield.runtime.checks import brief, instance_of
from scorefield.runtime.description import describe as describe_object
from scorefield.runtime.distributed import Processes, losing_none
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import parse
from scorefield.runtime.precision import autocast_dtype
from scorefield.runtime.progress import Bar, Reporter, check_reporter, notebook_or_silent
from scorefield.runtime.reading import as_path
from scorefield.store.formats import stamp
from scorefield.store.run_folder import RunFolder
from scorefield.training.batches import BatchLoader, check_data, trained_arrays
from scorefield.training.divergence import Recovery
from scorefield.training.ema import EMA, PowerEMA
from scorefield.training.heldout_loss import HeldOutLoss
from scorefield.training.launch import join_training, make_accelerator, make_optimizer
from scorefield.training.meter import Meter
from scorefield.training.run_description import describe_run
from scorefield.training.sharding import full_tensors, gather_full, meta_copy, shard_objective
from scorefield.training.state import TrainingState
from scorefield.training.training_options import TrainingKeywords, TrainingOptions
from scorefield.training.writer import RunWriter

__all__ = ["TrainStep", "Trainer", "train"]

_DUE = "checkpoint due"
_GO_ON = (
    "restart all processes with --resume (in Python resume=True), which continues from the last checkpoint"
)


@dataclass(frozen=True, slots=True)
class TrainStep:
    """One optimizer step.

    Attributes:
        step: How many are done.
        loss: Mean over the batch.
        grad_norm: 2-norm of the gradient of all parameters, before clipping.
        lr: Learning rate of the step.
        examples_per_second: Over this step.
        parts: Means of the objective's named terms over the batch.
        skipped: How many steps of this run left the weights as they were, because the loss or the gradient
            was not finite.
    """

    step: int
    loss: float
    grad_norm: float
    lr: float
    examples_per_second: float
    parts: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0

    @property
    def finite(self) -> bool:
        """Whether it changed the weights."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def train(
    objective: Objective,
    data: TrainingData,
    *,
    run: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    describe: Mapping[str, object] | None = None,
    heldout: TrainingData | None = None,
    progress: Reporter | None = None,
    **options: Unpack[TrainingKeywords],
) -> Trainer:
    """Train an objective's model: an iterator of TrainStep that saves as it goes.

    Args:
        objective: Loss to minimise, which holds the model to train.
        data: A source of `sf.data`, a tensor (N, *), a pair of examples (N, *) and labels (N,), or a map-style
            torch.utils.data.Dataset (with labels: sf.data.torch_dataset).
        run: Folder of the run to write (config.toml, model.safetensors, checkpoints, metrics.jsonl).
            Default: nothing is written.
        resume: Continue from the newest complete checkpoint of `run`; N steps, a stop and M more equal N + M.
        device: "cpu", "cuda" or "mps". Default: what Accelerate finds.
        describe: Further tables for config.toml, such as {"sampling": {"sampler": sf.samplers.DDIM(0.5)}}.
        heldout: Examples that are not trained on: the run's metrics have their loss after each `checkpoint_every`
            steps. Training is the same with and without them.
        progress: Receives progress reports, and at the start what was read. Default: lines below the cell in a
            notebook, otherwise none.
        **options: Fields of `TrainingOptions`: steps, batch_size, lr, ema, label_dropout, …; `scorefield options
            training` lists them all with their defaults.
    Returns:
        The trainer. Iterate over it to train; `ema_model` is the averaged model, ready to sample.
    Raises:
        InputError: For bad options, a `run` that already holds a run or that another process is writing, and
            a full disk.
        Diverged: When the loss or the gradient stays not finite.
    """
    return Trainer(
        objective,
        data,
        parse(TrainingOptions, options),
        run,
        resume=resume,
        device=device,
        describe=describe,
        heldout=heldout,
        progress=progress,
    )


class Trainer(Iterator[TrainStep]):
    """What `train` returns: an iterator of TrainStep.

    Launched as several processes, each makes a trainer and all call the same methods in the same order.

    Args:
        objective: Loss to minimise, which holds the model to train.
        data: As of `train`.
        options: How it is trained.
        run: Folder of the run to write. Default: nothing is written.
        resume: Continue from the newest complete checkpoint of `run`.
        device: "cpu", "cuda" or "mps". Default: what Accelerate finds.
        describe: Further tables for config.toml, as of `train`.
        heldout: Examples that are not trained on, whose loss the run's metrics have.
        progress: Receives progress reports. Default: lines below the cell in a notebook, otherwise none.

    Raises:
        InputError: As `train`.
    """

    def __init__(
        self,
        objective: Objective,
        data: TrainingData,
        options: TrainingOptions,
        run: str | Path | None = None,
        *,
        resume: bool = False,
        device: str | None = None,
        describe: Mapping[str, object] | None = None,
        heldout: TrainingData | None = None,
        progress: Reporter | None = None,
    ) -> None:
        if not isinstance(objective, Objective):
            name = objective.__name__ if isinstance(objective, type) else type(objective).__name__
            raise InputError(
                f"objective must be an objective such as sf.objectives.Simple(model), and {name} is not: build one, "
                "or inherit from sf.Objective"
            )
        if progress is not None:
            check_reporter(progress)
        instance_of("options", options, TrainingOptions, "sf.TrainingOptions(steps=…, …)")
        if run is not None and not isinstance(run, str | PathLike):
            raise InputError(f"run is the path of the folder that is written, got {brief(run)}")
        if describe is not None and not (
            isinstance(describe, Mapping) and all(isinstance(name, str) for name in describe)
        ):
            raise InputError(
                f"describe takes tables by name, such as {{'sampling': {{…}}}}, got {brief(describe)}"
            )
        self.options = options
        self._model = model_like(objective.model)
        self._run = run
        self.data = as_source(data)
        joined = join_training(device)
        joined.check_same(lambda: self._facts(objective, resume), "comparing what is trained")
        self.accelerator = make_accelerator(device, options, run, self._model.has_energy)
        accelerator = self.accelerator
        self._processes = Processes(accelerator.process_index, accelerator.num_processes, accelerator.device)
        check_data(objective, self.data, options, self._processes.world)
        self._arrays = trained_arrays(self._model, self.data)
        further = describe or {}
        # Before anything changes the objects, and before any work: a run that could not be loaded is refused.
        tables = (
            {}
            if run is None or resume
            else describe_run(objective, self.data, self._arrays, options, further)
        )
        _check_weights(objective)
        objective.to(accelerator.device)
        objective.train()
        self._model.run_in(autocast_dtype(options.precision, accelerator.device))
        self._outline: nn.Module | None = None
        _check_derivatives(objective, options)
        if options.compile:
            self._model.compile_network()
        if options.shard and self._processes.world > 1:
            self._outline = meta_copy(objective.model)
            shard_objective(objective, self._processes.world, accelerator.device)
        self._weights = list(objective.parameters())
        self.ema, self.objective = EMA(objective.model, options.ema), objective
        self._profiles = {f"{length:g}": PowerEMA(objective.model, length) for length in options.ema_profiles}
        optimizer = accelerator.prepare(make_optimizer(objective, options, accelerator.device))
        self._objective, self._optimizer = (
            objective if self._outline else accelerator.prepare(objective),
            optimizer,
        )
        self._state = TrainingState(self.objective, self._optimizer, self.ema, self._profiles)
        self._meter = Meter(accelerator.device)
        self._heldout = None if heldout is None or run is None else self._heldout_loss(heldout)
        self.folder = None if run is None else RunFolder(as_path(run, "a run"))
        self._writer = None if self.folder is None else self._open(self.folder, resume, tables or further)
        self._recovery = Recovery(options, self._state, self._writer, self._processes)
        if resume and self.step == options.steps:
            self._recovery.handle_end()
        self._line = self.step - self.step % options.log_every  # the step of the last line of metrics
        self._done: TrainStep | None = None
        self._progress, self._bars = notebook_or_silent() if progress is None else progress, ExitStack()
        self._bar: Bar | None = None
        for text in self.data.reading if self._processes.first else ():
            self._progress.say(text)
        unreadable_files = None if self.folder is None else self.folder.unreadable_files
        self._batches = BatchLoader(
            self.data, objective, options, self._processes, unreadable_files, self._state.epoch_length
        )

    def __repr__(self) -> str:
        run = "" if self._run is None else f", run={str(self._run)!r}"
        return f"Trainer(step {self.step} of {self.options.steps}{run})"

    @property
    def step(self) -> int:
        """How many steps are done, the skipped ones too."""
        return self._state.step

    @property
    def warnings(self) -> list[str]:
        """What was met when the run was opened, and did not keep it from going on."""
        return [] if self._writer is None else self._writer.warnings

    def ema_model(self) -> Any:
        """A copy of the model with the averaged weights, in evaluation mode.

        Where weights lie in pieces, every process asks for it, and only the first one gets it; the others get
        None.
        """
        averages = full_tensors(self.ema.shadow, self._processes.first)
        if self._outline is not None and not self._processes.first:
            return None
        model: Any = copy.deepcopy(self.objective.model if self._outline is None else self._outline)
        model.load_state_dict(averages, assign=self._outline is not None)
        return model.to(self.accelerator.device).eval()

    def __next__(self) -> TrainStep:
        if self.step >= self.options.steps:
            raise StopIteration
        with losing_none(_GO_ON):
            return self._next()

    def _next(self) -> TrainStep:
        self._meter.start()
        waited, lr = self._batches.waited, self._set_lr()
        with self._first_step_or_no_run():
            loss, parts = self._forward_backward()
        due = parts.pop(_DUE)
        # The one place of a step on data in memory where the host waits for the device: no update may follow
        # what is not finite.
        values = _read([loss, self._gradient_norm(), due, *parts.values()])
        finite = all(math.isfinite(value) for value in values[:2])
        if finite:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        before = self._state.in_a_row
        self._state.advance(finite)
        self._state.epoch_length = self._batches.epoch_length
        if finite:
            for average in (self.ema, *self._profiles.values()):
                average.update(self.step)
        seconds = self._meter.stop(self.options.batch_size, self._batches.waited - waited)
        rate, named = self.options.batch_size / seconds, dict(zip(parts, values[3:], strict=True))
        done = TrainStep(self.step, values[0], values[1], lr, rate, named, self._state.skipped)
        self._done = done
        self._report(done)
        self._record(done, before, values[2] > 0)
        return done

    def save(self) -> Path | None:
        """Write a checkpoint and the averaged weights now; the checkpoint's folder, or None without a run."""
        return None if self._writer is None else self._writer.save()

    def stop(self, late: bool = False) -> Path | None:
        """`save` before the last step, with a line of metrics over the steps since the line before.

        Args:
            late: Whether it stops because time is up, as it does after the last step.
        Raises:
            Diverged: If it is late and the weights are not finite, unless on_divergence goes back to some that are.
        """
        if late:
            self._recovery.handle_end(early=True)
        if self._done is not None and self._meter.added:
            self._log(self._done, last=False)
        return self.save()

    def close(self) -> None:
        """Let others write the run, finish the trackers, read no more data, and leave the other processes
        together: it trains no more.

        The end of a script that several processes run; where there is one, the last step does all that is
        needed.
        """
        self.release()
        processes, self._processes = self._processes, Processes(device=self._processes.device)
        # The wrapped objective holds the connection, whose threads end with its last owner: here, by Python's own reference,
        # and not when this trainer is freed, where torch would wait for them while it holds Python's lock.
        self._objective = self.objective
        self.accelerator.free_memory()
        processes.leave()

    def release(self) -> None:
        """Let others write the run, finish the trackers and read no more data: `close` for a trainer after which these
        processes make another one.
        """
        self._bars.close()
        self._batches.close()
        if self._writer is not None:
            self._writer.close()

    def agree(self, vote: int) -> int:
        """The largest vote of any process: all must leave the loop after the same step, for the same reason.

        Args:
            vote: This process's, an integer.
        """
        if self._processes.world == 1:
            return int(vote)
        with losing_none(_GO_ON):
            votes = self.accelerator.gather(torch.tensor([int(vote)], device=self.accelerator.device))
            return int(votes.max())

    def _heldout_loss(self, data: TrainingData) -> HeldOutLoss | None:
        """None for fewer examples than there are processes. InputError for what has no loss under this objective."""
        examples = as_source(data)
        if not isinstance(examples, Dataset):
            raise InputError(
                f"heldout takes examples in memory or in files, such as sf.data gives them, not a {type(examples).__name__}"
            )
        if len(examples) < self._processes.world:
            return None
        check_data(self.objective, examples, self.options, self._processes.world)
        return HeldOutLoss(examples, self.objective, self.options, self._processes)

    def _facts(self, objective: Objective, resume: bool) -> dict[str, object]:
        """What every process must have alike before the first step."""
        arrays = trained_arrays(self._model, self.data)
        return {
            "resume": resume,
            "training": self.options.model_dump(),
            "data": {
                "fingerprint": self.data.fingerprint(arrays),
                "examples": self.data.examples,
                "shape": self.data.spec.shape,
                "range": self.data.spec.range,
                "classes": self.data.spec.classes,
            },
            "objective": describe_object(objective),
            "process": None if self._model.process is None else describe_object(self._model.process),
            "weights": {name: tuple(weight.shape) for name, weight in objective.named_parameters()},
            "version": {"scorefield": stamp(), "torch": torch.__version__},
        }

    def _open(self, folder: RunFolder, resume: bool, tables: Mapping[str, object]) -> RunWriter:
        writer = RunWriter(
            folder,
            self._state,
            self.options,
            self.accelerator,
            self._processes,
            self.data.versions,
        )
        if resume:
            writer.resume(self.data.fingerprint(self._arrays), tables)
        else:
            writer.begin(tables)
        return writer

    def _forward_backward(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the mean loss over the global batch; (that mean, the means of its parts)."""
        rank, cuts = self._processes.rank, self.options.accumulation
        totals: dict[str, Tensor] = {}
        drawn: list[tuple[Tensor | None, Tensor | None]] = []
        with _dropout_stream(self.options.seed, self.step, rank, self.accelerator.device):
            for cut, (x0, y, arrays, noise) in enumerate(self._batches.at(self.step)):
                with nullcontext() if cut == cuts - 1 else self.accelerator.no_sync(self._objective):
                    loss = self._objective(x0, y, noise, **arrays)
                    mean = loss.per_example.mean() / cuts
                    if not mean.requires_grad:
                        raise InputError(
                            "the loss has no gradient: gradients are off here (torch.no_grad, torch.inference_mode), or the "
                            "network's output does not depend on its weights"
                        )
                    self.accelerator.backward(mean)
                drawn.append((loss.t, loss.unweighted))
                terms = {"loss": mean.detach(), **{k: v.mean() / cuts for k, v in loss.parts.items()}}
                totals = {k: totals.get(k, torch.zeros_like(v)) + v for k, v in terms.items()}
        totals[_DUE] = torch.tensor(float(self._writer is not None and self._writer.is_due()))
        if self._processes.world > 1:  # all numbers at once, and the clocks of all processes with them
            means = self.accelerator.reduce(
                _stack(totals.values(), self.accelerator.device), reduction="mean"
            )
            totals = dict(zip(totals, means.unbind(), strict=True))
        self._observe(drawn)
        return totals.pop("loss"), totals

    def _observe(self, drawn: list[tuple[Tensor | None, Tensor | None]]) -> None:
        """Tell importance-sampled times the losses of the whole batch, in the same order on every process."""
        times = self.objective.times
        if not isinstance(times, LearnedTimes):
            return
        device = self.accelerator.device
        t, losses = (
            torch.cat([part.to(device) for part in parts if part is not None])
            for parts in zip(*drawn, strict=True)
        )
        t, losses = self.accelerator.gather(t), self.accelerator.gather(losses)
        if bool(torch.isfinite(losses).all()):  # a loss that is not finite is not history
            times.update(t, losses)

    @contextmanager
    def _first_step_or_no_run(self) -> Iterator[None]:
        """A configuration whose first step fails (too little memory, a network that cannot take the examples)
        leaves no run behind that would be in the way of the corrected command.
        """
        try:
            yield
        except Exception:
            if self._writer is not None and self.step == 0:
                self._writer.withdraw()
            raise

    def _gradient_norm(self) -> Tensor:
        """The norm of all gradients before they are clipped."""
        return gather_full(torch.nn.utils.clip_grad_norm_(self._weights, self.options.clip or float("inf")))

    def _set_lr(self) -> float:
        options = self.options
        lr = (
            options.lr
            * self._state.lr_factor
            * min(1.0, (self.step + 1) / options.warmup if options.warmup else 1.0)
        )
        if options.lr_reference:  # [Karras et al. 2024a]
            lr /= max(self.step / options.lr_reference, 1.0) ** 0.5
        if options.anneal:
            lr *= 1 - self.step / options.steps
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _record(self, done: TrainStep, skipped_before: int, due: bool) -> None:
        """Log, save, and see to steps that were skipped.

        Args:
            done: The step.
            skipped_before: How many skipped steps came just before this one.
            due: Whether a clock asks for a checkpoint.
        """
        options, writer, last = self.options, self._writer, done.step == self.options.steps
        if writer is not None and done.finite:
            self._meter.add({"loss": done.loss, "grad_norm": done.grad_norm, **done.parts})
            # A line that a skipped step would have written is written by the next one that counts.
            passed = done.step // options.log_every > (done.step - 1 - skipped_before) // options.log_every
            if passed or last:
                self._log(done, last)
            if self._profiles and (last or done.step % (options.ema_every or options.checkpoint_every) == 0):
                writer.store_averages()
            if (due or done.step % options.checkpoint_every == 0) and self._state.is_good():
                writer.save()
        if not done.finite:
            self._recovery.handle_skipped_step(done.loss, done.grad_norm)
            if self.step < done.step:  # it went back
                self._meter.restart()
        if self.step == options.steps:
            self._recovery.handle_end()
        if self.step == options.steps:  # it may have gone back
            self._bars.close()
            self._batches.close()
            if writer is not None:
                writer.save()
                writer.close()

    def _log(self, done: TrainStep, last: bool) -> None:
        """A line of metrics: means over the steps since the line before, and after each checkpoint of
        `checkpoint_every`, and after the last step, the loss on held-out examples.
        """
        if self._writer is None:
            return
        values = {**self._meter.read(), "lr": done.lr, "skipped": done.skipped}
        if self._state.lr_factor != 1:  # after a roll-back
            values["lr_factor"] = self._state.lr_factor
        every, before, self._line = self.options.checkpoint_every, self._line, done.step
        if self._heldout is not None and (last or done.step // every > before // every):
            values["heldout_loss"] = self._heldout()
        self._writer.log(values)

    def _report(self, done: TrainStep) -> None:
        if self._bar is None:
            self._bar = self._bars.enter_context(self._progress.progress("training", self.options.steps))
        self._bar.update(done.step, f"loss {done.loss:.4f}  {done.examples_per_second:,.0f} examples/s")

    def show(self, name: str, picture: np.ndarray) -> None:
        """Give the trackers a picture of this step. The first process calls it.

        Args:
            name: What the trackers call it.
            picture: uint8 (H, W, C).
        """
        if self._writer is not None:
            self._writer.show(name, picture)


def _check_weights(objective: Objective) -> None:
    """InputError where there are no weights to train."""
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    if not weights:
        raise InputError(
            "there is nothing to train: the objective has no parameters with a gradient (give its model a torch.nn.Module as network; "
            "requires_grad_() makes frozen ones trainable)"
        )
    if any(weight.is_meta or weight.is_inference() for weight in weights):
        raise InputError(
            "the weights cannot be trained: they are on the meta device, or were made under torch.inference_mode; build the model "
            "outside of both"
        )


def _check_derivatives(objective: Objective, options: TrainingOptions) -> None:
    """InputError where a loss takes derivatives of the model, which would be of weights in pieces, or of
    compiled code.
    """
    for option, asked in (("compile", options.compile), ("shard", options.shard)):
        if asked and objective.differentiates:
            raise InputError(
                "a loss that differentiates the model (sliced, implicit, of an energy) cannot be trained with "
                f"{option}: remove it"
            )


@contextmanager
def _dropout_stream(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global generator: give each step its own stream and put the user's state
    back.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(
            torch.cuda.default_generators[
                torch.cuda.current_device() if device.index is None else device.index
            ]
        )
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            # An odd multiplier mixes the three numbers; neighbouring steps need distinct seeds, not
            # independent ones.
            generator.manual_seed(
                (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + rank * 0x8CB92BA72F3D8DD7) % 2**63
            )
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _read(scalars: list[Tensor]) -> list[float]:
    """Numbers of the device, all in one transfer."""
    found: list[float] = _stack(scalars, scalars[0].device).tolist()
    return found


def _stack(scalars: Iterable[Tensor], device: torch.device) -> Tensor:
    dtype = torch.float32 if device.type == "mps" else torch.float64  # which mps does not have
    return torch.stack([scalar.detach().to(device, dtype) for scalar in scalars])
