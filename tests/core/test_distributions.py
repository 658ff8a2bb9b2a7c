"""Categorical distributions against NumPy: draws by inversion, probabilities, divergences, and what a
probability of 0 does.
"""

import numpy as np
import pytest
import torch

from scorefield.core.distributions import LOG_ZERO, Categorical
from scorefield.core.noise import NoiseSource

F64 = torch.float64


def random_p(seed, *shape):
    return (
        np.random.default_rng(seed)
        .dirichlet(np.ones(shape[1]) * 0.5, size=(shape[0], *shape[2:]))
        .swapaxes(1, -1)
    )


def test_draws_invert_the_distribution_function():
    p = random_p(0, 3, 7, 4)
    distribution = Categorical(torch.from_numpy(p).log())
    u = np.random.default_rng(1).random((3, 4))
    drawn = distribution.sample(torch.from_numpy(u))
    for b in range(3):
        for d in range(4):
            edges = p[b, :, d].cumsum()
            assert drawn[b, d] == np.searchsorted(edges / edges[-1], u[b, d], side="right")


def test_what_has_probability_zero_is_never_drawn():
    p = torch.tensor([0.0, 0.3, 0.0, 0.0, 0.7, 0.0])
    for dtype in (torch.float32, F64):
        distribution = Categorical(
            torch.where(p > 0, p.clamp_min(1e-9).log(), LOG_ZERO).to(dtype)[None, :, None]
        )
        u = torch.tensor([[0.0, 1e-8, 0.3, 0.299999, 0.9999, 1 - 2**-24]], dtype=torch.float32)
        assert set(distribution.sample(u).flatten().tolist()) == {1, 4}
    one = Categorical.at(torch.tensor([[2]]), 5)
    assert one.sample(torch.tensor([[0.0]])).item() == one.sample(torch.tensor([[1 - 2**-24]])).item() == 2


def test_frequencies():
    n, p = 20_000, random_p(2, 1, 5, 2)
    drawn = Categorical(torch.from_numpy(p).log()).sample(NoiseSource(0).uniform((n, 2)))
    for k in range(5):
        share = (drawn == k).double().mean(0).numpy()
        assert (np.abs(share - p[0, k]) < 4 * np.sqrt(p[0, k] * (1 - p[0, k]) / n)).all()


def test_a_sample_is_the_same_in_any_batch():
    logits = torch.randn(6, 9, 3, generator=torch.Generator().manual_seed(0))
    noise = NoiseSource(4)
    together = Categorical.of(logits).sample(noise.at(1).uniform((6, 3)))
    alone = Categorical.of(logits[4:5]).sample(noise.of([4]).at(1).uniform((1, 3)))
    assert torch.equal(together[4:5], alone)


def test_probabilities_and_divergence():
    p, q = random_p(3, 2, 6, 4), random_p(4, 2, 6, 4)
    mine, other = Categorical(torch.from_numpy(p).log()), Categorical(torch.from_numpy(q).log())
    x = torch.tensor([[0, 5, 2, 2], [1, 3, 3, 0]])
    for b in range(2):
        expected = sum(np.log(p[b, x[b, d], d]) for d in range(4))
        assert mine.log_prob(x)[b].item() == pytest.approx(expected, rel=1e-13)
        assert mine.kl(other)[b].item() == pytest.approx((p[b] * np.log(p[b] / q[b])).sum(), rel=1e-12)
    assert mine.kl(mine).tolist() == [0.0, 0.0]
    assert torch.equal(mine.mode, torch.from_numpy(p.argmax(1)))


def test_zeros_divide_nothing():
    """0 ln(0/q) is 0, the divergence from a point mass is −ln q there, and gradients stay numbers."""
    logits = torch.randn(1, 4, 1, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    point = Categorical.at(torch.tensor([[2]]), 4, F64)
    divergence = point.kl(Categorical.of(logits))
    assert divergence.item() == pytest.approx(-logits.log_softmax(1)[0, 2, 0].item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(divergence.sum(), logits)
    assert torch.isfinite(gradient).all()
    assert point.kl(point).item() == 0
    assert point.log_prob(torch.tensor([[1]])).item() == LOG_ZERO
