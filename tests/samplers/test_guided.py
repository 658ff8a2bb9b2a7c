"""Guided sampling against exact answers: p(x|y) at scale 1, and the guided flow and what it is not at other
scales.
"""

import itertools

import numpy as np
import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.models.guidance import ClassifierGuidance
from scorefield.samplers import DDIM, Ancestral, Euler, Heun, Langevin, PredictorCorrector

F64 = torch.float64
EYE = torch.eye(2, dtype=F64)
MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [1.5, 1.0], [0.3, -1.5]],
    torch.stack([0.1 * EYE, torch.tensor([[0.2, 0.1], [0.1, 0.15]], dtype=F64), 0.05 * EYE]),
    [0.5, 0.2, 0.3],
)
COSINE = sf.process.from_betas(sf.process.cosine_betas(1000))


def noisy_components(mixture, level, y, z):
    """One exact sample of q(x_t | y) for every y, from standard normals z."""
    alpha, sigma = level
    eye = torch.eye(mixture.D, dtype=F64)
    root = torch.linalg.cholesky(alpha**2 * mixture.covariances + sigma**2 * eye)
    return alpha * mixture.means[y] + torch.einsum("bij,bj->bi", root[y], z)


@pytest.mark.parametrize(
    "sampler",
    [
        DDIM(),
        DDIM(0.5),
        DDIM(1.0),
        Euler(),
        Heun(),
        Langevin(1e-7),
        Langevin(1e-7, final_denoise=True),
        PredictorCorrector(DDIM(), Langevin(1e-7)),
    ],
    ids=str,
)
def test_at_scale_one_a_sampler_makes_what_it_makes_of_the_class(sampler):
    """The same walk, on the same noise, as with the exact model of the class alone; with clipping around
    either.
    """
    one = sf.oracle.GaussianMixture(MIXTURE.means[1:2], MIXTURE.covariances[1:2]).denoiser(COSINE)
    guided = ClassifierGuidance(MIXTURE.denoiser(COSINE), MIXTURE.classifier(COSINE), 1)
    x_T, grid = NoiseSource(0).normal((50, 2)).double(), [1000, 900, 600, 300, 100, 20, 0]
    for wrap in (lambda model: model, lambda model: sf.guidance.ClipX0(model, -1.0, 1.2)):
        walks = [
            list(sf.trajectory(wrap(model), sampler, grid, x_T, NoiseSource(1))) for model in (guided, one)
        ]
        for mine, exact in zip(*walks, strict=True):
            assert relative_error(mine.x, exact.x) < 1e-9, (mine.t, mine.s)
            assert relative_error(mine.x0, exact.x0) < 1e-9, (mine.t, mine.s)


@pytest.mark.parametrize(("sampler", "steps"), [(DDIM(), 250), (Heun(), 60)])
def test_scale_one_reaches_the_class(sampler, steps):
    """1,000 samples of each class from the exact q(x_T | y). Beyond 4 standard errors: means 0.01 sd,
    covariances 3 %.
    """
    n, seed = 1000, 5
    print("seed", seed)
    y = torch.arange(3).repeat(n)
    x_T = noisy_components(MIXTURE, COSINE.level(COSINE.T), y, NoiseSource(seed).normal((3 * n, 2)).double())
    model = ClassifierGuidance(MIXTURE.denoiser(COSINE), MIXTURE.classifier(COSINE), y)
    x = sf.sample(model, sampler, sf.grids.uniform(COSINE, steps), x_T=x_T)
    for k, (m, C) in enumerate(zip(MIXTURE.means, MIXTURE.covariances, strict=True)):
        mine, sd = x[y == k], C.diagonal().sqrt()
        assert ((mine.mean(0) - m).abs() / sd < 4 / n**0.5 + 0.01).all(), k
        assert ((mine.mT.cov() - C).abs() / torch.outer(sd, sd) < 4 * (2 / n) ** 0.5 + 0.03).all(), k


LINE = sf.oracle.GaussianMixture([[-1.0], [0.6]], [[[0.2]], [[0.1]]], [0.6, 0.4])


def test_the_mean_shifts_bias_falls_and_is_small_at_a_thousand_steps():
    """Ancestral sampling guided by the exact posterior of class 1, next to the exact chain of that class on
    the same noise.

    The moments of the latter follow from its affine steps, so that only the small difference between the two
    is estimated. Biases in standard deviations of the class and relative to its variance.
    """
    n, seed = 512, 1
    print("seed", seed)
    process, (m,), ((v,),) = (
        sf.process.from_betas(sf.process.linear_betas(1000)),
        LINE.means[1],
        LINE.covariances[1],
    )
    guided, biases = ClassifierGuidance(LINE.denoiser(process), LINE.classifier(process), 1), []
    alpha, sigma = process.level(process.T)
    x_T = alpha * m + (alpha**2 * v + sigma**2).sqrt() * NoiseSource(seed).normal((n, 1)).double()
    for steps in (30, 120, 1000):
        grid, noise = sf.grids.uniform(process, steps), NoiseSource(seed + 1)
        x = sf.sample(guided, Ancestral(), grid, x_T=x_T, noise=noise)
        twin, mean, var = x_T, alpha * m, alpha**2 * v + sigma**2
        for i, (t, s) in enumerate(itertools.pairwise(grid.tolist()), start=1):
            slope, offset, std = class_step(process, t, s, m, v)
            twin = slope * twin + offset + std * noise.at(i).normal((n, 1)).double()
            mean, var = slope * mean + offset, slope**2 * var + std**2
        shift, spread = x - twin, (x - m) ** 2 - (twin - m) ** 2
        bias = (
            (mean - m + shift.mean()).abs() / v.sqrt(),
            (var + (mean - m) ** 2 - v + spread.mean()).abs() / v,
        )
        error = shift.std() / n**0.5 / v.sqrt(), spread.std() / n**0.5 / v
        biases.append([float(b) for b in bias])
    print("biases of mean and variance", biases, "standard errors", error)
    for one in zip(*biases, strict=True):
        assert list(one) == sorted(one, reverse=True)
    assert all(bias + 4 * e <= 0.02 for bias, e in zip(biases[-1], error, strict=True))


def class_step(process, t, s, m, v):
    """(slope, offset, std) of the ancestral step on N(m, v), from DDPM Eq. 7 and the posterior mean of x_0."""
    (a_t, s_t), (a_s, s_s) = process.level(t), process.level(s)
    var_ts = s_t**2 - (a_t / a_s) ** 2 * s_s**2
    c_0, c_t, gain = a_s * var_ts / s_t**2, a_t / a_s * s_s**2 / s_t**2, a_t * v / (a_t**2 * v + s_t**2)
    return c_0 * gain + c_t, c_0 * (m - gain * a_t * m), (var_ts * s_s**2 / s_t**2).sqrt()


def affine_moments(model, sampler, grid, mean, var):
    """Mean and variance at the grid's end of a one-dimensional chain whose steps are affine."""
    state, x, z = (
        None,
        torch.tensor([[0.0], [1.0], [0.0]], dtype=F64),
        torch.tensor([[0.0], [0.0], [1.0]], dtype=F64),
    )
    for t, s in itertools.pairwise(grid.tolist()):
        out, _, state = sampler.step(model, x, t, s, state, Recorded([z]))
        offset, slope, std = out[0], out[1] - out[0], out[2] - out[0]
        mean, var = slope * mean + offset, slope**2 * var + std**2
    return mean[0], var[0]


class Likelihood:
    """The exact noisy classifier of x_0 ~ N(m, v) and p(y = 1 | x_0) = exp(−(x_0 − b)²/(2τ²)), in one
    dimension.

    p(x_0 | x_t) = N(μ, V), so that p(y = 1 | x_t) = √(τ²/(τ² + V)) exp(−(μ − b)²/(2(τ² + V))); its gradient
    is affine in x_t, and p(x_0 | y = 1) is Gaussian.
    """

    m, v, b, tau2 = 0.4, 0.5, -0.3, 1.0

    def __init__(self, process):
        self.process = process

    def __call__(self, x, t):
        alpha, sigma = self.process.level(t)
        V = 1 / (1 / self.v + alpha**2 / sigma**2)
        mu = V * (self.m / self.v + alpha * x / sigma**2)
        log_p = 0.5 * (self.tau2 / (self.tau2 + V)).log() - (mu - self.b) ** 2 / (2 * (self.tau2 + V))
        return torch.cat([torch.log1p(-log_p.exp()), log_p], dim=1)

    def given_y(self):
        """Mean and variance of p(x_0 | y = 1)."""
        var = 1 / (1 / self.v + 1 / self.tau2)
        return var * (self.m / self.v + self.b / self.tau2), var


@pytest.mark.parametrize("variance", ["lower", "upper"])
@pytest.mark.parametrize("at", ["x_t", "mean"])
def test_the_mean_shift_is_first_order(variance, at):
    """The exact moments of the guided chain on a Gaussian whose guided steps are affine: its error halves
    when steps double.
    """
    T = 4096
    process = sf.process.from_betas(sf.process.linear_betas(T, 0.1 / T, 20 / T))
    likelihood = Likelihood(process)
    denoiser = sf.oracle.GaussianMixture([[likelihood.m]], [[[likelihood.v]]]).denoiser(process)
    model, (m, v) = ClassifierGuidance(denoiser, likelihood, 1, at=at), likelihood.given_y()
    (a, s), (a_T, s_T) = process.level(T // 16), process.level(T)
    errors = []
    for n in (40, 80, 160):
        grid = torch.tensor([T // 16 + (T - T // 16) * i // n for i in range(n, -1, -1)])
        mean, var = affine_moments(model, Ancestral(variance), grid, a_T * m, a_T**2 * v + s_T**2)
        errors.append([float((mean - a * m).abs().log2()), float((var - a**2 * v - s**2).abs().log2())])
    slopes = [[a - b for a, b in itertools.pairwise(one)] for one in zip(*errors, strict=True)]
    print(variance, at, "slopes of mean and variance", slopes)
    assert all(abs(slope - 1) < 0.15 for one in slopes for slope in one), slopes


def test_where_the_mean_takes_its_gradient():
    """μ + Σ·s·g with g at (x_t, t), or at (μ, s); at (x_t, t) on the step to 0, where "lower" has no Σ."""
    # [ADM Algorithm 1]
    likelihood = Likelihood(COSINE)
    denoiser = sf.oracle.GaussianMixture([[likelihood.m]], [[[likelihood.v]]]).denoiser(COSINE)
    x_t, scale = torch.tensor([[0.7], [-1.1]], dtype=F64), torch.tensor([0.5, 3.0], dtype=F64)

    def gradient(x, t):
        alpha, sigma = COSINE.level(t)
        V = 1 / (1 / likelihood.v + alpha**2 / sigma**2)
        mu = V * (likelihood.m / likelihood.v + alpha * x / sigma**2)
        return -(mu - likelihood.b) / (V + likelihood.tau2) * V * alpha / sigma**2

    for variance, (t, s, above) in itertools.product(("lower", "upper"), ((500, 440, 560), (60, 0, 120))):
        p = sf.process.transitions.reverse(
            denoiser(x_t, t),
            COSINE.level(t),
            COSINE.level(s),
            variance,  # type: ignore[arg-type]
            COSINE.level(above),  # type: ignore[arg-type]
        )
        var = 0 if (variance, s) == ("lower", 0) else p.var
        for at in ("x_t", "mean"):
            model = ClassifierGuidance(denoiser, likelihood, 1, scale, at)
            x, x0, _ = Ancestral(variance).step(model, x_t, t, s, above, Recorded([torch.zeros_like(x_t)]))  # type: ignore[arg-type]
            where = (p.mean, s) if at == "mean" and s else (x_t, t)
            assert relative_error(x, p.mean + var * scale[:, None] * gradient(*where)) < 1e-10
            assert torch.equal(x0, denoiser(x_t, t).x0)


VE = sf.process.from_sigmas(sf.process.geometric_sigmas(50.0, 0.01, 2**14))


def flow(x, scale, r_start, r_end, steps):
    """The guided flow of LINE, class 1, by the classical Runge–Kutta method in ln r, written anew: dx/dr =
    −r·(score + s·∇log p).
    """
    m, v, w = LINE.means[:, 0].numpy(), LINE.covariances[:, 0, 0].numpy(), LINE.weights.numpy()

    def slope(x, log_r):
        r2 = np.exp(2 * log_r)
        each = -(x[:, None] - m) / (v + r2)
        joint = w * np.exp(-((x[:, None] - m) ** 2) / (2 * (v + r2))) / np.sqrt(v + r2)
        score = (joint * each).sum(1) / joint.sum(1)
        return -r2 * (score + scale * (each[:, 1] - score))

    h, at = (np.log(r_end) - np.log(r_start)) / steps, np.log(r_start)
    for _ in range(steps):
        k1 = slope(x, at)
        k2 = slope(x + h / 2 * k1, at + h / 2)
        k3 = slope(x + h / 2 * k2, at + h / 2)
        k4 = slope(x + h * k3, at + h)
        x, at = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), at + h
    return x


def guided_line(scale, process=VE, y=1):
    return ClassifierGuidance(LINE.denoiser(process), LINE.classifier(process), y, scale)


def test_the_guided_flow_is_solved_with_its_order():
    """At s = 3, against a 4,000-step solution of the same equation written independently; steps even in ln r."""
    T, last = VE.T, VE.T // 4
    x_T = 50 * torch.linspace(-2, 2, 21, dtype=F64)[:, None]
    (_, r_T), (_, r_end) = VE.level(T), VE.level(last)
    reference = flow(x_T[:, 0].numpy(), 3.0, float(r_T), float(r_end), 4000)
    for sampler, order in ((DDIM(), 1), (Heun(), 2)):
        errors = []
        for n in (48, 96, 192):
            grid = [T - round((T - last) * i / n) for i in range(n + 1)]
            x = sf.sample(guided_line(3.0), sampler, grid, x_T=x_T)
            errors.append(float(np.log2(np.abs(x[:, 0].numpy() - reference).mean())))
        slopes = [a - b for a, b in itertools.pairwise(errors)]
        print(sampler, "log2 errors", errors, "slopes", slopes)
        assert all(abs(slope - order) < 0.15 for slope in slopes), (sampler, slopes)


def tilted(scale, r, shares):
    """Quantiles of p_r(x)·p_r(y = 1|x)^s / Z, by quadrature."""
    x = torch.linspace(-10 - 8 * r, 10 + 8 * r, 100_001, dtype=F64)
    level = sf.Level(torch.tensor(1.0, dtype=F64), torch.tensor(float(r), dtype=F64))
    log_p = LINE.log_prob(x[:, None], level) + scale * LINE.posterior(x[:, None], level)[:, 1].log()
    mass = (log_p - log_p.max()).exp().cumsum(0)
    return torch.from_numpy(np.interp(shares, (mass / mass[-1]).numpy(), x.numpy()))


def test_at_other_scales_the_flow_is_not_the_tilted_density():
    """In one dimension the flow moves quantiles, so that its end is known without sampling error.

    It starts from p_T(x)·p_T(y|x)^s itself. At s = 1 it ends at p(x|y); at s = 3 far from p(x)·p(y|x)³
    (Wasserstein distance, in standard deviations of that density), and more steps do not bring it nearer.
    """
    shares = (np.arange(200) + 0.5) / 200
    distances = {}
    for scale, steps in itertools.product((1.0, 3.0), (60, 120)):
        grid = [VE.T - round((VE.T - 1) * i / (steps - 1)) for i in range(steps)] + [0]
        x = sf.sample(guided_line(scale), Heun(), grid, x_T=tilted(scale, 50.0, shares)[:, None])[:, 0]
        goal = tilted(scale, 0.0, shares)
        distances[scale, steps] = float((x - goal).abs().mean() / goal.std())
    print(distances)
    assert distances[1.0, 120] < 0.002
    assert distances[3.0, 120] > 0.1
    assert abs(distances[3.0, 120] - distances[3.0, 60]) < 0.01 * distances[3.0, 120]


def test_langevin_samples_the_tilted_density_of_its_level():
    """10,000 chains at one t, at s = 3. Beyond 4 standard errors: 2 % for the step's own error, of order h =
    0.05.
    """
    seed, n, h, t = 0, 10_000, 0.05, round(VE.T * 0.55)
    print("seed", seed)
    r, r_1 = (float(VE.level(k).sigma) for k in (t, 1))
    goal = tilted(3.0, r, (np.arange(2000) + 0.5) / 2000)
    x = sf.sample(
        guided_line(3.0),
        Langevin(h * (r_1 / r) ** 2),
        [t] * 120,
        x_T=torch.zeros(n, 1, dtype=F64),
        noise=NoiseSource(seed),
    )[:, 0]
    unguided = LINE.means.mT @ LINE.weights
    assert abs(goal.mean() - unguided) > 0.5 * goal.std()  # guidance makes a difference
    assert abs(x.mean() - goal.mean()) / goal.std() < 4 / n**0.5 + 0.02
    assert abs(x.var() / goal.var() - 1) < 4 * (2 / n) ** 0.5 + 0.02
