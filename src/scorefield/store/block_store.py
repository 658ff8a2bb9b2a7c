"""Resumable on-disk store of samples, one file per block."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.runtime.atomic import (
    MANIFEST,
    atomic_write,
    drop_partials,
    make_folders,
    refuse_link,
    write_error,
    write_file,
)
from scorefield.runtime.checks import check_finite, unwritable
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import MissingFile, read_json
from scorefield.runtime.weights import open_tensors
from scorefield.store.formats import check_format, stamp, without_stamp

__all__ = ["BLOCK", "Block", "BlockFolder", "StoredSamples", "finite"]

BLOCK = 64  # samples that a model is run on at once
_OF_SAMPLES = {"shape", "block"}  # what a manifest of samples says
_BRIEF = 120  # characters of two values that an error shows side by side


@dataclass(frozen=True)
class Block:
    """Consecutive samples: their identities, their images (B, *), and their labels."""

    indices: range
    x: Tensor
    labels: list[int] | None


class BlockFolder(ABC):
    """Samples 0, 1, … in a folder, made in blocks of `size` consecutive ones by any number of processes.

    manifest.json says what they are, so that other samples are never taken for these. Every block is sampled
    whole, so that a sample does not depend on how many were asked for.

    Args:
        folder: The folder.
        what: Everything that decides the samples, as `Sampling.identity` says it; what is None counts as
            absent.
        spec: What one sample is.
        size: Samples of a block.
    """

    def __init__(self, folder: Path, what: Mapping[str, object], spec: DataSpec, size: int = BLOCK) -> None:
        self.folder, self.spec, self.size = folder, spec, size
        data = {"shape": list(spec.shape), "range": list(spec.range), "bins": spec.bins}
        self.what = json.loads(json.dumps({**what, **data, "block": size}, default=str))
        there = _readable(folder / MANIFEST)
        if _same(there, self.what):
            self.what = there  # which the digests in this folder were made of
        self.digest = _digest(self.what)

    def rounded(self, n: int) -> int:
        """n samples and those that fill their last block."""
        return -(-n // self.size) * self.size

    def missing(self, n: int, processes: Processes | None = None) -> list[int]:
        """The blocks of samples 0 … n−1 that are absent, damaged or of other samples, ascending; of them a
        process's share.
        """
        numbers = (processes or Processes()).share(range(self.rounded(n) // self.size))
        return [k for k in numbers if not self._is_whole(k, self._count(k, n))]

    def make(
        self, n: int, sample: Callable[[list[int]], Iterable[Block]], processes: Processes | None = None
    ) -> int:
        """Make those missing blocks of samples 0 … n−1 that are this process's share; how many were made.

        sample: numbers of blocks -> these blocks, whole, in this order, such as `sample_blocks(...,
        rounded(n), blocks=numbers)`; one block is in memory at a time. What is complete stays, however this
        ends.
        InputError: the folder holds other samples or cannot be written; samples that are not finite.
        """
        self._open()
        todo = self.missing(n, processes)
        if todo and (error := write_error(self.folder)) is not None:
            raise self._unwritable(self.folder, error)
        for k, block in zip(todo, sample(todo) if todo else (), strict=True):
            if tuple(block.x.shape) != (self.size, *self.spec.shape):
                raise InputError(
                    f"a block is {self.size} samples of shape {self.spec.shape}, got {tuple(block.x.shape)}"
                )
            self._write(k, block, self._count(k, n))
        return len(todo)

    @abstractmethod
    def _is_whole(self, k: int, count: int) -> bool:
        """Whether at least the first `count` samples of block k are there, undamaged, and these."""

    @abstractmethod
    def _write(self, k: int, block: Block, count: int) -> None:
        """Keep a whole block, of which the first `count` samples were asked for. InputError where it cannot
        be written.
        """

    def _count(self, k: int, n: int) -> int:
        """How many of the samples 0 … n−1 are in block k."""
        return min(self.size, n - k * self.size)

    def _open(self) -> None:
        """Make the folder and say in it what it holds. InputError where it holds something else: of processes
        that come at once, the first one says it.
        """
        manifest = self.folder / MANIFEST
        try:
            make_folders(self.folder)
            drop_partials(self.folder)
            there = _manifest(manifest)
            if there is None:
                try:
                    write_file(manifest, json.dumps({**self.what, **stamp()}, indent=1), replace=False)
                except FileExistsError:
                    there = _manifest(manifest)
        except OSError as error:
            raise self._unwritable(self.folder, error) from None
        if there == {}:
            raise InputError(
                f"the {MANIFEST} of {self.folder} does not describe samples: choose another folder"
            )
        if there is not None and not _same(there, self.what):
            raise InputError(
                f"{self.folder} already holds samples with other settings ({_difference(there, self.what)}): remove it, "
                "or choose another folder"
            )

    def _unwritable(self, path: Path, error: Exception) -> InputError:
        return unwritable(
            path, error, "free disk space or make the folder writable; the samples stored so far are kept"
        )


class StoredSamples(BlockFolder):
    """Samples 0, 1, … in a folder, `size` consecutive ones a file, each file whole or absent.

    block-00000000.safetensors holds `levels` (size, *shape), integer levels as in `Dataset` (float32 for
    continuous data), and `labels` int64 (size,) where there are any, with their SHA-256 and the digest of the
    manifest. Deleting any of the files is safe.
    """

    @classmethod
    def within(
        cls, parent: Path, what: Mapping[str, object], spec: DataSpec, size: int = BLOCK
    ) -> StoredSamples:
        """In parent/samples-DIGEST, a folder for each different `what`."""
        refuse_link(parent)
        new = cls(parent, what, spec, size)
        for manifest in sorted(parent.glob(f"samples-*/{MANIFEST}")):
            if _same(_readable(manifest), new.what):
                refuse_link(manifest.parent)
                return cls(manifest.parent, what, spec, size)
        folder = parent / f"samples-{new.digest}"
        refuse_link(folder)
        return cls(folder, what, spec, size)

    def blocks(self, n: int) -> Iterator[Block]:
        """Samples 0 … n−1 a block at a time, x float32 in spec.range on the CPU. InputError where a block is
        not there.
        """
        for k in range(self.rounded(n) // self.size):
            stored = self._read(k)
            if stored is None:
                raise InputError(
                    f"{self._path(k)} is missing or damaged: run the same command again, intact blocks are reused"
                )
            count = self._count(k, n)
            levels, labels = stored["levels"][:count], stored.get("labels")
            x = levels if self.spec.bins is None else self.spec.from_bins(levels)
            indices = range(k * self.size, k * self.size + count)
            yield Block(indices, x, None if labels is None else labels[:count].tolist())

    def _is_whole(self, k: int, count: int) -> bool:
        return self._read(k) is not None

    def _write(self, k: int, block: Block, count: int) -> None:
        tensors = {"levels": self._levels(block.x).cpu().contiguous()}
        if block.labels is not None:
            tensors["labels"] = torch.tensor(block.labels, dtype=torch.int64)
        try:
            with atomic_write(self._path(k)) as partial:
                save_file(tensors, partial, {"scorefield": self._seal(k, tensors)})
        except (OSError, SafetensorError) as error:
            raise self._unwritable(self._path(k), error) from None

    def _read(self, k: int) -> dict[str, Tensor] | None:
        """The tensors of a block, or None where it is not whole or not of these samples."""
        try:
            with open_tensors(self._path(k), "a block of samples", follow=False) as file:
                sizes = {name: header.shape for name, header in file.headers().items()}
                if sizes.pop("labels", (self.size,)) != (self.size,) or sizes != {
                    "levels": (self.size, *self.spec.shape)
                }:
                    return None
                tensors, seal = file.tensors(), file.metadata.get("scorefield")
                return tensors if seal == self._seal(k, tensors) else None
        except InputError:
            return None

    def _levels(self, x: Tensor) -> Tensor:
        return self.spec.to_bins(x) if self.spec.bins is not None else finite(x)

    def _seal(self, k: int, tensors: Mapping[str, Tensor]) -> str:
        """What a file says of itself: whose samples, which block, and a hash of its content."""
        content = hashlib.sha256()
        for name in sorted(tensors):
            array = tensors[name].numpy()
            content.update(f"{name} {array.dtype} {array.shape}\n".encode())
            content.update(array.data)
        return json.dumps({"samples": self.digest, "block": k, "sha256": content.hexdigest()})

    def _path(self, k: int) -> Path:
        return self.folder / f"block-{k:08d}.safetensors"


def finite(x: Tensor) -> Tensor:
    """x (B, *) as float32. InputError where any of it is NaN or infinite."""
    check_finite(x, "samples", "the model that made them has diverged")
    return x.to(torch.float32)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _same(there: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """Whether two descriptions are of the same samples; what is None counts as absent."""
    return _said(there) == _said(wanted)


def _said(what: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in what.items() if value is not None}


def _difference(there: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    """What two descriptions disagree on: "seed: 0 on disk, 1 requested; grid differs"."""
    names = sorted(name for name in {*there, *wanted} if there.get(name) != wanted.get(name))
    texts = [(name, str(there.get(name)), str(wanted.get(name))) for name in names]
    return "; ".join(
        f"{name}: {a} on disk, {b} requested" if len(a + b) <= _BRIEF else f"{name} differs"
        for name, a, b in texts
    )


def _readable(path: Path) -> dict[str, object]:
    """What a manifest says; {} where there is none, or none that can be read."""
    return _manifest(path) or {}


def _manifest(path: Path) -> dict[str, object] | None:
    """What a manifest says, or None where there is none. One that says nothing of samples is another
    program's, or damaged: it says {}.
    """
    try:
        found = read_json(path, "the manifest of samples", follow=False)
    except MissingFile:
        return None
    except InputError:
        return {}
    if not isinstance(found, dict) or not found.keys() >= _OF_SAMPLES:
        return {}
    check_format(found, path)
    return without_stamp(found)
