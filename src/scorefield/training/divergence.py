"""Handling of non-finite steps: skip, stop or roll back."""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import Path

from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import ScorefieldError
from scorefield.training.state import TrainingState
from scorefield.training.training_options import TrainingOptions
from scorefield.training.writer import RunWriter

__all__ = ["Diverged", "Recovery"]

_LOG = logging.getLogger(__name__)
_RETURNS = 3  # to the same checkpoint


class Diverged(ScorefieldError):
    """The loss or the gradient stopped being finite."""


class Recovery:
    """Handles the skipped steps of one run.

    Args:
        options: How it is trained.
        state: The state of the training.
        writer: None for a run that nothing is kept of.
        processes: Those that train.
    """

    def __init__(
        self, options: TrainingOptions, state: TrainingState, writer: RunWriter | None, processes: Processes
    ) -> None:
        self._options, self._state, self._writer, self._processes = options, state, writer, processes
        self._returns: Counter[Path] = Counter()

    def handle_skipped_step(self, loss: float, grad_norm: float) -> None:
        """Say that the last step was skipped; after too many in a row go back to the last good checkpoint, or
        raise Diverged.
        """
        options, step, in_a_row = self._options, self._state.step, self._state.in_a_row
        what = f"the gradient norm is {grad_norm}" if math.isfinite(loss) else f"the loss is {loss}"
        self._say(
            f"step {step} skipped: {what} ({in_a_row} in a row; {options.bad_steps} count as divergence)"
        )
        if in_a_row < options.bad_steps:
            return
        row = f" ({options.bad_steps} steps in a row)" if options.bad_steps > 1 else ""
        self._respond(f"training stopped at step {step}: {what}{row}")

    def handle_end(self, early: bool = False) -> None:
        """Go back, or raise Diverged, where the last steps were skipped or left weights that are not finite:
        such a training is not done, however few the steps were.

        early: training goes on another time, so that steps may still be skipped in a row.
        """
        state = self._state
        if state.is_finite() if early else state.is_good():
            return
        skipped = f"its last {state.in_a_row} steps were" if state.in_a_row > 1 else "its last step was"
        what = f"{skipped} skipped because of a non-finite loss or gradient"
        what = what if state.in_a_row else "its weights are not finite"
        self._respond(f"training ended at step {state.step}, and {what}")

    def _respond(self, what: str) -> None:
        """To a divergence: go back to the last good checkpoint where that is wanted, or raise Diverged."""
        good = None if self._writer is None else self._writer.last_good()
        if self._writer is None or good is None:
            raise Diverged(self._explain(what, None))
        self._writer.forget_after(good)
        if self._options.on_divergence == "stop" or self._returns[good.path] == _RETURNS:
            raise Diverged(self._explain(what, good.path))
        self._returns[good.path] += 1
        self._writer.go_back(good, self._options.rollback_lr)
        factor, returns = self._state.lr_factor, self._returns[good.path]
        self._say(
            f"rolled back to {good.path} with {factor:g} times the learning rate (rollback {returns} of {_RETURNS})"
        )

    def _explain(self, what: str, good: Path | None) -> str:
        last = f"the last good checkpoint is {good}" if good else "no checkpoint was saved before it"
        returns = (
            f", to which training was rolled back {_RETURNS} times"
            if good and self._returns[good] == _RETURNS
            else ""
        )
        return (
            f"{what}; {last}{returns}. Lower the learning rate, use training.precision=fp32, or "
            "training.on_divergence=rollback"
        )

    def _say(self, text: str) -> None:
        if self._processes.first:
            _LOG.warning(text)
