"""Randomness has identity: a sample's noise does not depend on its company."""

from itertools import product

import pytest
import torch

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded


@pytest.mark.parametrize("shape", [(2,), (1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_bits_do_not_depend_on_the_batch(shape, kind):
    def draw(samples, step=3):
        source = NoiseSource(7, samples).at(step)
        getattr(source, kind)(
            (len(samples), *shape)
        )  # the second draw of a step is as reproducible as the first
        return getattr(source, kind)((len(samples), *shape))

    everyone = draw(range(5000 if len(shape) == 1 else 64))
    for samples in ([3], range(7), range(64), [63, 0, 17, 17]):
        assert torch.equal(draw(samples), everyone[list(samples)])
    assert torch.equal(
        NoiseSource(7).of([5]).at(2).normal((1, *shape)), NoiseSource(7, [5], 2).normal((1, *shape))
    )


def test_streams_differ_in_every_coordinate():
    def first(seed, sample, step, draw):
        source = NoiseSource(seed, [sample], step)
        return [source.normal((1, 8)) for _ in range(draw + 1)][-1]

    keys = product((0, 1, 2**100), (0, 1, 512, 600), range(4), range(4))
    streams = {tuple(first(*key).flatten().tolist()) for key in keys}
    assert len(streams) == 3 * 4 * 4 * 4


def test_moments_and_independence():
    z = NoiseSource(0).normal((4000, 100)).double()
    n = z.numel()
    assert abs(z.mean()) < 4 / n**0.5
    assert abs(z.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((z[:-1] * z[1:]).mean()) < 4 / n**0.5  # neighbouring samples
    assert abs((z * NoiseSource(0, step=1).normal((4000, 100))).mean()) < 4 / n**0.5  # neighbouring steps
    u = NoiseSource(0).uniform((n // 100, 100))
    assert u.min() >= 0
    assert u.max() < 1


def test_normal_like_casts():
    x = torch.zeros(3, 2, dtype=torch.bfloat16)
    assert torch.equal(NoiseSource(5).normal_like(x), NoiseSource(5).normal((3, 2)).bfloat16())


def test_recorded_hands_out_in_order_and_refuses_the_rest():
    tape = Recorded([torch.ones(2, 3), torch.zeros(2, 3)])
    assert torch.equal(tape.at(9).normal((2, 3)), torch.ones(2, 3))
    with pytest.raises(sf.InputError, match=r"draw 1 has shape \(2, 3\), but \(1, 3\)"):
        tape.normal((1, 3))
    assert torch.equal(tape.normal_like(torch.ones(2, 3, dtype=torch.float64)), torch.zeros(2, 3).double())
    with pytest.raises(sf.InputError, match="is used up"):
        tape.normal((2, 3))


@pytest.mark.parametrize("seed", [-1, 1.5, True, "3", 2**128])
def test_bad_seeds(seed):
    with pytest.raises(sf.InputError, match="seed"):
        NoiseSource(seed)


def test_rows_must_match_samples():
    with pytest.raises(sf.InputError, match="for 2 samples, but 3 were requested"):
        NoiseSource(0, [0, 1]).normal((3, 4))
    with pytest.raises(sf.InputError, match="from 0 up"):
        NoiseSource(0, [-1])


def test_manual_seed_controls_fresh_seeds():
    torch.manual_seed(11)
    first = sf.noise.fresh_seed()
    torch.manual_seed(11)
    assert sf.noise.fresh_seed() == first
