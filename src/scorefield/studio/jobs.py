"""Jobs: what is computed on the device, by one thread, one after another; each can be followed and cancelled."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any

from scorefield.runtime.errors import ScorefieldError, first_reason
from scorefield.runtime.free_memory import is_out_of_memory
from scorefield.studio.answers import Refusal
from scorefield.studio.frames import Frames, thin

__all__ = ["Cancelled", "Job", "Jobs", "Work"]

_FINISHED = 20  # jobs that are kept after their end
_WAITING = 50  # jobs that may wait for the device

Event = Mapping[str, Any]


class Cancelled(Exception):
    """Raised within a job that is to end."""


class Job:
    """One piece of work, its events and its frames.

    Args:
        page: The page that asked for it.
        kind: What it does, such as "sample".
        request: What was asked for, as the page sent it.
        work: Does it, and returns what the last event says.
    """

    def __init__(self, page: str, kind: str, request: Mapping[str, Any], work: Work) -> None:
        self.id = secrets.token_hex(8)
        self.page, self.kind, self.request = page, kind, request
        self.frames = Frames()
        self.result: Mapping[str, Any] = {}
        self.details: Any = None
        self.events: list[Event] = []
        self.ended = False
        self.work: Work | None = work
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []

    @property
    def state(self) -> str:
        """ "queued", "running", "done", "refused" or "cancelled"."""
        with self._lock:
            for event in reversed(self.events):
                if event["event"] == "state":
                    return str(event["state"])
                if event["event"] in _ENDS:
                    return str(event["event"])
        return "queued"

    @property
    def cancelled(self) -> bool:
        """Whether it is to end."""
        return self._stop.is_set()

    def check(self) -> None:
        """Cancelled where it is to end; to be called before each step."""
        if self._stop.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """Let it end before its next step."""
        self._stop.set()

    def report(self, event: str, **values: Any) -> None:
        """Add an event, and wake those who follow.

        Args:
            event: Its name.
            **values: What it says.
        """
        with self._lock:
            if self.ended:
                return
            self.events.append({"event": event, **values})
            self.ended = event in _ENDS
            watchers = list(self._watchers)
        for wake in watchers:
            wake()

    async def follow(self) -> AsyncGenerator[Event, None]:
        """Its events from the first one on, until it ends. Who stops following cancels it, unless another one follows."""
        woken, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # of a loop that is closed
                loop.call_soon_threadsafe(woken.set)

        with self._lock:
            self._watchers.append(wake)
        sent = 0
        try:
            while True:
                woken.clear()
                with self._lock:
                    new, ended = self.events[sent:], self.ended
                for event in new:
                    yield event
                sent += len(new)
                if ended:
                    return
                await woken.wait()
        finally:
            with self._lock:
                self._watchers.remove(wake)
                left = not self._watchers and not self.ended
            if left:
                self.cancel()


Work = Callable[[Job], Mapping[str, Any]]
_ENDS = ("done", "refused", "cancelled")


class Jobs:
    """The jobs of all pages, and the one thread that works on them.

    Attributes:
        device: Held while the device computes.
    """

    def __init__(self) -> None:
        self.device = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._prepared: deque[Callable[[], object]] = deque()
        self._jobs: dict[str, Job] = {}  # in the order in which they came
        self._changed = threading.Condition()
        self._closed = False
        self._running: Job | None = None
        self._thread = threading.Thread(target=self._work, name="scorefield-device", daemon=True)
        self._thread.start()

    def start(self, page: str, kind: str, request: Mapping[str, Any], work: Work, details: Any = None) -> Job:
        """Queue a job. An earlier one of the same page is cancelled.

        Args:
            page: The page that asks for it.
            kind: What it does.
            request: What was asked for.
            work: Does it.
            details: What the panel needs to know of it later.

        Raises:
            Refusal: Where too many wait.
        """
        job = Job(page, kind, request, work)
        job.details = details
        with self._changed:
            for other in self._jobs.values():
                if other.page == page and not other.ended:
                    other.cancel()
            self._drop_cancelled()
            if len(self._waiting) >= _WAITING:
                raise Refusal(429, "too many jobs wait for the device: wait until some have ended")
            self._forget()
            job.report("state", state="queued", behind=len(self._waiting) + (self._running is not None))
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._changed.notify()
        return job

    def prepare(self, work: Callable[[], object]) -> None:
        """Do a little on the device as soon as no job waits, so that the next job need not; its errors are the job's to
        report.

        Args:
            work: What is done.
        """
        with self._changed:
            self._prepared.append(work)
            self._changed.notify()

    def find(self, key: str) -> Job:
        """A job by its id. Refusal where there is none."""
        with self._changed:
            if key in self._jobs:
                return self._jobs[key]
        raise Refusal(404, "there is no such job: it is older than the last ones that are kept")

    def cancel(self, job: Job) -> None:
        """Let a job end: at once where it waits, otherwise before its next step."""
        job.cancel()
        with self._changed:
            self._drop_cancelled()

    def of_page(self, page: str) -> list[Job]:
        """The jobs of a page that are kept, the newest first."""
        with self._changed:
            return [job for job in reversed(self._jobs.values()) if job.page == page]

    def thin(self) -> None:
        """Drop frames of the oldest jobs where all take too much memory."""
        with self._changed:
            frames = [job.frames for job in self._jobs.values()]
        thin(frames)

    def end(self) -> None:
        """Cancel everything, and let the thread end after the step in hand."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.cancel()
            self._drop_cancelled()
            self._changed.notify_all()

    def close(self) -> None:
        """Cancel everything and wait for the thread to end."""
        self.end()
        self._thread.join(timeout=30)

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._waiting if job.cancelled]:
            self._waiting.remove(job)
            job.work = None
            job.report("cancelled")

    def _forget(self) -> None:
        """Drop the oldest jobs that have ended, but for the last ones."""
        ended = [key for key, job in self._jobs.items() if job.ended]
        for key in ended[: max(0, len(ended) - _FINISHED + 1)]:
            del self._jobs[key]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = None
                while not (self._waiting or self._prepared or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                job = self._running = self._waiting.popleft() if self._waiting else None
                for k, other in enumerate(self._waiting, start=1):
                    other.report("state", state="queued", behind=k)
            if job is not None:
                self._run(job)
            else:
                with suppress(ScorefieldError, RuntimeError, MemoryError):
                    self._prepared.popleft()()
            del job

    def _run(self, job: Job) -> None:
        start = perf_counter()
        work, job.work = job.work, None
        try:
            job.check()
            job.report("state", state="running", behind=0)
            job.result = work(job) if work is not None else {}
            job.report("done", ms=round(1000 * (perf_counter() - start), 1), **job.result)
        except Cancelled:
            job.report("cancelled")
        except ScorefieldError as error:
            job.report("refused", error=str(error))
        except Exception as error:  # nothing that a job does may end the thread
            if is_out_of_memory(error):
                job.report(
                    "refused", error="not enough memory: ask for fewer samples, or for a smaller block"
                )
                return
            logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
            job.report("refused", error=f"scorefield failed ({type(error).__name__}: {first_reason(error)})")
