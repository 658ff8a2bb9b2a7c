"""Log of the files that could not be used, each named once: in memory, and in a file of the run."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import BinaryIO

from scorefield.runtime.atomic import append
from scorefield.runtime.checks import unwritable
from scorefield.runtime.printable import one_line

__all__ = ["UnreadableLog", "reason_of"]

_CONTROL = {code: f"\\x{code:02x}" for code in range(32)}


class UnreadableLog:
    """Names of unusable files, each with the reason. Threads may add to it, and so may processes that share a
    file.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self._lock = threading.Lock()
        self._file: Path | None = None
        self._read, self._written = 0, set[str]()

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, reason: str = "") -> None:
        """Record this file, unless it is recorded already."""
        with self._lock:
            if name not in self.names:
                self.names[name] = reason
                self._append([name])

    def write_to(self, file: Path) -> None:
        """Write a line `name<tab>reason` to this file for every name recorded so far and from now on, but for
        names that it already holds.
        """
        with self._lock:
            self._file, self._read, self._written = file, 0, set()
            self._append(list(self.names))

    def _append(self, names: list[str]) -> None:
        if self._file is None or not names:
            return
        try:
            append(self._file, lambda file: self._missing(file, names))
        except OSError as fault:
            raise unwritable(self._file, fault) from None

    def _missing(self, file: BinaryIO, names: list[str]) -> str:
        """The lines of those names that the file does not hold: another process may have written some."""
        file.seek(self._read)
        content = file.read()
        self._written |= {line.partition(b"\t")[0].decode(errors="replace") for line in content.split(b"\n")}
        lines = [(_line(name), self.names[name]) for name in names]
        text = "".join(f"{name}\t{_line(reason)}\n" for name, reason in lines if name not in self._written)
        self._written |= {name for name, _ in lines}
        self._read += len(content)
        return text


def _line(value: str) -> str:
    """Without tabs and line breaks, which separate names and lines."""
    return value.translate(_CONTROL)


def reason_of(fault: Exception) -> str:
    """The message of an exception on one line, without Python's names of objects in memory."""
    return re.sub(r" ?<[^<>]* at 0x[0-9a-f]+>", "", one_line(fault)) or type(fault).__name__
