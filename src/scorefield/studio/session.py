"""What the server knows while it runs: the runs, the jobs, and what panels keep between two requests."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from scorefield.runtime.registry import TOYS
from scorefield.studio.answers import Refusal
from scorefield.studio.found_runs import Catalogue
from scorefield.studio.jobs import Jobs, Work

__all__ = ["Planned", "Studio"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Planned:
    """What a request costs, and the work that answers it.

    Attributes:
        facts: What the page shows before it starts; "refused" says why it does not.
        work: Answers it; None where it is refused.
        request: The request with its defaults.
    """

    facts: Mapping[str, Any]
    work: Work | None
    request: Mapping[str, Any] | None


class Studio:
    """The state of a server.

    Args:
        roots: Folders of runs, or runs. Default: runs/.
        data: Sources of data that a training may be started with, beside the embedded ones.
        read_only: Whether everything that starts, stops or writes is refused.

    Attributes:
        data_names: The sources of data that a training may have.
        kinds: Kind of a job -> what plans it; panels add theirs.
        pace: Seconds of a network call, by what was measured.
    """

    def __init__(
        self, roots: Sequence[str | Path] = (), data: Sequence[str] = (), read_only: bool = False
    ) -> None:
        self.catalogue = Catalogue(roots)
        self.jobs = Jobs()
        self.data_names = ["digits", "portraits", *(f"toy:{name}" for name in TOYS), *data]
        self.read_only = read_only
        self.kinds: dict[str, Callable[[Studio, Mapping[str, Any]], Planned]] = {}
        self.pace: dict[object, float] = {}
        self._lock = threading.Lock()
        self._kept: dict[str, OrderedDict[object, Any]] = {}
        self._aside = ThreadPoolExecutor(2, thread_name_prefix="scorefield-reads")

    async def aside(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """What reads files or computes a little, in a thread of its own, so that the server goes on answering."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, lambda: work(*given, **named))

    def recall(self, kind: str, key: object, make: Callable[[], T], most: int = 2) -> T:
        """What was made for this key before, or is made now.

        Args:
            kind: What it is.
            key: Of which one.
            make: Makes it.
            most: How many of this kind are kept.
        """
        with self._lock:
            kept = self._kept.setdefault(kind, OrderedDict())
            if key in kept:
                kept.move_to_end(key)
                found: T = kept[key]
                return found
        found = make()
        with self._lock:
            kept[key] = found
            while len(kept) > most:
                kept.popitem(last=False)
        return found

    def check_writes(self) -> None:
        """Refusal where the server was started read-only."""
        if self.read_only:
            raise Refusal(403, "this page is read-only: it starts, stops and writes nothing")

    def close(self) -> None:
        """End all jobs and threads."""
        self.jobs.close()
        self._aside.shutdown(wait=True, cancel_futures=True)
