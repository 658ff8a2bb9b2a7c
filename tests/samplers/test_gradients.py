"""Gradients through sampling against finite differences, against autograd without checkpoints, and in their memory."""

from itertools import pairwise

import pytest
import torch

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.samplers import base

F64 = torch.float64
PROCESS = sf.process.cosine(50)
GRID = [50, 30, 12, 3, 0]
SAMPLERS = [
    sf.samplers.DDIM(),
    sf.samplers.DDIM(0.5),
    sf.samplers.Ancestral(),
    sf.samplers.Heun(),
    sf.samplers.DPMSolver2M(),
    sf.samplers.DPMSolver2M(stochastic=True),
    sf.samplers.DPMSolver3M(),
    sf.samplers.UniPC(3),
]


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = sf.nets.MLP(2, hidden=8, layers=2).double()
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return sf.Denoiser(net, PROCESS, "v", data=sf.DataSpec((2,))).eval()


def ends(model, sampler, x_T, grad, noise=None):
    noise = NoiseSource(3) if noise is None else noise
    x = sf.sample(model, sampler, GRID, x_T=x_T, noise=noise, grad=grad)
    return (x * torch.tensor([1.0, -0.3], dtype=F64)).sum()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_they_are_those_of_finite_differences(model, sampler):
    x_T = NoiseSource(0).normal((3, 2)).double().requires_grad_()
    weight = next(model.net.parameters())
    end = ends(model, sampler, x_T, grad=True)
    assert float(end.detach()) == float(ends(model, sampler, x_T, grad=False))
    for where, gradient in zip((x_T, weight), torch.autograd.grad(end, (x_T, weight)), strict=True):
        flat, h = where.data.view(-1), 1e-6
        for i in (0, len(flat) // 2, len(flat) - 1):
            was = float(flat[i])
            flat[i] = was + h
            above = float(ends(model, sampler, x_T, grad=False))
            flat[i] = was - h
            below = float(ends(model, sampler, x_T, grad=False))
            flat[i] = was
            assert float(gradient.view(-1)[i]) == pytest.approx((above - below) / (2 * h), rel=1e-6, abs=1e-8)


def test_a_step_is_computed_again_with_the_draws_of_a_tape(model):
    x_T = NoiseSource(0).normal((3, 2)).double().requires_grad_()
    draws = [NoiseSource(1, step=i).normal((3, 2)).double() for i in range(3)]
    ends(model, sf.samplers.Ancestral(), x_T, True, Recorded(draws)).backward()
    checked, x_T.grad = x_T.grad, None
    x, state, tape, sampler = x_T, None, Recorded(draws), sf.samplers.Ancestral()
    for t, s in pairwise(GRID):
        x, _, state = sampler.step(model, x, t, s, state, tape)
    (x * torch.tensor([1.0, -0.3], dtype=F64)).sum().backward()
    torch.testing.assert_close(checked, x_T.grad, rtol=1e-12, atol=0)


def test_only_the_states_are_kept(model):
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    x_T = NoiseSource(0).normal((100, 2)).double().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        end = sf.sample(model, sf.samplers.DDIM(), GRID, x_T=x_T, grad=True)
    assert sum(kept) <= 3 * x_T.numel() * len(GRID)  # the hidden layers alone hold 8 values for each of 2
    assert end.requires_grad
    assert base.sample(model, sf.samplers.DDIM(), GRID, x_T=x_T).requires_grad is False


def test_what_has_no_gradient_is_refused(model):
    x = torch.zeros(2, 2, dtype=F64)
    with pytest.raises(sf.IncompatibleModel, match="noise levels"):
        sf.sample(sf.ScoreModel(lambda x, c: -x), sf.samplers.Langevin(0.1), [2, 1, 0], x_T=x, grad=True)
    judge = sf.oracle.GaussianMixture([[0.0, 0.0], [1.0, 1.0]], torch.eye(2).expand(2, 2, 2)).classifier(
        PROCESS
    )
    guided = sf.guidance.ClassifierGuidance(model, judge, 0, 1.0)
    with pytest.raises(sf.IncompatibleModel, match="second time"):
        sf.sample(guided, sf.samplers.DDIM(), GRID, x_T=x, grad=True)
    with pytest.raises(sf.InputError, match="grad"):
        sf.sample(model, sf.samplers.DDIM(), GRID, x_T=x, grad="yes")  # type: ignore[arg-type]
