from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from scorefield.data import EpochOrder
from scorefield.data.loading.epoch_order import permutation
from scorefield.runtime.errors import InputError


def row(order: EpochOrder, steps: int) -> torch.Tensor:
    return torch.cat([order.indices(step) for step in range(steps)])


@pytest.mark.parametrize(
    ("length", "batch_size"), [(10, 5), (10, 3), (7, 4), (3, 8), (1, 4), (5, 5), (4, 1), (2, 64)]
)
def test_every_index_exactly_once_per_epoch(length: int, batch_size: int) -> None:
    indices = row(EpochOrder(length, batch_size, seed=3), 4 * length)
    assert indices.dtype == torch.int64
    assert len(indices) == 4 * length * batch_size
    for epoch in indices.split(length):
        assert epoch.sort().values.tolist() == list(range(length))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("length", [5, 12, 100])
def test_ranks_in_turn_make_up_the_batch(length: int, world: int) -> None:
    order = EpochOrder(length, 12, seed=1)
    for step in range(20):
        shares = [order.indices(step, rank, world) for rank in range(world)]
        assert all(len(share) == 12 // world for share in shares)
        assert torch.equal(torch.cat(shares), order.indices(step))
        assert torch.cat([order.positions(step, rank, world) for rank in range(world)]).tolist() == list(
            range(12)
        )


def test_any_step_in_any_order_gives_the_same_answer() -> None:
    expected = {step: EpochOrder(10, 4, seed=5).indices(step).tolist() for step in range(50)}
    shared = EpochOrder(10, 4, seed=5)
    for step in torch.randperm(50, generator=torch.Generator().manual_seed(0)).tolist() * 2:
        assert shared.indices(step).tolist() == expected[step]


def test_epochs_and_seeds_differ() -> None:
    epochs = [
        tuple(EpochOrder(50, 50, seed).indices(epoch).tolist()) for seed in range(5) for epoch in range(5)
    ]
    # SeedSequence([0, 1]) and SeedSequence([2**32]) coincide; keys must not.
    epochs += [tuple(EpochOrder(50, 50, seed).indices(0).tolist()) for seed in (2**32, 2**63, 2**64 - 1)]
    assert len(set(epochs)) == len(epochs)


def test_the_order_is_pinned() -> None:
    """These numbers are what checkpoints rely on: they may never change."""
    assert EpochOrder(10, 10, seed=0).indices(0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert EpochOrder(10, 10, seed=7).indices(3).tolist() == [2, 5, 9, 7, 3, 0, 6, 8, 4, 1]
    assert permutation(8, 0, stream=1).tolist() == [7, 4, 2, 6, 5, 0, 1, 3]


def test_permutations_are_uniform() -> None:
    counts: dict[tuple[int, ...], int] = dict.fromkeys(itertools.permutations(range(3)), 0)
    for epoch in range(6000):
        counts[tuple(permutation(3, 11, epoch).tolist())] += 1
    chi_squared = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi_squared < 20.5  # 5 degrees of freedom, p = 0.001


def test_only_two_permutations_are_kept() -> None:
    order = EpochOrder(4, 64)
    order.indices(0)
    assert len(order._epochs) == 2


def test_a_far_step_does_not_overflow() -> None:
    step = 2**60
    indices = EpochOrder(1000, 512, seed=2).indices(step)
    epoch, start = divmod(step * 512, 1000)
    expected = np.concatenate([permutation(1000, 2, epoch), permutation(1000, 2, epoch + 1)])[
        start : start + 512
    ]
    assert indices.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EpochOrder(0, 4), "at least one example"),
        (lambda: EpochOrder(4, 0), "batch_size must be at least 1"),
        (lambda: EpochOrder(4, 4, seed=-1), "seed must be between"),
        (lambda: EpochOrder(4, 4, seed=2**64), "seed must be between"),
        (lambda: EpochOrder(4, 6).indices(0, 0, 4), "multiple of 4"),
        (lambda: EpochOrder(4, 4).indices(-1), "step must be at least 0"),
        (lambda: EpochOrder(4, 4).indices(0, 2, 2), "rank 2 of 2"),
        (lambda: EpochOrder(4, 4).positions(0, 0, 0), "rank 0 of 0"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
