"""The one place of the command that prints: tables and bars on a terminal, plain lines elsewhere, JSON on
request.

What is printed may come from a file of someone else (a class's name, a file's name, a title), so every text
passes through `printable`, and none is read as rich's markup.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from scorefield.runtime.printable import one_line, printable

__all__ = [
    "Progress",
    "complain",
    "is_first_process",
    "print_json",
    "print_line",
    "print_table",
    "print_text",
    "progress",
    "say",
    "speaking",
]

_SECONDS_BETWEEN_LINES = 15.0


def is_first_process() -> bool:
    """Whether this is the process that speaks and writes, of those that torchrun or accelerate launched."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """A line for people, on stderr, so that stdout holds results only; from the first process alone."""
    if is_first_process():
        _tell(printable(text))


def complain(text: str) -> None:
    """What ends the command, as one line on stderr, from any process."""
    _tell(f"error: {one_line(text)}")


def _tell(line: str) -> None:
    """A line on stderr. Work does not end because nobody can read of it: the terminal may be closed, the disk
    of its log full.
    """
    with suppress(OSError, ValueError):
        if sys.stderr is not None:  # for `2>&-`; print would take stdout instead
            print(line, file=sys.stderr, flush=True)


def print_line(text: str) -> None:
    """A line of a result, on stdout."""
    print(printable(text), flush=True)


def print_text(text: str) -> None:
    """A text of several lines, such as a recipe, on stdout; its tabs stay."""
    for line in text.removesuffix("\n").split("\n"):
        print("\t".join(map(printable, line.removesuffix("\r").split("\t"))))


def print_json(values: Mapping[str, object]) -> None:
    """JSON on stdout: ASCII, with null for numbers that JSON lacks (NaN and the infinities)."""
    text = json.dumps(_finite(values), indent=1, default=str, allow_nan=False)
    print(text.replace("\x7f", "\\u007f"))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def print_table(headers: Iterable[str], rows: Iterable[Iterable[object]], title: str | None = None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def cell(value: object) -> Text:
        return Text(printable(value))

    shown = None if title is None else cell(title)
    table = Table(title=shown, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(cell(header), overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(table)


@contextmanager
def speaking() -> Iterator[None]:
    """Python's warnings and log lines are said like everything else for as long as the block runs, and what
    the encoding of stdout lacks is escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = _Said(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            yield
    finally:
        root.removeHandler(handler)


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(one_line(record.getMessage()))


def _say_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {one_line(message)}")


class Progress:
    """A bar on a terminal; elsewhere a plain line every quarter of a minute."""

    def __init__(self, what: str, total: int, bar: Any = None) -> None:
        self.what, self.total, self.done = printable(what), total, 0
        self._bar, self._task = bar, None if bar is None else bar.add_task(self.what, total=total, note="")
        self._start = self._last = time.monotonic()
        self._first = 0

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        if self.done == 0:
            self._first = done - 1  # a resumed run starts at its own step
        self.done, self.total = done, total or self.total
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total, note=printable(note))
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
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "<",
        TimeRemainingColumn(),
    )
    with Bar(*columns, TextColumn("{task.fields[note]}", markup=False), console=Console(stderr=True)) as bar:
        yield Progress(what, total, bar)
