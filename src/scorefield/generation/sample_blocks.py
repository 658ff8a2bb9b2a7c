"""Many samples, a block at a time: sample i is the same image however many are asked for, in any order of
blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from scorefield.core.noise import Noise, NoiseSource
from scorefield.models.base import Model
from scorefield.models.foreign import as_model
from scorefield.runtime.errors import InputError
from scorefield.samplers.base import AnySampler, Grid, Step, trajectory
from scorefield.store.block_store import BLOCK, Block

__all__ = ["block_indices", "bound", "first_state", "given", "sample_blocks", "walk"]


def sample_blocks(
    model: Model,
    sampler: AnySampler,
    grid: Grid,
    n: int,
    seed: int,
    *,
    labels: Sequence[int] | None = None,
    wrap: Callable[[Model, list[int] | None], Model] | None = None,
    start: Callable[[Sequence[int], Noise], Tensor] | None = None,
    conditions: Mapping[str, Tensor] | None = None,
    size: int = BLOCK,
    on_step: Callable[[int, Step], None] | None = None,
    blocks: Iterable[int] | None = None,
) -> Iterator[Block]:
    """Samples 0 … n−1 of a seed in blocks of `size` consecutive ones.

    A network that runs in bf16 rounds differently at another batch size, and the last bit can decide which
    category is drawn, so with either the last block is padded to full size.

    Args:
        model: What is sampled.
        sampler: How.
        grid: At which times.
        n: How many.
        seed: Of all draws; sample i of a seed does not depend on n or `size`.
        labels: Cycled over the samples, sample i gets labels[i mod len]. Default: none.
        wrap: (model, labels of a block or None) -> what is sampled; the model has the block's conditions bound.
            Default: model.given(labels).
        start: (shape, noise) -> the first state. Default: a draw of the process's prior.
        conditions: Further inputs of the network by name, (M, *) each, cycled like the labels; of a super-resolution
            model `low_res`, (M, C, h, w) in the data's range. Default: none.
        size: How many at once. Below 32 the last place of a value may depend on the number of threads.
        on_step: Called (k, step) after every step of block k.
        blocks: Which ones. Default: all.

    Raises:
        InputError: For numbers out of range, and for conditions that are missing or that the network does not take.
    """
    if n < 1 or size < 1:
        raise InputError(
            f"at least one sample in blocks of at least one is needed, got n = {n} in blocks of {size}"
        )
    model = as_model(model)
    for k in range(-(-n // size)) if blocks is None else blocks:
        indices = block_indices(model, k, n, size)
        steps = walk(
            model, sampler, grid, indices, seed, labels=labels, wrap=wrap, start=start, conditions=conditions
        )
        for step in steps:
            x = step.x
            if on_step is not None:
                on_step(k, step)
        kept = min(n, indices.stop) - indices.start
        yield Block(indices[:kept], x[:kept], _labels_of(indices[:kept], labels))


def block_indices(model: Model, k: int, n: int, size: int = BLOCK) -> range:
    """The samples that block k of samples 0 … n−1 computes: a whole block where the result depends on its size."""
    pad = model.autocast_dtype is not None or model.family == "categorical"
    return range(k * size, (k + 1) * size if pad else min(n, (k + 1) * size))


def walk(
    model: Model,
    sampler: AnySampler,
    grid: Grid,
    indices: range,
    seed: int,
    *,
    labels: Sequence[int] | None = None,
    wrap: Callable[[Model, list[int] | None], Model] | None = None,
    start: Callable[[Sequence[int], Noise], Tensor] | None = None,
    conditions: Mapping[str, Tensor] | None = None,
) -> Iterator[Step]:
    """The steps of these samples of a seed together, as `trajectory` yields them. Bad pieces raise here, not later.

    Args:
        indices: Which samples.
        model, sampler, grid, seed, labels, wrap, start, conditions: As of `sample_blocks`.
    """
    sampled = bound(model, indices, labels=labels, wrap=wrap, conditions=conditions)
    x = first_state(model, indices, seed, start)
    return trajectory(sampled, sampler, grid, x, NoiseSource(seed, indices))


def bound(
    model: Model,
    indices: range,
    *,
    labels: Sequence[int] | None = None,
    wrap: Callable[[Model, list[int] | None], Model] | None = None,
    conditions: Mapping[str, Tensor] | None = None,
) -> Model:
    """The model with the labels and conditions of these samples, as it is sampled; arguments as of `walk`."""
    arrays = conditions or {}
    model.check_arrays(arrays)
    model.refuse_missing(arrays.keys())
    rows = {name: array[[i % len(array) for i in indices]] for name, array in arrays.items()}
    return (wrap or given)(model.given(**rows), _labels_of(indices, labels))


def first_state(
    model: Model,
    indices: range,
    seed: int,
    start: Callable[[Sequence[int], Noise], Tensor] | None = None,
) -> Tensor:
    """x_T of these samples of a seed, (B, *) on the model's device; arguments as of `walk`."""
    noise = NoiseSource(seed, indices).at(0)
    return (start or _prior(model))((len(indices), *_shape(model)), noise).to(model.device)


def given(model: Model, labels: list[int] | None) -> Model:
    """The model with these labels bound; the model itself without labels."""
    return model.given(labels)


def _labels_of(indices: range, labels: Sequence[int] | None) -> list[int] | None:
    return None if labels is None else [labels[i % len(labels)] for i in indices]


def _prior(model: Model) -> Callable[[Sequence[int], Noise], Tensor]:
    if model.process is None:
        raise InputError(
            f"{model.kind} has a score without noise levels, so it has no prior to start from: give start"
        )
    return model.process.prior


def _shape(model: Model) -> torch.Size:
    if model.data is None:
        raise InputError("the shape of an example is not known: build the model with data=sf.DataSpec(shape)")
    return torch.Size(model.data.shape)
