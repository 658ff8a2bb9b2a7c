"""Checkpoints that are whole or absent: written under a temporary name, synced, renamed, verified when read.

A checkpoint is a folder `step-00001000` with one .safetensors file a group of tensors, `state.json`, and `manifest.json`
with the size and SHA-256 of each. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.core.files import replace_file, sync_folder

__all__ = ["Checkpoint", "newest", "save", "save_weights"]

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """What was read back: groups of tensors by name, and the JSON state.   skipped: newer checkpoints that are damaged, and why."""

    path: Path
    groups: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    skipped: tuple[str, ...] = ()


def save(folder: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int) -> Path:
    """Write the checkpoint of `step` whole or not at all, then delete all but the newest `keep`.

    InputError when it cannot be written (disk full, no permission): the checkpoints before it are untouched.
    """
    final, partial = folder / f"step-{step:08d}", folder / f".partial-{step:08d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, tensors in groups.items():
            save_file(
                {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, partial / f"{name}.safetensors"
            )
        (partial / "state.json").write_text(json.dumps(state, indent=1))
        _write_manifest(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        intact = _steps(folder)
        last = f"the checkpoint before it is intact: {intact[0]}" if intact else "there is no earlier checkpoint"
        raise InputError(f"the checkpoint of step {step} could not be saved ({_reason(error)}); {last}") from None
    # What is newer was damaged and passed over when this run was resumed; it must not push out what is whole.
    newer = [path for path in _steps(folder) if path.name > final.name]
    for old in newer + [path for path in _steps(folder) if path not in newer][keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, naming the damaged ones it passed over; None where none was ever saved.

    InputError when there are checkpoints and all are damaged.
    """
    skipped: list[str] = []
    for path in _steps(folder):
        problem = _damage(path)
        if problem is None:
            groups = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
            return Checkpoint(path, groups, json.loads((path / "state.json").read_text()), tuple(skipped))
        skipped.append(f"{path.name} ({problem})")
    if skipped:
        raise InputError(f"every checkpoint in {folder} is damaged: {'; '.join(skipped)}")
    return None


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one .safetensors file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, partial)
        replace_file(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path} could not be saved ({_reason(error)}); what was there before is intact") from None


def _steps(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            files[path.name] = {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
            os.fsync(file.fileno())
    manifest = folder / _MANIFEST
    manifest.write_text(json.dumps(files, indent=1))
    with manifest.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(folder)


def _damage(folder: Path) -> str | None:
    """Why this checkpoint cannot be trusted, or None."""
    try:
        files = json.loads((folder / _MANIFEST).read_text())
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
