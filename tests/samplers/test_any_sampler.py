"""Any sampler on any model, in four tables: (a) parametrizations, (b) exact moments, (c) a mixture, (d)
refusals.
"""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import recursions as plain
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.models.guidance import ClassifierFree, ClassifierGuidance, ClipX0
from scorefield.process import ContinuousProcess, Interpolated
from scorefield.runtime.registry import GRIDS, PARAMETRIZATIONS
from scorefield.samplers import (
    DDIM,
    Ancestral,
    DPMSolver2M,
    DPMSolver2S,
    DPMSolver3M,
    Euler,
    Heun,
    Inpaint,
    Langevin,
    PredictorCorrector,
    UniPC,
    between_levels,
)

F64 = torch.float64
COSINE = sf.process.from_betas(sf.process.cosine_betas(100))


@dataclass(frozen=True)
class Case:
    """A process, and its levels in plain numbers: t -> level, and σ/α -> level."""

    process: Any
    level: Any
    at: Any


CASES: dict[str, Any] = {
    "vp linear": Case(
        sf.process.from_betas(sf.process.linear_betas(1000)),
        plain.linear_table(1000, 1e-4, 0.02).__getitem__,
        plain.vp_at,
    ),
    "vp cosine": Case(COSINE, plain.cosine_table(100).__getitem__, plain.vp_at),
    "zero terminal snr": Case(
        sf.process.zero_terminal_snr(sf.process.linear(200, 5e-4, 0.1)),
        plain.zero_snr(plain.linear_table(200, 5e-4, 0.1)).__getitem__,
        plain.vp_at,
    ),
    "ve": Case(
        sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 60)),
        plain.geometric_table(20.0, 0.01, 60).__getitem__,
        plain.ve_at,
    ),
    "edm": Case(sf.process.edm(), plain.edm_level, plain.ve_at),
    "continuous ve": Case(
        sf.process.ve(0.005, 100.0),
        lambda t: plain.ve_at(0.005 * 2e4**t if t else 0.0),
        plain.ve_at,
    ),
    "continuous vp": Case(sf.process.vp(), plain.vp_level, plain.vp_at),
    "continuous sub-vp": Case(sf.process.sub_vp(t_min=0.01), plain.sub_vp_level, plain.sub_vp_at),
    "flow": Case(sf.process.flow(), plain.flow_level, plain.flow_at),
    "interpolated": Case(Interpolated(COSINE), plain.between(plain.cosine_table(100)), plain.vp_at),
}


def noise_input(process):
    """What a network can be told at every level: ln(σ/α)/4, or 1000 t where that may be infinite."""
    return "scaled" if process.ends_in_noise else "log_sigma"


def first_time(process):
    return process.t_min if isinstance(process, ContinuousProcess) else 1


# (a) Every parametrization of one x̂0 gives the same prediction: the network is converted from it by what its
# name means


MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [1.5, 1.0]],
    torch.tensor([[[0.1, 0.02], [0.02, 0.3]], [[0.2, 0.0], [0.0, 0.05]]]),
    [0.3, 0.7],
)
SIGMA_DATA = 0.7


def network_says(name, x, x0, level, below):
    """(F, c_in) for this x̂0 at x_t = x.   level, below: (α, σ) of t and of t − 1, (B, 1)."""
    (a, s), n = level, (level[0] ** 2 + level[1] ** 2).sqrt()
    k = (a**2 * SIGMA_DATA**2 + s**2).sqrt()
    if name == "mean":  # [DDPM Eq. 7], for levels that need not preserve the variance
        (a_s, s_s), a_ts = below, a / below[0]
        return (a_s * (s**2 - (a_ts * s_s) ** 2) * x0 + a_ts * s_s**2 * x) / s**2, 1
    return {
        "x0": (x0, 1),
        "eps": ((x - a * x0) / s, 1),
        "score": ((a * x0 - x) / s**2, 1),
        "v": ((a * (x - a * x0) / s - s * x0) / n, 1 / n),
        "edm": ((x0 - a * SIGMA_DATA**2 / k**2 * x) * k / (s * SIGMA_DATA), 1 / k),
        "flow": ((x - a * x0) / s - x0, 1),
    }[name]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_a_every_parametrization_predicts_the_same(case, name):
    """x̂0, ε̂, score and velocity of the exact x̂0 of a mixture, at the ends of the process and between them,
    to 1e-10.
    """
    # [DDPM Eq. 11]
    process, level = CASES[case].process, CASES[case].level
    discrete = isinstance(process.T, int)
    if name == "mean" and not discrete:
        pytest.skip("refused, see table (d)")
    if name in ("eps", "score") and discrete and process.ends_in_noise:
        pytest.skip("refused, see tests/process/test_zero_terminal_snr.py")
    shares = (0.3, 0.5, 0.9) if discrete else (0.123, 0.5, 0.876)
    times = [
        first_time(process),
        *((round if discrete else float)(share * process.T) for share in shares),
        # At α = 0 there is no x̂0 that ε̂ could give.
        0.999 * process.T if name in ("eps", "score") and process.ends_in_noise else process.T,
    ]
    times = torch.tensor([t for t in times for _ in range(6)])  # type: ignore[assignment]
    a, s = torch.tensor([level(t) for t in times.tolist()], dtype=F64).T[..., None]  # type: ignore[attr-defined]
    below = torch.tensor([level(t - 1) for t in times.tolist()], dtype=F64).T[..., None] if discrete else None  # type: ignore[attr-defined]
    x = a * MIXTURE.sample(len(times), NoiseSource(0)) + s * NoiseSource(1).normal((len(times), 2)).double()
    x0 = MIXTURE.x0(x, sf.Level(a[:, 0], s[:, 0]))

    def net(scaled, c, y=None):
        F, c_in = network_says(name, x, x0, (a, s), below)
        assert relative_error(scaled, c_in * x) < 1e-10
        return F

    pred = sf.Denoiser(net, process, name, noise_input=noise_input(process), sigma_data=SIGMA_DATA)(x, times)
    eps = (x - a * x0) / s
    expected = {
        "x0": x0,
        "eps": eps,
        "score": -eps / s,
        "velocity": (a * eps - s * x0) / (a**2 + s**2).sqrt(),
    }
    for what, value in expected.items():
        for t in times.unique():  # type: ignore[attr-defined]
            here = times == t
            assert relative_error(getattr(pred, what)[here], value[here]) < 1e-10, (what, float(t))


# (b) Every sampler on every process and grid against the exact recursion on N(M, V)


STEP, SHARE = 0.4, 0.6  # of Langevin, in units of r²; of ς, in units of σ_s
FRACTION = 0.3  # what the variance head says: the interpolation from ln β̃ to ln β


def learned(upper, lower):
    return upper**FRACTION * lower ** (1 - FRACTION)


def langevin(case, **options):
    return Langevin(STEP * case.level(first_time(case.process)).r ** 2, **options)


# The sampler, made for a process, and its recursion.
SAMPLERS: dict[str, Any] = {
    "ancestral lower": (lambda c: Ancestral("lower"), plain.ancestral(lambda upper, lower: lower)),
    "ancestral upper": (lambda c: Ancestral("upper"), plain.ancestral(lambda upper, lower: upper)),
    "ancestral learned": (lambda c: Ancestral("learned"), plain.ancestral(learned)),
    "ddim": (lambda c: DDIM(), plain.by_eta(0.0)),
    "ddim 0.5": (lambda c: DDIM(0.5), plain.by_eta(0.5)),
    "ddim 1": (lambda c: DDIM(1.0), plain.by_eta(1.0)),
    "ddim ς": (
        lambda c: DDIM(varsigma=lambda t, s: SHARE * c.level(s).sigma),
        plain.family(lambda hi, lo: SHARE * lo.sigma),
    ),
    "euler": (lambda c: Euler(), plain.euler),
    "heun": (lambda c: Heun(), plain.heun()),
    "heun, churned": (lambda c: Heun(churn=2.0), plain.heun(2.0)),
    "heun, churned between": (lambda c: Heun(4.0, 0.05, 50.0, 1.003), plain.heun(4.0, 0.05, 50.0, 1.003)),
    "2m": (lambda c: DPMSolver2M(), plain.two_m(False)),
    "2m stochastic": (lambda c: DPMSolver2M(stochastic=True), plain.two_m(True)),
    "2s": (lambda c: DPMSolver2S(), plain.two_s),
    "3m": (lambda c: DPMSolver3M(), plain.three_m),
    "unipc 2": (lambda c: UniPC(2), plain.unipc(2)),
    "unipc 3": (lambda c: UniPC(3), plain.unipc(3)),
    "langevin": (langevin, plain.langevin(STEP)),
    "langevin, denoised": (lambda c: langevin(c, final_denoise=True), plain.langevin(STEP, denoise=True)),
    "ancestral, corrected": (
        lambda c: PredictorCorrector(Ancestral("upper"), langevin(c), 2),
        plain.corrected(plain.ancestral(lambda upper, lower: upper), plain.langevin(STEP), 2),
    ),
    "2m, corrected": (
        lambda c: PredictorCorrector(DPMSolver2M(), langevin(c)),
        plain.corrected(plain.two_m(False), plain.langevin(STEP), 1),
    ),
}
N = 9  # steps


def grids(process):
    """Every named grid that fits the process, and lists of times: in large steps, and one that stops above 0."""
    T = process.T
    if not isinstance(T, int):
        middle = 50.25 if T > 1 else 0.31
        named = {name: GRIDS[name](process, N) for name in ("uniform", "log_snr", "karras", "shifted")}
        lists = {
            "list": [T, 0.9 * T, middle, 0.01 * T, 0],
            "stops": [0.8 * T, middle, 0.05 * T],
            "jump": [T, 0],
        }
        return {**named, "karras to t_min": sf.grids.karras(process, N, to_zero=False), **lists}
    named = {name: GRIDS[name](process, N) for name in GRIDS}
    counts = {"sections": sf.grids.sections(process, [4, 3, 2]), "full": sf.grids.full(process)}
    lists = {"list": [T, T - 7, T // 2, 3, 1, 0], "stops": [T - 5, T // 3, 2], "jump": [T, 0]}
    return {**named, **counts, **lists}


def exact_line(case, head=False):
    """The exact model of N(M, V), with a variance head that always says FRACTION."""
    process = case.process
    if not head:
        return sf.oracle.GaussianMixture([[plain.M]], [[[plain.V]]]).denoiser(process)

    def net(x, c, y=None):
        if not process.ends_in_noise:
            levels = [case.at(r) for r in (4 * c).exp().tolist()]
        elif process.is_discrete:
            levels = [case.level(1 + round(share * process.T)) for share in (c / 1000).tolist()]
        else:
            levels = [case.level(t) for t in (c / 1000).tolist()]
        a, s = torch.tensor(levels, dtype=F64).T[..., None]
        x0 = plain.M + a * plain.V / (a**2 * plain.V + s**2) * (x - a * plain.M)
        return torch.cat([x0, torch.full_like(x0, 2 * FRACTION - 1)], dim=1)

    return sf.Denoiser(net, process, "x0", variance="range", noise_input=noise_input(process))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_b_mean_and_variance_follow_the_recursion(case, name):
    """After every step, from the exact q(x_T), to 1e-9 of the standard deviation and of the variance.

    The library's are read off one walk of particles: one without any draw, one for x_T and one for each draw.
    """
    # [DDPM Algorithm 2; DDIM Eq. 12, 16; NCSN Algorithm 1; Karras et al. 2022 Algorithms 1 and 2; Lu et al. 2022b Algorithms 1 and 2]
    # [Zhao et al. 2023 Algorithms 1 and 2]
    case, (make, step) = CASES[case], SAMPLERS[name]
    process, sampler = case.process, make(case)
    if getattr(sampler, "between_levels", False) and not isinstance(process, ContinuousProcess):
        pytest.skip("refused, see table (d)")
    ways = grids(process)
    if isinstance(sampler, Langevin):
        ways["staircase"] = sf.grids.staircase(process, 2, ways["uniform"])
    for grid, times in ways.items():
        if grid == "full" and process.T > 100:
            continue
        times = torch.as_tensor(times).tolist() if isinstance(times, torch.Tensor) else times
        r_1, r_T = (case.level(t).r for t in (first_time(process), process.T))
        walk = plain.Walk([case.level(t) for t in times], case.at, r_1, r_T, draws=3 * len(times))
        units = torch.eye(walk.draws + 2, dtype=F64)
        mean, root = walk.start()[:2]
        x_T = mean + root * units[:, 1:2]
        tape = Recorded([units[:, j : j + 1] for j in range(2, len(units))])
        model = exact_line(case, head="learned" in name)
        # Particle 0 is the constant, so that the others differ from it by the coefficient of their own
        # normal.
        library = sf.trajectory(model, sampler, times, x_T, tape)
        for mine, (mean, var) in zip(library, plain.moments(walk, step), strict=True):
            c = mine.x[:, 0]
            assert abs(float(c[0]) - mean) <= 1e-9 * math.sqrt(var), (grid, mine.t, mine.s)
            assert abs(float(((c[1:] - c[0]) ** 2).sum()) - var) <= 1e-9 * var, (grid, mine.t, mine.s)


def test_b_has_every_sampler():
    """Of Gaussian noise; `Inpaint` goes around another one and has an exact law in its own tests, and so has `Adaptive`."""
    made = {type(make(CASES["ve"])) for make, _ in SAMPLERS.values()}
    every = {
        value
        for name, value in vars(sf.samplers).items()
        if hasattr(value, "step") and not name.startswith("Categorical")
    }
    assert made == every - {sf.samplers.Sampler, sf.samplers.Step, Inpaint, sf.samplers.Adaptive}


# (c) Process × sampler × guidance on a mixture with many steps


MEANS, VARIANCES, WEIGHTS = (
    torch.tensor(values, dtype=F64) for values in ([-1.0, 0.8], [0.2, 0.1], [0.6, 0.4])
)
COUNT = 1000  # samples of each law
LAWS = (WEIGHTS, *torch.eye(2, dtype=F64))  # the mixture, and each class
MIXED = {
    "vp linear": CASES["vp linear"].process,
    "vp cosine": sf.process.from_betas(sf.process.cosine_betas(1000)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 1000)),
    "edm": CASES["edm"].process,
    "flow": CASES["flow"].process,
}


def joint(x, a=1.0, s=0.0):
    """ln w_k N(x; α m_k, α² v_k + σ²), (B, K)."""
    var = a**2 * VARIANCES + s**2
    return WEIGHTS.log() - ((x - a * MEANS) ** 2 / var + var.log()) / 2


class Classifier:
    """ln p(k | x_t) up to a constant, from the mixture's formulas."""

    def __init__(self, process):
        self.process = process

    def __call__(self, x, t):
        return joint(x, *self.process.level(t))


def mixture_model(process):
    """A conditional Denoiser, exact for each class, and without a label, or with the null label 2, for the
    mixture.
    """
    exploding = bool(process.level(process.T).alpha == 1)
    within = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0], [0.0, 0.0]], dtype=F64)

    def net(x, c, y=None):
        if process.ends_in_noise:
            a, s = 1 - c[:, None] / 1000, c[:, None] / 1000
        else:
            r = (4 * c[:, None]).exp()
            a, s = (torch.ones_like(r), r) if exploding else ((1 + r**2).rsqrt(), r * (1 + r**2).rsqrt())
        p = torch.softmax(joint(x, a, s) + within[2 if y is None else y], dim=1)
        gain = a * VARIANCES / (a**2 * VARIANCES + s**2)
        return (p * (MEANS + gain * (x - a * MEANS))).sum(1, keepdim=True)

    return sf.Denoiser(
        net, process, "x0", noise_input=noise_input(process), data=sf.DataSpec((1,), classes=("a", "b"))
    )


GUIDANCE = {
    "none": lambda m, y, scale: m,
    "classifier": lambda m, y, scale: ClassifierGuidance(m, Classifier(m.process), y, scale),
    "classifier-free": ClassifierFree,
}


def first_ratio(process):
    alpha, sigma = process.level(first_time(process))
    return float(sigma / alpha)


def steps(n):
    return lambda process: sf.grids.uniform(process, n)


def stairs(levels, repeats):
    """NCSN's geometric ladder, from σ/α = 20."""
    return lambda process: sf.grids.staircase(
        process, repeats, sf.grids.log_snr(process, levels, sigma_max=20.0)
    )


def annealed(share):
    return lambda process: Langevin(share * first_ratio(process) ** 2, final_denoise=True)


def always(sampler):
    return lambda process: sampler


# Each sampler coarsely and finely: (sampler, grid) of a process. Of Langevin the fine one has half the step
# and twice the time.
MANY = {
    **{
        name: ((always(sampler), steps(40)), (always(sampler), steps(80)))
        for name, sampler in {
            "ddim": DDIM(),
            "ddim 0.5": DDIM(0.5),
            "heun": Heun(),
            "heun, churned": Heun(churn=10.0),
            "2m": DPMSolver2M(),
            "2m stochastic": DPMSolver2M(stochastic=True),
            "2s": DPMSolver2S(),
            "3m": DPMSolver3M(),
            "unipc 2": UniPC(2),
            "unipc 3": UniPC(3),
        }.items()
    },
    # More steps: shifting the mean by a classifier's gradient has an error of first order that is large.
    **{
        f"ancestral {variance}": (
            (always(Ancestral(variance)), steps(80)),
            (always(Ancestral(variance)), steps(160)),
        )
        for variance in ("lower", "upper")
    },
    "ddim, corrected": tuple(
        (lambda process, h=h: PredictorCorrector(DDIM(), Langevin(h * first_ratio(process) ** 2)), steps(n))
        for h, n in ((0.2, 40), (0.1, 80))
    ),
    "langevin": ((annealed(1.6), stairs(20, 6)), (annealed(0.8), stairs(40, 12))),
}


def noisy(law, process, t, noise):
    """COUNT exact samples of q(x_t) of the classes with these weights."""
    k = (noise.uniform((COUNT, 1)) >= law[0]).long()[:, 0]
    x0 = MEANS[k, None] + VARIANCES[k, None].sqrt() * noise.normal((COUNT, 1)).double()
    return process.sample(x0, t, noise.normal((COUNT, 1)).double())


def statistics(x, law):
    """What is averaged over samples, and its exact expectation."""
    mean = (law * MEANS).sum()
    var = (law * (VARIANCES + (MEANS - mean) ** 2)).sum()
    known = {"mean": (x, mean), "variance": ((x - mean) ** 2, var)}
    return (
        {**known, "share": (torch.softmax(joint(x), dim=1)[:, :1], law[0])}
        if law[0] < 1 and law[1] < 1
        else known
    )


CELLS = [(case, name, guidance) for case in MIXED for name in MANY for guidance in GUIDANCE]


def always_run(case, name, guidance):
    """A third of the cells, in which every two of process, sampler and guidance meet; the others are slow."""
    return (list(MIXED).index(case) + list(MANY).index(name) + list(GUIDANCE).index(guidance)) % len(
        GUIDANCE
    ) == 0


@pytest.mark.parametrize(
    ("case", "name", "guidance"),
    [pytest.param(*cell, marks=() if always_run(*cell) else pytest.mark.slow) for cell in CELLS],
)
def test_c_moments_and_class_shares(case, name, guidance):
    """From the exact q(x_t) of the first time: the mixture, or at guidance scale 0 the mixture and at scale 1
    each class.

    Within 4 standard errors and an allowance for discretization: what the last doubling of the steps changed,
    c − f. For a method of order p that is 2^p − 1 times the error that is left, so for p ≥ 1 it bounds it. It
    is itself estimated, so the standard error is that of f − (c − f), the extrapolation. No more than 0.3
    standard deviations may be allowed.
    """
    process, laws = MIXED[case], LAWS[: 1 if guidance == "none" else 3]
    y = torch.tensor([0, 0, 1][: len(laws)]).repeat_interleave(COUNT)
    scale = torch.tensor([0.0, 1.0, 1.0][: len(laws)]).repeat_interleave(COUNT)
    ends = []
    for make, grid in MANY[name]:
        sampler, times, model = make(process), grid(process), mixture_model(process)
        x_T = torch.cat([noisy(law, process, times[0], NoiseSource(7, step=i)) for i, law in enumerate(laws)])
        model = between_levels(model) if getattr(sampler, "between_levels", False) else model
        guided = GUIDANCE[guidance](model, y, scale)
        ends.append(sf.sample(guided, sampler, times, x_T=x_T, noise=NoiseSource(8)).split(COUNT))
    for law, coarse, fine in zip(laws, *ends, strict=True):
        before = statistics(coarse, law)
        for what, (f, exact) in statistics(fine, law).items():
            c, _ = before[what]
            sd, error, allowance = f.std(), abs(f.mean() - exact), abs(f.mean() - c.mean())
            se = (2 * f - c).std() / COUNT**0.5
            print(
                f"{law.tolist()} {what}: error {error / se:.1f} standard errors, allowance {allowance / sd:.3f} sd"
            )
            assert allowance <= 0.3 * sd, (law, what)
            assert error <= 4 * se + allowance, (law, what)


# (d) Every refusal comes before the first step, with its reason


CALLED: list[Any] = []


def counting(x, c, y=None):
    CALLED.append(c)
    return torch.zeros_like(x)


def denoiser(process=COSINE, **options):
    return sf.Denoiser(
        counting,
        process,
        **{"noise_input": "log_sigma", "data": sf.DataSpec((2,), classes=("a", "b")), **options},
    )


def categories():
    return sf.CategoricalDenoiser(
        counting,
        sf.process.uniform_categorical(sf.process.linear_kappas(5), 3),
        data=sf.DataSpec((2,), bins=3),
    )


def judge(x, t):
    CALLED.append(t)
    return x


MODELS = {
    "table": denoiser,
    "continuous": lambda: denoiser(CASES["continuous vp"].process),
    "rank": lambda: denoiser(noise_input="rank"),
    "mean": lambda: denoiser(parametrization="mean"),
    "score": lambda: sf.ScoreModel(lambda x, c: counting(x, c), data=sf.DataSpec((2,))),
    "mixture": lambda: MIXTURE,
    "categories": categories,
    "nothing": object,
    "classifier": lambda: ClassifierGuidance(denoiser().given(0), judge, 0),
    "classifier at the mean": lambda: ClassifierGuidance(denoiser().given(0), judge, 0, at="mean"),
    "classifier-free": lambda: ClassifierFree(denoiser(), 0, 2.0),
    "clipped classifier": lambda: ClipX0(ClassifierGuidance(denoiser().given(0), judge, 0)),
    "both": lambda: ClassifierGuidance(ClassifierFree(denoiser(), 0, 2.0), judge, 0),
}
GUIDED = ("classifier", "classifier at the mean", "classifier-free", "clipped classifier", "both")
DOWN, UP, TURN, STAND = [100, 50, 0], [0, 50, 100], [20, 10, 15], [20, 10, 10, 0]
LEVELS_NEEDED = "needs a model with noise levels.*sample it with Langevin, or train it at noise levels"


class Careless:
    """A sampler written without a thought of guidance."""

    def calls(self, grid):
        return len(grid) - 1

    def init(self, model, x):
        return None

    def step(self, model, x_t, t, s, state, noise):
        return model(x_t, t).x0, x_t, None


WALKERS = [
    DDIM(),
    Ancestral(),
    Euler(),
    Heun(),
    DPMSolver2M(),
    DPMSolver2S(),
    DPMSolver3M(),
    UniPC(),
    sf.samplers.Adaptive(),
    PredictorCorrector(DDIM(), Langevin(0.1)),
]
BOTH_WAYS = [DDIM(), Euler(), Heun()]
DESCENDING = [Ancestral(), DPMSolver2M(), DPMSolver2M(stochastic=True), DPMSolver3M(), UniPC()]

REFUSED = [
    # Models without what the sampler needs
    *((kind, sampler, DOWN, LEVELS_NEEDED) for kind in ("score", "mixture") for sampler in WALKERS),
    *((kind, sampler, [3, 2, 1, 0], LEVELS_NEEDED) for kind in ("score", "mixture") for sampler in WALKERS),
    *(
        ("categories", sampler, [5, 0], "categorical.*CategoricalAncestral")
        for sampler in (*WALKERS, Langevin(0.1))
    ),
    *(
        (kind, sampler, DOWN, "samples categorical models")
        for kind in ("table", "continuous", "score")
        for sampler in (sf.samplers.CategoricalAncestral(), sf.samplers.CategoricalDDIM())
    ),
    ("nothing", Langevin(0.1), [1, 0], "needs a model with a method score"),
    ("table", Ancestral("learned"), DOWN, "variance head"),
    ("table", DPMSolver2S(), DOWN, "between_levels"),
    ("table", sf.samplers.Adaptive(), DOWN, "between_levels"),
    ("table", Heun(churn=1.0), DOWN, "Interpolated"),
    ("table", PredictorCorrector(DPMSolver2S(), Langevin(0.1)), DOWN, "between_levels"),
    ("score", Langevin(0.1, metropolis=True), [1, 0], "energy=True"),
    ("table", Langevin(0.1, metropolis=True), DOWN, "no density without noise levels|gives no density"),
    ("score", Langevin(0.1, final_denoise=True), [1, 0], "needs a model with noise levels"),
    # Grids
    *(
        ("table", sampler, grid, "strictly descends .* or strictly ascends")
        for sampler in BOTH_WAYS
        for grid in (TURN, STAND)
    ),
    *(
        ("table", sampler, grid, "must strictly descend")
        for sampler in DESCENDING
        for grid in (UP, TURN, STAND)
    ),
    ("continuous", DPMSolver2S(), [0.0, 0.5, 1.0], "encode with DDIM"),
    ("table", DPMSolver2M(), UP, "encode with DDIM"),
    ("table", DDIM(0.5), UP, "needs η = 0; got η = 0.5"),
    ("table", DDIM(varsigma=lambda t, s: 0.0), UP, "needs η = 0; got varsigma"),
    ("continuous", Heun(churn=1.0), [0.0, 0.5, 1.0], "needs churn = 0"),
    ("table", Langevin(0.1), [1, 2, 0], "not ascend"),
    ("table", Langevin(0.1), [1, 0, 0], "t > 0"),
    ("table", PredictorCorrector(DDIM(), Langevin(0.1)), UP, "not ascend"),
    ("categories", sf.samplers.CategoricalDDIM(), [0, 5], "descend"),
    ("score", Langevin(0.1), DOWN, r"grids.steps\(n\)"),
    *(
        (kind, sampler, [1], "at least two times")
        for kind, sampler in (("table", Ancestral()), ("score", Langevin(0.1)))
    ),
    ("table", DDIM(), [100, math.nan, 0], "at least two times"),
    ("table", Ancestral(), [101, 0], "0 … 100"),
    ("continuous", Ancestral(), [1.5, 0], r"\[0, 1\]"),
    ("table", Ancestral(), [100, 0.5, 0], "levels at t = 0"),
    # ς
    (
        "table",
        DDIM(varsigma=lambda t, s: 0.5),
        [100, 50, 1, 0],
        r"step 2, from t = 50 to s = 1, has σ_s = \S+ and got ς = 0.5",
    ),
    ("table", DDIM(varsigma=[0.1, 0.1]), DOWN, "0 at s = 0.*step 2"),
    ("table", DDIM(varsigma=[-0.1, 0.0]), DOWN, "step 1"),
    ("table", DDIM(varsigma=[0.1, 0.0]), [100, 50, 4, 0], "each of the 3 steps of this grid; got 2"),
    ("table", PredictorCorrector(DDIM(varsigma=[5.0, 0.0]), Langevin(1e-3)), DOWN, "step 1"),
    # Guidance
    *(
        (kind, sampler, UP, "encoding is defined without guidance")
        for kind in GUIDED
        for sampler in BOTH_WAYS
    ),
    *(
        ("classifier at the mean", sampler, DOWN, 'at="x_t"')
        for sampler in WALKERS[:1] + WALKERS[2:5] + [Langevin(0.1), WALKERS[-1]]
    ),
    *(
        ("classifier", sampler, DOWN, "does not declare where it applies")
        for sampler in (Careless(), PredictorCorrector(Careless(), Langevin(0.1)))  # type: ignore[arg-type]
    ),
]


@pytest.mark.parametrize(("kind", "sampler", "grid", "message"), REFUSED)
def test_d_refusals_come_before_the_first_step(kind, sampler, grid, message):
    CALLED.clear()
    x = torch.zeros(1, 2, dtype=torch.int64 if kind == "categories" else torch.float32)
    with pytest.raises(sf.ScorefieldError, match=message):
        sf.trajectory(MODELS[kind](), sampler, grid, x, NoiseSource(0))
    assert not CALLED


X, INTS = torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.int64)
CONTINUOUS = CASES["continuous vp"].process
OTHER = sf.oracle.GaussianMixture([[0.0, 0.0]], torch.eye(2)[None]).classifier(CASES["vp linear"].process)
UNBUILT = [
    ("table", lambda m: sf.trajectory(m, DDIM(), DOWN, INTS), "floating-point"),
    ("score", lambda m: sf.trajectory(m, Langevin(0.1), [1, 0], INTS), "floating-point"),
    ("categories", lambda m: sf.trajectory(m, sf.samplers.CategoricalAncestral(), [5, 0], X), "0 … 2"),
    (
        "categories",
        lambda m: sf.trajectory(m, sf.samplers.CategoricalAncestral(), [5, 0], INTS + 3),
        "from 3 to 3",
    ),
    (
        "categories",
        lambda m: sf.trajectory(m, sf.samplers.CategoricalAncestral(), [5, 0], INTS - 1),
        "from -1",
    ),
    ("table", lambda m: sf.sample(m, DDIM(), DOWN), "n ≥ 1"),
    ("table", lambda m: sf.sample(m, DDIM(), DOWN, n=2, x_T=X), "disagrees with the 1 examples"),
    ("table", lambda m: sf.sample(denoiser(data=None), DDIM(), DOWN, n=3), "shape of an example"),
    ("score", lambda m: sf.sample(m, Langevin(0.1), [1, 0], n=3), "no prior to start from"),
    ("mixture", lambda m: sf.sample(m, Langevin(0.1), [1, 0], n=3), "no prior to start from"),
    ("rank", between_levels, "only at the integer t of a table"),
    ("mean", between_levels, "only at the integer t of a table"),
    ("mean", lambda m: between_levels(ClipX0(m)), "only at the integer t of a table"),
    ("continuous", lambda m: denoiser(m.process, parametrization="mean"), "has no neighbours"),
    ("continuous", lambda m: denoiser(m.process, variance="direct"), "has no neighbours"),
    ("table", lambda m: denoiser(Interpolated(m.process), parametrization="mean"), "has no neighbours"),
    *(
        ("continuous", lambda m, make=make: make(m.process), "needs a discrete-time process")
        for make in (
            sf.grids.full,
            *(lambda p, g=g: GRIDS[g](p, 5) for g in ("quadratic", "linspace", "leading", "ddim_quadratic")),
        )
    ),
    *(
        ("categories", lambda m, g=g: GRIDS[g](m.process, 3), "categorical process does not have")
        for g in ("log_snr", "karras")
    ),
    ("table", lambda m: ClassifierGuidance(m.given(0), OTHER, 0), "T = 1000"),
    ("score", lambda m: ClassifierGuidance(m, judge, 0), "noise levels"),
    ("mixture", lambda m: ClassifierFree(m.denoiser(COSINE), 0, 1.0), "label_dropout"),
    ("classifier", lambda m: ClassifierFree(m, 0, 1.0), "takes an unguided model"),
    ("classifier at the mean", ClipX0, "inside ClassifierGuidance"),
]


@pytest.mark.parametrize(("kind", "act", "message"), UNBUILT)
def test_d_pieces_that_do_not_fit_are_refused(kind, act, message):
    """States, starts, views between levels, grids and guidance: refused where they are put together."""
    CALLED.clear()
    with pytest.raises(sf.ScorefieldError, match=message):
        act(MODELS[kind]())
    assert not CALLED
