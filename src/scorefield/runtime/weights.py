"""Reading weights without unpickling, loading them strictly, and hashing them."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scorefield.runtime.errors import InputError

__all__ = ["SHOWN", "WeightsFile", "file_sha256", "fill", "read_tensors", "sha256"]

SHOWN = 12  # digits of a SHA-256 that stamps show


def file_sha256(path: Path) -> str:
    """64 hexadecimal digits over the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class WeightsFile:
    """A .safetensors file as it was when it was opened: its hash and its tensors are of the same bytes, even where
    another process puts a new file in its place.

    The descriptor stays open as long as this object lives. Nothing is kept in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._stat()
        self.sha256 = file_sha256(self._file)

    def load(self) -> dict[str, Tensor]:
        """The tensors. InputError for a file that was overwritten in its place; SafetensorError for a broken one."""
        tensors = load_file(self._file)
        if self._stat() != self._state:
            raise InputError(f"{self.path} was overwritten while it was in use: open the run again")
        return tensors

    @property
    def _file(self) -> Path:
        return Path(f"/dev/fd/{self._descriptor}")

    def _stat(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns


def sha256(tensors: Mapping[str, Tensor], *texts: str) -> str:
    """64 hexadecimal digits over names, types, shapes and values, in the order of the names, and over further
    texts.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    for text in texts:
        digest.update(f"{len(text)} {text}\n".encode())
    return digest.hexdigest()


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in a file of torch.save through its restricted loader.

    what: what the file should be, for the errors. InputError: no such file, or no state dict in it.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected {what}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as fault:  # a file of another kind fails in pickle, zipfile or safetensors, each with kinds of its own
        kind = (
            "damaged or no safetensors file"
            if isinstance(fault, SafetensorError)
            else "damaged, or not of tensors alone"
        )
        raise InputError(f"{path}: cannot be read ({kind}); expected {what}") from None
    if not isinstance(found, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()
    ):
        raise InputError(f"{path}: holds no state dict (names and tensors); expected {what}")
    return found


def fill(net: nn.Module, tensors: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Give `net`, built on the meta device, exactly these tensors, as float32 and without gradients, in eval
    mode.

    InputError naming the first tensor that is missing, unknown or of another shape.
    """
    # Counters of training steps, which files from before torch 0.4.1 lack, mean nothing for inference.
    given = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    wanted = {
        name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    problem = _difference(given, wanted)
    if problem is not None:
        raise InputError(f"{path}: {problem}; expected {what}")
    net.load_state_dict({name: value.float() for name, value in given.items()}, assign=True)
    net.eval().requires_grad_(False)


def _difference(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    for name in wanted:
        if name not in given:
            return f"{name} is missing"
        if given[name].shape != wanted[name].shape:
            return f"{name} has shape {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
    unknown = next((name for name in given if name not in wanted), None)
    return None if unknown is None else f"{unknown} is not part of it"
