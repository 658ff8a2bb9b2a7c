"""One writer a run: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from scorefield.runtime.atomic import is_another_process
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["RunLock"]

_HELD: dict[Path, RunLock] = {}


class RunLock:
    """The right to write `path`'s folder, from construction until `release` or the end of the process.

    The kernel's lock decides; the text of the file only tells people whose it is. (Record locks: a forked
    worker does not inherit them, so it cannot outlive the run in its name.) Where the file system has no
    locks, the text decides: it names a process and a machine, and a process of another machine cannot be
    asked whether it lives. A second lock in one process takes over the first.

    taken_over: who held it and ended without releasing it, or "".   InputError: another process holds it,
    naming that; the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.taken_over = path.resolve(), ""
        self._pid, self._file = os.getpid(), None
        earlier = _HELD.get(self.path)
        if earlier is not None and earlier._is_held():
            self._file, earlier._file = earlier._file, None
        else:
            self._file, self.taken_over = _acquire(self.path)
        _HELD[self.path] = self

    def check(self) -> None:
        """InputError where this lock has passed to a later one of the same process, or was released."""
        if not self._is_held():
            raise InputError(
                f"{self.path.parent} is written by a later trainer of this process, or by none: resume it with a new one"
            )

    def release(self) -> None:
        """Let others write. Nothing happens where this lock is not held any more, or in a fork of its
        process.
        """
        if self._file is not None and self._is_held():
            with suppress(OSError):  # the disk may have become read-only
                self.path.unlink()
            self._file.close()
            self._file = None
            _HELD.pop(self.path, None)

    def _is_held(self) -> bool:
        return self._file is not None and self._pid == os.getpid()


def _acquire(path: Path) -> tuple[IO[str], str]:
    """The open lock file, and the holder who left it behind."""
    try:
        while True:
            file = path.open("a+")
            holder = _Holder(file)
            if not _lock(file, holder):
                file.close()
                raise InputError(
                    f"{path.parent} is being written by {holder.name}: wait for it or stop it. If it has ended, remove {path}"
                )
            if _is_at(path, file):
                break
            file.close()  # its holder released it between our opening and our locking: that file is gone
        file.seek(0)
        file.truncate()
        file.write(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "host": socket.gethostname(),
                    "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
                }
            )
        )
        file.flush()
    except OSError as error:
        raise unwritable(path.parent, error, "make it writable, or choose another folder") from None
    return file, holder.name if holder.said else ""


def _is_at(path: Path, file: IO[str]) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[str], holder: _Holder) -> bool:
    """Whether the file is ours."""
    try:
        if fcntl is not None:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # this file system has no locks
    return not holder.said or holder.has_ended()


class _Holder:
    """Whom the text of a lock file names."""

    def __init__(self, file: IO[str]) -> None:
        file.seek(0)
        self.said = file.read()
        try:
            found = json.loads(self.said)
            self.pid, self.host, since = int(found["pid"]), str(found["host"]), str(found["since"])
            self.name = f"process {self.pid} on {self.host} since {since}"
        except (ValueError, TypeError, KeyError):  # not written yet, or cut off
            self.pid, self.host, self.name = 0, "", "another process"

    def has_ended(self) -> bool:
        return self.host == socket.gethostname() and not is_another_process(self.pid)
