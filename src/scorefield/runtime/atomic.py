"""Writing, renaming and deleting: files and folders are made under another name, synced to the disk and renamed,
lines are added whole, and a fixed name is never followed through a symbolic link.

Nothing else in the library changes the file system (tests/test_layout.py).
"""

from __future__ import annotations

import errno
import glob
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import read_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "MANIFEST",
    "append",
    "atomic_folder",
    "atomic_write",
    "drop_abandoned",
    "drop_partials",
    "is_another_process",
    "is_partial",
    "make_folder",
    "make_folders",
    "make_numbered",
    "open_own",
    "overwrite",
    "refuse_link",
    "remove",
    "remove_empty",
    "sync_to_disk",
    "write_error",
    "write_file",
    "write_new",
]

MANIFEST = "manifest.json"  # in a folder of samples: says what they are
_PARTIAL = ".partial"  # how the name of what is not finished ends
_WRITER = re.compile(r"\.(\d{1,19})@(.+)\.partial$")  # its process, and the machine
_OPEN: set[str] = set()  # names of what this process has not finished
_LONG = 86400.0  # seconds after which what another machine has not finished is nobody's
_LONGEST_LINE = 2**26  # bytes
# Without O_NONBLOCK, opening a named pipe may wait for its other end. Windows has none of these.
_SAFELY = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def write_file(path: Path, content: str | bytes, sync: bool = True, replace: bool = True) -> None:
    """Write a file, whole or not at all: no reader meets half of it.

    Args:
        path: The file. One that is there is replaced: of processes that write it at once, the last one stays.
        content: All of it; text becomes UTF-8.
        sync: Wait until the disk has it; without, a power cut can still take it, but a process that is killed
            cannot.
        replace: False: FileExistsError where there is something of this name.
    """
    partial = path.parent / _new_name(path.name)
    try:
        write_new(partial, content)
        _put_file(partial, path, sync, replace)
    finally:
        _end(partial)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name for a library to write under: it replaces `path` when the block ends well, and goes when it fails.

    The name lies in a new folder beside `path`, in which libraries that write files in steps of their own leave
    nothing behind.
    """
    own, permissions = _make_partial(path.parent, path.name)
    partial = own / path.name
    try:
        yield partial
        _set_permissions(partial, permissions)
        _put_file(partial, path)
    finally:
        _end(own)


def _put_file(partial: Path, path: Path, sync: bool = True, replace: bool = True) -> None:
    if sync:
        sync_to_disk(partial)
    if replace:
        os.replace(partial, path)
    else:
        _link(partial, path)
    if sync:
        sync_to_disk(path.parent)


@contextmanager
def atomic_folder(path: Path, replace: bool = False, last: str = "") -> Iterator[Path]:
    """An empty folder to fill; it becomes `path` when the block ends well, and goes when it fails.

    Args:
        path: Where the folder will be. There must be nothing, or an empty folder, which stays and gets the files.
        replace: Put it in the place of a folder that is there.
        last: What comes last into an empty folder, since it makes it what it is.
    """
    path = path if replace else Path(os.path.realpath(path))  # `resolve` fails on a loop of links
    drop_abandoned(path)
    fill = path.is_dir() and not replace
    if fill:
        drop_partials(path)
        if any(path.iterdir()):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
    parent = path if fill else path.parent
    made = make_folders(parent)
    try:
        partial, permissions = _make_partial(parent, path.name)
        try:
            yield partial
            for inner in partial.rglob("*"):
                if not inner.is_dir():
                    _set_permissions(inner, permissions)
                sync_to_disk(inner)
            sync_to_disk(partial)
            if fill:
                for inner in sorted(partial.iterdir(), key=lambda inner: (inner.name == last, inner.name)):
                    os.rename(inner, path / inner.name)
            else:
                _put_folder(partial, path, replace)
            sync_to_disk(parent)
        finally:
            _end(partial)
    except BaseException:
        for folder in reversed(made):
            remove_empty(folder)
        raise


def _put_folder(partial: Path, path: Path, replace: bool) -> None:
    """Rename a folder, after the one that it replaces: that one is deleted once the new one is in its place."""
    if not replace or not os.path.lexists(path):
        os.rename(partial, path)
        return
    aside, _ = _make_partial(path.parent, path.name)
    try:
        os.rename(path, aside / path.name)
        os.rename(partial, path)
    finally:
        _end(aside)


def append(path: Path, lines: str | Callable[[BinaryIO], str]) -> None:
    """Add whole lines to a regular file, all of them or none. It is made where there is none.

    What follows the last line break was cut off when a process was killed or the disk was full: it is removed,
    unless it is a JSON object that lacks nothing but its line break. Processes that append take turns.

    Args:
        path: A file of ours by a fixed name: a symbolic link is refused.
        lines: The lines, or what says them when it is this process's turn; it may read the file.
    Raises:
        InputError: For a symbolic link, and for what is no regular file.
        OSError: Where it cannot be written; the file is as it was.
    """
    with open_own(path, os.O_CREAT | os.O_APPEND) as file:
        if fcntl is not None:
            with suppress(OSError):  # this file system has no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        size, missing = _whole_lines(file)
        os.truncate(file.fileno(), size)
        text = lines if isinstance(lines, str) else lines(file)
        content = memoryview((missing + text).encode())
        try:
            while content:
                content = content[os.write(file.fileno(), content) :]
        except BaseException:
            os.truncate(file.fileno(), size)
            raise


def _whole_lines(file: BinaryIO) -> tuple[int, str]:
    """How many bytes of the file are whole lines, and the line break that the last of them lacks."""
    size = file.seek(0, os.SEEK_END)
    tail = b""
    while len(tail) < min(size, _LONGEST_LINE) and b"\n" not in tail:
        length = min(size, max(1, 2 * len(tail)))  # one byte says that nothing was cut off
        file.seek(-length, os.SEEK_END)
        tail = file.read(length)
    if b"\n" not in tail and len(tail) < size:  # longer than any line of ours
        return size, "\n"
    tail = tail[tail.rfind(b"\n") + 1 :]
    if not tail:
        return size, ""
    try:
        whole = isinstance(json.loads(tail), dict)
    except (ValueError, RecursionError):
        whole = False
    return (size, "\n") if whole else (size - len(tail), "")


def open_own(path: Path, flags: int = os.O_CREAT) -> BinaryIO:
    """A file of ours by a fixed name, to read and write without a buffer.

    Args:
        path: The file.
        flags: Further ones of os.open. Default: it is made where there is none; 0 opens one that is there.
    Raises:
        InputError: For a symbolic link, and for what is no regular file: others may have put it there.
        OSError: Where it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | _SAFELY | flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _is_link(path) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f"{path} is not a regular file: remove it")
        return os.fdopen(descriptor, "r+b", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def overwrite(file: BinaryIO, content: str) -> None:
    """Replace all that an open file holds."""
    file.truncate(0)
    file.seek(0)
    file.write(content.encode())


def make_folders(path: Path) -> list[Path]:
    """A folder that the user named, and those above it, made where there are none; it may be a link. Where one cannot be
    made, none is.

    Returns:
        Those that were made, the outermost first.
    """
    made: list[Path] = []
    try:
        # parents=True recurses, of a path of a thousand parts too deeply.
        for folder in (*reversed(path.parents), path):
            try:
                folder.mkdir()
                made.append(folder)
            except FileExistsError:
                if not folder.is_dir():
                    raise
    except (OSError, ValueError) as error:
        for folder in reversed(made):
            remove_empty(folder)
        if isinstance(error, ValueError):  # a NUL, or characters that no file name has
            raise OSError(errno.EINVAL, "this is not a valid file name", str(path)) from None
        raise
    return made


def make_folder(path: Path) -> Path:
    """A folder of ours by a fixed name in one that is there, made where there is none. InputError for a symbolic
    link.
    """
    refuse_link(path)
    path.mkdir(exist_ok=True)
    return path


def make_numbered(path: Path) -> Path:
    """A new folder, the first of PATH-1, PATH-2, … that was free: of processes that come at once, each gets one."""
    make_folders(path.parent)
    for number in itertools.count(1):
        folder = path.with_name(f"{path.name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise OSError(errno.EEXIST, "no free number is left")


def refuse_link(path: Path) -> None:
    """InputError where a fixed name is a symbolic link, by which others could have us write and delete elsewhere."""
    if path.is_symlink():
        raise _is_link(path)


def _is_link(path: Path) -> InputError:
    return InputError(
        f"{path} is a symbolic link, and what is written under this name stays in its folder: remove the link (to "
        "have a run on another disk, link its whole folder)"
    )


def write_new(path: Path, content: str | bytes) -> None:
    """Write a file that is not there yet, such as one of an `atomic_folder`. FileExistsError where it is."""
    with open(path, "xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_error(folder: Path) -> OSError | None:
    """Why nothing can be written into a folder that is there, before it is tried; None where nothing speaks against it."""
    if os.access(folder, os.W_OK):
        return None
    read_only = sys.platform != "win32" and os.statvfs(folder).f_flag & os.ST_RDONLY
    number = errno.EROFS if read_only else errno.EACCES
    return OSError(number, os.strerror(number))


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it. Where that cannot be, it stays."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_empty(folder: Path) -> None:
    """Delete a folder that holds nothing; any other stays."""
    with suppress(OSError):
        folder.rmdir()


def drop_abandoned(path: Path) -> None:
    """Remove what processes that were killed have left of `path` under the name that they wrote to."""
    _drop(path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL[1:]}"))


def drop_partials(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder under names that they wrote to."""
    _drop(folder.glob(f".*{_PARTIAL}"))


def _drop(partials: Iterable[Path]) -> None:
    for partial in list(partials):
        if _is_abandoned(partial):
            remove(partial)


def is_partial(path: Path) -> bool:
    """Whether this is the name of a file or folder that is not finished."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


def _is_abandoned(partial: Path) -> bool:
    """Whether nobody will finish this: its process has ended. A process of another machine cannot be asked, so
    what it writes counts as abandoned after a day without a change.
    """
    writer = _WRITER.search(partial.name)
    if writer is not None and writer[2] == socket.gethostname():
        return partial.name not in _OPEN and not is_another_process(int(writer[1]))
    try:
        changed = max(path.lstat().st_mtime for path in (partial, *partial.rglob("*")))
    except OSError:  # finished or removed by now
        return False
    return time.time() - changed > _LONG


def _make_partial(parent: Path, name: str) -> tuple[Path, int]:
    """A new folder for what is not finished, and the permissions that new files have here."""
    partial = parent / _new_name(name)
    partial.mkdir()
    return partial, stat.S_IMODE(partial.stat().st_mode) & 0o666


def _new_name(name: str) -> str:
    """A name for what is not finished, which nobody can have guessed: whoever makes it fails where it is taken."""
    partial = f".{name}.{secrets.token_hex(8)}.{os.getpid()}@{socket.gethostname()}{_PARTIAL}"
    _OPEN.add(partial)
    return partial


def _end(partial: Path) -> None:
    remove(partial)
    _OPEN.discard(partial.name)


def _set_permissions(path: Path, permissions: int) -> None:
    """Those of every new file; some libraries make files that their owner alone can read."""
    if stat.S_IMODE(path.lstat().st_mode) != permissions:
        with suppress(OSError):  # this file system has none
            path.chmod(permissions)


def _link(partial: Path, path: Path) -> None:
    """Give a finished file a name that must be free."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # this file system has no second names
        write_new(path, partial.read_bytes())


def is_another_process(pid: int) -> bool:
    """Whether another process of this number runs on this machine; one that has ended and waits to be noticed
    does not.
    """
    if pid <= 0:  # which would mean a group of processes
        return False
    try:
        os.kill(pid, 0)
        state = read_text(f"/proc/{pid}/stat", "the state of a process").rpartition(")")[2].split()[0]
    except (ProcessLookupError, OverflowError):
        return False
    except (OSError, InputError):  # it runs for another user, or this system has no /proc
        state = ""
    return state != "Z" and pid != os.getpid()


def sync_to_disk(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
