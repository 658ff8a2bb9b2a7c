"""Minibatch optimal transport: the assignment against all permutations, within classes, and its flow."""

from itertools import permutations

import pytest
import torch
from support import assert_close

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.objectives.coupling import coupled


def draw(n, seed, *shape):
    return NoiseSource(seed).normal((n, *shape)).double()


def cost(x0, eps):
    return float(((x0 - eps) ** 2).sum())


@pytest.mark.parametrize("shape", [(2,), (1, 2, 3)])
def test_no_permutation_is_cheaper(shape):
    # [Tong et al. 2024]
    x0, eps = draw(6, 0, *shape), draw(6, 1, *shape)
    ours = coupled(x0, eps, None)
    best = min(cost(x0, eps[list(order)]) for order in permutations(range(6)))
    assert cost(x0, ours) == pytest.approx(best, rel=1e-12)
    assert sorted(map(tuple, ours.flatten(1).tolist())) == sorted(map(tuple, eps.flatten(1).tolist()))


def test_noise_stays_within_its_class():
    x0, eps, y = draw(8, 2, 3), draw(8, 3, 3), torch.tensor([0, 1, 0, 2, 1, 1, 0, 1])
    ours = coupled(x0, eps, y)
    for k in y.unique():
        assert_close(ours[y == k], coupled(x0[y == k], eps[y == k], None), 0)


def flow_model(net):
    return sf.Denoiser(net, sf.process.flow(), "flow", noise_input="scaled")


def test_the_objective_trains_on_the_coupled_noise():
    x0, seen = draw(16, 4, 2), []

    def net(x, c, y=None):
        seen.append(x)
        return 0 * x

    objective = sf.objectives.Simple(flow_model(net), "network", coupling="optimal")
    loss = objective(x0, None, NoiseSource(5))
    again = NoiseSource(5)
    t = (1e-3 + (1 - 1e-3) * again.uniform((16, 1)).double())[:, 0]
    eps = coupled(x0, again.normal_like(x0), None)
    assert_close(seen[0], (1 - t[:, None]) * x0 + t[:, None] * eps, 1e-14)
    assert_close(loss.per_example, ((eps - x0) ** 2).mean(dim=1), 1e-12)
    assert objective.config["coupling"] == "optimal"
    assert "coupling" not in sf.objectives.Simple(flow_model(net)).config


def test_coupled_paths_cost_less_and_keep_the_noise_normal():
    """Over many batches the mean and the covariance of the noise are those of N(0, I), and the paths are shorter."""
    mixture = sf.oracle.GaussianMixture([[-2.0, 0.0], [2.0, 1.0]], 0.1 * torch.eye(2).expand(2, 2, 2))
    x0, eps = mixture.sample(64 * 64, NoiseSource(0)), draw(64 * 64, 1, 2)
    pairs = [(a, coupled(a, b, None)) for a, b in zip(x0.split(64), eps.split(64), strict=True)]
    mine = torch.cat([b for _, b in pairs])
    assert_close(mine.mean(0), eps.mean(0), 1e-12)
    assert_close(mine.T.cov(), eps.T.cov(), 1e-12)
    assert sum(cost(a, b) for a, b in pairs) < 0.7 * cost(x0, eps)


def test_refusals():
    def net(x, c, y=None, *, mask=None):
        return x

    with pytest.raises(sf.IncompatibleModel, match="'mask'"):
        sf.objectives.Simple(flow_model(net), coupling="optimal")
    with pytest.raises(sf.InputError, match="optimal"):
        sf.objectives.Simple(flow_model(lambda x, c, y=None: x), coupling="nearest")
