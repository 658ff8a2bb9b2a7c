"""Guidance wrappers against closed forms and brute force; every sampler honours guidance or refuses it before
it starts.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support import relative_error

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.generation.sampling import Guide, build_sampling
from scorefield.generation.sampling_options import SamplingOptions
from scorefield.models.guidance import ClassifierFree, ClassifierGuidance, ClipX0, DynamicThreshold
from scorefield.runtime.registry import SAMPLERS
from scorefield.samplers import (
    DDIM,
    Adaptive,
    Ancestral,
    DPMSolver2M,
    DPMSolver2S,
    DPMSolver3M,
    Euler,
    Heun,
    Langevin,
    PredictorCorrector,
    UniPC,
    between_levels,
)

F64 = torch.float64
PROCESSES = {
    "linear": sf.process.from_betas(sf.process.linear_betas(1000)),
    "cosine": sf.process.from_betas(sf.process.cosine_betas(100)),
    "ve": sf.process.from_sigmas(sf.process.geometric_sigmas(20.0, 0.01, 60)),
}
LINEAR = PROCESSES["linear"]
MIXTURE = sf.oracle.GaussianMixture(
    [[-1.0, 0.5], [1.5, 1.0], [0.3, -1.5]],
    torch.tensor([[[0.1, 0.0], [0.0, 0.1]], [[0.2, 0.1], [0.1, 0.15]], [[0.05, 0.0], [0.0, 0.05]]]),
    [0.5, 0.2, 0.3],
)
SPEC = sf.DataSpec((2,), range=(-1.0, 1.0), classes=("a", "b", "c"))


def points(n, seed=0):
    return NoiseSource(seed).normal((n, 2)).double()


def label_free(variance=None, process=LINEAR, data=SPEC):
    """A conditional model with a row for dropped labels."""
    torch.manual_seed(0)
    out = 4 if variance else 2
    net = sf.nets.MLP(2, hidden=16, layers=2, num_classes=3, null_label=True, out_dim=out).double()
    return sf.Denoiser(net, process, "v", variance, data=data)


def mlp_classifier(dtype=F64, process=LINEAR):
    torch.manual_seed(1)
    return sf.NoisyClassifier(sf.nets.MLP(2, hidden=16, layers=2, out_dim=3).to(dtype), process, data=SPEC)


@pytest.mark.parametrize("process", PROCESSES)
def test_scale_one_is_bayes_rule(process):
    """∇log p_t(x) + ∇log p_t(y|x) is the score of the class itself, at every level and for a class for each
    example.
    """
    # [ADM Sec. 4]
    process = PROCESSES[process]
    y = torch.arange(30) % 3
    model = ClassifierGuidance(MIXTURE.denoiser(process), MIXTURE.classifier(process), y)
    for t in (1, process.T // 3, process.T):
        alpha, sigma = process.level(t)
        x = MIXTURE.at(process.level(t)).sample(30, NoiseSource(t))
        cov = alpha**2 * MIXTURE.covariances[y] + sigma**2 * torch.eye(2, dtype=F64)
        score = -torch.linalg.solve(cov, x - alpha * MIXTURE.means[y])
        pred = model(x, t).guided(t)
        assert relative_error(model.score(x, t), score) < 1e-9, t
        assert relative_error(pred.eps, -sigma * score) < 1e-9, t
        # x̂0 is x_t + σ² score over α: what α takes from x_0 is not there to be compared.
        assert (alpha * pred.x0 - x - sigma**2 * score).abs().max() < 1e-9, t


def test_gradient_against_differences():
    """Central differences of log softmax, of a network, at scales and classes of each example's own."""
    classifier, x, h, t = mlp_classifier(), points(8), 1e-5, 321
    y, scale = torch.arange(8) % 3, torch.linspace(-1, 6, 8)
    model = ClassifierGuidance(label_free().given(0), classifier, y, scale)

    def log_p(x):
        return classifier(x, t).log_softmax(1)[torch.arange(8), y]

    with torch.no_grad():
        steps = h * torch.eye(2, dtype=F64)
        expected = torch.stack([(log_p(x + step) - log_p(x - step)) / (2 * h) for step in steps], dim=1)
        assert relative_error(model.log_p_grad(x, t), scale[:, None] * expected) < 1e-8
        t = torch.full((8,), t)  # type: ignore[assignment]
        assert relative_error(model.log_p_grad(x, t), scale[:, None] * expected) < 1e-8
    together = model(x, 321).guided(321).x0
    for b in range(8):
        alone = ClassifierGuidance(label_free().given(0), classifier, int(y[b]), float(scale[b]))
        assert relative_error(alone(x[b : b + 1], 321).guided(321).x0, together[b : b + 1]) < 1e-12


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_only_x_gets_a_gradient(mode):
    classifier = mlp_classifier(torch.float32).train()
    weights = copy.deepcopy(classifier.state_dict())
    model, x = ClassifierGuidance(label_free().given(0), classifier, 1), points(4)
    with mode():
        x = x + 0
        gradient = model(x, 100).log_p_grad(x, 100)
    assert gradient.dtype == F64  # of x; the classifier computed in its own float32
    assert not x.requires_grad
    assert not gradient.requires_grad
    assert all(p.grad is None and p.requires_grad for p in classifier.parameters())
    assert all(torch.equal(weights[name], value) for name, value in classifier.state_dict().items())
    exact = ClassifierGuidance(label_free().given(0), copy.deepcopy(classifier).double(), 1)
    assert 0 < relative_error(gradient, exact.log_p_grad(points(4), 100)) < 1e-5


def test_a_classifier_under_autocast():
    """Its network in bf16, its gradient in x's dtype and near that of fp32."""
    classifier, x = mlp_classifier(torch.float32), points(16).float()
    model = ClassifierGuidance(label_free().given(0), classifier, 1)
    full = model.log_p_grad(x, 100)
    classifier.autocast_dtype = torch.bfloat16
    half = model.log_p_grad(x, 100)
    assert half.dtype == torch.float32
    assert 0 < relative_error(half, full) < 0.05


def test_two_classifiers_add_up():
    x, t, m = points(5), 400, label_free().given(2)
    one, two = mlp_classifier(), MIXTURE.classifier(LINEAR)
    both = ClassifierGuidance(ClassifierGuidance(m, one, 0, 2.0), two, 1, 0.5)(x, t)
    expected = ClassifierGuidance(m, one, 0, 2.0).log_p_grad(x, t) + ClassifierGuidance(
        m, two, 1, 0.5
    ).log_p_grad(x, t)
    assert relative_error(both.log_p_grad(x, t), expected) < 1e-12


def test_clipping_order():
    """ClipX0 inside clips before the shift and nothing after it; around guidance it clips the guided x̂0."""
    x, t, scale = 2 * points(20), 600, 30.0
    model, classifier = MIXTURE.denoiser(LINEAR), MIXTURE.classifier(LINEAR)
    alpha, sigma = LINEAR.level(t)
    shift = sigma**2 / alpha * ClassifierGuidance(model, classifier, 1, scale).log_p_grad(x, t)
    inside = ClassifierGuidance(ClipX0(model), classifier, 1, scale)(x, t)
    assert relative_error(inside.x0, model(x, t).x0.clamp(-1, 1)) == 0
    assert relative_error(inside.guided(t).x0, inside.x0 + shift) < 1e-12
    assert inside.guided(t).x0.abs().max() > 2
    outside = ClipX0(ClassifierGuidance(model, classifier, 1, scale))(x, t)
    assert outside.log_p_grad is None
    assert relative_error(outside.x0, (model(x, t).x0 + shift).clamp(-1, 1)) < 1e-12


@pytest.mark.parametrize("variance", [None, "range", "direct"])
@pytest.mark.parametrize("t", [700, torch.tensor([5, 700, 20, 999])], ids=["number", "one-each"])
def test_classifier_free_formula(variance, t):
    """ε̂_u + s(ε̂_c − ε̂_u) from two calls of the network, by hand; the variance half is the conditional
    one's.
    """
    # [Ho & Salimans 2022]
    model, x, y = label_free(variance), points(4), torch.tensor([2, 0, 1, 1])
    scale = torch.tensor([0.0, 1.0, 2.5, -1.0], dtype=F64)
    free, given = model(x, t, torch.full((4,), 3)), model(x, t, y)
    pred = ClassifierFree(model, y, scale)(x, t)
    assert pred.x_t is x
    for level, expected in zip(pred.level, free.level, strict=True):
        assert torch.equal(level, expected)
    s = scale[:, None]
    for name in ("eps", "x0", "raw", "score", "velocity"):
        a, b = getattr(free, name), getattr(given, name)
        assert relative_error(getattr(pred, name), a + s * (b - a)) < 1e-10, name
    for name in ("var_frac", "log_var"):
        if getattr(given, name) is not None:
            assert relative_error(getattr(pred, name), getattr(given, name)) < 1e-12
    if variance == "direct":
        assert torch.equal(pred.below.sigma, given.below.sigma)
    assert relative_error(ClassifierFree(model, y, 1.0)(x, t).x0, model.given(y)(x, t).x0) < 1e-12


def test_classifier_free_calls_the_network_once():
    model, seen = label_free(), []
    model.net.register_forward_hook(
        lambda net, args, kwargs, out: seen.append(kwargs["y"].tolist()), with_kwargs=True
    )
    ClassifierFree(model, [2, 0], 3.0)(points(2), 10)
    assert seen == [[3, 3, 2, 0]]


def test_a_scale_that_is_too_large_is_shown():
    with pytest.raises(sf.InputError, match=r"scale is a finite number up to 1e\+18.*got 1e\+300"):
        ClassifierFree(label_free(), [2, 0], 1e300)


def test_classifier_free_with_clipping_on_either_side():
    model, x, y, t = (
        label_free(data=sf.DataSpec((2,), range=(-0.1, 0.2), classes=("a", "b", "c"))),
        points(6),
        1,
        500,
    )
    free, given = (model(x, t, torch.full((6,), label)).x0 for label in (3, 1))
    inside = ClassifierFree(ClipX0(model), y, 4.0)(x, t).x0
    a, b = free.clamp(-0.1, 0.2), given.clamp(-0.1, 0.2)
    assert relative_error(inside, a + 4 * (b - a)) < 1e-12
    outside = ClipX0(ClassifierFree(model, y, 4.0))(x, t).x0
    assert relative_error(outside, (free + 4 * (given - free)).clamp(-0.1, 0.2)) < 1e-12
    assert not torch.allclose(inside, outside)


def test_classifier_guidance_around_classifier_free():
    x, t, model = points(3), 300, label_free()
    inner = ClassifierFree(model, 2, 3.0)
    both = ClassifierGuidance(inner, mlp_classifier(), 2, 1.5)
    gradient = ClassifierGuidance(model.given(2), mlp_classifier(), 2, 1.5).log_p_grad(x, t)
    _, sigma = LINEAR.level(t)
    assert relative_error(both(x, t).guided(t).eps, inner(x, t).eps - sigma * gradient) < 1e-10


def test_a_network_that_does_not_describe_itself_is_taken_at_its_word():
    """Any callable is a network: its label num_classes stands for none."""
    shifts = torch.tensor([1.0, 2.0, 3.0, 10.0], dtype=F64)
    model = sf.Denoiser(lambda x, c, y=None: x + shifts[y][:, None], LINEAR, "eps", data=SPEC)
    x = points(2)
    assert (
        relative_error(
            ClassifierFree(model, [0, 2], 2.0)(x, 50).eps, x + 10 + 2 * (shifts[[0, 2]][:, None] - 10)
        )
        < 1e-9
    )


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("quantile", [0.5, 0.9, 1.0])
def test_dynamic_threshold(bounds, quantile):
    """Imagen §2.3 by numpy, in [−1, 1]; another range is mapped there and back."""
    # [Saharia et al. 2022 §2.3]
    low, high = bounds
    x0 = torch.randn(5, 3, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [0.1, 0.5, 1, 2, 9.0]
    ).reshape(5, 1, 1, 1)
    u = 2 * (x0.numpy() - low) / (high - low) - 1
    a = np.maximum(1, np.quantile(np.abs(u).reshape(5, -1), quantile, axis=1)).reshape(5, 1, 1, 1)
    expected = low + (high - low) * (np.clip(u, -a, a) / a + 1) / 2
    data = sf.DataSpec((3, 4, 4), range=bounds)
    model = DynamicThreshold(sf.Denoiser(lambda x, c, y=None: x0, LINEAR, "x0", data=data), quantile)
    pred = model(torch.zeros_like(x0), 10)
    assert relative_error(pred.x0, torch.from_numpy(expected)) < 1e-12
    assert pred.x0.min() >= low - 1e-12
    assert pred.x0.max() <= high + 1e-12


def test_threshold_of_what_fits_is_a_clip():
    x0 = torch.linspace(-0.9, 0.9, 40, dtype=F64).reshape(1, 40)
    model = sf.Denoiser(lambda x, c, y=None: x0, LINEAR, "x0")
    assert relative_error(DynamicThreshold(model)(torch.zeros_like(x0), 10).x0, x0) < 1e-14
    big = 10 * x0
    model = sf.Denoiser(lambda x, c, y=None: big, LINEAR, "x0")
    assert (
        relative_error(DynamicThreshold(model, 1.0)(torch.zeros_like(x0), 10).x0, big / big.abs().max())
        < 1e-14
    )


# Every sampler with every kind of guidance: it honours it, or refuses before the network is called.

GRID = [1000, 800, 400, 100, 0]
EVERY: dict[str, Any] = {
    "ancestral lower": Ancestral("lower"),
    "ancestral upper": Ancestral("upper"),
    "ancestral learned": Ancestral("learned"),
    "ddim": DDIM(),
    "ddim 0.5": DDIM(0.5),
    "ddim 1": DDIM(1.0),
    "euler": Euler(),
    "heun": Heun(),
    "heun with churn": Heun(churn=1.0),
    "dpm-solver": DPMSolver2M(),
    "dpm-solver with noise": DPMSolver2M(stochastic=True),
    "dpm-solver, singlestep": DPMSolver2S(),
    "dpm-solver, third order": DPMSolver3M(),
    "unipc": UniPC(),
    "adaptive": Adaptive(1e-2, 1e-2),
    "langevin": Langevin(1e-6),
    "langevin with a last denoising": Langevin(1e-6, final_denoise=True),
    "ddim corrected": PredictorCorrector(DDIM(), Langevin(1e-6)),
    "ancestral corrected": PredictorCorrector(Ancestral("lower"), Langevin(1e-6)),
}
GUIDANCE = {
    "none": lambda m: m.given(1),
    "classifier": lambda m: ClassifierGuidance(ClipX0(m.given(1)), mlp_classifier(process=m.process), 1, 5.0),
    "classifier at the mean": lambda m: ClassifierGuidance(
        m.given(1), mlp_classifier(process=m.process), 1, 5.0, at="mean"
    ),
    "classifier-free": lambda m: ClassifierFree(m, 1, 5.0),
    "classifier-free, clipped": lambda m: ClipX0(ClassifierFree(m, 1, 5.0)),
    "both": lambda m: ClassifierGuidance(
        ClassifierFree(m, 1, 5.0), mlp_classifier(process=m.process), 1, 5.0
    ),
    "classifier, clipped after": lambda m: ClipX0(
        ClassifierGuidance(m.given(1), mlp_classifier(process=m.process), 1, 5.0)
    ),
}


def suited(model, sampler):
    """The model, between the levels of its table where the sampler asks for such times."""
    return between_levels(model) if getattr(sampler, "between_levels", False) else model


def refused(sampler, guidance):
    """Only a sampler whose mean it is takes a gradient at the mean."""
    return guidance == "classifier at the mean" and not isinstance(sampler, Ancestral)


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("sampler", EVERY)
def test_every_sampler_honours_or_refuses_guidance(sampler, guidance):
    calls, sampler = [], EVERY[sampler]
    model = suited(label_free("range"), sampler)
    model.net.register_forward_hook(lambda net, args, out: calls.append(1))
    guided, x_T = GUIDANCE[guidance](model), points(3)
    for grid in (GRID, GRID[:-1]):
        calls.clear()
        if refused(sampler, guidance):
            with pytest.raises(sf.IncompatibleModel, match='at="x_t"'):
                sf.trajectory(guided, sampler, grid, x_T, NoiseSource(0))
            assert not calls
            continue
        x = sf.sample(guided, sampler, grid, x_T=x_T, noise=NoiseSource(0))
        made = len(calls)
        assert torch.isfinite(x).all()
        assert made <= sampler.calls(grid)  # guidance costs no further calls of the network
        plain = sf.sample(model.given(1), sampler, grid, x_T=x_T, noise=NoiseSource(0))
        assert torch.equal(x, plain) == (guidance == "none")


def test_the_table_has_every_sampler():
    assert {SAMPLERS[name] for name in SAMPLERS} <= {type(sampler) for sampler in EVERY.values()}


def test_a_new_sampler_cannot_ignore_a_gradient():
    @dataclass(frozen=True)
    class Jump:
        """To x̂0 and back at once; written without a thought of guidance."""

        def calls(self, grid):
            return len(grid) - 1

        def init(self, model, x):
            return None

        def step(self, model, x_t, t, s, state, noise):
            x0 = model(x_t, t).x0
            return model.process.sample(x0, s, 0 * x0), x0, None

    model = label_free()
    for name, make in GUIDANCE.items():
        at = make(model).grad_at
        if at is None:  # not guided, or guided in x̂0, which no sampler can overlook
            assert torch.isfinite(sf.sample(make(model), Jump(), GRID, x_T=points(2))).all()
        else:
            for sampler in (Jump(), PredictorCorrector(Jump(), Langevin(1e-6))):  # type: ignore[arg-type]
                with pytest.raises(sf.IncompatibleModel, match="does not declare where it applies"):
                    sf.trajectory(make(model), sampler, GRID, points(2))
        assert (
            name in ("none", "classifier-free", "classifier-free, clipped", "classifier, clipped after")
        ) == (at is None)


def test_without_guidance_nothing_changes():
    """A scale of 0 adds exactly nothing."""
    x_T = points(4)
    for sampler in EVERY.values():
        if sampler == Ancestral("learned"):
            continue
        model = suited(label_free(), sampler)
        plain = sf.sample(model.given(1), sampler, GRID, x_T=x_T, noise=NoiseSource(0))
        zero = ClassifierGuidance(model.given(1), mlp_classifier(process=model.process), 1, 0.0)
        assert torch.equal(sf.sample(zero, sampler, GRID, x_T=x_T, noise=NoiseSource(0)), plain)


def broken(x, t):
    return (x * float("nan")).repeat(1, 2)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m, c: ClassifierGuidance(m.given(0), m, 0), "returns logits"),
        (lambda m, c: ClassifierGuidance(m.given(0), "classifier", 0), "returns logits"),  # type: ignore[arg-type]
        (lambda m, c: ClassifierGuidance(m.given(0), c, 3), "0 … 2"),
        (
            lambda m, c: ClassifierGuidance(m.given(0), lambda x, t: c(x, t), 3)(points(2), 5).guided(5),
            "0 … 2",
        ),
        (lambda m, c: ClassifierGuidance(m.given(0), c, -1), "0 … 2"),
        (lambda m, c: ClassifierGuidance(m.given(0), c, [0.5]), "labels are one class"),  # type: ignore[list-item]
        (
            lambda m, c: ClassifierGuidance(m.given(0), c, [0, 1])(points(3), 5).guided(5),
            "2 labels are bound",
        ),
        (
            lambda m, c: ClassifierGuidance(m.given(0), c, 0, [1.0, 2.0])(points(3), 5).guided(5),
            "2 scales are bound",
        ),
        (lambda m, c: ClassifierGuidance(m.given(0), c, 0, float("nan")), "finite number"),
        (lambda m, c: ClassifierGuidance(m.given(0), c, 0, torch.ones(2, 2)), "finite number"),
        (lambda m, c: ClassifierGuidance(m.given(0), c, 0, at="x_s"), "x_t"),
        (lambda m, c: ClassifierGuidance(sf.ScoreModel(m.net), c, 0), "noise levels"),  # type: ignore[arg-type]
        (lambda m, c: ClassifierGuidance(m.given(0), MIXTURE.classifier(PROCESSES["cosine"]), 0), "T = 100"),
        (
            lambda m, c: ClassifierGuidance(m.given(0), MIXTURE.classifier(OTHER), 0),  # type: ignore[has-type]
            "other noise levels: at t = 1 ",
        ),
        (
            lambda m, c: ClassifierGuidance(m.given(0), lambda x, t: x[:, 0], 0)(points(2), 5).guided(5),
            r"shape \(B, K\)",
        ),
        (
            lambda m, c: ClassifierGuidance(m.given(0), lambda x, t: m.given(0)(x, t), 0)(
                points(2), 5
            ).guided(5),
            "got a Prediction",
        ),
        (
            lambda m, c: ClassifierGuidance(m.given(0), lambda x, t: c(x, t).detach(), 0)(
                points(2), 5
            ).guided(5),
            "differentiable",
        ),
        (
            lambda m, c: ClassifierGuidance(m.given(0), lambda x, t: c(0 * x.detach(), t), 0)(
                points(2), 5
            ).guided(5),
            "differentiable",
        ),
        (
            lambda m, c: ClassifierGuidance(m.given(0), broken, 0)(points(2), 5).guided(5),
            "not finite at t = 5",
        ),
        (
            lambda m, c: ClassifierGuidance(ClassifierGuidance(m.given(0), c, 0), c, 0, at="mean"),
            "same point",
        ),
        (lambda m, c: ClassifierGuidance(m.given(0), c, 0, at="mean")(points(2), 5).guided(5), "Ancestral"),
        (lambda m, c: ClipX0(ClassifierGuidance(m.given(0), c, 0, at="mean")), "inside ClassifierGuidance"),
        (lambda m, c: ClipX0(m.given(0), 1.0, -1.0), "low < high"),
        (lambda m, c: DynamicThreshold(m.given(0), 0.0), "quantile, the share of values"),
        (lambda m, c: ClassifierFree(m.given(0), 0, 1.0), r"without \.given"),
        (
            lambda m, c: ClassifierFree(ClassifierGuidance(m, c, 0), 0, 1.0),
            "takes an unguided model",
        ),
        (lambda m, c: ClassifierFree(ClassifierFree(m, 0, 1.0), 0, 1.0), "takes an unguided model"),
        (lambda m, c: ClassifierFree(m, 3, 1.0), "0 … 2"),
        (lambda m, c: ClassifierFree(m, [0, 1], 1.0)(points(3), 5), "2 labels are bound"),
        (lambda m, c: ClassifierFree(m, 0, [1.0, 2.0])(points(3), 5), "2 scales are bound"),
        (
            lambda m, c: ClassifierFree(sf.Denoiser(sf.nets.MLP(2, num_classes=3), LINEAR), 0, 1.0),
            "label_dropout",
        ),
        (lambda m, c: ClassifierFree(sf.Denoiser(sf.nets.MLP(2), LINEAR), 0, 1.0), "label_dropout"),
        (lambda m, c: ClassifierFree(MIXTURE.denoiser(LINEAR), 0, 1.0), "label_dropout"),
        (lambda m, c: m.given(3), "0 … 2"),
    ],
)
def test_bad_use_teaches(act, message):
    with pytest.raises(sf.ScorefieldError, match=message):
        act(label_free(), mlp_classifier())


OTHER = sf.process.from_betas(sf.process.cosine_betas(1000))


def test_options_of_guidance_need_levels():
    score = sf.ScoreModel(sf.nets.MLP(2, noise_levels=False), data=SPEC)
    by_classifier = Guide(mlp_classifier(), "classifier", "0")
    for options, guide in ((SamplingOptions(guidance=2.0), None), (SamplingOptions(), by_classifier)):
        table = options.model_copy(update={"sampler": {"kind": "langevin", "step": 0.1}})
        with pytest.raises(sf.IncompatibleModel, match="a model with noise levels"):
            build_sampling(table, score, guide)
    with pytest.raises(sf.InputError, match="guidance needs labels"):
        build_sampling(SamplingOptions(guidance=2.0), label_free()).wrap(label_free())


def test_tables_that_were_rounded_on_their_way_agree():
    rounded = sf.process.from_betas(sf.process.linear_betas(1000).float())
    ClassifierGuidance(MIXTURE.denoiser(LINEAR), MIXTURE.classifier(rounded), 0)
    between = sf.process.Interpolated(LINEAR)
    ClassifierGuidance(MIXTURE.denoiser(between), MIXTURE.classifier(LINEAR), 0)
    continuous = [sf.process.vp(), sf.process.vp(beta_max=15.0)]
    ClassifierGuidance(MIXTURE.denoiser(continuous[0]), MIXTURE.classifier(sf.process.vp()), 0)
    with pytest.raises(sf.IncompatibleModel, match="other noise levels"):
        ClassifierGuidance(MIXTURE.denoiser(continuous[0]), MIXTURE.classifier(continuous[1]), 0)


def test_the_oracles_posterior_is_differentiable_and_bayes():
    classifier = MIXTURE.classifier(LINEAR)
    assert classifier.num_classes == 3
    for t, dtype in itertools.product((1, 300, torch.tensor([1, 40, 999])), (torch.float32, F64)):
        x = points(3).to(dtype).requires_grad_()
        log_p = classifier(x, t)  # type: ignore[arg-type]
        assert log_p.dtype == dtype
        assert torch.allclose(log_p.exp().sum(1), torch.ones(3, dtype=dtype))
        (gradient,) = torch.autograd.grad(log_p[:, 1].sum(), x)
        alpha, sigma = (c.reshape(-1, 1, 1) for c in LINEAR.level(t))  # type: ignore[arg-type]
        cov = alpha**2 * MIXTURE.covariances[1] + sigma**2 * torch.eye(2, dtype=F64)
        mean = alpha[..., 0] * MIXTURE.means[1]
        of_class = -torch.linalg.solve(cov, (x.detach().double() - mean)[..., None])[..., 0]
        expected = of_class - MIXTURE.score(x.detach(), level=LINEAR.level(t)).double()  # type: ignore[arg-type]
        assert relative_error(gradient, expected) < (1e-9 if dtype == F64 else 1e-4)
