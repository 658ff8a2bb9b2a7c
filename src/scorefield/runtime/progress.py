"""Where long work reports its progress."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

from scorefield.runtime.checks import brief
from scorefield.runtime.errors import InputError

__all__ = ["Bar", "Pace", "SILENT", "Reporter", "Shares", "check_reporter", "notebook_or_silent"]

_SECONDS_BETWEEN_UPDATES = 0.5


class Bar(Protocol):
    """How far one phase is."""

    def update(self, done: int, note: str = "", total: int | None = None) -> None: ...

    def advance(self) -> None: ...


@runtime_checkable
class Reporter(Protocol):
    """Where progress is reported; `scorefield.cli.console` is one, `SILENT` reports nothing.

    progress: a bar for as long as its block runs. say: a line of text.
    """

    def progress(self, what: str, total: int) -> AbstractContextManager[Bar]: ...

    def say(self, text: str) -> None: ...


class _Silent:
    def __repr__(self) -> str:  # the default that `help` shows
        return "SILENT"

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Bar]:
        yield self

    def say(self, text: str) -> None: ...

    def update(self, done: int, note: str = "", total: int | None = None) -> None: ...

    def advance(self) -> None: ...


SILENT: Reporter = _Silent()


def check_reporter(progress: object) -> Reporter:
    """What progress is reported to. InputError for what is no `Reporter`."""
    if isinstance(progress, Reporter) and not isinstance(progress, type):
        return progress
    raise InputError(
        "progress is an object with the methods progress(what, total) and say(text), see "
        f"scorefield.runtime.progress.Reporter, or left out; got {brief(progress)}"
    )


class Pace:
    """The time left of work, at its speed since the first update, which may come late.

    seconds: after which the work ends at the latest.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._ends = math.inf if seconds is None else time.monotonic() + seconds
        self._first: tuple[int, float] | None = None  # where counting began, and when

    def left(self, done: int, total: int) -> str:
        """Such as "3 min 20 s"; nothing at the first update, which says no speed."""
        now = time.monotonic()
        first, since = self._first = self._first or (done, now)
        if done <= first:
            return ""
        return _duration(min((total - done) * (now - since) / (done - first), max(self._ends - now, 0)))


class Shares:
    """A bar that counts `count` things while `steps` equal steps make them together."""

    def __init__(self, bar: Bar, count: int, steps: int) -> None:
        self._bar, self._count, self._steps, self._done = bar, count, steps, 0

    def advance(self) -> None:
        """Count a step."""
        self._done += 1
        self._bar.update(self._count * self._done // self._steps)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def notebook_or_silent() -> Reporter:
    """A reporter of the notebook that this runs in; SILENT elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return _Notebook() if type(shell).__name__ == "ZMQInteractiveShell" else SILENT


class _Notebook:
    """Progress as one line below the cell, which is written anew."""

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Bar]:
        line = _Line(what, total)
        try:
            yield line
        finally:
            line.show()

    def say(self, text: str) -> None:
        _display(text)


class _Line:
    """A bar as text."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done, self._note = what, total, 0, ""
        self._pace, self._left, self._handle = Pace(), "", _display(f"{what}: 0/{total}")
        self._shown = time.monotonic()

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        self.done, self._note, self.total = done, note, total or self.total
        self._left = self._pace.left(done, self.total)
        if time.monotonic() - self._shown > _SECONDS_BETWEEN_UPDATES:
            self.show()

    def advance(self) -> None:
        self.update(self.done + 1)

    def show(self) -> None:
        self._shown = time.monotonic()
        left = f"  {self._left} left" if self._left and self.done < self.total else ""
        text = f"{self.what}: {self.done}/{self.total}  {self._note}{left}".rstrip()
        self._handle.update({"text/plain": text}, raw=True)


def _display(text: str) -> Any:
    """The handle of a text below the cell."""
    from IPython.display import display  # type: ignore[import-not-found,unused-ignore]

    return display({"text/plain": text}, raw=True, display_id=True)
