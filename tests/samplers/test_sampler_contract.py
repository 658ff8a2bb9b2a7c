"""What a sampler of one's own needs, with the base class and without it; a misspelt member is reported."""

from dataclasses import dataclass

import pytest
import torch

import scorefield as sf
from scorefield.core.shapes import expand
from scorefield.samplers.base import Sampler, as_sampler

PROCESS = sf.process.cosine(100)
MODEL = sf.oracle.GaussianMixture([[-1.0, 0.5], [1.5, 1.0]], 0.1 * torch.eye(2).expand(2, 2, 2)).denoiser(
    PROCESS
)
GRID = sf.grids.uniform(PROCESS, 10)
X = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))


def walk(sampler, **options):
    return sf.sample(MODEL, sampler, GRID, x_T=X, noise=sf.noise.NoiseSource(1, range(5)), **options)


class Bare:
    """DDIM with η = 0, only the right methods."""

    def init(self, model, x):
        return None

    def step(self, model, x_t, t, s, state, noise):
        pred, lo = model(x_t, t), model.process.level(s)
        return expand(lo.alpha, x_t) * pred.x0 + expand(lo.sigma, x_t) * pred.eps, pred.x0, None


@dataclass(frozen=True)
class Derived(Sampler[None]):
    """The same on the base class."""

    order: int = 1

    def init(self, model, x):
        return None

    def step(self, model, x_t, t, s, state, noise):
        return Bare().step(model, x_t, t, s, state, noise)


@pytest.mark.parametrize("sampler", [Bare(), Derived()], ids=lambda sampler: type(sampler).__name__)
def test_two_methods_make_a_sampler(sampler):
    assert torch.equal(walk(sampler), walk(sf.samplers.DDIM()))
    known = as_sampler(sampler)
    assert (known.calls(GRID), known.calls_on(PROCESS, GRID)) == (10, 10)
    assert (known.guidance, known.between_levels, known.plan(MODEL, [1, 0], 7)) == (None, False, 7)
    with pytest.raises(sf.InputError, match="must strictly descend"):
        sf.sample(MODEL, sampler, [10, 20, 0], x_T=X)
    corrected = sf.samplers.PredictorCorrector(sampler, sf.samplers.Langevin(1e-3))
    assert torch.equal(
        walk(corrected), walk(sf.samplers.PredictorCorrector(sf.samplers.DDIM(), sf.samplers.Langevin(1e-3)))
    )
    known = torch.ones(2)  # type: ignore[assignment]
    held = sf.samplers.Inpaint(sampler, known, torch.tensor([True, False]))  # type: ignore[arg-type]
    assert torch.equal(walk(held)[:, 0], torch.ones(5))


def test_the_base_class_refuses_models_without_levels():
    with pytest.raises(sf.IncompatibleModel, match="Derived needs a model with noise levels"):
        sf.sample(sf.ScoreModel(lambda x, c: -x), Derived(), [3, 2, 1, 0], x_T=X)

    class Between(Derived):
        between_levels = True

    with pytest.raises(sf.IncompatibleModel, match="between the levels"):
        walk(Between())


def test_optional_members_of_a_sampler_without_the_base_class_are_used():
    class Told(Bare):
        guidance = "eps"

        def calls(self, grid):
            return 3 * (len(grid) - 1)

        def calls_on(self, process, grid):
            return 2 * (len(grid) - 1)

        def plan(self, model, times, state):
            raise sf.InputError("planned")

    known = as_sampler(Told())
    assert (known.guidance, known.calls(GRID)) == ("eps", 30)
    assert (known.calls_on(PROCESS, GRID), known.calls_on(None, GRID)) == (20, 30)
    with pytest.raises(sf.InputError, match="planned"):
        walk(Told())


MISSPELT = [
    ("between_level", "between_levels"),
    ("plann", "plan"),
    ("guidence", "guidance"),
    ("call_on", "calls_on"),
]


@pytest.mark.parametrize(("wrong", "right"), MISSPELT)
def test_a_misspelt_member_is_reported(wrong, right):
    message = f"has an unknown member '{wrong}'.*did you mean '{right}'"
    with pytest.raises(sf.IncompatibleModel, match=message):
        walk(type("Wrong", (Bare,), {wrong: "eps"})())
    with pytest.raises(sf.IncompatibleModel, match=message):
        type("Wrong", (Derived,), {wrong: "eps"})
    with pytest.raises(sf.IncompatibleModel, match=message):
        type("Wrong", (Derived,), {"__annotations__": {wrong: str}})
    set_later = as_sampler(Bare()).thing  # type: ignore[attr-defined]
    setattr(set_later, wrong, "eps")
    with pytest.raises(sf.IncompatibleModel, match=message):
        walk(set_later)


@pytest.mark.parametrize("thing", [object(), sf.samplers.DDIM, "ddim", None])
def test_what_is_no_sampler_is_refused(thing):
    with pytest.raises(
        sf.IncompatibleModel, match=r"is not a sampler|is a class: give a sampler, such as DDIM\(\)"
    ):
        walk(thing)


def test_an_abstract_method_that_is_missing_is_named():
    class NoStep(Sampler[None]):
        def init(self, model, x):
            return None

    with pytest.raises(TypeError, match="step"):
        NoStep()  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("sampler", "text"),
    [
        (sf.samplers.DDIM(0.5), "DDIM(eta=0.5)"),
        (sf.samplers.Ancestral("upper"), "Ancestral(variance='upper')"),
        (sf.samplers.Ancestral("lower", last="sample"), "Ancestral(variance='lower', last='sample')"),
        (sf.samplers.Euler(), "Euler()"),
        (sf.samplers.DDIM(clip_x0=(-1, 1)), "DDIM(eta=0.0, clip_x0=(-1.0, 1.0))"),
        (sf.samplers.Heun(), "Heun()"),
        (sf.samplers.Heun(largest_ratio=20.0), "Heun(largest_ratio=20.0)"),
        (
            sf.samplers.Heun(churn=2.0),
            "Heun(churn=2.0, churn_min=0.0, churn_max=inf, churn_noise=1.0)",
        ),
        (sf.samplers.DPMSolver2M(), "DPMSolver2M(stochastic=False)"),
        (sf.samplers.DPMSolver2S(), "DPMSolver2S()"),
        (sf.samplers.DPMSolver3M(), "DPMSolver3M()"),
        (sf.samplers.UniPC(), "UniPC(order=2)"),
        (sf.samplers.Adaptive(), "Adaptive(rtol=0.0001, atol=0.0001)"),
        (sf.samplers.Langevin(0.5), "Langevin(step_size=0.5, metropolis=False, final_denoise=False)"),
        (
            sf.samplers.PredictorCorrector(sf.samplers.DDIM(), sf.samplers.Langevin(0.5)),
            "PredictorCorrector(predictor=DDIM(eta=0.0), langevin=Langevin(step_size=0.5, metropolis=False, "
            "final_denoise=False), repeats=1)",
        ),
        (sf.samplers.CategoricalAncestral(), "CategoricalAncestral()"),
        (sf.samplers.CategoricalDDIM(), "CategoricalDDIM(eta=0.0)"),
        (Derived(2), "Derived(order=2)"),
    ],
)
def test_the_text_that_identifies_stored_samples_stays(sampler, text):
    assert str(sampler) == text == str(as_sampler(sampler))
