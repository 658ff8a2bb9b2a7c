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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from scorefield.runtime.launched import is_first_process
from scorefield.runtime.printable import one_line, printable
from scorefield.runtime.progress import Pace

__all__ = [
    "Progress",
    "complain",
    "print_json",
    "print_line",
    "print_table",
    "print_text",
    "progress",
    "say",
    "speaking",
]

_SECONDS_BETWEEN_LINES = 15.0
_LONGEST = 2000  # characters of an error line


def say(text: str) -> None:
    """A line for people, on stderr, so that stdout holds results only; from the first process alone."""
    if is_first_process():
        _tell(printable(text))


def complain(text: str) -> None:
    """What ends the command, as one line on stderr, from any process."""
    line = one_line(text, None)
    cut = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 200]} … {line[-200:]}"
    _tell(f"error: {cut}")


def _tell(line: str) -> None:
    with suppress(OSError, ValueError):
        if sys.stderr is not None:  # of a program that runs the command in its own process
            print(line, file=sys.stderr, flush=True)


class _Log(io.TextIOBase):
    """stderr, which ends no work where it cannot be written: the terminal may be closed, the disk of a log
    full. What it could not take is dropped.
    """

    def __init__(self, stream: Any) -> None:
        self.stream, self.failed = stream, stream is None

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda: self.stream.flush())

    def _try(self, work: Callable[[], object]) -> None:
        try:
            if self.stream is not None:
                work()
        except (OSError, ValueError):
            self.failed = True

    def isatty(self) -> bool:
        return self.stream is not None and bool(self.stream.isatty())

    def fileno(self) -> int:
        return 2 if self.stream is None else int(self.stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.stream, "encoding", None) or "utf-8"


def _keep_standard_files() -> None:
    """The null device in place of those that are closed (`2>&-`): or else the next file that is opened, a
    checkpoint perhaps, has the number to which C libraries write their messages.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


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
    """For as long as the block runs, Python's warnings and log lines are said like everything else, what the
    encoding of stdout lacks is escaped, and stderr may fail.
    """
    _keep_standard_files()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = _Said(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    log = sys.stderr = _Log(before := sys.stderr)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            yield
    finally:
        root.removeHandler(handler)
        if not log.failed:  # or the interpreter's last flush fails, which is exit status 120
            sys.stderr = before


class _Said(logging.Handler):
    """Log lines of the first process, and errors of any."""

    def emit(self, record: logging.LogRecord) -> None:
        (_tell if record.levelno >= logging.ERROR else say)(one_line(record.getMessage(), None))


def _say_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {one_line(message, None)}")


class Progress:
    """A bar on a terminal; elsewhere a plain line every quarter of a minute.

    seconds: when the work ends at the latest.
    """

    def __init__(self, what: str, total: int, bar: Any = None, seconds: float | None = None) -> None:
        self.what, self.total, self.done = printable(what), total, 0
        self._bar = bar
        self._task = None if bar is None else bar.add_task(self.what, total=total, note="", count="", left="")
        self._last = time.monotonic()
        self._pace = Pace(seconds)

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        now = time.monotonic()
        self.done, self.total = done, total or self.total
        left = self._pace.left(done, self.total)
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=done,
                total=self.total,
                note=printable(note),
                count=f"{done}/{self.total}",
                left=left and f"< {left}",
            )
        elif now - self._last > _SECONDS_BETWEEN_LINES:
            self._last = now
            say(f"{self.what}: {done}/{self.total}  {note}{left and f'  {left} left'}")

    def advance(self) -> None:
        self.update(self.done + 1)


@contextmanager
def progress(what: str, total: int, seconds: float | None = None) -> Iterator[Progress]:
    """A Progress for as long as the block runs.

    Args:
        what: What is done.
        total: How many steps it has.
        seconds: When the work ends at the latest.
    """
    if sys.stderr is None or not sys.stderr.isatty() or not is_first_process():
        yield Progress(what, total, seconds=seconds)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    def text(field: str, column: Column | None = None) -> TextColumn:
        return TextColumn(field, markup=False, table_column=column or Column(no_wrap=True))

    columns = (
        text("{task.description}"),
        text("{task.fields[count]}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        text("{task.fields[left]}"),
        text(
            "{task.fields[note]}", Column(no_wrap=True, ratio=6)
        ),  # what a narrow terminal cuts, rather than a number of steps
    )
    with Bar(*columns, console=Console(stderr=True), expand=True) as bar:
        yield Progress(what, total, bar, seconds)
