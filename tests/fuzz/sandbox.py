"""One call in a forked child with limits of time, memory and file size, in a folder of its own.

The parent has loaded torch and the library once, so that a call costs tens of milliseconds.
"""

import contextlib
import io
import json
import os
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

__all__ = ["Case", "Limits", "Outcome", "Sandbox"]

GIB = 2**30


@dataclass(frozen=True)
class Case:
    """One call: the words of a command, or Python code; before it, edits of the files around it.

    unbounded: it may work for long honestly, which SIGTERM must then end: its numbers ask for it.
    expect: "error", "ok", or "" for either.   full: what it says to stderr goes to a full disk.
    """

    words: tuple[str, ...] = ()
    code: str = ""
    edits: tuple[Mapping[str, object], ...] = ()
    unbounded: bool = False
    expect: str = ""
    full: bool = False

    def __str__(self) -> str:
        edits = "".join(f"{json.dumps(edit)}; " for edit in self.edits)
        what = self.code or "scorefield " + " ".join(_shell(word) for word in self.words)
        return edits + what + (" 2>/dev/full" if self.full else "")


def _shell(word: str) -> str:
    if len(word) > 200:
        word = f"{word[:40]}…({len(word)} characters)"
    return word if word and all(c.isalnum() or c in "-_./=:," for c in word) else repr(word)


@dataclass(frozen=True)
class Limits:
    """Seconds of computing; seconds of waiting; seconds after SIGTERM; bytes of address space, memory and files."""

    busy: float = 8
    blocked: float = 12
    ending: float = 20
    address: int = 6 * GIB
    file: int = GIB // 4
    wall: float = 100


@dataclass
class Outcome:
    """What a call did. status: None when a signal ended it. error: type, message, whether it is ours, frames."""

    status: int | None = 0
    signal: int = 0
    out: str = ""
    err: str = ""
    error: dict[str, object] = field(default_factory=dict)
    timeout: str = ""
    memory: int = 0
    seconds: float = 0
    changes: dict[str, str] = field(default_factory=dict)
    modes: dict[str, tuple[str, int]] = field(default_factory=dict)
    result: dict[str, object] = field(default_factory=dict)


class Sandbox:
    """Runs cases one after the other in copies of a folder.

    Args:
        template: A folder that holds work/ (where a case runs) and outside/ (what it must never touch).
        scratch: Where the copy lies.
    """

    def __init__(self, template: Path, scratch: Path, limits: Limits | None = None):
        self.template, self.limits = template, limits or Limits()
        self.place = scratch / "here"
        self.report = scratch / "report"
        self.report.mkdir(parents=True, exist_ok=True)
        self.before: dict[str, tuple] = {}
        self._fresh()

    def _fresh(self) -> None:
        _remove(self.place)
        shutil.copytree(self.template, self.place, symlinks=True, copy_function=_copy)
        for folder in ("tmp", "home"):
            (self.place / folder).mkdir(exist_ok=True)
        self.before = snapshot(self.place)

    def run(self, case: Case, edit: Callable[[Path, Mapping[str, object]], None], call: Callable) -> Outcome:
        """Applies the case's edits, and runs call(case) -> facts in a child; its exceptions are caught there."""
        work = self.place / "work"
        for one in case.edits:
            edit(work, one)
        before = snapshot(self.place) if case.edits else self.before
        outcome = self._fork(case, call)
        after = snapshot(self.place)
        outcome.changes = {
            path: _change(before.get(path), after.get(path))
            for path in sorted(before.keys() | after.keys())
            if before.get(path) != after.get(path)
        }
        outcome.modes = {path: after[path][:2] for path, how in outcome.changes.items() if how == "made"}
        return outcome

    def clean(self, outcome: Outcome | None, case: Case) -> None:
        """Makes the folder as it was, once the judge has looked at it."""
        if outcome is None or outcome.changes or case.edits or outcome.timeout:
            self._fresh()

    def _fork(self, case: Case, call: Callable) -> Outcome:
        for file in self.report.iterdir():
            file.unlink()
        sys.stdout.flush()
        sys.stderr.flush()
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                self._child(case, call)
            except BaseException:
                (self.report / "crash").write_text(traceback.format_exc())
            finally:
                os._exit(99)
        timeout, status = self._wait(pid, case.unbounded)
        if (self.report / "crash").exists():
            raise RuntimeError((self.report / "crash").read_text())
        outcome = Outcome(timeout=timeout, seconds=time.monotonic() - start)
        if os.WIFSIGNALED(status):
            outcome.status, outcome.signal = None, os.WTERMSIG(status)
        else:
            outcome.status = os.WEXITSTATUS(status)
        with contextlib.suppress(FileNotFoundError):
            outcome.out = (self.report / "out").read_bytes()[:200_000].decode(errors="replace")
            outcome.err = (self.report / "err").read_bytes()[:200_000].decode(errors="replace")
        with contextlib.suppress(FileNotFoundError, ValueError):
            found = json.loads((self.report / "facts.json").read_text())
            outcome.error, outcome.memory, outcome.result = found["error"], found["memory"], found["result"]
        return outcome

    def _child(self, case: Case, call: Callable) -> None:
        os.setsid()
        os.chdir(self.place / "work")
        os.environ |= {"TMPDIR": str(self.place / "tmp"), "HOME": str(self.place / "home")}
        torch.set_num_threads(1)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(
                os.open(self.report / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600),
                number,
            )
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if case.full:
            os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        os.umask(0o022)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8", write_through=True)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="utf-8", write_through=True)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
        at_start = _memory("VmRSS")
        limit = _memory("VmSize") + self.limits.address
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limits.file, hard))
        error: dict[str, object] = {}
        result: dict[str, object] = {}
        status = 0
        try:
            result = call(case) or {}
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
        except BaseException as caught:
            error, status = _described(caught), 98
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        memory = max(_memory("VmHWM") - at_start, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        facts = {"error": error, "memory": memory, "result": result}
        (self.report / "facts.json").write_text(json.dumps(facts, default=str))
        os._exit(status)

    def _wait(self, pid: int, unbounded: bool) -> tuple[str, int]:
        """("", "busy", "blocked", "ended" for honest work that SIGTERM ended, "slow" where the machine had no time; wait
        status).
        """
        limits, start, handle = self.limits, time.monotonic(), os.pidfd_open(pid)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        try:
            timeout, used, since = "", 0.0, start
            while not poll.poll(500):
                now = time.monotonic()
                cpu = _cpu(pid)
                if cpu > used + 0.02 or _is_running(
                    pid
                ):  # which may wait long for a processor of a busy machine
                    used, since = cpu, now
                if now - since > limits.blocked:
                    timeout = "blocked"
                elif cpu > (limits.busy / 3 if unbounded else limits.busy):
                    timeout = "busy"
                elif now - start > limits.wall:
                    timeout = "slow"
                if timeout:
                    break
            if timeout:
                os.kill(pid, signal.SIGTERM)
                until = time.monotonic() + limits.ending
                while time.monotonic() < until and not poll.poll(500):
                    pass
                ended = bool(poll.poll(0))
                if timeout == "busy" and unbounded and ended:
                    timeout = "ended"
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what the call may have left running
            return timeout, status
        finally:
            os.close(handle)


def _change(before: tuple | None, after: tuple | None) -> str:
    if before is None:
        return "made"
    if after is None:
        return "removed"
    return "filled" if before[0] == "file" and not before[2] else "changed"  # what was empty


def _described(caught: BaseException) -> dict[str, object]:
    from scorefield.runtime.errors import ScorefieldError

    frames = traceback.extract_tb(caught.__traceback__)
    own = [f for f in frames if "/scorefield/" in f.filename]
    place = own[-1] if own else frames[-1] if frames else None
    message = io.StringIO()
    with contextlib.suppress(BaseException):
        message.write(str(caught)[:5000])
    return {
        "type": type(caught).__name__,
        "ours": isinstance(caught, ScorefieldError),
        "message": message.getvalue(),
        "place": ""
        if place is None
        else f"{place.filename.split('/scorefield/')[-1]}:{place.lineno} {place.name}",
        "own": bool(own),
        "depth": len(frames),
        "text": "".join(traceback.format_exception(caught))[-6000:],
    }


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_running(pid: int) -> bool:
    """Whether a thread of the process computes, or would if it had a processor."""
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if thread.read_text().rpartition(")")[2].split()[0] == "R":
                return True
    return False


def snapshot(folder: Path) -> dict[str, tuple]:
    """Path -> kind, size, time and target of everything below folder, without following links."""
    found: dict[str, tuple] = {}
    pending = [str(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                path = os.path.relpath(entry.path, folder)
                if entry.is_dir(follow_symlinks=False):
                    found[path] = ("folder", info.st_mode)
                    pending.append(entry.path)
                else:
                    link = os.readlink(entry.path) if entry.is_symlink() else ""
                    found[path] = ("file", info.st_mode, info.st_size, info.st_mtime_ns, info.st_ino, link)
    return found


def _copy(source: str, target: str) -> None:
    """Named pipes and files with holes stay what they are."""
    info = os.lstat(source)
    if stat.S_ISFIFO(info.st_mode):
        os.mkfifo(target)
    elif info.st_blocks * 512 < info.st_size // 2:
        with open(target, "wb") as file:
            file.truncate(info.st_size)
    else:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if not path.exists():
        return
    subprocess.run(["chmod", "-R", "u+rwx", path], check=False)
    subprocess.run(["rm", "-rf", path], check=True)  # folders may be nested deeper than Python descends
