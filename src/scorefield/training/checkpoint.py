"""Checkpoints: atomic when written, verified when read.

A checkpoint is a folder `step-00001000` with one .safetensors file a group of tensors, `state.json`, and
`manifest.json` with the size and SHA-256 of each. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scorefield.runtime.atomic import atomic_folder, atomic_write, drop_abandoned, usual_permissions
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError
from scorefield.store.formats import check_format

__all__ = ["Checkpoint", "newest", "place", "prune", "save", "save_weights"]

Accept = Callable[[Mapping[str, object]], bool]

_MANIFEST = "manifest.json"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What was read back: groups of tensors by name, and the JSON state.   skipped: newer checkpoints that
    are damaged, and why.
    """

    path: Path
    groups: dict[str, dict[str, Tensor]]
    state: dict[str, object]
    skipped: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """How many steps were done."""
        return _step(self.path)


def place(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def save(
    folder: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, object]
) -> Path:
    """Write the checkpoint of `step` atomically.

    InputError when it cannot be written (disk full, no permission): the checkpoints before it are untouched.
    """
    final = place(folder, step)
    try:
        with atomic_folder(final, replace=True) as partial:
            for name, tensors in groups.items():
                _save(tensors, partial / f"{name}.safetensors")
            (partial / _STATE).write_text(json.dumps(state, indent=1))
            _write_manifest(partial)
    except (OSError, SafetensorError) as error:
        intact = _steps(folder)
        last = (
            f"the checkpoint before it is intact: {intact[0]}" if intact else "there is no earlier checkpoint"
        )
        raise InputError(
            f"the checkpoint of step {step} could not be saved ({_reason(error)}); {last}"
        ) from None
    return final


def prune(
    folder: Path, newest: Path, keep: int, keep_every: int = 0, accept: Accept = lambda state: True
) -> None:
    """Delete all checkpoints but: the `keep` up to `newest`; the newest of these whose state is accepted;
    those of the steps divisible by keep_every (0: of none).

    What is newer was damaged, or left by a divergence, and was passed over: it must not push out what is
    whole.
    """
    past = [path for path in _steps(folder) if _step(path) <= _step(newest)]
    kept = {*past[:keep], *[path for path in past if accept(_read_state(path))][:1]}
    kept |= {path for path in past if keep_every and _step(path) and _step(path) % keep_every == 0}
    for path in [path for path in _steps(folder) if path not in kept] + [
        *folder.glob(".partial-*"),
        *folder.glob(".*.partial"),
    ]:
        shutil.rmtree(path, ignore_errors=True)


def newest(folder: Path, accept: Accept = lambda state: True) -> Checkpoint | None:
    """The newest checkpoint that is whole and whose state is accepted, naming the damaged ones passed over;
    None where there is none.

    InputError when there are checkpoints and all are damaged.
    """
    skipped: list[str] = []
    steps = _steps(folder)
    for path in steps:
        problem = _damage(path)
        if problem is not None:
            skipped.append(f"{path.name} ({problem})")
            continue
        check_format(state := _read_state(path), path / _STATE)
        if accept(state):
            groups = {file.stem: load_file(file) for file in _listed(path)}
            return Checkpoint(path, groups, state, tuple(skipped))
    if skipped and len(skipped) == len(steps):
        raise InputError(f"every checkpoint in {folder} is damaged: {'; '.join(skipped)}")
    return None


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one .safetensors file atomically. InputError where it cannot be written."""
    drop_abandoned(path)
    try:
        with atomic_write(path) as partial:
            _save(tensors, partial)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error, "what was there before is intact") from None


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
    usual_permissions(path)  # safetensors makes files that their owner alone can read


def _steps(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    found = [
        path
        for path in folder.glob("step-*")
        if path.name.removeprefix("step-").isdecimal() and path.is_dir()
    ]
    return sorted(found, key=_step, reverse=True)


def _read_state(path: Path) -> dict[str, object]:
    """The numbers of a checkpoint; none where they cannot be read."""
    try:
        return json.loads((path / _STATE).read_text())
    except (OSError, ValueError):
        return {}


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            files[path.name] = {
                "bytes": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
    (folder / _MANIFEST).write_text(json.dumps(files, indent=1))


def _listed(folder: Path) -> list[Path]:
    """The tensors that the manifest lists; other programs leave files of their own."""
    names = json.loads((folder / _MANIFEST).read_text())
    return [folder / name for name in sorted(names) if name.endswith(".safetensors")]


def _damage(folder: Path) -> str | None:
    """Why this checkpoint cannot be trusted, or None."""
    try:
        files = json.loads((folder / _MANIFEST).read_text())
        if _STATE not in files:
            return f"{_MANIFEST} does not list what was written"
        for name, expected in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    return f"{name} has changed since it was written"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"{_MANIFEST} is missing or unreadable"
    return None


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
