"""What parametrizations mean, denoisers keep their promises, the oracle is exact."""

import math
from typing import Any

import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.prediction import Level
from scorefield.models.parametrization import coefficients, noise_input
from scorefield.process import transitions
from scorefield.runtime.registry import NOISE_INPUTS

F64 = torch.float64
PROCESSES = {
    "linear": sf.process.from_betas(sf.process.linear_betas(1000)),
    "cosine": sf.process.from_betas(sf.process.cosine_betas(1000)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(50.0, 0.01, 100)),
}
MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [1.5, 1.0]],
    torch.tensor([[[0.1, 0.02], [0.02, 0.3]], [[0.2, 0.0], [0.0, 0.05]]]),
    [0.3, 0.7],
)


@pytest.mark.parametrize("process", PROCESSES)
def test_targets_are_what_their_names_say(process):
    # [DDPM Eq. 8, 11; NCSN Eq. 2]
    process = PROCESSES[process]
    t = torch.tensor([1, 10, process.T])
    alpha, sigma = (c[:, None] for c in process.level(t))
    x0, eps = torch.randn(2, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    x_t, n = process.sample(x0, t, eps), (alpha**2 + sigma**2).sqrt()
    below = process.level(t - 1)
    expected = {
        "eps": eps,
        "x0": x0,
        "v": (alpha * eps - sigma * x0) / n,
        "score": -eps / sigma,
        "mean": transitions.posterior(x_t, x0, process.level(t), below).mean,
    }
    for name, target in expected.items():
        c = coefficients(name, process, t)
        assert relative_error((x0 - c.skip[:, None] * x_t) / c.out[:, None], target) < 1e-8, name
    pred = sf.Denoiser(lambda x, c, y=None: expected["v"], process, "v")(x_t, t)
    assert relative_error(pred.velocity, expected["v"]) < 1e-10


def test_edm_input_and_target_have_unit_variance():
    for process in PROCESSES.values():
        t = torch.tensor([1, process.T // 2, process.T])
        alpha, sigma = process.level(t)
        c = coefficients("edm", process, t, sigma_data=0.7)
        assert torch.allclose(c.inp**2 * (alpha**2 * 0.49 + sigma**2), torch.ones(3, dtype=F64))
        target_var = ((1 - c.skip * alpha) ** 2 * 0.49 + c.skip**2 * sigma**2) / c.out**2
        assert torch.allclose(target_var, torch.ones(3, dtype=F64))


def test_noise_inputs():
    process = PROCESSES["linear"]
    t = torch.tensor([1, 500, 1000])
    alpha, sigma = process.level(t)
    assert noise_input("index", process, t, torch.float32).tolist() == [0, 499, 999]
    assert noise_input("scaled", process, t, torch.float32).tolist() == [0, 499, 999]
    assert noise_input("rank", process, t, torch.float32).tolist() == [999, 500, 0]
    assert relative_error(noise_input("log_sigma", process, t, F64), (sigma / alpha).log() / 4) < 1e-15
    half = sf.process.from_betas(sf.process.cosine_betas(4000))
    assert noise_input("scaled", half, torch.tensor([4000]), torch.float32).item() == pytest.approx(999.75)
    for name in NOISE_INPUTS:
        c = noise_input(name, process, torch.tensor(1000), torch.bfloat16)
        assert c.dtype == (torch.int64 if name == "rank" else torch.float32)  # bf16 would turn 999 into 1,000


def test_rescaling_between_vp_and_ve_leaves_x0_unchanged():
    """x/α of a VP process is a VE process with σ/α: the same x̂0 from the exact model of either."""
    vp = PROCESSES["linear"]
    t = torch.arange(1, 1001)
    alpha, sigma = vp.level(t)
    ve = sf.process.from_sigmas(sigma / alpha)
    x = torch.randn(1000, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
    vp_x0 = MIXTURE.denoiser(vp)(alpha[:, None] * x, t).x0
    assert relative_error(MIXTURE.denoiser(ve)(x, t).x0, vp_x0) < 1e-10


def test_network_receives_what_the_denoiser_promises():
    seen: dict[str, Any] = {}

    def net(x, c, y=None):
        seen.update(x=x, c=c, y=y)
        return torch.zeros(x.shape[0], 2 * x.shape[1], *x.shape[2:], dtype=x.dtype)

    model = sf.Denoiser(
        net,
        PROCESSES["ve"],
        "edm",
        variance="range",
        noise_input="log_sigma",
        data=sf.DataSpec((1, 2), classes=("a", "b")),
    )
    x = torch.ones(3, 1, 2)
    pred = model.given([0, 1, 1])(x, 7)
    assert seen["c"].shape == (3,)
    assert seen["c"].dtype == torch.float32
    assert seen["y"].tolist() == [0, 1, 1]
    assert pred.x0.shape == x.shape
    assert pred.x0.dtype == torch.float32
    assert (pred.var_frac == 0.5).all()
    model(x.double(), torch.tensor([1, 2, 3]))
    assert seen["c"].dtype == F64
    assert seen["y"] is None


def test_null_label_is_what_the_network_says():
    process, data = PROCESSES["linear"], sf.DataSpec((2,), classes=("a", "b"))
    nets = {
        2: sf.nets.MLP(2, hidden=8, num_classes=2, null_label=True),
        None: sf.nets.MLP(2, hidden=8, num_classes=2),
    }
    for label, net in nets.items():
        assert sf.Denoiser(net, process, data=data).null_label == label
        assert sf.Denoiser(net, process).null_label == label
    assert sf.Denoiser(sf.nets.MLP(2, hidden=8), process, data=data).null_label is None
    assert (
        sf.Denoiser(lambda x, c, y=None: x, process, data=data).null_label == 2
    )  # not described, taken at its word
    assert sf.Denoiser(lambda x, c, y=None: x, process).null_label is None


def test_bound_labels_follow_the_model_between_its_levels():
    """The likelihood of a model at given labels is that of the network with the labels inside."""
    torch.manual_seed(0)
    net, process = sf.nets.MLP(2, hidden=8, layers=1, num_classes=3).double(), PROCESSES["cosine"]
    inside = sf.Denoiser(lambda x, c, y=None: net(x, c, torch.full((len(x),), 2)), process, "v")
    x = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"trace": "exact", "rtol": 1e-3, "atol": 1e-3}
    bound = sf.likelihood.ode_log_prob(sf.Denoiser(net, process, "v").given(2), x, **options)
    assert relative_error(bound.log_prob, sf.likelihood.ode_log_prob(inside, x, **options).log_prob) < 1e-12


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m: m(torch.zeros(2, 3), 0), "t must be > 0"),
        (lambda m: m(torch.zeros(2, 3), torch.tensor([1, 0])), "t must be > 0"),
        (lambda m: m(torch.zeros(2, 3), 1001), "0 … 1000"),
        (lambda m: m.given([0, 3]), "0 … 2"),
        (lambda m: m.given([-1]), "0 … 2"),
        (lambda m: m.given([0, 1, 2])(torch.zeros(2, 3), 5), "3 labels are bound"),
        (lambda m: m.score(torch.zeros(2, 3)), "give t"),
        (
            lambda m: sf.Denoiser(lambda x, c, y=None: x[:, :2], m.process)(torch.zeros(2, 3), 5),
            "returned shape",
        ),
        (
            lambda m: sf.Denoiser(m.net, m.process, variance="range")(torch.zeros(2, 3), 5),
            "twice the channels",
        ),
        (lambda m: sf.Denoiser(m.net, m.process, "epsilon"), "parametrization must be one of"),
        (lambda m: sf.Denoiser(m.net, m.process, variance="small"), "variance must be"),
        (lambda m: sf.Denoiser(m.net, m.process, noise_input="t"), "noise_input must be one of"),
        (lambda m: sf.Denoiser(m.net, "cosine"), "process must be"),  # type: ignore[arg-type]
        (lambda m: sf.guidance.ClipX0(torch.nn.Identity()), "noise levels"),  # type: ignore[arg-type]
    ],
)
def test_bad_use_teaches(act, message):
    model = sf.Denoiser(
        lambda x, c, y=None: x, PROCESSES["linear"], data=sf.DataSpec((3,), classes=("a", "b", "c"))
    )
    with pytest.raises(sf.ScorefieldError, match=message):
        act(model)


def test_level_tables_survive_half_precision():
    model = sf.Denoiser(sf.nets.MLP(2, hidden=8, layers=2), PROCESSES["linear"]).to(torch.bfloat16)
    assert model.process.level(1000).alpha.dtype == F64
    assert not list(model.buffers(recurse=False))


def test_clip_changes_eps_with_x0():
    process = PROCESSES["linear"]
    clipped = sf.guidance.ClipX0(sf.Denoiser(lambda x, c, y=None: torch.full_like(x, 5), process, "x0"))
    x_t = torch.full((1, 2), 0.5, dtype=F64)
    pred = clipped(x_t, 500)
    alpha, sigma = process.level(500)
    assert (pred.x0 == 1).all()
    assert torch.allclose(pred.eps, (x_t - alpha) / sigma)


LEVELS = [
    Level(torch.tensor(1.0, dtype=F64), torch.tensor(0.0, dtype=F64)),
    PROCESSES["linear"].level(300),
    PROCESSES["ve"].level(60),
]


@pytest.mark.parametrize("level", LEVELS)
def test_oracle_score_is_the_gradient_of_its_log_density(level):
    x = MIXTURE.at(level).sample(32, sf.noise.NoiseSource(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(MIXTURE.log_prob(x, level).sum(), x)
    assert relative_error(MIXTURE.score(x, level=level), gradient) < 1e-10
    assert relative_error(MIXTURE.at(level).log_prob(x), MIXTURE.log_prob(x, level)) < 1e-10


def test_oracle_density_against_torch_distributions():
    gaussians = torch.distributions.MultivariateNormal(MIXTURE.means, MIXTURE.covariances)
    theirs = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(MIXTURE.weights), gaussians
    )
    x = MIXTURE.sample(100, sf.noise.NoiseSource(1))
    assert relative_error(MIXTURE.log_prob(x), theirs.log_prob(x)) < 1e-12


def test_oracle_x0_is_the_posterior_mean():
    """E[x_0 | x_t] by self-normalized importance sampling from the prior, and Tweedie's formula exactly."""
    # [NCSN Eq. 2, Tweedie]
    process, t, n = PROCESSES["linear"], 200, 400_000
    level = process.level(t)
    alpha, sigma = level
    x_t = torch.tensor([[0.5, 0.9]], dtype=F64)
    x0 = MIXTURE.x0(x_t, level)
    assert relative_error(x0, (x_t + sigma**2 * MIXTURE.score(x_t, level=level)) / alpha) < 1e-12
    samples = MIXTURE.sample(n, sf.noise.NoiseSource(3))
    w = torch.softmax(-((x_t - alpha * samples) ** 2).sum(1) / (2 * sigma**2), 0)
    mean = (w[:, None] * samples).sum(0)
    error = (w[:, None] ** 2 * (samples - mean) ** 2).sum(0).sqrt()
    assert ((x0[0] - mean).abs() < 4 * error).all()


def test_oracle_samples_and_classes():
    n = 50_000
    x, k = MIXTURE.sample_labelled(n, sf.noise.NoiseSource(4))
    for i, w in enumerate(MIXTURE.weights.tolist()):
        mine = x[k == i]
        assert abs(len(mine) / n - w) < 4 * math.sqrt(w * (1 - w) / n)
        error = (mine.mean(0) - MIXTURE.means[i]).abs() / MIXTURE.covariances[i].diagonal().sqrt()
        assert (error < 4 / math.sqrt(len(mine))).all()
        assert relative_error(mine.T.cov(), MIXTURE.covariances[i]) < 6 * math.sqrt(2 / len(mine))
    process = PROCESSES["linear"]
    log_p = MIXTURE.classifier(process)(x[:100], 40)
    assert relative_error(log_p.exp(), MIXTURE.posterior(x[:100], process.level(40))) < 1e-12


def test_oracle_takes_any_shape_and_mixed_times():
    model = MIXTURE.denoiser(PROCESSES["linear"])
    x, t = torch.randn(5, 2, 1, 1), torch.tensor([1, 5, 100, 500, 1000])
    mixed = model(x, t)
    assert mixed.x0.shape == x.shape
    assert mixed.x0.dtype == torch.float32
    for b in range(5):
        assert torch.allclose(mixed.score[b], model(x[b : b + 1], int(t[b])).score[0], atol=1e-6)


def test_bad_mixtures():
    for means, covariances, weights, message in [
        ([[0.0]], [[[-1.0]]], [1.0], "positive semi-definite"),
        ([[0.0]], [[[1.0]]], [0.0], "positive numbers"),
        ([[0.0]], [[1.0]], [1.0], "means"),
    ]:
        with pytest.raises(sf.InputError, match=message):
            sf.oracle.GaussianMixture(means, covariances, weights)  # type: ignore[arg-type]
