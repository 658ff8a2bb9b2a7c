"""Reading weights without unpickling, comparing them with what is wanted before they are taken, and hashing them."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import warnings
import weakref
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from scorefield.runtime.errors import InputError
from scorefield.runtime.free_memory import needs_memory
from scorefield.runtime.printable import one_line
from scorefield.runtime.reading import open_file, reading

__all__ = [
    "SHOWN",
    "TensorHeader",
    "TensorFile",
    "WeightsFile",
    "check_tensors",
    "digest_of",
    "file_sha256",
    "fill",
    "misfit",
    "open_tensors",
    "read_pickled",
    "read_tensors",
    "sha256",
    "unchanged",
]

SHOWN = 12  # digits of a SHA-256 that stamps show
_NAMES = 3  # tensors that an error names of each kind
_NAME = 100  # characters of a tensor's name in an error
_ZIP = b"PK\x03\x04"
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def file_sha256(path: Path) -> str:
    """64 hexadecimal digits over the bytes of a file."""
    with open_file(path, "a file to hash") as file:
        return digest_of(file)


def digest_of(file: BufferedReader) -> str:
    """64 hexadecimal digits over the bytes of an open file."""
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return found


class HasShape(Protocol):
    """A tensor, or what a file says of one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype | str: ...


@dataclass(frozen=True)
class TensorHeader:
    """What a .safetensors file says of a tensor. dtype: a word of the format, where torch has no such type."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str


class TensorFile:
    """An open .safetensors file. Nothing is loaded before it is asked for.

    Args:
        file: Open for reading.
        path: Its name, for the errors.

    Raises:
        InputError: For a file of another kind, or a damaged one.
    """

    def __init__(self, file: BufferedReader, path: Path) -> None:
        # A name that opens the same file, for a library that takes names; Windows has none.
        name = f"/dev/fd/{file.fileno()}"
        try:
            self._opened = safe_open(name if os.path.exists(name) else path, "pt")
        except Exception as error:
            with reading(path):  # with too many files open, safetensors says that there is no such file
                os.close(os.dup(file.fileno()))
            raise InputError(
                f"{path} is damaged, cut off or no .safetensors file ({one_line(error)})"
            ) from None

    @property
    def metadata(self) -> dict[str, str]:
        """The texts beside the tensors."""
        return self._opened.metadata() or {}

    def headers(self) -> dict[str, TensorHeader]:
        """What the file says of each tensor."""
        slices = {name: self._opened.get_slice(name) for name in self._opened.keys()}  # noqa: SIM118
        return {
            name: TensorHeader(tuple(part.get_shape()), _DTYPES.get(part.get_dtype(), part.get_dtype()))
            for name, part in slices.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, on the CPU."""
        return {name: self._opened.get_tensor(name) for name in self._opened.keys()}  # noqa: SIM118


@contextmanager
def open_tensors(path: Path, what: str, follow: bool = True) -> Iterator[TensorFile]:
    """A .safetensors file; every failure of the block is an InputError that names it. Arguments as
    `reading.open_file`.
    """
    with open_file(path, what, follow=follow) as file, reading(path):
        yield TensorFile(file, path)


@contextmanager
def unchanged(file: BufferedReader, path: Path) -> Iterator[None]:
    """InputError where the file is overwritten in its place during the block."""
    before = _state(file)
    yield
    if _state(file) != before:
        raise InputError(f"{path} was overwritten while it was in use: open it again")


def _state(file: BufferedReader) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


class WeightsFile:
    """A .safetensors file as it was when it was opened: its hash and its tensors are of the same bytes, even where
    another process puts a new file in its place.

    The file stays open as long as this object lives. Nothing is kept in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        stack = ExitStack()
        self._file = stack.enter_context(open_file(path, "the weights of a run"))
        weakref.finalize(self, stack.close)
        self._before = _state(self._file)
        TensorFile(self._file, path)  # before its bytes are read: of a file of another kind there may be many
        self.sha256 = digest_of(self._file)

    def headers(self) -> dict[str, TensorHeader]:
        """What the file says of each tensor. InputError for a file that is no .safetensors, or broken."""
        with reading(self.path):
            return TensorFile(self._file, self.path).headers()

    def load(self) -> dict[str, Tensor]:
        """The tensors. InputError for a broken file, and for one that was overwritten in its place."""
        with reading(self.path):
            tensors = TensorFile(self._file, self.path).tensors()
        if _state(self._file) != self._before:
            raise InputError(f"{self.path} was overwritten while it was in use: open the run again")
        return tensors


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


def read_pickled(file: BufferedReader, path: Path) -> object:
    """What torch.save wrote, through the restricted loader of torch, which refuses a file that would run code before
    anything in it runs.

    InputError for such a file, for one that is damaged or cut off, and for a compressed one, whose size in memory its
    own size does not bound.
    """
    needs_memory(_state(file)[0], str(path))
    file.seek(0)
    try:
        if file.read(len(_ZIP)) == _ZIP:
            with zipfile.ZipFile(file) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > _state(file)[0]:
                raise InputError(f"{path} was refused: it is compressed, which torch.save never does")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols
            return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is None:
            raise InputError(
                f"{path} is damaged, or a pickle that torch.save did not write; nothing in it was run"
            ) from None
        raise InputError(
            f"{path} was refused: loading it would run {one_line(asked[1], _NAME)}, and weights need only "
            "tensors. Nothing in it was run. If you trust the author, save its state dict as .safetensors and "
            "import that"
        ) from None
    except (
        Exception
    ) as error:  # damaged archives and streams raise half a dozen kinds, of which two say what is wrong
        told = isinstance(error, RuntimeError | zipfile.BadZipFile)
        reason = one_line(re.split(r"\. |\n", str(error))[0]) if told else ""
        raise InputError(
            f"{path} is damaged, cut off or not a PyTorch checkpoint{reason and f' ({reason})'}"
        ) from None


def read_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], str]:
    """The state dict in a .safetensors file, or in a file that torch.save wrote, and the SHA-256 of the file.

    what: what the file should be, for the errors. InputError: no such file, no state dict in it, or tensors that are
    no weights.
    """
    with open_file(path, what) as file, unchanged(file, path):
        try:
            if path.suffix == ".safetensors":
                with reading(path):
                    found: object = TensorFile(file, path).tensors()
            else:
                found = read_pickled(file, path)
        except InputError as error:
            raise InputError(f"{error}; expected {what}") from None
        digest = digest_of(file)
    if not isinstance(found, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()
    ):
        raise InputError(f"{path}: holds no state dict (names and tensors); expected {what}")
    return found, digest


def fill(net: nn.Module, tensors: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Give `net`, built on the meta device, exactly these tensors, as float32 and without gradients, in eval
    mode.

    InputError naming the first tensors that are missing, unknown or of another shape, and for values that are no
    weights.
    """
    # Counters of training steps, which files from before torch 0.4.1 lack, mean nothing for inference.
    given = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    wanted = {
        name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    if (problem := misfit(wanted, given)) is not None:
        raise InputError(f"{path}: {problem}; expected {what}")
    check_tensors(given, f"{path}: ")
    net.load_state_dict({name: value.float() for name, value in given.items()}, assign=True)
    net.eval().requires_grad_(False)


def misfit(wanted: Mapping[str, HasShape], found: Mapping[str, HasShape]) -> str | None:
    """How names, shapes and types of tensors differ from those that are wanted, with the first of each kind; None
    where they do not. A floating-point tensor is wanted in any floating-point type.
    """
    both = [name for name in wanted if name in found]
    shapes = {name: (tuple(found[name].shape), tuple(wanted[name].shape)) for name in both}
    types = {name: (found[name].dtype, wanted[name].dtype) for name in both}
    parts = (
        ("missing", [name for name in wanted if name not in found]),
        ("unknown", [name for name in found if name not in wanted]),
        (
            "of another shape",
            [
                f"{n}: {list(is_)} instead of {list(to_be)}"
                for n, (is_, to_be) in shapes.items()
                if is_ != to_be
            ],
        ),
        (
            "of another type",
            [
                f"{n}: {_word(is_)} instead of {_word(to_be)}"
                for n, (is_, to_be) in types.items()
                if not _fits(is_, to_be)
            ],
        ),
    )
    said = [_counted(kind, names) for kind, names in parts if names]
    return "; ".join(said) or None


def _counted(kind: str, names: list[str]) -> str:
    first = ", ".join(one_line(name, _NAME) for name in names[:_NAMES])
    count = "1 tensor is" if len(names) == 1 else f"{len(names):,} tensors are"
    return f"{count} {kind} ({first}{', …' if len(names) > _NAMES else ''})"


def _fits(found: torch.dtype | str, wanted: torch.dtype | str) -> bool:
    return found in _FLOATS if wanted in _FLOATS else found == wanted


def _word(dtype: torch.dtype | str) -> str:
    return str(dtype).removeprefix("torch.")


def check_tensors(tensors: Mapping[str, Tensor], where: str = "", meta: bool = False) -> None:
    """Check that tensors are weights: dense, of floating-point numbers, of no more numbers than are stored,
    and finite.

    Args:
        tensors: By name.
        where: What the message begins with.
        meta: Whether tensors on the meta device, which have no values, are taken.

    Raises:
        InputError: For a tensor that is no weight; it names the tensor.
    """
    for name, value in tensors.items():
        what = f"{where}{one_line(name, _NAME)}"
        if meta and value.is_meta:
            continue
        if value.layout != torch.strided or value.is_nested or value.is_quantized or value.is_meta:
            raise InputError(f"{what} is a tensor without plain values ({value.layout}, {value.device})")
        if value.dtype not in _FLOATS:
            raise InputError(f"{what} holds {value.dtype}, and weights are floating-point numbers")
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise InputError(f"{what} says {value.numel():,} numbers, and fewer are stored")
        if not bool(value.isfinite().all()):
            raise InputError(f"{what} holds NaN or infinite values: the model that was saved has diverged")
