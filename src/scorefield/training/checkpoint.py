"""Checkpoints: atomic when written, verified when read.

A checkpoint is a folder `step-00001000` with one .safetensors file a group of tensors, `state.json`, and
`manifest.json` with the size and SHA-256 of each. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from scorefield.runtime.atomic import (
    atomic_folder,
    atomic_write,
    drop_abandoned,
    drop_partials,
    make_folder,
    remove,
    write_new,
)
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import open_file, read_json, reading
from scorefield.runtime.weights import open_tensors
from scorefield.store.formats import check_format

__all__ = ["Checkpoint", "newest", "place", "prune", "save", "save_weights"]

Accept = Callable[[Mapping[str, object]], bool]

_MANIFEST = "manifest.json"
_STATE = "state.json"
_NAME = re.compile(r"step-(\d{8}|[1-9]\d{8,})", re.ASCII)


class _Damaged(Exception):
    """A checkpoint cannot be trusted: why."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read back.

    Attributes:
        path: The checkpoint's folder.
        groups: Tensors by name, in groups.
        state: The JSON state.
        skipped: Newer checkpoints that are damaged, and why.
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
        make_folder(folder)
        with atomic_folder(final, replace=True) as partial:
            for name, tensors in groups.items():
                _save(tensors, partial / f"{name}.safetensors")
            write_new(partial / _STATE, json.dumps(state, indent=1))
            _write_manifest(partial)
    except (OSError, SafetensorError) as error:
        intact = [path for path in _steps(folder) if path != final]
        last = (
            f"the previous checkpoint is intact: {intact[0]}" if intact else "there is no earlier checkpoint"
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
    whole. Only folders with a checkpoint's name and manifest are deleted.
    """
    make_folder(folder)
    steps = _steps(folder)
    past = [path for path in steps if _step(path) <= _step(newest)]
    kept = {*past[:keep], *[path for path in past if accept(_read_state(path))][:1]}
    kept |= {path for path in past if keep_every and _step(path) and _step(path) % keep_every == 0}
    for path in steps:
        if path not in kept and _is_ours(path):
            remove(path)
    drop_partials(folder)


def newest(folder: Path, accept: Accept = lambda state: True) -> Checkpoint | None:
    """The newest checkpoint that is whole and whose state is accepted, naming the damaged ones passed over;
    None where there is none.

    InputError when there are checkpoints and all are damaged.
    """
    skipped: list[str] = []
    steps = _steps(folder)
    for path in steps:
        try:
            check_format(state := _check(path), path / _STATE)
            if accept(state):
                groups = {file.stem: _tensors(file) for file in _listed(path)}
                return Checkpoint(path, groups, state, tuple(skipped))
        except _Damaged as problem:
            skipped.append(f"{path.name} ({problem})")
    if skipped and len(skipped) == len(steps):
        raise InputError(f"every checkpoint in {folder} is damaged: {'; '.join(skipped)}")
    return None


def _tensors(path: Path) -> dict[str, Tensor]:
    with open_tensors(path, "tensors of a checkpoint", follow=False) as file:
        return file.tensors()


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one .safetensors file atomically. InputError where it cannot be written."""
    drop_abandoned(path)
    try:
        with atomic_write(path) as partial:
            _save(tensors, partial)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error, "the previous contents are intact") from None


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)


def _steps(folder: Path) -> list[Path]:
    """The checkpoints of a folder by their names, newest first; a link is none."""
    with reading(folder):
        found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(
        (path for path in found if path.is_dir() and not path.is_symlink()), key=_step, reverse=True
    )


def _is_ours(folder: Path) -> bool:
    """Whether a manifest of ours lies in it, whatever has become of the files."""
    try:
        return _STATE in _manifest(folder)
    except InputError:
        return False


def _read_state(path: Path) -> dict[str, object]:
    """The numbers of a checkpoint; none where they cannot be read."""
    try:
        found = read_json(path / _STATE, "the state of a checkpoint", follow=False)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _write_manifest(folder: Path) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
    }
    write_new(folder / _MANIFEST, json.dumps(files, indent=1))


def _manifest(folder: Path) -> dict[str, dict[str, object]]:
    """The files of a checkpoint with their sizes and hashes. InputError for what no checkpoint says."""
    what = "the manifest of a checkpoint"
    found = read_json(folder / _MANIFEST, what, follow=False)
    if not isinstance(found, dict) or not all(
        isinstance(entry, dict) and Path(name).name == name for name, entry in found.items()
    ):
        raise InputError(f"{folder / _MANIFEST} is not {what}")
    return found


def _listed(folder: Path) -> list[Path]:
    """The tensors that the manifest lists; other programs leave files of their own."""
    return [folder / name for name in sorted(_manifest(folder)) if name.endswith(".safetensors")]


def _check(folder: Path) -> dict[str, object]:
    """The state of a checkpoint that is whole. _Damaged for any other."""
    try:
        files = _manifest(folder)
    except InputError:
        raise _Damaged(f"{_MANIFEST} is missing or unreadable") from None
    if _STATE not in files:
        raise _Damaged(f"{_MANIFEST} does not list what was written")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise _Damaged(f"{name} is missing")
        if path.stat().st_size != expected.get("bytes"):
            raise _Damaged(f"{name} has {path.stat().st_size} bytes instead of {expected.get('bytes')}")
        try:
            digest = _sha256(path)
        except InputError as error:
            raise _Damaged(str(error)) from None
        if digest != expected.get("sha256"):
            raise _Damaged(f"{name} has changed since it was written")
    state = _read_state(folder)
    if state.get("step", _step(folder)) != _step(folder):
        raise _Damaged(f"{_STATE} is of step {state['step']}")
    return state


def _sha256(path: Path) -> str:
    with open_file(path, "a file of a checkpoint", follow=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
