"""Atomic files and folders: written under another name, synced to the disk, renamed."""

from __future__ import annotations

import glob
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import read_text

__all__ = [
    "MANIFEST",
    "abandoned",
    "atomic_folder",
    "atomic_write",
    "drop_abandoned",
    "is_another_process",
    "sync_to_disk",
    "usual_permissions",
]

MANIFEST = "manifest.json"  # in a folder of samples: says what they are
_LONG = 3600.0  # seconds after which an unfinished file is nobody's, whoever began it


@contextmanager
def atomic_write(path: Path, sync: bool = True) -> Iterator[Path]:
    """A name to write under; renamed to `path` when the block ends well, removed when it fails. No reader
    meets half a file.

    Processes that write the same file at once do not disturb each other: the last one stays.
    sync: wait until the disk has it; without, a power cut can still take it, but a process that is killed
    cannot.
    """
    partial = _partial(path)
    try:
        yield partial
        if sync:
            sync_to_disk(partial)
        partial.replace(path)
        if sync:
            sync_to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """An empty folder to fill; synced and renamed to `path` when the block ends well, removed when it fails.

    Args:
        path: Where the folder will be. There must be nothing, or an empty folder.
        replace: Delete a folder that is there, once the new one is on the disk.
    """
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        for inner in [*partial.rglob("*"), partial]:
            sync_to_disk(inner)
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
        sync_to_disk(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.partial")


def drop_abandoned(path: Path) -> None:
    """Remove what processes that were killed have left of `path` under the name that they wrote to."""
    for partial in abandoned(path.parent.glob(f".{glob.escape(path.name)}.*partial")):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def abandoned(partials: Iterable[Path]) -> Iterator[Path]:
    """Those unfinished files (`.*.partial`) that nobody will finish: their process has ended, or they are an
    hour old.

    A process of another machine cannot be asked, so its files count as abandoned by their age alone.
    """
    for partial in partials:
        try:
            age = time.time() - partial.stat().st_mtime
        except FileNotFoundError:  # finished or removed by now
            continue
        written_by = re.search(r"\.(\d+)@(.+)\.partial$", partial.name)
        here = written_by is not None and written_by[2] == socket.gethostname()
        if age > _LONG or (here and written_by is not None and not is_another_process(int(written_by[1]))):
            yield partial


def is_another_process(pid: int) -> bool:
    """Whether another process of this number runs on this machine; one that has ended and waits to be noticed
    does not.
    """
    try:
        os.kill(pid, 0)
        state = read_text(f"/proc/{pid}/stat", "the state of a process").rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except (OSError, InputError):  # it runs for another user, or this system has no /proc
        state = ""
    return state != "Z" and pid != os.getpid()


def usual_permissions(path: Path) -> None:
    """Give a file those that new files of this process have; where the file system has none, nothing."""
    mask = os.umask(0)  # which can only be read by setting it
    os.umask(mask)
    with suppress(OSError):
        path.chmod(0o666 & ~mask)


def sync_to_disk(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
