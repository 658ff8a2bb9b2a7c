"""One writer a run: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from scorefield.runtime.atomic import is_another_process, open_own, overwrite, remove
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import open_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["RunLock", "holder_of", "holder_pid"]

_HELD: dict[Path, RunLock] = {}
_LONGEST_TURN = 60.0  # seconds; it takes milliseconds
_FLOCK = "@hhqqi4x"  # struct flock of Linux: type, whence, start, length, process
_LONGEST, _BEGINNING = 4096, '{"pid": '  # of the text


class RunLock:
    """The right to write `path`'s folder, from construction until `release` or the end of the process.

    The kernel's lock decides; the text of the file only tells people whose it is. (Record locks: a forked
    worker does not inherit them, so it cannot outlive the run in its name.) Where the file system has no
    locks, he who made the file holds it, and its text says whom: a process of this machine that has ended is
    followed, and a process of another machine cannot be asked whether it lives. A second lock in one process
    takes over the first.

    Args:
        path: The file of the lock.

    Attributes:
        taken_over: Who held it and ended without releasing it, or "".

    Raises:
        InputError: Where another process holds it, naming that; where the folder cannot be written; where
            something else has this name.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.taken_over = Path(os.path.realpath(path.parent)) / path.name, ""
        self._pid, self._file = os.getpid(), None
        earlier = _HELD.get(self.path)
        if earlier is not None and earlier._is_held():
            self._file, earlier._file = earlier._file, None
            self._keep()
        else:
            self._file, self.taken_over = _acquire(self.path)
        _HELD[self.path] = self

    def check(self) -> bool:
        """Call it before writing: whether it was held all the time. A file that was removed by hand is made again,
        unless another process has.

        InputError where this lock has passed to another process, or to a later lock of this one, or was
        released.
        """
        if not self._is_held():
            raise InputError(
                f"{self.path.parent} is now written by a later trainer of this process, or closed: resume it with a "
                "new trainer"
            )
        return self._keep()

    def release(self) -> None:
        """Let others write. Nothing happens where this lock is not held any more, or in a fork of its
        process.
        """
        if self._file is not None and self._is_held():
            if _is_at(self.path, self._file) and _kernel_lock(self._file) is not False:
                remove(self.path)
            self._file.close()
            self._file = None
            _HELD.pop(self.path, None)

    def _is_held(self) -> bool:
        return self._file is not None and self._pid == os.getpid()

    def _keep(self) -> bool:
        """Hold the file that has the name, which is another one where the first was removed; whether it is the same."""
        if self._file is None:
            return False
        if _is_at(self.path, self._file):
            # The kernel lets a record lock go where this process closes the same file elsewhere, such as in a
            # copy of the run: it is asked for again.
            if _kernel_lock(self._file) is False:
                raise _refusal(self.path, _Holder(self._file))
            return True
        self._file.close()
        self._file = None
        self._file, _ = _acquire(self.path)
        return False


def holder_of(path: Path) -> str | None:
    """Who writes the folder of this lock, in words; None where nobody does.

    The text of the file is read, so a process of another machine counts as long as its file is there.

    Args:
        path: The file of the lock.
    """
    own = _HELD.get(Path(os.path.realpath(path.parent)) / path.name)
    if own is not None and own._is_held():  # reading it would let the kernel's lock go
        return f"process {os.getpid()}"
    try:
        with open_file(path, "a lock", _LONGEST, follow=False) as file:
            holder, pid = _Holder(file), _kernel_holder(file)
    except InputError:
        return None
    return None if pid == 0 or not holder.pid or holder.has_ended() else holder.name


def holder_pid(path: Path) -> int | None:
    """The process of this machine that the kernel says holds a lock; None where it holds none, or cannot say.

    Args:
        path: The file of the lock.
    """
    own = _HELD.get(Path(os.path.realpath(path.parent)) / path.name)
    if own is not None and own._is_held():
        return os.getpid()
    try:
        with open_file(path, "a lock", _LONGEST, follow=False) as file:
            return _kernel_holder(file) or None
    except InputError:
        return None


def _kernel_holder(file: BufferedReader) -> int | None:
    """The process that holds the kernel's lock on an open file, 0 for none; None where the kernel does not say."""
    if fcntl is None or sys.platform != "linux":
        return None
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:  # a file system without locks
        return None
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _acquire(path: Path) -> tuple[BinaryIO, str]:
    """The open lock file, and the holder who left it behind."""
    followed = ""
    try:
        while True:
            file, made = _open(path)
            try:
                holder = _Holder(file)
                if not holder.is_readable:
                    raise InputError(
                        f"{path} is not a lock file of scorefield: remove it, or choose another folder"
                    )
                if not _lock(path, file, holder, made):
                    raise _refusal(path, holder)
                followed = holder.name if holder.said else followed
                if _is_at(path, file):
                    break
            except BaseException:
                file.close()
                raise
            file.close()  # its holder released it between our opening and our locking: that file is gone
        said = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        }
        overwrite(file, json.dumps(said))
    except OSError as error:
        raise unwritable(path.parent, error, "make it writable, or choose another folder") from None
    return file, followed


def _open(path: Path) -> tuple[BinaryIO, bool]:
    """The file, and whether this call made it."""
    while True:
        try:
            return open_own(path, os.O_CREAT | os.O_EXCL), True
        except FileExistsError:
            pass
        try:
            return open_own(path, 0), False
        except (
            FileNotFoundError
        ):  # removed in the meantime: made here, it would look like one that another process made
            pass


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _lock(path: Path, file: BinaryIO, holder: _Holder, made: bool) -> bool:
    """Whether the file is ours; also where it is no more the one of that name, and the next one may be."""
    found = _kernel_lock(file)
    return found if found is not None else made or (holder.has_ended() and _dropped(path, file))


def _kernel_lock(file: BinaryIO) -> bool | None:
    """Whether the kernel gave this process the lock; None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _refusal(path: Path, holder: _Holder) -> InputError:
    return InputError(
        f"{path.parent} is being written by {holder.name}: wait for it or stop it. If it has ended, remove {path}"
    )


def _dropped(path: Path, file: BinaryIO) -> bool:
    """Remove the file of a process that has ended, so that one of those that come after it can make its own.

    One process at a time: another one may have followed in the meantime, and its file stays.
    """
    turn = path.with_name(path.name + ".turn")
    if not _took(turn):
        return False
    try:
        if _is_at(path, file):
            remove(path)
        return True
    finally:
        remove(turn)


def _took(turn: Path) -> bool:
    """Make the file that stands for a turn, unless another process has its turn. One that is a minute old was left by a
    process that was killed in its turn, and is removed.
    """
    try:
        open_own(turn, os.O_CREAT | os.O_EXCL).close()
    except FileExistsError:
        try:
            age = time.time() - turn.lstat().st_mtime
        except FileNotFoundError:  # that turn is over, and so is what it was for
            return False
        if age < _LONGEST_TURN:
            return False
        remove(turn)
        return _took(turn)
    return True


class _Holder:
    """Whom the text of a lock file names."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self.said = file.read(_LONGEST).decode(errors="replace")
        # Not written yet, or cut off: what there is of it begins as it should.
        self.is_readable = self.said[: len(_BEGINNING)] == _BEGINNING[: len(self.said)]
        try:
            found = json.loads(self.said)
            self.pid, self.host, since = int(found["pid"]), str(found["host"]), str(found["since"])
            self.name = f"process {self.pid} on {self.host} since {since}"
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            self.pid, self.host, self.name = 0, "", "another process"

    def has_ended(self) -> bool:
        return self.host == socket.gethostname() and not is_another_process(self.pid)
