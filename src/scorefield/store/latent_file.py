"""Latents on disk, with what decoding needs: the grid, the labels and the hash of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.runtime.array_files import ArrayHeader, read_arrays
from scorefield.runtime.atomic import atomic_write
from scorefield.runtime.checks import check_finite, unwritable
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import as_path
from scorefield.runtime.weights import SHOWN
from scorefield.store.outputs import check_output, save_npz

__all__ = ["Latents", "check_latents_target", "check_weights"]

_MOST = np.iinfo(np.int64).max
_LONGEST_GRID, _LONGEST_HASH = 1_000_000, 1_000  # times, bytes
_FIELDS = ("latents", "grid", "weights")


@dataclass(frozen=True)
class Latents:
    """What `encode` makes; the first four are kept in an .npz under these names.

    Attributes:
        latents: x_T, float32 (N, *shape).
        labels: Of the examples, int64 (N,) in the file, or None.
        grid: The times that decoding walks down.
        weights: SHA-256 of the weights that they were encoded with.
        reconstruction_mse: Mean squared error of a pixel in [0, 1] after decoding again, where that was asked for.
        source: What messages call them.
    """

    latents: Tensor
    labels: list[int] | None
    grid: list[float]
    weights: str
    reconstruction_mse: float | None = None
    source: str = "these latents"

    def __repr__(self) -> str:
        shape = tuple(self.latents.shape)
        return f"Latents({shape}, {self.steps} steps, weights {self.weights[:SHOWN]})"

    @property
    def steps(self) -> int:
        """Steps of the grid."""
        return len(self.grid) - 1

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all. InputError where it cannot be written."""
        path = as_path(path, "a file of latents")
        check_latents_target(path)
        arrays = {"latents": self.latents.cpu().to(torch.float32).numpy(), "grid": np.asarray(self.grid)}
        if self.labels is not None:
            arrays["labels"] = np.asarray(self.labels, dtype=np.int64)
        try:
            with atomic_write(path) as partial:
                save_npz(partial, {"weights": np.asarray(self.weights), **arrays}, compressed=False)
        except OSError as error:
            raise unwritable(path, error) from None

    @classmethod
    def read(cls, path: Path, shape: Sequence[int], weights: str) -> Latents:
        """Latents of examples of this shape, encoded by these weights. InputError for everything else."""
        found = _arrays(path, shape)
        check_weights(str(found["weights"]), weights, str(path))
        latents, labels = found["latents"], found.get("labels")
        check_finite(torch.from_numpy(latents), f"latents of {path}", "encode these images again")
        if labels is not None and labels.max() > _MOST:
            raise InputError(f"{path}: expected labels below 2**63, got {labels.max()}")
        return cls(
            torch.from_numpy(latents),
            None if labels is None else labels.tolist(),
            found["grid"].tolist(),
            weights,
            source=str(path),
        )


def check_weights(of_latents: str, of_run: str, what: str) -> None:
    """InputError where latents were encoded with other weights than those that are to decode them."""
    if of_latents != of_run:
        raise InputError(
            f"{what}: these latents were encoded with different weights (sha256 {of_latents[:SHOWN]}), so this run "
            f"({of_run[:SHOWN]}) cannot decode them: give the run that encoded them, or encode the images again with this "
            "one (a run that trained on has new weights)"
        )


def check_latents_target(path: Path) -> None:
    """InputError unless latents can be written to this path: an .npz, new or written by scorefield."""
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: latents are written as .npz")
    check_output(path)


def _arrays(path: Path, shape: Sequence[int]) -> dict[str, np.ndarray]:
    hint = "expected latents that `scorefield encode` wrote"
    return read_arrays(
        path, str(path), (*_FIELDS, "labels"), _FIELDS, hint, lambda headers: _check(headers, shape, path)
    )


def _check(headers: Mapping[str, ArrayHeader], shape: Sequence[int], path: Path) -> None:
    """InputError unless these are the headers of latents of this shape."""
    latents, labels, grid = (headers.get(name) for name in ("latents", "labels", "grid"))
    count = latents.shape[0] if latents and latents.shape else 0
    if latents is None or latents.dtype != np.float32 or latents.shape != (count, *shape) or not count:
        raise InputError(
            f"{path}: expected latents of float32 (N, {', '.join(map(str, shape))}), got {_shown(latents)}"
        )
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != (count,)):
        raise InputError(
            f"{path}: expected an integer label for each of {count} latents, got {_shown(labels)}"
        )
    if grid is None or len(grid.shape) != 1 or grid.shape[0] > _LONGEST_GRID or grid.dtype.kind not in "iuf":
        raise InputError(f"{path}: expected a grid of times, got {_shown(grid)}")
    if (of := headers.get("weights")) is None or of.shape != () or of.nbytes > _LONGEST_HASH:
        raise InputError(f"{path}: expected the SHA-256 of weights, got {_shown(of)}")


def _shown(header: ArrayHeader | None) -> str:
    return "something else" if header is None else f"{header.dtype} {header.shape}"
