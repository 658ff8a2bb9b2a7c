"""Reading weights of other software: recognized by content, never unpickled, unpacked and converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from scorefield.runtime.checks import brief
from scorefield.runtime.errors import InputError
from scorefield.runtime.printable import one_line
from scorefield.runtime.reading import open_file, reading
from scorefield.runtime.weights import TensorFile, digest_of, read_pickled, unchanged

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
# What training files call the averaged weights, the weights of the last step, and, within either, the tensors.
_AVERAGED = ("ema", "model_ema", "ema_model", "unet_ema", "ema_state_dict", "state_dict_ema", "params_ema")
_TRAINED = ("model", "state_dict", "model_state_dict", "unet", "net", "network", "params", "module")
_WITHIN = ("state_dict", "model", "shadow", "shadow_params", "module", "params")
_COMPILED, _PARALLEL = "_orig_mod.", "module."
_START = 64  # bytes that tell kinds of files apart
_LONGEST_HEADER = 100_000_000  # that safetensors reads


@dataclass(frozen=True)
class Weights:
    """Weights that were read.

    Attributes:
        tensors: name -> CPU tensor, of the type in the file.
        sha256: Of the file.
        notes: What was done that a reader should know.
    """

    tensors: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...]


def read_weights(path: Path) -> Weights:
    """The weights in a .safetensors file or a file that torch.save wrote, whatever it is called.

    Only torch's restricted loader is used, which refuses a file that would run code before anything in it
    runs. Of a training file (a list of model, optimizer, …, and perhaps averaged weights, or a table of them by
    name) the averaged weights are taken where there are some. The prefix "module." of all names, and
    "_orig_mod." in any, are dropped; notes say so.

    InputError for a file that cannot be read, that is cut off or no checkpoint, that asks for code, or that
    holds no weights.
    """
    with open_file(path, "weights of PyTorch or safetensors") as file, unchanged(file, path):
        content, kind = _read(file, path)
        sha256 = digest_of(file)
        notes = [] if path.suffix in _ENDINGS[kind] else [f"read as {kind}, in spite of its suffix"]
        with reading(path):
            state = _unprefixed(_unpacked(content, path, notes), notes)
    if empty := next((name for name, value in state.items() if value.is_meta), None):
        raise InputError(f"{path}: {one_line(empty)} has no values: it was saved on the meta device")
    half = {str(value.dtype).removeprefix("torch.") for value in state.values() if value.dtype in _HALF}
    if half:
        count = sum(value.dtype in _HALF for value in state.values())
        notes.append(
            f"converted {count} of {len(state)} tensors from {' and '.join(sorted(half))} to float32"
        )
    return Weights(dict(state), sha256, tuple(notes))


def _read(file: BufferedReader, path: Path) -> tuple[object, str]:
    """What is in the file, and of which kind it is."""
    start = file.read(_START)
    # The length of the header comes first in a safetensors file, and may well begin like a pickle.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _LONGEST_HEADER:
        with reading(path):
            return TensorFile(file, path).tensors(), "safetensors"
    if start[:4] == _ZIP or start[:1] == _PICKLE:
        return read_pickled(file, path), "PyTorch"
    what = next(
        (name for sign, name in _KNOWN.items() if start.startswith(sign)),
        "neither a PyTorch nor a safetensors file",
    )
    raise InputError(f"{path} holds no weights: it is {what if start else 'empty'}")


def _unpacked(content: object, path: Path, notes: list[str]) -> Mapping[str, Tensor]:
    """The state dict in what was read."""
    if _is_state(content):
        return content
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
    table: Mapping[object, object] = content if isinstance(content, Mapping) else {}
    for key in (*_AVERAGED, *_TRAINED):
        state = table.get(key)
        within = (
            next((state[inner] for inner in _WITHIN if inner in state), state)
            if isinstance(state, Mapping)
            else None
        )
        found = next((one for one in (state, within) if _is_state(one)), None)
        if found is not None:
            kind = "the averaged (EMA)" if key in _AVERAGED else "the model's"
            lacking = "" if key in _AVERAGED else "; it has no averaged ones"
            notes.append(f"took {kind} weights, {key!r}, of a training file{lacking}")
            return found
    keys = [key if isinstance(key, str) else brief(key) for key in list(table)[:5]]
    listed = one_line(", ".join(keys))
    what = f"a table of {listed}" if table else "None" if content is None else type(content).__name__
    raise InputError(f"{path} holds no state dict (names and tensors) but {what}")


def _is_state(value: object) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items())
    )


def _unprefixed(state: Mapping[str, Tensor], notes: list[str]) -> Mapping[str, Tensor]:
    plain = {name.replace(_COMPILED, ""): value for name, value in state.items()}
    if len(plain) == len(state) and list(plain) != list(state):
        notes.append(f"dropped {_COMPILED} from names, left by torch.compile")
        state = plain
    if all(name.startswith(_PARALLEL) for name in state):
        notes.append(f"dropped the prefix {_PARALLEL} of all names, left by training on several devices")
        state = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
    return state
