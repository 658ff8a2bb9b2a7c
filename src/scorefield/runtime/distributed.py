"""The processes of one job, launched by torchrun or accelerate: ranks, shares and barriers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch

from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.precision import pick_device

if TYPE_CHECKING:
    from accelerate import PartialState

__all__ = ["Processes", "join_processes"]

T = TypeVar("T")
_CPU = torch.device("cpu")
_PATIENCE = timedelta(days=7)  # one process may have much more left to do than another


@dataclass(frozen=True)
class Processes:
    """This process among those launched together.

    Attributes:
        rank: 0 … world − 1; the first one reports.
        world: How many there are.
        device: What it computes on.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = _CPU

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, numbers: Iterable[int]) -> list[int]:
        """Which of these pieces of work are this process's: k belongs to rank k mod world, whatever else is
        left to do.
        """
        return [k for k in numbers if k % self.world == self.rank]

    def on_first(self, work: Callable[[], None]) -> None:
        """The first process works while the others wait; an error of the user's that it meets is raised by
        all of them.
        """
        problem: ScorefieldError | None = None
        if self.first:
            try:
                work()
            except ScorefieldError as error:
                problem = error
        if self.world > 1:
            from accelerate.utils import broadcast_object_list

            (problem,) = broadcast_object_list([problem])
        if problem is not None:
            raise problem

    def on_all(self, work: Callable[[], T]) -> T:
        """Every process works; where one of them fails, all do, so that none waits for another: the others
        with an InputError.
        """
        problem: Exception | None = None
        try:
            result = work()
        except Exception as error:
            problem = error
        if self.world > 1:
            failed = torch.tensor(int(problem is not None), device=self.device)
            torch.distributed.all_reduce(failed)
            if failed:
                from accelerate.utils import gather_object

                texts = gather_object([None if problem is None else str(problem) or type(problem).__name__])
                problem = problem or InputError(next(text for text in texts if text is not None))
        if problem is not None:
            raise problem
        return result

    def leave(self) -> None:
        """Wait until every process is here, then end what they share: the first one can go on alone, for as
        long as it takes.
        """
        if self.world > 1:
            state = _state(self.device)
            state.wait_for_everyone()
            state.destroy_process_group()


def join_processes(device: str | None = None) -> Processes:
    """This process's place and its device: the one named, or the fastest found; of several GPUs each process
    has its own.

    InputError where this machine has no such device.
    """
    chosen = pick_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes(device=chosen)
    state = _state(chosen)
    return Processes(
        state.process_index,
        state.num_processes,
        state.device if device is None or device == "cuda" else chosen,
    )


def _state(device: torch.device) -> PartialState:
    """Accelerate's state of these processes, made on the first call."""
    from accelerate import PartialState  # slow to import, and one process needs none

    return PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)
