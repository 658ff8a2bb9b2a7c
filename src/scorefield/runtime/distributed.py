"""The processes of one job, launched by torchrun or accelerate: ranks, shares, barriers, and what they say of
each other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.launched import launched_together
from scorefield.runtime.precision import pick_device

if TYPE_CHECKING:
    from accelerate import PartialState
    from torch.distributed import Store

__all__ = ["LostProcess", "Processes", "join_processes", "losing_none", "lost_process"]

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_CPU = torch.device("cpu")
_PATIENCE = timedelta(days=7)  # one process may have much more left to do than another
_SILENT, _AGAIN = 10.0, 60.0  # seconds of waiting before it is said for whom, and between two such lines
_SHOWN = 40  # characters of a value in a message
# What torch and its libraries say where the connection to another process is lost; errors of gloo have no class.
_LOST = ("connection", "gloo", "nccl", "broken pipe", "socket", "timed out")


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

    def on_first(self, work: Callable[[], T]) -> T:
        """The first process works while the others wait for what it returns; an error of the user's that it meets
        is raised by all of them.
        """
        problem: ScorefieldError | None = None
        result: Any = None
        if self.first:
            try:
                result = work()
            except ScorefieldError as error:
                problem = error
        if self.world > 1:
            from accelerate.utils import broadcast_object_list

            problem, result = broadcast_object_list([problem, result])
        if problem is not None:
            raise problem
        return cast(T, result)

    def on_all(self, work: Callable[[], T], what: str = "") -> T:
        """Every process works; where one of them fails, all do, so that none waits for another: the others
        with an InputError.

        what: names work that may take long, so that those who wait say for whom, and what for.
        """
        problem: Exception | None = None
        try:
            result = work()
        except Exception as error:
            problem = error
        if self.world > 1:
            if what and _STORE:
                _wait(_STORE[0], self.rank, self.world, what)
            failed = torch.tensor(int(problem is not None), device=self.device)
            torch.distributed.all_reduce(failed)
            if failed:
                from accelerate.utils import gather_object

                texts = gather_object([None if problem is None else str(problem) or type(problem).__name__])
                problem = problem or InputError(next(text for text in texts if text is not None))
        if problem is not None:
            raise problem
        return result

    def check_same(self, facts: Callable[[], Mapping[str, object]], what: str) -> None:
        """InputError, raised by all, where processes do not agree, naming the first fact that differs.

        facts: Numbers, texts, lists and tables of them by name; asked only where there are several processes.
            what: The comparison, for those who wait.
        """
        if self.world == 1:
            return
        from accelerate.utils import gather_object

        mine = self.on_all(lambda: dict(_flat(facts())), what)
        hashed = {
            name: (hashlib.sha256(text.encode()).hexdigest(), text[:_SHOWN]) for name, text in mine.items()
        }
        first, *others = gather_object([hashed])
        for rank, other in enumerate(others, 1):
            for name in [*first, *other]:
                (ours, here), (theirs, there) = (one.get(name, ("", "nothing")) for one in (first, other))
                if ours != theirs:
                    values = f" ({there}, not {here})" if here != there else ""
                    raise InputError(
                        f"process {rank} has another {name} than process 0{values}: start all processes with the same "
                        "command, data and version of scorefield"
                    )

    def leave(self) -> None:
        """Wait until every process is here, then end what they share: the first one can go on alone, for as
        long as it takes.
        """
        if self.world > 1:
            if _STORE:
                _wait(_STORE.pop(), self.rank, self.world, "the end of its work")
            state = _state(self.device)
            state.wait_for_everyone()
            state.destroy_process_group()


class LostProcess(ScorefieldError):
    """Another process of this job has ended, or cannot be reached."""


def lost_process(error: Exception, advice: str) -> LostProcess | None:
    """What to raise instead of an error of the connection between the processes of a job; None for any other.

    Args:
        error: What torch raised.
        advice: How to go on.
    """
    distributed = torch.distributed
    if not distributed.is_available():
        return None
    text = " ".join(str(error).split())
    said = distributed.is_initialized() and any(part in text.lower() for part in _LOST)
    if not isinstance(error, distributed.DistError) and not (said and isinstance(error, RuntimeError)):
        return None
    return LostProcess(f"another process of this job has ended or cannot be reached ({text[:160]}): {advice}")


@contextmanager
def losing_none(advice: str) -> Iterator[None]:
    """LostProcess, with this advice, for an error of the connection between the processes of a job."""
    try:
        yield
    except RuntimeError as error:
        if lost := lost_process(error, advice):
            raise lost from None
        raise


def join_processes(device: str | None = None, patience: timedelta = _PATIENCE) -> Processes:
    """This process's place and its device: the one named, or the fastest found; of several GPUs each process
    has its own.

    Args:
        device: "cpu", "cuda" or "mps".
        patience: How long one process waits for another that does not answer.
    Raises:
        InputError: Where this machine has no such device, or the environment does not say which process this is.
        LostProcess: Where the others cannot be reached.
    """
    chosen = pick_device(device)
    rank, world = launched_together()
    if world < 2:
        return Processes(device=chosen)
    state = _state(chosen, rank, world, patience)
    return Processes(
        state.process_index,
        state.num_processes,
        state.device if device is None or device == "cuda" else chosen,
    )


_STORE: list[Store] = []  # of the processes that met here: one, or none


def _state(
    device: torch.device, rank: int = 0, world: int = 1, patience: timedelta = _PATIENCE
) -> PartialState:
    """Accelerate's state of these processes, made on the first call."""
    from accelerate import PartialState  # slow to import, and one process needs none

    met: dict[str, object] = {}
    if world > 1 and not torch.distributed.is_initialized():
        store = _meet(rank, world)
        _STORE[:] = [store]
        met = {"store": torch.distributed.PrefixStore("group", store), "rank": rank, "world_size": world}
    return PartialState(cpu=device.type == "cpu", timeout=patience, **met)


def _meet(rank: int, world: int) -> Store:
    """The store of the processes launched together, as soon as all are there.

    torch would wait for them in C++, where neither Ctrl-C nor SIGTERM ends it, and without a word.
    """
    host, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), os.environ.get("MASTER_PORT", "29500")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 2**16):
        raise InputError(f"the environment's MASTER_PORT must be a port, 1 … 65535, got {port[:_SHOWN]!r}")
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store, since = None, time.monotonic()
    while store is None:
        try:
            store = torch.distributed.TCPStore(
                host,
                int(port),
                world,
                serves,
                timedelta(seconds=2),
                wait_for_workers=False,
                multi_tenant=True,
            )
        except torch.distributed.DistNetworkError as error:
            if serves:
                raise InputError(
                    f"process 0 cannot listen on port {port} of {host}, which another program may use "
                    f"({_first_line(error)}): set another port by MASTER_PORT or torchrun --master-port, and restart all "
                    "processes"
                ) from None
            since = _say_now(since, f"process {rank} of {world} cannot reach process 0 at {host}:{port} yet")
    store.set_timeout(_PATIENCE)
    _wait(store, rank, world, "the start")
    return store


def _wait(store: Store, rank: int, world: int, what: str) -> None:
    """Wait until every process has come to `what`, and say for whom after some seconds."""
    count = store.add(f"rounds of {rank}", 1)
    store.set(f"round {count} of {rank}", what)
    since, pause = time.monotonic(), 0.01
    while missing := [k for k in range(world) if not store.check([f"round {count} of {k}"])]:
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
        who = (
            f"process {missing[0]}" if len(missing) == 1 else f"processes {', '.join(map(str, missing[:8]))}"
        )
        since = _say_now(since, f"process {rank} of {world} waits for {who} ({what})")


def _say_now(since: float, text: str) -> float:
    """Say it where some seconds have passed; the time from which the next ones count."""
    if time.monotonic() - since < _SILENT:
        return since
    _LOG.error(text)
    return time.monotonic() + _AGAIN - _SILENT


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:160]


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """The entries of tables within tables, by names with dots."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(value, default=str)
