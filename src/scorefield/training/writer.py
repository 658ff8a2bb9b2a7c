"""A run as training writes it: one process of those launched together writes, all of them hear of a failure."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from scorefield.models.foreign import model_like
from scorefield.nets import fused
from scorefield.runtime.atomic import make_folder, refuse_link, remove, remove_empty
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import InputError
from scorefield.runtime.printable import one_line
from scorefield.runtime.reading import reading
from scorefield.store.formats import stamp
from scorefield.store.lock import RunLock
from scorefield.store.run_folder import RunFolder
from scorefield.training import checkpoint
from scorefield.training.checkpoint import Checkpoint
from scorefield.training.state import TrainingState
from scorefield.training.training_options import TrainingOptions

__all__ = ["RunWriter"]

_LOG = logging.getLogger(__name__)


class _Snapshot(NamedTuple):
    """What is to be written.

    Attributes:
        groups: Tensors by group and name.
        finite: Whether all weights and averages are.
    """

    groups: dict[str, dict[str, Tensor]]
    finite: bool


class RunWriter:
    """Checkpoints, metrics and trackers of one run, and its lock. Every process calls every method, at the
    same step.

    Where a method raises InputError (the disk is full, say), every process raises it.

    Args:
        folder: The run.
        state: The state of the training.
        options: How it is trained.
        accelerator: This process's.
        processes: Those that train.
        versions: Of what else the order of the data depends on.
    """

    def __init__(
        self,
        folder: RunFolder,
        state: TrainingState,
        options: TrainingOptions,
        accelerator: Accelerator,
        processes: Processes,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        if options.keep_every % options.checkpoint_every:
            raise InputError(
                f"keep_every keeps some of the checkpoints, so it must be a multiple of checkpoint_every "
                f"({options.checkpoint_every}), got {options.keep_every}"
            )
        self.folder, self.state, self.options = folder, state, options
        self._accelerator, self._processes, self._versions = accelerator, processes, versions or {}
        self._lock: RunLock | None = None
        self._saved, self._begun_here, self._saved_at = -1, False, time.monotonic()
        self._described: tuple[int, int] | None = None
        self.warnings: list[str] = []

    def begin(self, description: Mapping[str, object]) -> None:
        """Make the folder. Its config.toml, which makes it a run, comes last: a run always has a checkpoint
        to go on from.
        """

        snapshot = self._snapshot()

        def make() -> None:
            self.folder.make()
            self._take()
            self.folder.check_free()  # another process may have made a run here before the lock was ours
            self._write_checkpoint(snapshot)
            self.folder.write_config(description)
            self._described = self.folder.config_version()

        self._processes.on_first(make)
        self._saved = self.state.step
        self._begun_here = True
        self._start_trackers(description)

    def withdraw(self) -> None:
        """Delete the run that `begin` made, of which no step was done; nothing where it was there before."""
        if not self._begun_here or not self._processes.first:
            return
        for path in (self.folder.config, self.folder.unreadable_files):
            remove(path)
        remove(checkpoint.place(self.folder.checkpoints, 0))
        remove_empty(self.folder.checkpoints)
        self.close()
        remove_empty(self.folder.path)  # what trackers wrote stays

    def resume(self, fingerprint: str, describe: Mapping[str, object]) -> None:
        """Load the newest whole checkpoint. InputError where it is of another seed, other data or another
        model, or past the last step.

        describe: tables of config.toml; of them `data` is written anew, since the same data may lie elsewhere
        now.
        """
        self._processes.on_all(self.folder.require)
        self._processes.on_first(self._take)
        found = self._processes.on_all(lambda: self._checkpoint(fingerprint), "reading the checkpoint")
        self._processes.check_same(lambda: {"checkpoint": found.state}, "comparing checkpoints")
        self.state.load(found)
        snapshot = self._snapshot()
        changed = {
            "training": self.options.model_dump(),
            **({"data": describe["data"]} if "data" in describe else {}),
        }
        self._processes.on_first(lambda: self._tidy(snapshot, changed))
        self._saved = self.state.step
        self.warnings += [f"skipped a damaged checkpoint: {name}" for name in found.skipped]
        self.warnings += [
            f"{key} was {found.state.get(key)} and is now {now}: results agree up to rounding, not bit for bit"
            for key, now in self._environment().items()
            if found.state.get(key, now) != now
        ]
        self._start_trackers(self.folder.read_config())

    def _checkpoint(self, fingerprint: str) -> Checkpoint:
        """The newest whole one. InputError where training cannot go on from it."""
        found = checkpoint.newest(self.folder.checkpoints)
        if found is None:
            raise InputError(
                f"{self.folder.path} has no checkpoint to resume from: start a new run in another folder"
            )
        with reading(found.path / "state.json"):
            seed = found.state["seed"]
        if seed != self.options.seed:
            raise InputError(f"{self.folder.path} was trained with seed {seed}: resume it with the same seed")
        known = self.folder.read_config().get("trained_on", {}).get("fingerprint")
        if known != fingerprint:
            raise InputError(
                f"{self.folder.path} was trained on other data (fingerprint {known}, now {fingerprint}): to continue "
                "with this data, start a new run from its weights",
                command="train … --init RUN",
            )
        if self.options.steps < found.step:
            raise InputError(
                f"{self.folder.path} has done {found.step} steps, and steps = {self.options.steps} is the total: give "
                "a larger number"
            )
        return found

    def save(self) -> Path:
        """The folder of this step's checkpoint, written unless it is there already; then delete those that
        need not be kept.
        """
        if self._saved != self.state.step:
            snapshot = self._snapshot()
            self._processes.on_first(lambda: self._save(snapshot))
            self._saved, self._saved_at = self.state.step, time.monotonic()
        return checkpoint.place(self.folder.checkpoints, self.state.step)

    def store_averages(self) -> None:
        """Write the averages of this step that `scorefield ema` combines; nothing where they are not finite."""
        averages = self.state.averages(self._processes.first)
        if not self.state.is_finite():
            return

        def write() -> None:
            self._check_lock()
            make_folder(self.folder.profiles)
            for name, tensors in averages.items():
                checkpoint.save_weights(self.folder.profile(self.state.step, name), tensors)

        self._processes.on_first(write)

    def is_due(self) -> bool:
        """Whether this process's clock asks for a checkpoint before that of `checkpoint_every`."""
        minutes = self.options.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes

    def last_good(self) -> Checkpoint | None:
        """The newest whole checkpoint that a divergence may go back to.

        One that was saved because the run was stopped is none: the run that was not stopped does not have it.
        """
        return checkpoint.newest(self.folder.checkpoints, _is_good)

    def go_back(self, good: Checkpoint, lr_factor: float) -> None:
        """Become what was saved, with a smaller learning rate; the count of skipped steps goes on."""
        skipped, factor = self.state.skipped, self.state.lr_factor * lr_factor
        self.state.load(good)
        self.state.skipped, self.state.lr_factor = skipped, factor
        self._saved = -1
        self._processes.on_first(lambda: self.folder.truncate_metrics(self.state.step))

    def forget_after(self, good: Checkpoint) -> None:
        """Delete the checkpoints that a divergence left behind it, so that a run which is resumed goes on
        from `good`.
        """
        self._processes.on_first(lambda: self._prune(good.path))

    def log(self, values: Mapping[str, float]) -> None:
        """A line of metrics.jsonl, and the trackers."""
        line = {"step": self.state.step, **values}

        def write() -> None:
            self._check_lock()
            self.folder.append_metrics(line)
            self._track(lambda tracker: tracker.log(dict(values), step=self.state.step))

        self._processes.on_first(write)

    def show(self, name: str, picture: np.ndarray) -> None:
        """Give the trackers that take pictures one, uint8 (H, W, C)."""

        def show(tracker: Any) -> None:
            takes = getattr(tracker, "log_images", None)
            if takes is not None:
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                takes({name: picture[None]}, step=self.state.step, **layout)

        self._track(show)

    def close(self) -> None:
        """Let others write, and finish the trackers."""
        if self._lock is not None:
            self._lock.release()
        for tracker in self._accelerator.trackers:
            tracker.finish()
        self._accelerator.trackers = []

    def _take(self) -> None:
        refuse_link(self.folder.checkpoints)
        self._lock = RunLock(self.folder.lock)
        weakref.finalize(self, self._lock.release)
        if self._lock.taken_over:
            self.warnings.append(
                f"took over the lock of {self._lock.taken_over}, which ended without releasing it"
            )

    def _snapshot(self) -> _Snapshot:
        """Every process takes part in it; only the first one has what lies in pieces."""
        return _Snapshot(self.state.groups(self._processes.first), self.state.is_finite())

    def _save(self, snapshot: _Snapshot) -> None:
        self._check_lock()
        path = self._write_checkpoint(snapshot)
        if snapshot.finite:
            checkpoint.save_weights(self.folder.weights, snapshot.groups["ema"])
        self._prune(path)

    def _check_lock(self) -> None:
        """InputError where another process writes the run, or has written it while its lock was gone."""
        if self._lock is None or self._lock.check() or self._described == self.folder.config_version():
            return
        raise InputError(
            f"the lock of {self.folder.path} was removed, and another process has written the run since: resume it"
        )

    def _prune(self, newest: Path) -> None:
        self._check_lock()
        checkpoint.prune(
            self.folder.checkpoints, newest, self.options.keep, self.options.keep_every, _is_good
        )

    def _write_checkpoint(self, snapshot: _Snapshot) -> Path:
        good = (
            snapshot.finite
            and not self.state.in_a_row
            and self.state.step % self.options.checkpoint_every == 0
        )
        said = {"good": good, "seed": self.options.seed, **self._environment(), **stamp()}
        numbers = {**self.state.numbers(), **said}
        return checkpoint.save(self.folder.checkpoints, self.state.step, snapshot.groups, numbers)

    def _tidy(self, snapshot: _Snapshot, changed: Mapping[str, object]) -> None:
        """Make the other files agree with the checkpoint: the last process may have been killed between
        writing them.
        """
        self.folder.truncate_metrics(self.state.step)
        self.folder.write_config({**self.folder.read_config(), **changed})
        self._described = self.folder.config_version()
        if self.state.step and snapshot.finite:
            checkpoint.save_weights(self.folder.weights, snapshot.groups["ema"])

    def _environment(self) -> dict[str, object]:
        """What bit-exactness depends on beside the seed."""
        dtype = model_like(self.state.objective.model).autocast_dtype
        return {
            "torch": torch.__version__,
            **self._versions,
            "threads": torch.get_num_threads(),
            "world": self._processes.world,
            "device": self._processes.device.type,
            "numba": fused.available(),
            "compiled": bool(self.options.compile),
            "precision": "fp32" if dtype is None else str(dtype).removeprefix("torch."),
        }

    def _start_trackers(self, description: Mapping[str, object]) -> None:
        """With the run's description as their hyper-parameters. InputError where they cannot be started."""
        if not self.options.trackers:
            return
        own = {"wandb": {"name": self.folder.path.name, "dir": str(self.folder.path)}}
        self._processes.on_first(lambda: self._init_trackers(dict(_plain(description)), own))

    def _init_trackers(self, config: dict[str, object], own: Mapping[str, object]) -> None:
        try:
            self._accelerator.init_trackers("scorefield", config, init_kwargs=dict(own))
        except Exception as error:  # of another library: no disk, no network, no account
            raise InputError(
                f"a tracker of {self.folder.path} cannot be started ({one_line(error)}): fix this, or remove it from "
                "trackers"
            ) from None

    def _track(self, work: Callable[[Any], None]) -> None:
        """Let each tracker write. One that cannot is left out from here on: training does not end for it."""
        for tracker in list(self._accelerator.trackers):
            try:
                work(tracker)
            except Exception as error:
                self._accelerator.trackers.remove(tracker)
                _LOG.warning(
                    f"the tracker {tracker.name} of {self.folder.path} cannot write ({one_line(error)}): training "
                    "continues without it"
                )


def _plain(values: Mapping[str, object], within: str = "") -> Iterator[tuple[str, object]]:
    """The entries of tables within tables, by names with dots, as trackers take them."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _plain(value, f"{within}{key}.")
        elif value is not None:
            yield f"{within}{key}", value if isinstance(value, bool | int | float | str) else str(value)


def _is_good(state: Mapping[str, object]) -> bool:
    return "step" in state and bool(state.get("good", True))
