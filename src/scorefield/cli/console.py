"""What the commands print with: tables and bars on a terminal, plain lines elsewhere, JSON on request."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["Progress", "complain", "is_first_process", "print_json", "print_table", "progress", "say"]

_SECONDS_BETWEEN_LINES = 15.0


def is_first_process() -> bool:
    """Whether this is the process that speaks and writes, of those that torchrun or accelerate launched."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """A line for people, on stderr, so that stdout holds results only; from the first process alone."""
    if is_first_process():
        print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    print(f"error: {' '.join(text.split())}", file=sys.stderr, flush=True)


def print_json(values: Mapping[str, object]) -> None:
    print(json.dumps(values, indent=1, default=str))


def print_table(headers: Iterable[str], rows: Iterable[Iterable[object]], title: str | None = None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False).print(table)


class Progress:
    """A bar on a terminal; elsewhere a plain line every quarter of a minute."""

    def __init__(self, what: str, total: int, bar: Any = None) -> None:
        self.what, self.total, self.done = what, total, 0
        self._bar, self._task = bar, None if bar is None else bar.add_task(what, total=total, note="")
        self._start = self._last = time.monotonic()
        self._first = 0

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        if self.done == 0:
            self._first = done - 1  # a resumed run starts at its own step
        self.done, self.total = done, total or self.total
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total, note=note)
        elif time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            left = (self.total - done) * (self._last - self._start) / max(done - self._first, 1)
            say(f"{self.what}: {done}/{self.total}  {note}  {_duration(left)} left")

    def advance(self) -> None:
        self.update(self.done + 1)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """A Progress for as long as the block runs."""
    if not sys.stderr.isatty() or not is_first_process():
        yield Progress(what, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        "{task.description}",
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "<",
        TimeRemainingColumn(),
    )
    with Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        yield Progress(what, total, bar)
