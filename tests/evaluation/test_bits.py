"""Likelihoods of a data set: exact on Gaussian data, the parts' own figures whatever the batches, refused
where they mean nothing.
"""

import math
from contextlib import nullcontext

import pytest
import torch

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.data import Dataset
from scorefield.evaluation.bits import BoundPlan, Examples, bound_figures, flow_figures
from scorefield.runtime.progress import SILENT

MIXTURE = sf.oracle.GaussianMixture(
    [[0.3, -0.2], [-0.5, 0.4]], [[[0.2, 0.05], [0.05, 0.1]], [[0.1, 0.0], [0.0, 0.3]]], [0.3, 0.7]
)
PROCESS = sf.process.from_betas(sf.process.linear_betas(30, 0.01, 0.4))
STAMP = {"weights": {"step": 7}}
LN2 = math.log(2)


def points(n=100, seed=0):
    return sf.data.tensor(MIXTURE.sample(n, NoiseSource(seed)).float())


def levels(n=40, classes=(), bins=17):
    """Random 3×2 data on 17 levels, with labels where there are classes."""
    draw = torch.Generator().manual_seed(0)
    spec = sf.DataSpec((3, 2), classes=classes, bins=bins)
    labels = torch.randint(0, len(classes), (n,), generator=draw) if classes else None
    return Dataset(
        spec, torch.randint(0, bins, (n, 3, 2), generator=draw, dtype=torch.uint8), labels, "random"
    )


class Net(torch.nn.Module):
    """Something smooth of x, c and y, in float32 parameters."""

    def __init__(self, classes=0, heads=1):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.heads = torch.nn.Linear(6, 6 * heads), heads
        self.shift = torch.nn.Embedding(max(classes, 1), 6)
        self.config = {"num_classes": classes}

    def forward(self, x, c, y=None):
        given = x.flatten(1) + 0.1 * torch.sin(c / 7)[:, None] + (0 if y is None else self.shift(y))
        return torch.tanh(self.layer(given)).reshape(x.shape[0], 3 * self.heads, 2)


def model_of(data, variance=None, **options):
    net = Net(data.spec.num_classes, 1 if variance is None else 2)
    return sf.Denoiser(net, PROCESS, data=data.spec, variance=variance, **options).eval()


def examples(model, data, n=None, seed=5):
    return Examples(model, data, torch.arange(len(data) if n is None else n), "heldout", seed)


def by_name(figures):
    return {figure.name: figure for figure in figures}


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("clip", [False, True], ids=["as it is", "clipped"])
def test_the_bound_is_the_mean_of_the_examples_bounds(classes, clip):
    """In batches of 7 what the whole data set gives at once, under the examples' own labels and noise."""
    data = levels(classes=classes)
    model = model_of(data)
    found = by_name(
        bound_figures(examples(model, data), BoundPlan(clip=clip), STAMP, SILENT, batch_values=7 * 6)
    )
    x0, y = data.batch(torch.arange(40))
    given = model if y is None else model.given(y)
    whole = sf.likelihood.bits_per_dim(
        sf.guidance.ClipX0(given) if clip else given, x0, NoiseSource(5, range(40))
    )
    for name, values in {
        "bpd": whole.total,
        "bpd_prior": whole.prior,
        "bpd_decoder": whole.terms[:, 0],
        "bpd_others": whole.terms[:, 1:].sum(dim=1),
    }.items():
        assert found[name].value == pytest.approx(float(values.mean()), rel=1e-5)
        assert found[name].error == pytest.approx(float(values.std() / 40**0.5), rel=1e-4)
        assert found[name].unit == "bits/dim"
    parts = found["bpd"].parts
    assert parts["times"] == list(range(1, 31))
    assert parts["terms"] == pytest.approx(whole.terms.mean(dim=0).tolist(), rel=1e-5)
    assert sum(parts["terms"]) + found["bpd_prior"].value == pytest.approx(found["bpd"].value)


def test_clipping_matters_here():
    data = levels()
    model = model_of(data)
    values = [
        bound_figures(examples(model, data), BoundPlan(clip=clip), STAMP, SILENT)[0].value
        for clip in (False, True)
    ]
    assert values[1] < values[0] - 0.1


def test_the_stamp_says_how():
    data = levels()
    stamps = [
        bound_figures(examples(model_of(data, head), data, 9), plan, STAMP, SILENT)[0].stamp
        for head, plan in (
            (None, BoundPlan(steps=10)),
            ("range", BoundPlan(terms=4, clip=True)),
            ("range", BoundPlan(variance="lower")),
        )
    ]
    said = [[stamp["bound"][name] for name in ("levels", "variance", "clip", "terms")] for stamp in stamps]
    assert said == [
        ["10 of 30", "upper", False, "all"],
        ["30 of 30", "learned", True, "4 drawn for each example"],
        ["30 of 30", "lower", False, "all"],
    ]
    assert all(stamp["weights"] == {"step": 7} for stamp in stamps)
    assert (
        stamps[0]["bound"] | {"examples": 9, "split": "heldout", "bins": 17, "seed": 5, "precision": "fp32"}
        == stamps[0]["bound"]
    )


def test_an_estimate_agrees_within_its_error():
    data = levels(400)
    model = model_of(data)
    whole = bound_figures(examples(model, data), BoundPlan(), STAMP, SILENT)[0]
    found = by_name(bound_figures(examples(model, data), BoundPlan(terms=6), STAMP, SILENT))
    assert set(found) == {"bpd", "bpd_prior"}
    assert found["bpd"].error > whole.error
    assert abs(found["bpd"].value - whole.value) < 4 * found["bpd"].error
    assert "terms" not in found["bpd"].parts


@pytest.mark.parametrize("process", [PROCESS, sf.process.vp()], ids=["discrete", "continuous"])
def test_continuous_data_are_measured_in_nats(process):
    """The exact model's bound lies above the entropy, and its flow's figure is −ln p_{t_min}, both in nats a
    point.
    """
    data = points()
    model = MIXTURE.denoiser(process)
    x0 = data.values
    found = by_name(bound_figures(examples(model, data), BoundPlan(steps=20), STAMP, SILENT))
    one = sf.likelihood.bits_per_dim(
        model, x0, NoiseSource(5, range(100)), sf.grids.uniform(process, 20), decoder="density"
    )
    assert found["bpd"].value == pytest.approx(float(one.total.mean()) * 2 * LN2, rel=1e-5)
    assert found["bpd"].unit == "nats"
    exact = -MIXTURE.log_prob(x0)
    assert found["bpd"].value > exact.mean() - 4 * exact.std() / 100**0.5
    flow = by_name(flow_figures(examples(model, data), STAMP, SILENT, tolerance=1e-4))
    between = (
        process if isinstance(process, sf.process.ContinuousProcess) else sf.process.Interpolated(process)
    )
    noisy = -MIXTURE.at(between.level(between.t_min)).log_prob(x0)
    assert abs(flow["ode"].value - noisy.mean()) < 1e-3 + flow["ode_prior_error"].value
    assert flow["ode"].error == pytest.approx(float(noisy.std() / 100**0.5), rel=0.02)
    assert flow["ode"].stamp["flow"]["trace"] == "exact"


def test_the_flow_is_the_mean_of_the_examples_bits():
    """Network calls and the default prior's error are reported; batches differ by no more than the solver's
    tolerance.
    """
    data = levels(14, ("a", "b"))
    model = model_of(data)
    done = []

    class Bar:
        def update(self, n, note="", total=None):
            done.append(n)

    class Watched(type(SILENT)):  # type: ignore[misc]
        def progress(self, what, total):
            assert total == 14
            return nullcontext(Bar())

    value, prior = flow_figures(examples(model, data), STAMP, Watched(), batch_values=7 * 6)
    x0, y = data.batch(torch.arange(14))
    whole = sf.likelihood.ode_bits_per_dim(model.given(y), x0, NoiseSource(5, range(14)), trace="exact")
    assert value.value == pytest.approx(float(whole.bits.mean()), abs=1e-3)
    assert value.error == pytest.approx(float(whole.bits.std() / 14**0.5), rel=1e-2)
    assert prior.value == pytest.approx(float(whole.prior_error.mean()), rel=1e-4)
    low, high = value.stamp["flow"]["calls"][0], value.stamp["flow"]["calls"][-1]
    assert 10 < low <= high < 1000
    assert done == sorted(done)
    assert done[-1] == 14


def test_networks_run_in_float32_and_keep_their_precision():
    data = levels()
    model = model_of(data)
    exact = bound_figures(examples(model, data), BoundPlan(), STAMP, SILENT)[0].value
    model.autocast_dtype = torch.bfloat16
    assert bound_figures(examples(model, data), BoundPlan(), STAMP, SILENT)[0].value == exact
    assert model.autocast_dtype == torch.bfloat16


def test_bad_input():
    data = levels()
    model = model_of(data)
    with pytest.raises(sf.IncompatibleModel, match="needs a model with a variance head"):
        BoundPlan(variance="learned").bound(examples(model, data))
    with pytest.raises(sf.InputError, match="has 5 levels and the model was trained on data of 17 levels"):
        examples(model, levels(bins=5))
    with pytest.raises(sf.InputError, match="has no levels and the model was trained on data of 17 levels"):
        examples(model, points())
    with pytest.raises(sf.InputError, match="there are no heldout examples"):
        examples(model, data, 0)
    with pytest.raises(sf.IncompatibleModel, match="need a model with noise levels"):
        examples(sf.ScoreModel(Net(), data.spec), data)
    with torch.no_grad():
        model.net.layer.bias.fill_(float("nan"))
    with pytest.raises(sf.InputError, match="40 of 40 results of bpd hold NaN"):
        bound_figures(examples(model, data), BoundPlan(), STAMP, SILENT)
