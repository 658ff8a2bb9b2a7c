"""Images through the deterministic flow and back, a batch at a time: latents, and walks between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.generation.sample_blocks import given
from scorefield.models.base import Model
from scorefield.runtime.errors import InputError
from scorefield.runtime.progress import SILENT, Reporter
from scorefield.runtime.reading import as_path
from scorefield.samplers import latents
from scorefield.store.writers import (
    channels_last,
    check_animation,
    check_target,
    save_animation,
    save_images,
)

__all__ = ["AT_ONCE", "Interpolation", "check_walk_target", "decode", "encode"]

AT_ONCE = 64  # images that a model is run on at once
_WIDEST = 16  # frames in a row of a .png


@dataclass(frozen=True, eq=False, repr=False)
class Interpolation:
    """A walk from one image to another through their latents.

    Attributes:
        frames: uint8 (F, C, H, W), both ends included.
        steps: Steps of the grid by which each frame was decoded.
        label: The class of the whole walk, or None.
        cosine: Of the angle between the two latents.
    """

    frames: Tensor
    steps: int
    label: int | None
    cosine: float

    @property
    def images(self) -> np.ndarray:
        """uint8 (F, H, W, C), or (F, H, W) of grey images."""
        return channels_last(self.frames)

    def save(self, path: str | Path) -> None:
        """Write a .gif (an animation) or a .png (the frames in a grid). InputError where that is not possible."""
        target = as_path(path, "a walk")
        check_walk_target(target)
        if target.suffix.lower() == ".gif":
            save_animation(target, list(self.frames.split(1)))
        else:
            save_images(target, self.frames, columns=min(len(self.frames), _WIDEST))

    def __repr__(self) -> str:
        return f"Interpolation({len(self.frames)} frames {tuple(self.frames.shape[1:])}, cosine {self.cosine:.2f})"


def check_walk_target(path: Path) -> None:
    """InputError unless an `Interpolation` can be saved to this path."""
    if path.suffix.lower() == ".gif":
        check_animation(path)
    elif path.suffix.lower() == ".png":
        check_target(path)
    else:
        raise InputError(
            f"{path}: an interpolation is written as .gif (an animation) or .png (the frames in a grid)"
        )


def encode(
    model: Model, x0: Tensor, labels: Sequence[int] | None, grid: Tensor, progress: Reporter = SILENT
) -> Tensor:
    """Latents of images x0 (N, *) under labels, one per image; float32 on the CPU."""
    return _in_parts("encoding", latents.encode, model, x0, labels, grid, progress)


def decode(
    model: Model,
    x_T: Tensor,
    labels: Sequence[int] | None,
    grid: Tensor,
    progress: Reporter = SILENT,
    what: str = "decoding",
) -> Tensor:
    """Images of latents x_T (N, *) under labels, one per latent; float32 on the CPU."""
    return _in_parts(what, latents.decode, model, x_T, labels, grid, progress)


def _in_parts(
    what: str,
    walk: Callable[..., Tensor],
    model: Model,
    x: Tensor,
    labels: Sequence[int] | None,
    grid: Tensor,
    progress: Reporter,
) -> Tensor:
    """All of x walked along the grid. The bar counts steps, since a part takes as many as the grid has."""
    parts = []
    indices = torch.arange(len(x)).split(AT_ONCE)
    with progress.progress(what, len(indices) * (len(grid) - 1)) as bar:
        for part in indices:
            bound = given(model, None if labels is None else [labels[i] for i in part.tolist()])
            start = x[part].to(model.device)
            parts.append(walk(bound, start, grid, on_step=lambda step: bar.advance()).cpu())
    return torch.cat(parts)
