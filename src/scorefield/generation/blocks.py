"""Many samples, a block at a time: sample i is the same image however many are asked for, in any order of
blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from scorefield.core.noise import Noise, NoiseSource
from scorefield.models.categorical_denoiser import has_categories
from scorefield.runtime.errors import InputError
from scorefield.samplers.base import Grid, Sampler, Step, trajectory
from scorefield.store.block_store import BLOCK, Block

__all__ = ["given", "sample_blocks"]


def sample_blocks(
    model: Any,
    sampler: Sampler,
    grid: Grid,
    n: int,
    seed: int,
    *,
    labels: Sequence[int] | None = None,
    wrap: Callable[[Any, list[int] | None], Any] | None = None,
    start: Callable[[Sequence[int], Noise], Tensor] | None = None,
    low_res: Tensor | None = None,
    size: int = BLOCK,
    on_step: Callable[[int, Step], None] | None = None,
    blocks: Iterable[int] | None = None,
) -> Iterator[Block]:
    """Samples 0 … n−1 of a seed in blocks of `size` consecutive ones.

    labels: cycled over the samples, sample i gets labels[i mod len].   wrap(model, labels): what is sampled,
    given the labels of a block or None; model.given(labels) where there are labels if not given.
    start(shape, noise): the first state; a draw of the process's prior if not given.
    low_res: (M, C, h, w) in the data's range, of a model that enlarges images, cycled like the labels.
    on_step(k, step): called after every step of block k.   blocks: which ones; all if not given.
    A network that runs in bf16 rounds differently at another batch size, and the last bit can decide which
    category is drawn, so with either the last block is padded to full size.
    """
    if n < 1 or size < 32:
        raise InputError(
            f"at least one sample in blocks of at least 32 is needed, got n = {n} in blocks of {size}"
        )
    _check_low_res(model, low_res)
    pad = getattr(model, "autocast_dtype", None) is not None or has_categories(model)
    for k in range(-(-n // size)) if blocks is None else blocks:
        indices = range(k * size, (k + 1) * size if pad else min(n, (k + 1) * size))
        chosen = None if labels is None else [labels[i % len(labels)] for i in indices]
        shown = model if low_res is None else model.enlarging(low_res[[i % len(low_res) for i in indices]])
        bound = (wrap or given)(shown, chosen)
        noise = NoiseSource(seed, indices)
        x = (start or model.process.prior)((len(indices), *_shape(model)), noise.at(0)).to(model.device)
        for step in trajectory(bound, sampler, grid, x, noise):
            x = step.x
            if on_step is not None:
                on_step(k, step)
        kept = min(n, indices.stop) - indices.start
        yield Block(indices[:kept], x[:kept], None if chosen is None else chosen[:kept])


def given(model: Any, labels: list[int] | None) -> Any:
    """The model with these labels bound; the model itself without labels."""
    return model if labels is None else model.given(labels)


def _check_low_res(model: Any, low_res: Tensor | None) -> None:
    """InputError where images to be enlarged are missing, or are given to a model that enlarges none."""
    side = getattr(model, "low_res", None)
    if side is not None and low_res is None:
        raise InputError(
            f"this model enlarges images of {side}×{side} pixels: give them as low_res, (M, C, {side}, {side})"
        )
    if side is None and low_res is not None:
        raise InputError("this is not a super-resolution model: remove low_res")


def _shape(model: Any) -> torch.Size:
    if model.data is None:
        raise InputError(
            "this model does not say what one example is: build it with Denoiser(..., data=sf.DataSpec(shape))"
        )
    return torch.Size(model.data.shape)
