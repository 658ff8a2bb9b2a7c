"""Langevin dynamics: the original samplers to 1e-9, exact stationary laws, and the two-mode toy."""

import itertools

import pytest
import torch
from support import Golden, assert_close, relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.samplers import Inpaint, Langevin, PredictorCorrector

F64 = torch.float64
EYE = torch.eye(2, dtype=F64)
VP = sf.process.from_betas(sf.process.linear_betas(100, 1e-3, 0.2))
VE = sf.process.from_sigmas(sf.process.geometric_sigmas(5.0, 0.1, 12))


def stub_a(golden):
    """The stub's process and model: s(x, l) = (m - x)/(σ_l² + 0.25) + 0.3 tanh(conv3x3(x) + b), l counted
    from the noisiest.
    """
    W, b, m = (golden[f"param.{name}"].double() for name in ("W", "b", "m"))
    sigmas = golden["in.sigmas"]

    def net(x, c, y=None):
        spread = (sigmas[c] ** 2 + 0.25).reshape(-1, 1, 1, 1)
        return (m - x) / spread + 0.3 * torch.tanh(torch.nn.functional.conv2d(x, W, b, padding=1))

    process = sf.process.from_sigmas(sigmas.flip(0))
    return sf.Denoiser(net, process, "score", noise_input="rank")


def states(model, sampler, grid, x, tape):
    """The state before every update and the one after the last."""
    steps = sf.trajectory(model, sampler, grid, x.double(), Recorded([z.double() for z in tape]))
    every = [x.double(), *(step.x for step in steps)]
    return torch.stack(every[:-1]), every[-1]


@pytest.mark.parametrize("ladder", ["s0", "s1"])
def test_golden_ladders(ladder):
    golden = Golden("E00_sigmas")
    config = golden.config["ladders"][ladder]
    sigmas = sf.process.geometric_sigmas(config["sigma_begin"], config["sigma_end"], config["L"]).flip(0)
    assert_close(sigmas, golden[f"out.{ladder}.numpy"], 1e-12)
    assert_close(sigmas.float(), golden[f"out.{ladder}.train"], 1e-6)


def test_golden_annealed_langevin():
    """The original returns the state before each update, clamped to [0, 1]; its step_lr is half of our step."""
    # [NCSN Algorithm 1]
    golden = Golden("E04_annealed_langevin")
    model = stub_a(golden)
    grid = sf.grids.staircase(model.process, golden.config["n_steps_each"])
    before, final = states(
        model, Langevin(2 * golden.config["step_lr"]), grid, golden["in.x_init"], golden["in.noise"]
    )
    assert_close(before, golden["out64.states"], 1e-9)
    assert_close(before.clamp(0, 1), golden["out64.images"], 1e-9)
    assert_close(final, golden["out64.final_state"], 1e-9)


def test_golden_inpainting():
    """The original draws the known half once a level, before the first update, and its result keeps the last
    level's noise.
    """
    # [NCSN]
    golden = Golden("E06_annealed_langevin_inpainting")
    model, config = stub_a(golden), golden.config
    known = torch.zeros(3, 32, 32, dtype=torch.bool)
    known[:, :, :16] = True
    tape = []
    for half, updates in zip(golden["in.noise_half"], golden["in.noise_full"], strict=True):
        tape += [torch.nn.functional.pad(half, (0, 16)), *updates]
    sampler = Inpaint(Langevin(2 * config["step_lr"]), golden["in.reference"][0].double(), known)
    grid = sf.grids.staircase(model.process, config["n_steps_each"])
    before, final = states(model, sampler, grid, golden["in.x_init"][0], tape)
    assert_close(before[-1].clamp(0, 1), golden["out64.last_image"], 1e-9)
    assert_close(final[..., 16:], golden["out64.final_state"][..., 16:], 1e-9)
    assert torch.equal(final[..., :16].float(), golden["in.reference"][..., :16])


def test_golden_langevin_at_one_level():
    golden = Golden("E05_langevin_and_toy")
    config, model = golden.config["image"], stub_a(golden)
    assert config["label"] == model.process.T - 1  # counted from the noisiest: t = 1
    grid = [1] * config["n_steps"] + [0]
    before, final = states(
        model, Langevin(2 * config["step_lr"]), grid, golden["in.x_init"], golden["in.noise"]
    )
    assert_close(before.clamp(0, 1), golden["out64.langevin.images"], 1e-9)
    assert_close(final, golden["out64.langevin.final_state"], 1e-9)


def test_golden_toys():
    """The mixture of deviation σ_i at level σ_i is two points under the process; the toy's lr is our step."""
    golden = Golden("E05_langevin_and_toy")
    config, sigmas = golden.config["toy"], golden["in.toy.sigmas"]
    process = sf.process.from_sigmas(sigmas.flip(0))
    means, weights = torch.tensor([[5.0, 5.0], [-5.0, -5.0]]), [0.8, 0.2]
    points = sf.oracle.GaussianMixture(means, torch.zeros(2, 2, 2), weights).denoiser(process)
    x = golden["in.toy.x_init"]
    for t, name in ((process.T, "first"), (1, "last")):
        assert_close(points.score(x.double(), t), golden[f"out64.toy.score_sigma_{name}"], 1e-9)
    grid = sf.grids.staircase(process, config["steps"])
    before, final = states(points, Langevin(config["lr"]), grid, x, golden["in.toy.noise_annealed"])
    assert_close(before, golden["out64.toy_annealed.states"], 1e-9)
    assert_close(final, golden["out64.toy_annealed.final"], 1e-9)
    bare = sf.oracle.GaussianMixture(means, EYE.expand(2, 2, 2), weights)
    _, final = states(
        bare, Langevin(config["lr"]), sf.grids.steps(config["steps"]), x, golden["in.toy.noise_plain"]
    )
    assert_close(final, golden["out64.toy_langevin.final"], 1e-9)


def test_the_step_to_zero_keeps_the_noise_or_denoises():
    mixture = sf.oracle.GaussianMixture([[1.0, -1.0]], EYE[None])
    model, z = mixture.denoiser(VP), torch.tensor([[0.5, -0.2]], dtype=F64)
    x = torch.tensor([[0.3, 0.1]], dtype=F64)
    (noisy,) = sf.trajectory(model, Langevin(1e-3), [1, 0], x, Recorded([z]))
    (clean,) = sf.trajectory(model, Langevin(1e-3, final_denoise=True), [1, 0], x, Recorded([z]))
    alpha, sigma = VP.level(1)
    h = 1e-3
    y = x / alpha + h / 2 * alpha * model.score(x, 1) + h**0.5 * z
    assert relative_error(noisy.x, y) < 1e-12
    assert relative_error(noisy.x0, model(x, 1).x0) < 1e-12
    tweedie = (alpha * y + sigma**2 * model.score(alpha * y, 1)) / alpha
    assert relative_error(clean.x, tweedie) < 1e-12
    assert torch.equal(clean.x, clean.x0)


def test_vp_and_ve_are_the_same_walk():
    """In x/α with σ/α nothing depends on α, so a VP process and the VE process of its σ/α give the same
    samples.
    """
    alpha, sigma = VP.level(torch.arange(1, VP.T + 1))
    ve = sf.process.from_sigmas(sigma / alpha)
    mixture = sf.oracle.GaussianMixture([[1.0, -1.0], [0.0, 2.0]], torch.stack([EYE, 0.3 * EYE]))
    y, grid = 3 * NoiseSource(0).normal((8, 2)).double(), sf.grids.staircase(VP, 2, [90, 40, 7])
    results = []
    for process in (VP, ve):
        x_T = process.level(90).alpha * y
        results.append(
            sf.sample(mixture.denoiser(process), Langevin(1e-4), grid, x_T=x_T, noise=NoiseSource(1))
        )
    assert relative_error(results[0], results[1]) < 1e-10


def test_a_continuous_process_counts_its_steps_from_t_min():
    table, mixture = VP, sf.oracle.GaussianMixture([[1.0, -1.0]], EYE[None])
    real = sf.process.Interpolated(table)
    x = NoiseSource(0).normal((4, 2)).double()
    walks = [
        sf.sample(mixture.denoiser(process), Langevin(1e-4), [60, 60, 3, 0], x_T=x, noise=NoiseSource(1))
        for process in (table, real)
    ]
    assert relative_error(walks[1], walks[0]) < 1e-9
    ve = sf.process.ve(0.1, 10.0, t_min=0.25)
    (step,) = sf.trajectory(
        mixture.denoiser(ve), Langevin(0.01), [0.25, 0], x, Recorded([torch.zeros_like(x)])
    )
    assert relative_error(step.x, x + 0.005 * mixture.score(x, level=ve.level(0.25))) < 1e-9


@pytest.mark.parametrize("options", [{}, {"final_denoise": True}, {"metropolis": True}])
def test_calls_are_counted(options):
    made = []

    def net(x, c, y=None):
        made.append(1)
        return (x**2).sum(1) if options.get("metropolis") else -x

    sampler = Langevin(0.01, **options)
    if options.get("metropolis"):
        model, grid = sf.ScoreModel(net, energy=True), sf.grids.steps(7)
    else:
        model, grid = sf.Denoiser(net, VE), sf.grids.staircase(VE, 3)  # type: ignore[assignment]
    sf.sample(model, sampler, grid, x_T=torch.zeros(4, 2), noise=NoiseSource(0))
    evaluations = len(made) // (2 if options.get("metropolis") else 1)  # the energy beside its gradient
    assert evaluations == sampler.calls(grid.tolist())
    assert evaluations == len(grid) - 1 + (1 if options else 0)


@pytest.mark.parametrize(("c", "step"), [(2.0, 2.0), (0.5, 0.4)])
def test_stationary_variance(c, step):
    """Unadjusted: c/(1 − step/(4c)), from x ← (1 − step/2c)x + √step z. Adjusted: c. 4 standard errors."""
    # [NCSN §2.2]
    seed, n = 11, 20_000
    print("seed", seed)
    model = sf.ScoreModel(lambda x, _: (x**2).sum(1) / (2 * c), energy=True)
    x_T = c**0.5 * NoiseSource(seed).at(0).normal((n, 2)).double()
    for metropolis, expected in ((False, c / (1 - step / (4 * c))), (True, c)):
        x = sf.sample(
            model, Langevin(step, metropolis), sf.grids.steps(60), x_T=x_T, noise=NoiseSource(seed + 1)
        )
        variance, error = (x**2).mean().item(), expected * (2 / x.numel()) ** 0.5
        print(f"c {c} metropolis {metropolis}: {variance:.4f}, expected {expected:.4f} ± {error:.4f}")
        assert abs(variance - expected) < 4 * error


def test_metropolis_finds_a_skewed_density_at_any_step():
    """From far away, with a step at which the unadjusted walk is badly biased; the energy's derivative is the
    network's.
    """
    # [Roberts & Tweedie 1996]
    mixture = sf.oracle.GaussianMixture([[-1.0], [1.0]], [[[0.2]], [[0.6]]], [0.3, 0.7])
    exact_mean = (mixture.weights[:, None] * mixture.means).sum()
    exact_var = (
        mixture.weights[:, None] * (mixture.covariances[:, 0] + mixture.means**2)
    ).sum() - exact_mean**2
    seed, n = 3, 20_000
    print("seed", seed)
    x_T = 3 * NoiseSource(seed).normal((n, 1)).double()
    x = sf.sample(
        mixture, Langevin(0.6, metropolis=True), sf.grids.steps(200), x_T=x_T, noise=NoiseSource(seed + 1)
    )
    print(f"mean {x.mean():.4f} ({exact_mean:.4f}), variance {x.var():.4f} ({exact_var:.4f})")
    assert abs(x.mean() - exact_mean) < 4 * (exact_var / n) ** 0.5
    fourth = ((x - x.mean()) ** 4).mean()
    assert abs(x.var() - exact_var) < 4 * ((fourth - exact_var**2) / n) ** 0.5


def test_metropolis_refuses_what_is_not_finite():
    model = sf.ScoreModel(lambda x, _: torch.where(x.abs() < 1, x**2, torch.inf)[:, 0], energy=True)
    x = sf.sample(
        model,
        Langevin(1.0, metropolis=True),
        sf.grids.steps(50),
        x_T=torch.zeros(500, 1),
        noise=NoiseSource(0),
    )
    assert x.abs().max() < 1
    assert x.std() > 0.3


TWO_MODES = sf.oracle.GaussianMixture([[-5.0, -5.0], [5.0, 5.0]], EYE.expand(2, 2, 2), [0.2, 0.8])


def weight_error(x):
    return abs((x.sum(1) > 0).double().mean().item() - 0.8)


def test_plain_langevin_gets_the_weights_wrong():
    """NCSN §3.2.2: started uniformly in [−8, 8]², each chain stays in the mode it falls into."""
    seed, n = 5, 4000
    print("seed", seed)
    x_T = 16 * NoiseSource(seed).uniform((n, 2)).double() - 8
    x = sf.sample(TWO_MODES, Langevin(0.1), sf.grids.steps(400), x_T=x_T, noise=NoiseSource(seed + 1))
    print(f"weight error {weight_error(x):.3f}")
    assert weight_error(x) >= 0.2


def test_annealed_langevin_gets_the_weights_right():
    """L = 20 geometric levels from 20 to 1, as the original toy's, K = 60, step 0.4, same start: p at σ_1."""
    process = sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 1.0, 20))
    seed, n = 5, 4000
    print("seed", seed)
    x_T = 16 * NoiseSource(seed).uniform((n, 2)).double() - 8
    grid = sf.grids.staircase(process, 60)
    x = sf.sample(TWO_MODES.denoiser(process), Langevin(0.4), grid, x_T=x_T, noise=NoiseSource(seed + 1))
    total, expected = x.var(0), 25 * 4 * 0.2 * 0.8 + 1 + 1
    within = torch.cat([(x[x.sum(1) > 0] - 5) ** 2, (x[x.sum(1) < 0] + 5) ** 2]).mean()
    print(
        f"weight error {weight_error(x):.4f}, variance {total.tolist()} ({expected}), within a mode {within:.3f} (2)"
    )
    assert weight_error(x) <= 0.02
    assert ((total / expected - 1).abs() < 0.1).all()
    assert abs(within / 2 - 1) < 0.1


def test_corrected_is_the_predictor_then_updates_at_the_new_level():
    # [Song et al. 2021]
    mixture = sf.oracle.GaussianMixture([[1.0, -1.0], [0.0, 2.0]], torch.stack([EYE, 0.3 * EYE]))
    model, x = mixture.denoiser(VP), NoiseSource(0).normal((6, 2)).double()
    langevin, sampler = Langevin(1e-5), PredictorCorrector(sf.samplers.Ancestral(), Langevin(1e-5), repeats=2)
    tape = [NoiseSource(1, step=k).normal((6, 2)).double() for k in range(3)]
    (step,) = sf.trajectory(model, sampler, [60, 30], x, Recorded(tape))
    by_hand = sf.sample(model, sf.samplers.Ancestral(), [60, 30], x_T=x, noise=Recorded(tape[:1]))
    by_hand = sf.sample(model, langevin, [30, 30, 30], x_T=by_hand, noise=Recorded(tape[1:]))
    assert relative_error(step.x, by_hand) < 1e-12
    assert sampler.calls([60, 30, 10, 0]) == 3 + 2 * 2
    (last,) = sf.trajectory(model, sampler, [30, 0], x, Recorded([]))  # the predictor alone, without noise
    assert relative_error(last.x, model(x, 30).x0) < 1e-12


def test_a_corrector_brings_a_coarse_walk_closer_to_p_t():
    """Exact covariances on a Gaussian: six ancestral steps alone, and with updates after each."""
    cov = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64)
    model, grid = sf.oracle.GaussianMixture([[0.0, 0.0]], cov[None]).denoiser(VE), [12, 10, 8, 6, 4, 2]
    exact, errors = cov + VE.level(2).sigma ** 2 * EYE, []
    for sampler, draws in (
        (sf.samplers.Ancestral(), 1),
        (PredictorCorrector(sf.samplers.Ancestral(), Langevin(0.005), 5), 6),
    ):
        current = cov + VE.level(12).sigma ** 2 * EYE
        for t, s in itertools.pairwise(grid):
            quiet = [torch.zeros(2, 2, dtype=F64)] * draws
            A = sf.sample(model, sampler, [t, s], x_T=EYE, noise=Recorded(quiet)).T
            current = A @ current @ A.T
            for k in range(draws):
                B = sf.sample(
                    model, sampler, [t, s], x_T=0 * EYE, noise=Recorded([*quiet[:k], EYE, *quiet[k + 1 :]])
                ).T
                current = current + B @ B.T
        errors.append(torch.linalg.norm(current - exact).item())
    print("errors", errors)
    assert errors[1] < errors[0] / 2


def test_bad_options():
    for make in (
        lambda: Langevin(0.0),
        lambda: Langevin(float("nan")),
        lambda: Langevin(0.1, metropolis=True, final_denoise=True),
        lambda: PredictorCorrector(sf.samplers.DDIM(), Langevin(0.1), 0),
        lambda: PredictorCorrector(sf.samplers.DDIM(), Langevin(0.1, final_denoise=True)),
    ):
        with pytest.raises(sf.InputError):
            make()


def test_the_walk_does_not_depend_on_the_batch():
    model = TWO_MODES.denoiser(VE)
    grid = sf.grids.staircase(VE, 2)

    def run(samples):
        noise = NoiseSource(9, samples)
        return sf.sample(
            model, Langevin(0.01), grid, x_T=noise.at(0).normal((len(samples), 2)).double(), noise=noise
        )

    everyone = run(range(32))
    for samples in ([0], [17, 3]):
        assert torch.allclose(run(samples), everyone[samples], atol=1e-12)


@pytest.mark.parametrize(
    ("process", "t", "s", "tolerance"), [(VE, 7, 6, 1e-9), (sf.process.linear(1000), 400, 399, 0.02)]
)
def test_drift_over_noise_variance_of_langevin_and_of_ancestral_steps(process, t, s, tolerance):
    """Langevin moves x by half its noise variance times the score, an ancestral step by once its own.  [DDPM §3.2]

    Both are read off at two draws, on x = 0, where a step of a level only rescales what it has added.
    """
    model = sf.oracle.GaussianMixture([[0.8]], [[[0.3]]]).denoiser(process)
    x, one = torch.zeros(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64)
    score = float(model.score(x, t))
    ratios = {}
    for name, sampler, times in (
        ("Langevin", Langevin(1e-3), [t, t, t]),
        ("ancestral", sf.samplers.Ancestral("upper"), [t, s]),
    ):
        mean, moved = (
            float(next(iter(sf.trajectory(model, sampler, times, x, Recorded([z] * 2)))).x)
            for z in (0 * one, one)
        )
        scale = float(process.level(t).alpha / process.level(times[1]).alpha)  # back in units of x_t
        ratios[name] = scale * mean / score / (scale * (moved - mean)) ** 2
    assert ratios["Langevin"] == pytest.approx(0.5, rel=1e-9)
    assert ratios["ancestral"] == pytest.approx(1, rel=tolerance)
