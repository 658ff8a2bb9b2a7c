"""What a model is called with: dtypes, scalars, labels by number and name, arrays of the right length."""

from typing import Any

import numpy as np
import pytest
import torch

import scorefield as sf

PROCESS = sf.process.linear(20, 0.01, 0.6)
SPEC = sf.DataSpec((2,), classes=("cat", "dog", "owl"))
X = torch.linspace(-1, 1, 8).reshape(4, 2)
Y = torch.tensor([0, 1, 2, 0])


def conditional():
    torch.manual_seed(0)
    return sf.Denoiser(
        sf.nets.MLP(2, hidden=8, layers=1, num_classes=3, null_label=True), PROCESS, data=SPEC
    ).eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_network_receives_x_in_its_own_dtype(dtype):
    model = conditional()
    pred = model(X.to(dtype), 5, Y)
    assert pred.x0.dtype == dtype
    torch.testing.assert_close(
        pred.x0.float(), model(X, 5, Y).x0, rtol=0, atol=1e-5 if dtype == torch.float64 else 0.1
    )
    score = sf.ScoreModel(sf.nets.MLP(2, hidden=8, layers=1, noise_levels=False)).eval()
    assert score.score(X.to(dtype)).dtype == dtype
    classifier = sf.NoisyClassifier(sf.nets.MLP(2, hidden=8, layers=1, out_dim=3), PROCESS).eval()
    assert classifier(X.to(dtype), 5).shape == (4, 3)
    assert sf.objectives.Simple(model)(X.to(dtype), Y, sf.noise.NoiseSource(0)).per_example.isfinite().all()


def test_another_device_than_the_models_is_said():
    """The meta device, whose tensors do not meet the CPU's either, stands for it."""
    model = conditional()
    said = "x is on the device meta, and the model is on cpu: move one of them"
    for use in (
        lambda: model(X.to("meta"), 5, Y.to("meta")),
        lambda: sf.objectives.Simple(model)(X.to("meta"), Y.to("meta"), sf.noise.NoiseSource(0)),
        lambda: sf.ScoreModel(sf.nets.MLP(2, noise_levels=False)).score(X.to("meta")),
        lambda: sf.NoisyClassifier(sf.nets.MLP(2, out_dim=3), PROCESS)(X.to("meta"), 5),
    ):
        with pytest.raises(sf.InputError, match=said):
            use()
    with pytest.raises(sf.InputError, match="labels y are on the device meta, and the examples on cpu"):
        model(X, 5, Y.to("meta"))


def test_other_failures_of_a_network_stay_what_they_are():
    def broken(x, c, y=None):
        raise RuntimeError("its own words")

    with pytest.raises(RuntimeError, match="its own words"):
        sf.Denoiser(broken, PROCESS)(X, 5)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (X.numpy(), "must be a tensor .* convert it by torch.from_numpy"),
        (X.long(), r"must hold floating-point numbers, got torch.int64"),
        (X.to(torch.complex64), "must hold floating-point numbers"),
        (X[:0], r"at least one example, \(B, \*\); got shape \(0, 2\)"),
        (torch.tensor(1.0), "at least one example"),
        (None, "must be a tensor"),
    ],
)
def test_other_batches_are_refused_in_words(x, said):
    model = conditional()
    for use in (
        lambda: model(x, 5, Y),
        lambda: model.score(x, 5),
        lambda: sf.objectives.Simple(model)(x, None if x is None else Y[: len(X)], sf.noise.NoiseSource(0)),
        lambda: sf.trajectory(model.given(0), sf.samplers.DDIM(), [20, 0], x),
        lambda: sf.ScoreModel(sf.nets.MLP(2, noise_levels=False)).score(x),
        lambda: PROCESS.sample(x, 5, X),
    ):
        with pytest.raises(sf.InputError, match=said):
            use()


def test_scalar_examples():
    torch.manual_seed(0)
    x = X[:, 0]
    model = sf.Denoiser(sf.nets.MLP(1, hidden=8, layers=1), PROCESS).eval()
    column = model(x[:, None], 5).x0[:, 0]
    assert torch.equal(model(x, 5).x0, column)
    assert sf.objectives.Simple(model)(x, None, sf.noise.NoiseSource(0)).per_example.shape == (4,)
    for wrap in (lambda m: m, sf.guidance.ClipX0, sf.guidance.DynamicThreshold):
        for sampler in (sf.samplers.DDIM(), sf.samplers.Ancestral(), sf.samplers.Langevin(1e-3)):
            assert sf.sample(wrap(model), sampler, [20, 10, 0], x_T=x).shape == (4,)
    learned = sf.Denoiser(sf.nets.MLP(1, out_dim=2), PROCESS, variance="range")
    with pytest.raises(sf.InputError, match=r"give scalars as \(B, 1\)"):
        learned(x, 5)
    with pytest.raises(sf.InputError, match=r"as \(B, 1\)"):
        sf.CategoricalDenoiser(sf.nets.MLP(3), sf.process.uniform_categories(3))(Y, 5)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (torch.tensor([0, 1, 3, 4]), "labels y must lie in 0 … 3, got values from 0 to 4"),
        (torch.tensor([0, -1, 0, 0]), "got values from -1 to 0"),
        (Y[:3], r"one an example, \(4,\); got torch.int64 of shape \(3,\)"),
        (Y.float(), "tensor of integers"),
        (Y > 0, "tensor of integers"),
        ([0, 1, 2, 0], "tensor of integers"),
    ],
)
def test_labels_that_do_not_fit(y, said):
    model = conditional()
    for use in (
        lambda: model(X, 5, y),
        lambda: sf.objectives.Simple(model)(X, y, sf.noise.NoiseSource(0)),
        lambda: sf.objectives.Hybrid(
            sf.Denoiser(sf.nets.MLP(2, out_dim=4, num_classes=3, null_label=True), PROCESS, variance="range"),
            decoder="density",
        )(X, y, sf.noise.NoiseSource(0)),
    ):
        with pytest.raises(sf.InputError, match=said):
            use()


def test_labels_of_a_classifier_that_do_not_fit():
    objective = sf.objectives.Classify(sf.NoisyClassifier(sf.nets.MLP(2, out_dim=3), PROCESS))
    with pytest.raises(sf.InputError, match=r"labels y must lie in 0 … 2, got values from 0 to 3"):
        objective(X, torch.tensor([0, 1, 2, 3]), sf.noise.NoiseSource(0))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_other_integers(dtype):
    model = conditional()
    assert torch.equal(model(X, 5, Y.to(dtype)).x0, model(X, 5, Y).x0)


def test_classes_by_name():
    model = conditional()
    right = model.given([0, 2, 1, 0])(X, 5).x0
    for names in (["cat", "owl", "dog", "cat"], ["cat", 2, "dog", 0], np.array(["cat", "owl", "dog", "cat"])):
        assert torch.equal(model.given(names)(X, 5).x0, right)
    assert torch.equal(model.given("owl")(X, 5).x0, model.given(2)(X, 5).x0)
    assert torch.equal(
        sf.guidance.ClassifierFree(model, "dog", 2.0)(X, 5).x0,
        sf.guidance.ClassifierFree(model, 1, 2.0)(X, 5).x0,
    )
    with pytest.raises(sf.InputError, match=r"no class 'dogs', did you mean 'dog'.*there are cat, dog, owl"):
        model.given(["cat", "dogs"])
    nameless = sf.Denoiser(sf.nets.MLP(2, num_classes=3), PROCESS)
    with pytest.raises(
        sf.InputError, match="the class 'cat' is given by name, and this model has no class names"
    ):
        nameless.given("cat")


def test_arrays_of_another_length_are_refused():
    model = sf.Denoiser(lambda x, c, y=None, mask=None: x * mask, PROCESS)
    assert model(X, 5, mask=torch.ones(4, 1)).x0.shape == (4, 2)
    for use in (
        lambda: model(X, 5, mask=torch.ones(3, 1)),
        lambda: sf.objectives.Simple(model)(X, None, sf.noise.NoiseSource(0), mask=torch.ones(3, 1)),
    ):
        with pytest.raises(sf.InputError, match=r"mask .*3"):
            use()
    with pytest.raises(sf.InputError, match=r"takes no array 'msk'.*did you mean 'mask'"):
        model(X, 5, msk=torch.ones(4, 1))


def test_a_model_of_ones_own_without_a_score_has_that_of_its_prediction():
    exact = sf.oracle.GaussianMixture([[-1.0, 0.5]], torch.eye(2)[None]).denoiser(PROCESS)

    class Own:
        process = PROCESS

        def __call__(self, x_t, t):
            return exact(x_t, t)

    own: Any = Own()
    for sampler in (sf.samplers.DDIM(), sf.samplers.Langevin(1e-3)):
        found, right = (
            sf.sample(model, sampler, [20, 10, 0], noise=sf.noise.NoiseSource(0), x_T=X)
            for model in (own, exact)
        )
        assert torch.equal(found, right)
    assert torch.allclose(sf.guidance.ClipX0(own, -9, 9).score(X, 5), exact.score(X, 5), atol=1e-5)


def test_what_lacks_a_part_of_a_model_is_told_which():
    class NotCalled:
        process = PROCESS

        def score(self, x, t=None):
            return -x

    class Worded(NotCalled):
        process = "cosine"  # type: ignore[assignment]

        def __call__(self, x_t, t):
            return x_t

    wrong: list[tuple[Any, str]] = [
        (NotCalled(), r"NotCalled is not called \(x_t, t\)"),
        (Worded(), "Worded has the process 'cosine'"),
        (NotCalled, "NotCalled is a class: give a model"),
        (3, "and 3 has none"),
    ]
    for model, said in wrong:
        with pytest.raises(sf.IncompatibleModel, match=said):
            sf.sample(model, sf.samplers.DDIM(), [20, 0], x_T=X)


@pytest.mark.parametrize("objective", [sf.objectives.Simple, sf.objectives.VLB, sf.objectives.CategoricalVLB])
@pytest.mark.parametrize("model", [3, None, "net", lambda x, c: x, sf.Denoiser])
def test_objectives_of_what_is_no_model(objective, model):
    with pytest.raises(sf.IncompatibleModel, match=f"{objective.__name__} trains a .*; got"):
        objective(model)
