"""Reading weights of other software: recognized by content, never unpickled, unpacked and converted."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scorefield.runtime.errors import InputError

__all__ = ["Weights", "read_weights"]

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_KNOWN = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "a gzip archive",
    b"<": "a web page",
}
_KNOWN |= {
    b"\x93NUMPY": "a NumPy array",
    b"version https://git-lfs": "a Git LFS pointer: the file itself was not downloaded",
}
_ENDINGS = {"PyTorch": (".pt", ".pth", ".ckpt", ".bin"), "safetensors": (".safetensors",)}
_HALF = (torch.float16, torch.bfloat16)
_START = 64  # bytes that tell kinds of files apart
_LONGEST_HEADER = 100_000_000  # that safetensors reads


@dataclass(frozen=True)
class Weights:
    """Weights that were read.

    Attributes:
        tensors: name -> CPU tensor, float32 or float64.
        sha256: Of the file.
        notes: What was done that a reader should know.
    """

    tensors: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...]


def read_weights(path: Path) -> Weights:
    """The weights in a .safetensors file or a file that torch.save wrote, whatever it is called.

    Only torch's restricted loader is used, which refuses a file that would run code before anything in it
    runs. Of a training file (a list of model, optimizer, …, and perhaps averaged weights) the averaged
    weights are taken where there are some. The prefix "module." of all names is dropped, and half-precision
    tensors become float32; notes say so.

    InputError for a file that cannot be read, that is cut off or no checkpoint, that asks for code, or that
    holds no weights.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(_START)
    # The length of the header comes first in a safetensors file, and may well begin like a pickle.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _LONGEST_HEADER:
        content, kind = _safetensors(path), "safetensors"
    elif start[:4] == _ZIP or start[:1] == _PICKLE:
        content, kind = _torch(path), "PyTorch"
    else:
        what = next(
            (name for sign, name in _KNOWN.items() if start.startswith(sign)),
            "neither a PyTorch nor a safetensors file",
        )
        raise InputError(f"{path} holds no weights: it is {what if start else 'empty'}")
    notes = (
        []
        if path.suffix in _ENDINGS[kind]
        else [f"read as {kind}, which it is despite the ending of its name"]
    )
    tensors = _converted(_unprefixed(_unpacked(content, path, notes), notes), path, notes)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Weights(tensors, digest, tuple(notes))


def _safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or cut off: as safetensors, {error}") from None


def _torch(path: Path) -> object:
    try:
        with (
            warnings.catch_warnings(),
            path.open("rb") as file,
        ):  # an open file: given a name, torch goes by its ending
            warnings.simplefilter("ignore")  # of unusual pickle protocols
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is None:
            raise InputError(
                f"{path} is damaged, or a pickle that torch.save did not write; nothing in it was run"
            ) from None
        raise InputError(
            f"{path} was refused: loading it would run {asked[1]}, and weights need nothing but tensors. Nothing in it was run. "
            "If you trust who made it, save its state dict alone as .safetensors and import that"
        ) from None
    except Exception as error:  # damaged archives and streams raise half a dozen kinds
        reason = re.split(r"\. |\n", str(error))[0] or type(error).__name__
        raise InputError(f"{path} is damaged, cut off or not a PyTorch checkpoint ({reason})") from None


def _unpacked(content: object, path: Path, notes: list[str]) -> Mapping[str, Tensor]:
    """The state dict in what was read."""
    if isinstance(content, Sequence) and content and _is_state(content[0]):
        if len(content) > 4 and _is_state(
            content[4]
        ):  # ermongroup/ddim: model, optimizer, epoch, step, averages
            notes.append("took the averaged (EMA) weights of a training file")
            return content[4]
        notes.append("took the model's weights of a training file; it has no averaged ones")
        return content[0]
    if isinstance(content, Mapping) and "param_groups" in content:
        raise InputError(
            f"{path} is the state of an optimizer: give the file of the weights, such as ema_0.9999_….pt, instead"
        )
    if not _is_state(content):
        what = (
            f"a table of {', '.join(str(k) for k in list(content)[:5])}"
            if isinstance(content, Mapping)
            else type(content).__name__
        )
        raise InputError(f"{path} holds no state dict (names and tensors) but {what}")
    return content


def _is_state(value: object) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(item, Tensor) for item in value.values())
    )


def _unprefixed(state: Mapping[str, Tensor], notes: list[str]) -> Mapping[str, Tensor]:
    if not all(name.startswith("module.") for name in state):
        return state
    notes.append("dropped the prefix module. of all names, left by training on several devices")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _converted(state: Mapping[str, Tensor], path: Path, notes: list[str]) -> dict[str, Tensor]:
    odd = next((name for name, value in state.items() if not value.is_floating_point()), None)
    if odd is not None:
        raise InputError(f"{path}: {odd} holds {state[odd].dtype}, and weights are floating-point numbers")
    half = {str(value.dtype).removeprefix("torch.") for value in state.values() if value.dtype in _HALF}
    if half:
        count = sum(value.dtype in _HALF for value in state.values())
        notes.append(
            f"converted {count} of {len(state)} tensors from {' and '.join(sorted(half))} to float32"
        )
    return {name: value.float() if value.dtype in _HALF else value for name, value in state.items()}
