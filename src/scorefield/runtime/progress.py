"""Where long work reports its progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Bar", "SILENT", "Reporter"]


class Bar(Protocol):
    """How far one phase is."""

    def update(self, done: int, note: str = "", total: int | None = None) -> None: ...

    def advance(self) -> None: ...


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
