"""What may be asked of a model: the library's own answer in types, one's own by `as_model`, and a misspelt member
is reported.
"""

import pytest
import torch

import scorefield as sf
from scorefield.models.base import GaussianModel
from scorefield.models.foreign import as_classifier, as_gaussian, as_model

PROCESS = sf.process.from_betas(sf.process.linear_betas(100, 1e-3, 0.2))
MIXTURE = sf.oracle.GaussianMixture([[-1.0, 0.5], [1.5, 1.0]], 0.1 * torch.eye(2).expand(2, 2, 2))


class Own:
    """A model of one's own: three members, and nothing of the library."""

    def __init__(self, process=PROCESS):
        self.process, self.exact = process, MIXTURE.denoiser(process)

    def __call__(self, x_t, t):
        return self.exact(x_t, t)

    def score(self, x, t=None):
        return self.exact.score(x, t)


def test_a_model_of_ones_own_samples_as_the_librarys():
    grid, x = sf.grids.uniform(PROCESS, 10), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    for sampler in (sf.samplers.DDIM(), sf.samplers.Ancestral(), sf.samplers.Langevin(1e-3)):
        walk = grid if not isinstance(sampler, sf.samplers.Langevin) else [10, 5, 1, 0]
        for wrap in (lambda model: model, sf.guidance.ClipX0):
            own, exact = (
                sf.sample(wrap(model), sampler, walk, noise=sf.noise.NoiseSource(1, range(5)), x_T=x)
                for model in (Own(), MIXTURE.denoiser(PROCESS))
            )
            assert torch.equal(own, exact)
    own = sf.likelihood.bits_per_dim(Own(), x.double(), sf.noise.NoiseSource(0), decoder="density")  # type: ignore[assignment]
    exact = sf.likelihood.bits_per_dim(  # type: ignore[assignment]
        MIXTURE.denoiser(PROCESS), x.double(), sf.noise.NoiseSource(0), decoder="density"
    )
    assert torch.equal(own.total, exact.total)  # type: ignore[attr-defined]


def test_what_a_model_of_ones_own_does_not_say_has_a_default():
    model = as_model(Own())
    assert isinstance(model, GaussianModel)
    assert (model.data, model.num_classes, model.null_label, model.autocast_dtype) == (None, 0, None, None)
    assert (model.guided, model.grad_at, model.clips, model.variance) == (False, None, False, None)
    assert (model.device, model.is_compiled, model.kind) == (torch.device("cpu"), False, "Own")
    with pytest.raises(sf.InputError, match="shape of an example is not known"):
        sf.sample(Own(), sf.samplers.DDIM(), [50, 0], 2)
    with pytest.raises(sf.IncompatibleModel, match="takes no labels"):
        model.given(3)


def test_what_a_model_of_ones_own_says_is_used():
    class Told(Own):
        data, variance, num_classes = sf.DataSpec((2,)), "range", 3

    assert sf.sample(Told(), sf.samplers.DDIM(), [50, 0], 4).shape == (4, 2)
    assert sf.guidance.ClipX0(Told()).variance == "range"
    assert as_model(Told()).num_classes == 3


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("num_clases", "num_classes"),
        ("grad_att", "grad_at"),
        ("variances_", "variance"),
        ("log_probb", "log_prob"),
    ],
)
def test_a_misspelt_member_is_reported(wrong, right):
    for model in (type("Wrong", (Own,), {wrong: 1})(), Own()):
        setattr(model, wrong, 1)
        for use in (
            lambda model: sf.guidance.ClipX0(model),
            lambda model: sf.sample(model, sf.samplers.DDIM(), [50, 0], x_T=torch.zeros(1, 2)),
        ):
            with pytest.raises(
                sf.IncompatibleModel, match=f"has an unknown member '{wrong}'.*did you mean '{right}'"
            ):
                use(model)


def test_other_names_are_not_taken_for_misspelt_ones():
    own = Own()
    own.models, own.guide, own.devices, own.variances, own.dates = [], None, [], [], None  # type: ignore[attr-defined]
    assert isinstance(as_model(own), GaussianModel)


def test_what_is_no_model_is_refused():
    for thing in (object(), 3, lambda x, t: x):
        with pytest.raises(sf.IncompatibleModel, match="a method score"):
            as_model(thing)
    with pytest.raises(sf.IncompatibleModel, match="needs a model with noise levels"):
        as_gaussian(MIXTURE, "DDIM")


def test_classifiers_of_ones_own():
    exact = MIXTURE.classifier(PROCESS)
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = MIXTURE.denoiser(PROCESS)
    own = sf.guidance.ClassifierGuidance(model, lambda x, t: exact(x, t), 1)
    assert torch.equal(
        own.log_p_grad(x, 20), sf.guidance.ClassifierGuidance(model, exact, 1).log_p_grad(x, 20)
    )
    assert as_classifier(exact).num_classes == 2

    class Wrong:
        num_clases = 2

        def __call__(self, x, t):
            return exact(x, t)

    with pytest.raises(sf.IncompatibleModel, match="did you mean 'num_classes'"):
        sf.guidance.ClassifierGuidance(model, Wrong(), 1)
