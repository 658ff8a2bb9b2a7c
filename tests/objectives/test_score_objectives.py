"""ScoreModel, ScoreMatching and NCSN: the original losses to 1e-9, the weights of the levels, training,
refusals.
"""

import pytest
import torch
from support import Golden, assert_close, relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.objectives import score_matching as sm

METHODS = ("implicit", "sliced", "sliced-vr", "denoising")
PROCESSES = {
    "vp": sf.process.from_betas(sf.process.linear_betas(50, 2e-3, 0.4)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(5.0, 0.1, 12)),
}


class Times:
    """The times that are given, with their importances."""

    def __init__(self, t, importance=None):
        self.t = t
        self.importance = torch.ones(len(t), dtype=torch.float64) if importance is None else importance

    def draw(self, process, batch, noise):
        return self.t, self.importance


def stub_a(golden):
    """Score stub A, s(x, l) = (m - x)/(σ_l² + 0.25) + 0.3 tanh(conv3x3(x) + b), as a Denoiser, and its
    parameters.
    """
    p = {name: golden[f"param.{name}"].double().requires_grad_(True) for name in ("W", "b", "m")}
    sigmas = golden["in.sigmas"].double()

    def net(x, c, y=None):
        spread = (sigmas[c] ** 2 + 0.25).reshape(-1, 1, 1, 1)
        return (p["m"] - x) / spread + 0.3 * torch.tanh(
            torch.nn.functional.conv2d(x, p["W"], p["b"], padding=1)
        )

    return sf.Denoiser(net, sf.process.from_sigmas(sigmas.flip(0)), "score", noise_input="rank"), p


def assert_golden(golden, objective, tape, parameters, prefix):
    result = objective(golden["in.x"].double(), None, Recorded([z.double() for z in tape]))
    loss = result.per_example.mean()
    assert_close(loss.detach(), golden[f"out64.{prefix}loss"], 1e-9)
    for (name, _), gradient in zip(
        parameters.items(), torch.autograd.grad(loss, list(parameters.values())), strict=True
    ):
        assert_close(gradient, golden[f"out64.{prefix}grad_{name}"], 1e-9, name)


def test_golden_denoising_at_levels():
    # [NCSN Eq. 5]
    golden = Golden("E01_anneal_dsm")
    model, parameters = stub_a(golden)
    times = Times(model.process.T - golden["in.labels"])
    assert_golden(golden, sf.objectives.NCSN(model, times), [golden["in.noise"]], parameters, "p2.0.")


def test_golden_sliced_at_levels():
    golden = Golden("E03_anneal_ssm_vr")
    model, parameters = stub_a(golden)
    times = Times(model.process.T - golden["in.labels"])
    particles = golden["in.v"].reshape(golden.config["n_particles"], *golden["in.x"].shape)
    objective = sf.objectives.NCSN(
        model, times, "sliced-vr", projections=len(particles), projection="gaussian"
    )
    assert_golden(golden, objective, [golden["in.noise"], *particles], parameters, "")


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("parametrization", ["eps", "x0", "v", "score", "edm"])
def test_ncsn_is_the_weighted_denoising_loss_of_its_score(process, parametrization):
    # [NCSN Eq. 5–6]
    process = PROCESSES[process]
    torch.manual_seed(0)
    model = sf.Denoiser(sf.nets.MLP(2, hidden=8, layers=1).double(), process, parametrization)
    x0, eps = (NoiseSource(k).normal((6, 2)).double() for k in range(2))
    t, importance = torch.tensor([1, 3, 5, 8, 10, 12]), torch.linspace(0.5, 2, 6, dtype=torch.float64)
    loss = sf.objectives.NCSN(model, Times(t, importance))(x0, None, Recorded([eps]))
    alpha, sigma = process.level(t)
    scaled = alpha[:, None] * x0
    expected = sm.denoising_score_matching(lambda x: model.score(x, t), scaled, eps, sigma) * sigma**2
    assert relative_error(loss.per_example, importance * expected) < 1e-9
    assert (
        relative_error(loss.parts["mse"], importance * expected) < 1e-9
    )  # D = 2: the mean is half of the sum
    assert relative_error(loss.unweighted, expected) < 1e-9
    assert torch.equal(loss.t, t)


@pytest.mark.parametrize(
    ("method", "sigma"), [(m, s) for m in METHODS for s in (0.0, 0.3) if s or m != "denoising"]
)
@pytest.mark.parametrize("energy", [False, True])
def test_score_matching_is_its_function(method, sigma, energy):
    torch.manual_seed(0)
    net = sf.nets.MLP(3, hidden=8, layers=1, noise_levels=False, out_dim=1 if energy else 3).double()
    model = sf.ScoreModel(net, energy=energy)
    x0, eps, *v = (NoiseSource(k).normal((5, 3)).double() for k in range(4))
    tape = ([eps] if sigma else []) + v * method.startswith("sliced")
    objective = sf.objectives.ScoreMatching(model, method, projections=2, projection="gaussian", sigma=sigma)
    loss = objective(x0, None, Recorded(tape))
    x, v = x0 + sigma * eps, torch.stack(v)  # type: ignore[assignment]
    expected = {
        "implicit": lambda: sm.implicit_score_matching(model.score, x),
        "sliced": lambda: sm.sliced_score_matching(model.score, x, v),  # type: ignore[arg-type]
        "sliced-vr": lambda: sm.sliced_score_matching_vr(model.score, x, v),  # type: ignore[arg-type]
        "denoising": lambda: sm.denoising_score_matching(model.score, x0, eps, sigma),
    }[method]()
    assert torch.equal(loss.per_example, expected)
    assert loss.t is None
    loss.per_example.mean().backward()
    assert all(p.grad is not None for p in net.layers.parameters())
    with torch.no_grad():
        assert relative_error(objective(x0, None, Recorded(tape)).per_example, expected.detach()) < 1e-12


@pytest.mark.parametrize("method", ["denoising", "sliced", "sliced-vr"])
@pytest.mark.parametrize("process", PROCESSES)
def test_ncsn_losses_share_the_gradient(method, process):
    """A linear score A x at x_t: every loss has λ(σ)E[(A x + C⁻¹ x)xᵀ] = λ(σ)(A C + I) as its gradient, to 5
    standard errors.
    """
    process, t, n = PROCESSES[process], 5, 40_000
    A = torch.tensor([[-0.5, 0.1], [0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    model = sf.Denoiser(lambda x, c, y=None: x @ A.T, process, "score")
    alpha, sigma = process.level(t)
    times = Times(torch.full((n,), t))
    x0 = NoiseSource(0).normal((n, 2)).double() * torch.tensor([1.0, 0.5])
    C = alpha**2 * torch.diag(torch.tensor([1.0, 0.25])).double() + sigma**2 * torch.eye(
        2, dtype=torch.float64
    )
    per_example = sf.objectives.NCSN(model, times, method)(x0, None, NoiseSource(1)).per_example
    blocks = torch.stack(
        [torch.autograd.grad(part.mean(), A, retain_graph=True)[0] for part in per_example.split(1000)]
    )
    error = blocks.std(0) / len(blocks) ** 0.5
    assert (
        (blocks.mean(0) - sigma**2 * (A.detach() @ C + torch.eye(2, dtype=torch.float64))).abs() < 5 * error
    ).all()


def train(objective, data, steps, noise=None):
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    for k in range(steps):
        x0 = data[torch.randint(len(data), (256,), generator=torch.Generator().manual_seed(k))]
        loss = objective(x0, None, NoiseSource(7, step=k)).per_example.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("method", "energy"), [("implicit", False), ("sliced", False), ("sliced-vr", True), ("denoising", True)]
)
def test_training_finds_the_score_and_langevin_samples_it(method, energy):
    """On N(m, diag c): the trained score is near the true one over the data, and so are the samples drawn
    with it.
    """
    torch.manual_seed(0)
    mean, std = torch.tensor([0.5, -0.3]), torch.tensor([0.6, 0.9])
    data = mean + std * NoiseSource(0).normal((4000, 2))
    net = sf.nets.MLP(2, hidden=32, layers=1, noise_levels=False, out_dim=1 if energy else 2)
    model = sf.ScoreModel(net, sf.DataSpec((2,)), energy=energy)
    sigma = 0.2 if method == "denoising" else 0.0
    train(sf.objectives.ScoreMatching(model, method, sigma=sigma), data, 300)
    variance = std**2 + sigma**2
    error = (model.score(data) + (data - mean) / variance).square().sum(1).mean()
    print(f"{method}: Fisher divergence {error / 2:.4f}")
    assert error / 2 < 0.1
    samples = sf.sample(
        model, sf.samplers.Langevin(0.1), sf.grids.steps(60), x_T=data[:1000], noise=NoiseSource(1)
    )
    assert ((samples.mean(0) - mean).abs() < 0.15).all()
    assert ((samples.var(0) / variance - 1).abs() < 0.3).all()


def test_energy_gives_a_curl_free_score():
    torch.manual_seed(0)
    model = sf.ScoreModel(
        sf.nets.MLP(3, hidden=8, layers=1, noise_levels=False, out_dim=1).double(), energy=True
    )
    x = NoiseSource(0).normal((4, 3)).double()
    J = torch.func.vmap(
        torch.func.jacrev(lambda row: torch.func.grad(lambda r: -model.energy(r[None])[0])(row))
    )(x)
    assert relative_error(J, J.mT) < 1e-12
    assert relative_error(model.score(x), -torch.func.grad(lambda rows: model.energy(rows).sum())(x)) < 1e-12
    with torch.no_grad():
        assert not model.score(x).requires_grad
    assert model.energy(x).shape == (4,)


def test_models_describe_themselves():
    bare = sf.ScoreModel(sf.nets.MLP(2, noise_levels=False), sf.DataSpec((2,)))
    assert bare.config == {"energy": False}
    assert bare.autocast_dtype is None
    assert bare.score(torch.zeros(3, 2)).shape == (3, 2)
    matching = sf.objectives.ScoreMatching(bare, "implicit")
    drawn = {"projections": 1, "projection": "rademacher"}
    assert matching.config == {"kind": "score-matching", "method": "implicit", "sigma": 0.0, **drawn}
    levels = sf.Denoiser(sf.nets.MLP(2), PROCESSES["ve"])
    assert sf.objectives.NCSN(levels).config == {"kind": "ncsn", "method": "denoising", **drawn}
    sliced = sf.objectives.NCSN(levels, method="sliced", projections=3).config
    assert sliced == {"kind": "ncsn", "method": "sliced", "projections": 3, "projection": "rademacher"}
    assert sf.objectives.NCSN(levels, "importance").config["times"]["kind"] == "importance"


def test_autocast_runs_the_network_only():
    bare = sf.ScoreModel(sf.nets.MLP(2, hidden=64, noise_levels=False))
    x = NoiseSource(0).normal((8, 2))
    exact = bare.score(x)
    bare.autocast_dtype = torch.bfloat16
    assert bare.score(x).dtype == torch.float32
    assert 0 < relative_error(bare.score(x), exact) < 0.05
    for method in METHODS:
        loss = sf.objectives.ScoreMatching(bare, method, sigma=0.1)(x, None, NoiseSource(0)).per_example  # type: ignore[arg-type]
        loss.mean().backward()
        assert loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda bare, levels: sf.objectives.ScoreMatching(levels), "NCSN"),
        (lambda bare, levels: sf.objectives.NCSN(bare), "ScoreMatching"),
        (lambda bare, levels: sf.objectives.ScoreMatching(bare, "explicit"), "method"),  # type: ignore[arg-type]
        (lambda bare, levels: sf.objectives.ScoreMatching(bare, "denoising"), "sigma"),
        (lambda bare, levels: sf.objectives.ScoreMatching(bare, sigma=-1.0), "sigma"),
        (lambda bare, levels: sf.objectives.ScoreMatching(bare, projections=0), "positive integer"),
        (lambda bare, levels: sf.objectives.ScoreMatching(bare, projection="cube"), "projection"),  # type: ignore[arg-type]
        (lambda bare, levels: sf.objectives.NCSN(levels, method="implicit"), "method"),  # type: ignore[arg-type]
        (lambda bare, levels: bare.score(torch.zeros(1, 2), 3), "no noise levels"),
        (lambda bare, levels: bare.energy(torch.zeros(1, 2)), "energy=True"),
        (lambda bare, levels: sf.ScoreModel(lambda x, c: x[:, :1]).score(torch.zeros(4, 2)), "shape"),
        (
            lambda bare, levels: sf.ScoreModel(lambda x, c: x, energy=True).score(torch.zeros(4, 2)),
            "one value",
        ),
    ],
)
def test_refusals(make, message):
    bare, levels = (
        sf.ScoreModel(sf.nets.MLP(2, noise_levels=False)),
        sf.Denoiser(sf.nets.MLP(2), PROCESSES["ve"]),
    )
    with pytest.raises(sf.ScorefieldError, match=message):
        make(bare, levels)
