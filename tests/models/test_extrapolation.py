"""Classifier-free guidance and autoguidance in an interval, with a scale that depends on t, and rescaled: against ε̂ by
hand from exact mixtures.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.prediction import Prediction
from scorefield.generation.sampling import Weak, build_sampling
from scorefield.generation.sampling_options import SamplingOptions
from scorefield.models.guidance import Autoguidance, ClassifierFree, ClassifierGuidance
from scorefield.models.guidance_scale import scheduled
from scorefield.runtime.registry import SAMPLERS

F64 = torch.float64
OLD = Path(__file__).parent.parent / "old_runs"
LINEAR = sf.process.linear(1000)
VE = sf.process.geometric(20.0, 0.01, 60)
MEANS = torch.tensor([[-1.0, 0.5], [1.5, 1.0], [0.3, -1.5]], dtype=F64)
COVARIANCES = torch.tensor([[[0.1, 0.0], [0.0, 0.1]], [[0.2, 0.1], [0.1, 0.15]], [[0.05, 0.0], [0.0, 0.05]]])
MIXTURE = sf.oracle.GaussianMixture(MEANS, COVARIANCES, [0.5, 0.2, 0.3])
WIDE = sf.oracle.GaussianMixture(0.8 * MEANS, 1.5 * COVARIANCES, [0.4, 0.3, 0.3])
SPEC = sf.DataSpec((2,), range=(-1.0, 1.0), classes=("a", "b", "c"))
CLASSES = [
    sf.oracle.GaussianMixture(m[None], c[None], [1.0]) for m, c in zip(MEANS, COVARIANCES, strict=True)
]


def points(n, seed=0):
    return sf.NoiseSource(seed).normal((n, 2)).double()


@torch.enable_grad()
def exact(mixture, process, x, t):
    """ε̂ = −σ ∇ log p_t(x) from the mixture's density, without a model of the library."""
    alpha, sigma = process.level(t)
    covariances = alpha**2 * mixture.covariances + sigma**2 * torch.eye(2, dtype=F64)
    x = x.clone().requires_grad_()
    parts = torch.distributions.MultivariateNormal(alpha * mixture.means, covariances).log_prob(x[:, None])
    (score,) = torch.autograd.grad((parts + mixture.weights.log()).logsumexp(1).sum(), x)
    return -sigma * score


def conditional(process, seen=None):
    """A conditional model that is exact: ε̂ of the class's own component, and of the whole mixture for the null label."""

    def net(x, c, y):
        if seen is not None:
            seen.append(len(x))
        t = (c + 1).round().long()
        of = [(MIXTURE if label == 3 else CLASSES[label]) for label in y.tolist()]
        return torch.cat([exact(one, process, x[i : i + 1], t[i]) for i, one in enumerate(of)])

    return sf.Denoiser(net, process, "eps", data=SPEC)


class Counted:
    """An exact model that counts its calls."""

    def __init__(self, mixture, process):
        self.model, self.process, self.calls = mixture.denoiser(process), process, 0

    def __call__(self, x_t, t):
        self.calls += 1
        return self.model(x_t, t)

    def score(self, x, t=None):
        return self.model.score(x, t)


@pytest.mark.parametrize("process", [LINEAR, VE], ids=["vp", "ve"])
def test_guided_eps_by_hand(process):
    """ε̂ = ε̂_w + s(ε̂ − ε̂_w), the scale being a number, one for each example or a function of t."""
    # [Karras et al. 2024b; Ho & Salimans 2022]
    x, y = points(4), torch.tensor([2, 0, 1, 1])
    for t in (1, int(process.T) // 2, int(process.T)):
        model, weak, free = (exact(m, process, x, t) for m in (MIXTURE, WIDE, MIXTURE))
        of_class = torch.cat([exact(CLASSES[k], process, x[i : i + 1], t) for i, k in enumerate(y.tolist())])
        for given in (2.5, torch.tensor([0.0, 1.0, 2.5, -1.0]), lambda t: 1 + t / 100):
            s = torch.as_tensor(given(t) if callable(given) else given, dtype=F64).reshape(-1, 1)
            auto = Autoguidance(MIXTURE.denoiser(process), WIDE.denoiser(process), given)(x, t)
            assert relative_error(auto.eps, weak + s * (model - weak)) < 1e-7
            label = ClassifierFree(conditional(process), y, given)(x, t)
            assert relative_error(label.eps, free + s * (of_class - free)) < 1e-7


def test_rescaled_by_hand():
    """The velocity of the guided prediction times φ std(v̂_m)/std(v̂) + 1 − φ, an example at a time."""
    # [Lin et al. 2024 Sec. 3.4]
    x, t, phi, s = points(5), 400, 0.7, 4.0
    alpha, sigma = LINEAR.level(t)
    model, weak = (exact(m, LINEAR, x, t) for m in (MIXTURE, WIDE))
    v, v_m = (alpha * e - sigma * (x - sigma * e) / alpha for e in (weak + s * (model - weak), model))
    v = v * (phi * v_m.std(dim=1, keepdim=True) / v.std(dim=1, keepdim=True) + 1 - phi)
    pieces = MIXTURE.denoiser(LINEAR), WIDE.denoiser(LINEAR)
    pred = Autoguidance(*pieces, s, rescale=phi)(x, t)
    assert relative_error(pred.x0, alpha * x - sigma * v) < 1e-9
    assert relative_error(pred.velocity, v) < 1e-9
    full = Autoguidance(*pieces, s, rescale=1.0)(x, t).velocity
    assert relative_error(full.std(dim=1), v_m.std(dim=1)) < 1e-9
    assert torch.equal(Autoguidance(*pieces, s, rescale=0.0)(x, t).x0, Autoguidance(*pieces, s)(x, t).x0)


def test_an_interval_of_levels():
    """low < σ/α ≤ high has the scale; elsewhere the prediction is the model's own."""
    # [Kynkäänniemi et al. 2024]
    x, times = points(4), torch.tensor([100, 300, 500, 900])
    low, high = (float(LINEAR.level(t).ratio) for t in (100, 500))
    pieces = MIXTURE.denoiser(LINEAR), WIDE.denoiser(LINEAR)
    everywhere, within = Autoguidance(*pieces, 3.0), Autoguidance(*pieces, 3.0, (low, high))
    for t, inside in zip(times.tolist(), (False, True, True, False), strict=True):
        expected = everywhere(x, t) if inside else pieces[0](x, t)
        assert torch.equal(within(x, t).x0, expected.x0), t
    each = within(x, times).x0
    for i, t in enumerate(times.tolist()):
        assert relative_error(each[i], within(x, t).x0[i]) < 1e-12
    judge = MIXTURE.classifier(LINEAR)
    judged = ClassifierGuidance(pieces[0], judge, 1, 2.0, interval=(low, high))
    always = ClassifierGuidance(pieces[0], judge, 1, 2.0)
    for t, inside in zip(times.tolist(), (False, True, True, False), strict=True):
        expected = always(x, t).guided(t) if inside else pieces[0](x, t)
        assert relative_error(judged(x, t).guided(t).x0, expected.x0) < 1e-12, t


def test_outside_of_the_interval_the_weaker_prediction_is_not_computed():
    grid = sf.grids.uniform(LINEAR, 10)
    ratios = LINEAR.level(grid[:-1]).ratio
    inside = int(((ratios > 0.5) & (ratios <= 5.0)).sum())
    assert 0 < inside < 10
    model, weak = Counted(MIXTURE, LINEAR), Counted(WIDE, LINEAR)
    sf.sample(Autoguidance(model, weak, 2.0, (0.5, 5.0)), sf.samplers.DDIM(), grid, x_T=points(3))
    assert (model.calls, weak.calls) == (10, inside)
    rows: list[int] = []
    free = ClassifierFree(conditional(LINEAR, rows), 1, 2.0, (0.5, 5.0))
    sf.sample(free, sf.samplers.DDIM(), grid, x_T=points(3))
    assert sorted(rows) == [3] * (10 - inside) + [6] * inside


class ByHand:
    """A model of one's own whose ε̂ is guided by hand."""

    process = LINEAR

    def __init__(self, process=LINEAR):
        self.process = process
        self.model, self.weak = MIXTURE.denoiser(process), WIDE.denoiser(process)

    def __call__(self, x_t, t):
        pred = self.model(x_t, t)
        alpha, sigma = self.process.level(t)
        s = 2.0 if 0.3 < sigma / alpha <= 4.0 else 1.0
        weak = self.weak(x_t, t).eps
        eps = weak + s * (pred.eps - weak)
        x0 = (x_t - sigma * eps) / alpha
        return Prediction(x_t, pred.level, x0, pred.raw)


@pytest.mark.parametrize("name", SAMPLERS)
def test_under_every_sampler(name):
    """The samples are those of a model whose ε̂ is guided by hand."""
    made: Any = SAMPLERS[name]
    sampler = made(1e-3) if name == "langevin" else made()
    process = sf.process.vp() if getattr(sampler, "between_levels", False) else LINEAR
    grid = [process.T * u for u in (1, 0.8, 0.6, 0.3, 0.1)] + [0]
    guided = Autoguidance(MIXTURE.denoiser(process), WIDE.denoiser(process), 2.0, (0.3, 4.0))
    results = [
        sf.sample(one, sampler, grid, x_T=points(3), noise=sf.NoiseSource(1))  # type: ignore[arg-type]
        for one in (guided, ByHand(process), MIXTURE.denoiser(process))
    ]
    assert relative_error(results[0], results[1]) < 1e-9
    assert not torch.allclose(results[0], results[2])


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_schedules_have_the_scale_as_their_mean(name):
    # [Wang et al. 2024]
    at = scheduled(name, 3.0, 1.0, 1000)
    u = (torch.arange(1000, dtype=F64) + 0.5) / 1000
    assert float(at(1000 * u).mean()) == pytest.approx(3.0, abs=1e-9)
    assert (float(at(1000)), float(at(0))) == pytest.approx((1.0, 5.0))
    assert float(at(250)) == pytest.approx(4.0 if name == "linear" else 1 + 2 * (1 + 2**-0.5))


def test_labels_reach_both_models():
    class Shifted(torch.nn.Module):
        num_classes = 3

        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, x, c, y):
            return x + self.scale * y[:, None]

    models = [sf.Denoiser(Shifted(scale), LINEAR, "eps", data=SPEC) for scale in (1.0, 10.0)]
    x, y = points(3), torch.tensor([0, 1, 2])
    expected = x + 10 * y[:, None] + 2 * (1 - 10) * y[:, None]
    bound = Autoguidance(models[0], models[1], 2.0).given(y)
    assert relative_error(bound(x, 50).eps, expected) < 1e-9
    before = Autoguidance(models[0].given(y), models[1].given(y), 2.0)
    assert relative_error(before(x, 50).eps, expected) < 1e-9


def test_options_build_what_the_classes_do():
    options = SamplingOptions(
        sampler={"kind": "ddim"},
        steps=5,
        clip=False,
        guidance=2.0,
        guidance_low=0.3,
        guidance_high=4.0,
        guidance_rescale=0.5,
        guidance_schedule="linear",
    )
    model, weak = MIXTURE.denoiser(LINEAR), WIDE.denoiser(LINEAR)
    sampling = build_sampling(options, model, weak=Weak(weak, "runs/weak", "b" * 12))
    at = lambda t: 1 + 2 * (1 - t / 1000)  # noqa: E731
    by_hand = Autoguidance(model, weak, at, (0.3, 4.0), 0.5)
    x = points(4)
    for t in (100, 400, 900):
        assert relative_error(sampling.wrap(sampling.model)(x, t).x0, by_hand(x, t).x0) < 1e-12  # type: ignore[operator]
    assert sampling.guidance == (
        f"autoguidance by runs/weak (sha256 {'b' * 12}), scale 2, linear in t, for σ/α in (0.3, 4], rescaled by 0.5"
    )
    assert sampling.identity(0)["autoguidance"] == "b" * 12
    assert sampling.identity(0) != replace(sampling, weak=Weak(weak, "runs/weak", "c" * 12)).identity(0)


def test_a_run_and_a_weaker_run():
    """A weaker run with the same weights guides to the run's own samples; another scale of other weights does not."""
    run = sf.Run(OLD / "digits")
    how: dict[str, Any] = {"n": 3, "steps": 4, "labels": 3, "device": "cpu"}
    plain = run.sample(**how).images
    guided = run.sample(**how, autoguidance=OLD / "digits", guidance=3).images
    assert abs(guided.astype(int) - plain).max() <= 17  # one grey value of 17
    with pytest.raises(sf.InputError, match="autoguidance needs its scale"):
        run.sample(**how, autoguidance=OLD / "digits")
    with pytest.raises(sf.IncompatibleModel, match="a weaker model with levels"):
        run.sample(**how, autoguidance=OLD / "classifier", guidance=2)
    with pytest.raises(sf.InputError, match="both guide"):
        run.sample(**how, autoguidance=OLD / "digits", classifier=OLD / "classifier", guidance=2)
    with pytest.raises(sf.InputError, match="guidance_low must be below guidance_high"):
        run.sample(**how, guidance=2, settings={"guidance_low": 2, "guidance_high": 1})
    with pytest.raises(sf.InputError, match="without a classifier"):
        run.sample(**how, classifier=OLD / "classifier", settings={"guidance_rescale": 0.5})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Autoguidance(m, m, 2.0, (1.0, 1.0)), "low < high"),
        (lambda m: Autoguidance(m, m, 2.0, 3.0), r"interval is \(low, high\)"),  # type: ignore[arg-type]
        (lambda m: Autoguidance(m, m, 2.0, (-1.0, 1.0)), "at least 0"),
        (lambda m: Autoguidance(m, m, 2.0, rescale=1.5), "rescale"),
        (lambda m: Autoguidance(m, m, lambda t: "much")(points(2), 5), "scale"),  # type: ignore[arg-type, return-value]
        (lambda m: Autoguidance(m, Autoguidance(m, m, 2.0), 2.0), "unguided weaker"),
        (lambda m: Autoguidance(m, MIXTURE.denoiser(VE), 2.0), "weaker model has T"),
    ],
)
def test_bad_use_teaches(make, message):
    with pytest.raises((sf.InputError, sf.IncompatibleModel), match=message):
        make(MIXTURE.denoiser(LINEAR))
