"""Categorical processes against products of explicit transition matrices, 50-digit arithmetic, and sums over
x_t.
"""

import math
from itertools import product

import mpmath
import numpy as np
import pytest
import torch
from categories import KINDS, bayes, between, noise_of, probabilities, step_matrices

import scorefield as sf
from scorefield.core.distributions import Categorical
from scorefield.core.noise import NoiseSource
from scorefield.objectives.categorical_vlb import categorical_term
from scorefield.runs import build
from scorefield.runtime.registry import PROCESSES

F64 = torch.float64
KAPPAS = [0.9, 0.75, 0.4, 0.15, 0.05, 0.0]
T = len(KAPPAS)
PAIRS = [(1, 0), (2, 1), (6, 5), (4, 3), (5, 2), (6, 1), (3, 0), (6, 0)]


def every(*counts):
    """All combinations of values 0 … count − 1, one integer column for each count."""
    return [torch.tensor(column)[:, None] for column in zip(*product(*map(range, counts)), strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", range(2, 18))
def test_transitions_and_posterior_are_those_of_the_matrices(kind, K):
    """Neighbours and skips, every x_t and x_0: products of matrices and Bayes' rule."""
    # [D3PM §3.1, Eq. 2–3; Multinomial diffusion §4]
    process, matrices = KINDS[kind](KAPPAS, K), step_matrices(kind, K, KAPPAS)
    S = process.states
    (states,) = every(S)
    x_t, x0 = every(S, K)
    for t, s in PAIRS:
        forward = between(matrices, t, s)
        assert np.abs(probabilities(process.transition(states, t, s, F64))[:, :, 0] - forward).max() < 1e-14
        assert (
            np.abs(process.log_likelihood(states, t, s, F64).exp().numpy()[:, :, 0] - forward.T).max() < 1e-14
        )
        expected = [
            bayes(matrices, a, b, t, s) for a, b in zip(x_t[:, 0].tolist(), x0[:, 0].tolist(), strict=True)
        ]
        known = [row is not None for row in expected]
        actual = probabilities(process.posterior(x_t[known], x0[known], t, s, F64))[:, :, 0]
        assert np.abs(actual - np.stack([row for row in expected if row is not None])).max() < 1e-13
        assert kind == "absorbing" or all(known)


@pytest.mark.parametrize("kind", KINDS)
def test_reverse_is_the_mixture_of_posteriors(kind):
    """Σ_i q(x_s | x_t, i) p(i) over what can have led to x_t, term by term; t and s one for each example."""
    K, rng = 5, np.random.default_rng(0)
    process, matrices = KINDS[kind](KAPPAS, K), step_matrices(kind, K, KAPPAS)
    cases = [
        (a, t, s) for a in range(process.states) for t, s in PAIRS if between(matrices, t, 0)[:K, a].sum() > 0
    ]
    p0 = rng.dirichlet(np.ones(K), size=len(cases))
    expected = []
    for i, (a, t, s) in enumerate(cases):
        p0[i] *= between(matrices, t, 0)[:K, a] > 0
        p0[i] /= p0[i].sum()
        rows = [bayes(matrices, a, b, t, s) for b in range(K)]
        expected.append(sum(p * row for p, row in zip(p0[i], rows, strict=True) if row is not None))
    x_t, t, s = (torch.tensor(column) for column in zip(*cases, strict=True))  # type: ignore[assignment]
    given = Categorical(torch.from_numpy(p0).log().clamp_min(-1e30)[:, :, None])
    actual = probabilities(process.reverse(x_t[:, None], given, t, s))[:, :, 0]
    assert np.abs(actual - np.stack(expected)).max() < 1e-13


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [2, 3, 17])
@pytest.mark.parametrize("eta", [0.0, 0.2, 0.5, 0.9, 1.0, "bayes"])
def test_marginals_are_those_of_the_process_for_every_varsigma(kind, K, eta):
    """Σ_{x_t} q(x_s | x_t, x_0) q(x_t | x_0) = q(x_s | x_0), exactly, and the family is the paper's formula."""
    # [DDIM appendix A]
    process, matrices = KINDS[kind](KAPPAS, K), step_matrices(kind, K, KAPPAS)
    S, u = process.states, noise_of(kind, K)
    x_t, x0 = every(S, K)
    for t, s in PAIRS:
        q_t = between(matrices, t, 0)[x0[:, 0], x_t[:, 0]]
        if eta == "bayes":
            rows = np.stack(
                [
                    bayes(matrices, a, b, t, s) if q else np.zeros(S)
                    for a, b, q in zip(*map(list, (x_t[:, 0], x0[:, 0], q_t)), strict=True)
                ]
            )
            actual = np.where(
                q_t[:, None] > 0, probabilities(process.posterior(x_t, x0, t, s, F64))[:, :, 0], 0
            )
            assert np.abs(actual - rows).max() < 1e-13
        else:
            point = Categorical.at(x0, K, F64)
            actual = probabilities(process.family(x_t, point, t, s, eta))[:, :, 0]
            kappa_t, kappa_s = KAPPAS[t - 1], 1.0 if s == 0 else KAPPAS[s - 1]
            varsigma = (1 - eta) * (1 - kappa_s) / (1 - kappa_t)
            formula = (
                varsigma * np.eye(S)[x_t[:, 0]]
                + (kappa_s - varsigma * kappa_t) * np.eye(S)[x0[:, 0]]
                + ((1 - kappa_s) - (1 - kappa_t) * varsigma) * u
            )
            assert np.abs(actual - formula).max() < 1e-13
        total = np.zeros((K, S))
        np.add.at(total, x0[:, 0].numpy(), q_t[:, None] * actual)
        assert np.abs(total - between(matrices, s, 0)[:K]).max() < 1e-13


def test_an_absorbing_process_never_remasks_at_eta_zero():
    """There the least noisy member of the family is Bayes' posterior itself."""
    process = sf.process.absorbing(KAPPAS, 4)
    x_t = torch.tensor([[4], [4], [2], [0]])
    p0 = Categorical.of(torch.randn(4, 4, 1, dtype=F64, generator=torch.Generator().manual_seed(0)))
    p0 = Categorical(
        torch.where(
            torch.tensor([True, True, False, False])[:, None, None],
            p0.log_p,
            Categorical.at(x_t % 4, 4, F64).log_p,
        )
    )
    for t, s in ((4, 3), (5, 2), (3, 0)):
        assert torch.allclose(
            process.family(x_t, p0, t, s, 0.0).log_p.exp(),
            process.reverse(x_t, p0, t, s).log_p.exp(),
            atol=1e-14,
        )


def exact_posterior(kappas, u, x_t, x0, t, s, K):
    """ln q(x_s = j | x_t, x_0) in 50 digits from κ's of that precision."""
    keep, marginal = kappas[t] / kappas[s], kappas[s]
    joint = [
        (keep * (j == x_t) + (1 - keep) * u) * (marginal * (j == x0) + (1 - marginal) * u) for j in range(K)
    ]
    return [mpmath.log(p / mpmath.fsum(joint)) for p in joint]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_stable_at_a_thousand_levels_and_256_categories(dtype):
    """T = 1,000, K = 256, against 50-digit arithmetic: neighbours next to the data, in the middle, at the
    end, and long skips.
    """
    K, betas = 256, sf.process.cosine_betas(1000)
    process = sf.process.uniform_categorical(sf.process.kappas_from_betas(betas), K)
    with mpmath.workdps(50):
        kappas = [mpmath.mpf(1)]
        for beta in betas.tolist():
            kappas.append(kappas[-1] * (1 - mpmath.mpf(beta)))
        tolerance = 1e-9 if dtype == F64 else 2e-5
        for t, s in ((1, 0), (2, 1), (3, 2), (500, 499), (1000, 999), (1000, 1), (999, 500), (600, 3)):
            for x_t, x0 in ((7, 7), (7, 200)):
                actual = process.posterior(torch.tensor([[x_t]]), torch.tensor([[x0]]), t, s, dtype).log_p[
                    0, :, 0
                ]
                expected = exact_posterior(kappas, mpmath.mpf(1) / K, x_t, x0, t, s, K)
                possible = [j for j in range(K) if expected[j] > -1e20]
                assert torch.isfinite(actual).all()
                for j in possible[:3] + [j for j in (7, 200) if j in possible]:
                    assert abs(float(actual[j]) - float(expected[j])) <= tolerance * max(
                        1.0, abs(float(expected[j]))
                    ), (t, s, j)


@pytest.mark.parametrize("kind", KINDS)
def test_terms_and_their_gradients_are_finite_at_every_level(kind):
    """T = 1,000, K = 256, logits from even to extreme. Terms next to the data are 1e-4, and float32 keeps
    their digits.
    """
    K = 256
    process = KINDS[kind](sf.process.cosine_kappas(1000), K)
    t = torch.tensor([1, 2, 3, 10, 100, 500, 900, 998, 999, 1000])
    x0 = torch.randint(0, K, (len(t), 2), generator=torch.Generator().manual_seed(0))
    x_t = process.sample(x0, t, NoiseSource(0).uniform(x0.shape))
    for scale in (0.0, 1.0, 30.0, 1000.0):
        logits = scale * torch.randn(len(t), K, 2, generator=torch.Generator().manual_seed(1))
        values = {}
        for dtype in (torch.float32, F64):
            leaf = logits.to(dtype).requires_grad_()
            p0 = Categorical.of(leaf + process.log_likelihood(x_t, t, 0, dtype)[:, :K])
            terms = categorical_term(process, p0, x_t, x0, t, t - 1)
            (gradient,) = torch.autograd.grad(terms.sum(), leaf)
            assert torch.isfinite(terms).all()
            assert torch.isfinite(gradient).all()
            assert (terms > -1e-5).all()
            values[dtype] = (terms.detach().double(), gradient.double())
        (single, gradient), (double, exact) = values.values()
        assert torch.allclose(single, double, rtol=1e-5, atol=1e-6), scale
        assert torch.allclose(gradient, exact, rtol=1e-5, atol=1e-6), scale
        if scale <= 1:
            assert torch.allclose(single[:5], double[:5], rtol=1e-5, atol=0)


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_schedules(count):
    # [D3PM §3.2; Improved DDPM Eq. 17]
    t = np.arange(1, count + 1)
    assert np.abs(sf.process.linear_kappas(count).numpy() - (1 - t / count)).max() < 1e-15
    f = [
        mpmath.cos((mpmath.mpf(int(k)) / count + mpmath.mpf("0.008")) / mpmath.mpf("1.008") * mpmath.pi / 2)
        ** 2
        for k in [0, *t]
    ]
    expected = np.array([float(value / f[0]) for value in f[1:]])
    assert np.abs(sf.process.cosine_kappas(count).numpy() - expected).max() < 1e-15
    betas = sf.process.cosine_betas(count)
    assert (
        np.abs(sf.process.kappas_from_betas(betas).numpy() / np.cumprod(1 - betas.numpy()) - 1).max() < 1e-10
    )
    for make in (sf.process.linear_kappas, sf.process.cosine_kappas):
        assert make(count)[-1] == 0
        assert torch.equal(
            sf.process.uniform_categorical(make(count), 3).level(torch.arange(1, count + 1)), make(count)
        )


def test_the_start_is_u_and_belongs_to_the_sample():
    for kind in KINDS:
        process = KINDS[kind](KAPPAS, 4)
        x = process.prior((10_000, 3), NoiseSource(1))
        share = np.bincount(x.flatten(), minlength=process.states) / x.numel()
        u = noise_of(kind, 4)
        assert (np.abs(share - u) <= 4 * np.sqrt(u * (1 - u) / x.numel())).all()
        assert torch.equal(process.prior((2, 3), NoiseSource(1, [7, 9])), x[[7, 9]])
        assert math.isclose(process.prior_distribution(1, F64).log_p.exp().sum().item(), 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "kappas", [sf.process.cosine_kappas(50), sf.process.linear_kappas(8), [0.5, 0.25, 0.0]]
)
def test_a_process_is_rebuilt_from_its_description(kind, kappas):
    process = KINDS[kind](kappas, 17)
    rebuilt = build.build(PROCESSES, process.config, "process")
    t = torch.arange(process.T + 1)
    assert torch.equal(process.level(t), rebuilt.level(t))
    assert (rebuilt.classes, rebuilt.states, rebuilt.config) == (
        process.classes,
        process.states,
        process.config,
    )
    assert process.level(0) == 1


MISTAKES = [
    (lambda: sf.process.uniform_categorical([0.5, 0.5], 3), "strictly descend"),
    (lambda: sf.process.uniform_categorical([1.0, 0.5], 3), "strictly descend"),
    (lambda: sf.process.uniform_categorical([0.5, 0.0, 0.0], 3), "strictly descend"),
    (lambda: sf.process.uniform_categorical([], 3), "one-dimensional list"),
    (lambda: sf.process.uniform_categorical([math.nan], 3), "finite"),
    (lambda: sf.process.uniform_categorical([0.5], 1), "at least 2"),
    (lambda: sf.process.absorbing([0.5, 0.1], 3), "linear_kappas"),
    (lambda: sf.process.kappas_from_betas([0.1, 1.5]), "probabilities"),
    (lambda: sf.process.cosine_kappas(0), "positive integer"),
    (lambda: sf.process.uniform_categorical(KAPPAS, 3).level(7), "0 … 6"),
    (lambda: sf.process.uniform_categorical(KAPPAS, 3).level(1.5), "levels at t"),
    (
        lambda: sf.process.uniform_categorical(KAPPAS, 3).transition(torch.tensor([[0]]), 1, 2),
        "must not lie above",
    ),
]


@pytest.mark.parametrize(("act", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_refusals(act, message):
    with pytest.raises(sf.InputError, match=message):
        act()
