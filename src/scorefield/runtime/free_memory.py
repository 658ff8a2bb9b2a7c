"""How much memory can be had: to refuse what does not fit before it is allocated."""

from __future__ import annotations

from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import read_text

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["free_memory", "is_out_of_memory", "needs_memory", "system_bytes"]

_UNKNOWN = 8 * 2**30  # bytes, where the system does not tell
_GB = 1e9
_SAID = ("out of memory", "can't allocate memory")  # as torch says it


def free_memory() -> int:
    """Bytes that this process can still have: what the machine has, and what a limit on the process leaves."""
    free = system_bytes("/proc/meminfo", "MemAvailable") or _UNKNOWN
    if resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            free = min(free, max(0, limit - system_bytes("/proc/self/status", "VmSize")))
    return free


def needs_memory(count: int, what: str) -> None:
    """InputError where `count` bytes, which `what` needs, cannot be had."""
    if count > (free := free_memory()):
        raise InputError(
            f"{what}: this needs {count / _GB:,.1f} GB of memory, and {free / _GB:,.1f} GB are free"
        )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory could not be had; torch's are of no class of their own."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _SAID)


def system_bytes(path: str, name: str) -> int:
    """Bytes that a table of the system lists under a name, in kB; 0 where it does not."""
    try:
        lines = read_text(path, "a table of the system").splitlines()
    except InputError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
