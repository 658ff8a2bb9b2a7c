"""The variational bound as a loss: every cell of golden B03 and B12, its gradients, its reweighting and its
refusals.
"""

import math

import pytest
import torch
from support import MEANS, VARIANCES, Golden, assert_close, schedule

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.objectives.times import ImportanceTimes
from scorefield.objectives.vlb import Bound, bound_terms

TOLERANCE = {"eps": 1e-9, "x0": 1e-9, "mean": 1e-8}  # "mean" divides by c_0, down to 1e-3


class Given:
    """A tape for the times: t, each with importance 1."""

    def __init__(self, t):
        self.t = t

    def draw(self, process, batch, noise):
        return self.t, torch.ones(batch, dtype=torch.float64)


class Stub(torch.nn.Module):
    """The golden cases' network, with parameters; `scale` turns the index back into the timestep it was
    trained with.
    """

    def __init__(self, golden, group):
        super().__init__()
        self.W = torch.nn.Parameter(golden[f"param.{group}.W"].double())
        self.b = torch.nn.Parameter(golden[f"param.{group}.b"].double())

    def forward(self, x, c, y=None):
        shift = 0.1 * torch.sin(c.double() / 50)
        return torch.tanh(
            torch.nn.functional.conv2d(x, self.W, self.b, padding=1) + shift.reshape(-1, 1, 1, 1)
        )


def golden_model(golden, mean, variance, **options):
    head, choice = VARIANCES[variance]
    data = sf.DataSpec((3, 4, 5), bins=256)
    net = Stub(golden, "learned" if head else "fixed")
    return sf.Denoiser(
        net, schedule(golden.config["schedule"]), MEANS[mean], head, data=data, **options
    ), choice


def objective_of(model, choice, loss, t):
    """The published loss types in this library's units."""
    T, times = model.process.T, Given(t)
    if "KL" in loss:
        return sf.objectives.VLB(model, choice, times=times, cdf="tanh")
    if choice != "learned":
        return sf.objectives.Simple(model, "network", times)
    return sf.objectives.Hybrid(model, 1 / T if loss == "MSE" else 0.001, "network", times, cdf="tanh")


@pytest.mark.parametrize("loss", ["MSE", "RESCALED_MSE", "KL", "RESCALED_KL"])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("mean", MEANS)
def test_golden_training_losses(mean, variance, loss):
    golden = Golden("B03_training_losses")
    model, choice = golden_model(golden, mean, variance)
    objective = objective_of(model, choice, loss, golden["in.t"] + 1)
    result = objective(golden["in.x_start"].double(), None, Recorded([golden["in.noise"].double()]))
    name, tolerance, T = f"out64.{mean}.{variance}.{loss}", TOLERANCE[MEANS[mean]], model.process.T
    published = (
        result.per_example / T if loss == "KL" else result.per_example
    )  # KL is one term as it is, RESCALED_KL T of them
    assert_close(published, golden[f"{name}.loss"], tolerance, "loss")
    if "MSE" in loss:
        assert_close(result.parts["mse"], golden[f"{name}.mse"], tolerance, "mse")
    if f"{name}.vb" in golden.tensors:
        assert_close(
            result.parts["vlb"] * (1 / T if loss == "MSE" else 0.001), golden[f"{name}.vb"], tolerance, "vb"
        )
    if f"{name}.grad_W" in golden.tensors:
        published.mean().backward()
        for key, parameter in (("W", model.net.W), ("b", model.net.b)):
            assert_close(parameter.grad, golden[f"{name}.grad_{key}"], tolerance, f"d/d{key}")
    assert torch.equal(result.unweighted, result.per_example.detach())


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_every_golden_cell_is_covered(mean, variance):
    names = {
        n.split(".", 1)[1].rsplit(".", 1)[0]
        for n in Golden("B03_training_losses").names(f"out64.{mean}.{variance}.")
    }
    assert names == {f"{mean}.{variance}.{loss}" for loss in ("MSE", "RESCALED_MSE", "KL", "RESCALED_KL")}


def test_golden_rescaled_timesteps():
    """B12: the model sees t·1000/T; RESCALED_MSE on all 4,000 levels, and one term of the bound on 100 of
    them.
    """
    golden = Golden("B12_rescale_timesteps")
    model, _ = golden_model(golden, "EPSILON", "LEARNED_RANGE", noise_input="scaled")
    x0, eps = golden["in.x_start"].double(), golden["in.noise"].double()
    objective = sf.objectives.Hybrid(model, 0.001, times=Given(golden["in.t_full"] + 1), cdf="tanh")
    loss = objective(x0, None, Recorded([eps]))
    assert_close(loss.per_example, golden["out64.full.loss.loss"], 1e-9)
    assert_close(loss.parts["mse"], golden["out64.full.loss.mse"], 1e-9)
    assert_close(loss.parts["vlb"] * 0.001, golden["out64.full.loss.vb"], 1e-9)

    grid = torch.cat([torch.zeros(1, dtype=torch.int64), torch.tensor(golden.config["kept_timesteps"]) + 1])
    assert torch.equal(grid.flip(0), sf.grids.sections(model.process, 100))
    index = golden["in.t_index"]
    t, s, u = grid[index + 1], grid[index], grid[index + 2]
    pred = model(model.process.sample(x0, t, eps), t)
    nats = bound_terms(
        pred, x0, model.process.level(s), Bound("learned", cdf="tanh"), model.data, model.process.level(u)
    )
    # RESCALED_MSE multiplies by (number of kept steps)/1000.
    assert_close(nats / (60 * math.log(2)) * 0.1, golden["out64.respaced.loss.vb"], 1e-9)


def small_model(parametrization="eps", variance="range", T=20, seed=0, bins=17):
    torch.manual_seed(seed)
    net = torch.nn.Conv2d(1, 1 if variance is None else 2, 3, padding=1).double()
    process = sf.process.from_betas(sf.process.cosine_betas(T))
    data = sf.DataSpec((1, 4, 4), bins=bins)
    return sf.Denoiser(lambda x, c, y=None: net(x), process, parametrization, variance, data=data), net


def levels(batch, seed=0):
    data = sf.DataSpec((1, 4, 4), bins=17)
    return data.from_bins(
        torch.randint(0, 17, (batch, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
    ).double()


@pytest.mark.parametrize("variance", ["lower", "upper", "learned"])
@pytest.mark.parametrize("decoder", ["discretized", "density"])
def test_mixed_batches_equal_their_rows(variance, decoder):
    """A batch that holds both the decoder's step and KL steps, on any grid, equals each example alone."""
    model, _ = small_model()
    x0, process, bound = levels(4), model.process, Bound(variance, decoder)
    t, s, u = torch.tensor([1, 7, 3, 20]), torch.tensor([0, 2, 0, 19]), torch.tensor([2, 12, 9, 20])
    x_t = process.sample(x0, t, torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)).double())
    together = bound_terms(model(x_t, t), x0, process.level(s), bound, model.data, process.level(u))
    for b in range(4):
        above = process.level(int(u[b])) if u[b] > t[b] else None
        alone = bound_terms(
            model(x_t[b : b + 1], int(t[b])),
            x0[b : b + 1],
            process.level(int(s[b])),
            bound,
            model.data,
            above,
        )
        assert together[b].item() == pytest.approx(alone.item(), rel=1e-12)


@pytest.mark.parametrize("times", ["uniform", "importance"])
def test_the_loss_estimates_the_sum_of_all_terms(times):
    """E over t of the reweighted loss is Σ_t L_t in bits a dimension, whatever the distribution of t."""
    # [Improved DDPM Eq. 4, §3.3]
    model, _ = small_model()
    T, x0, eps = 20, levels(1), NoiseSource(5).normal((1, 1, 4, 4)).double()
    objective = sf.objectives.VLB(model, times=times)
    drawn = objective.times
    assert isinstance(drawn, ImportanceTimes) == (times == "importance")
    if isinstance(drawn, ImportanceTimes):
        drawn.update(
            torch.arange(1, T + 1).repeat(10), torch.rand(10 * T, generator=torch.Generator().manual_seed(0))
        )
        assert drawn.warm
    p = (
        drawn.probabilities()
        if isinstance(drawn, ImportanceTimes)
        else torch.full((T,), 1 / T, dtype=torch.float64)
    )
    expected, mean = 0.0, 0.0
    for t in range(1, T + 1):
        process = model.process
        above = process.level(t + 1) if t < T else None
        pred = model(process.sample(x0, t, eps), t)
        nats = bound_terms(pred, x0, process.level(t - 1), objective.bound, model.data, above)
        expected += nats.item() / (16 * math.log(2))
        u = p.cumsum(0)[t - 1] - p[t - 1] / 2  # the middle of t's interval
        loss = objective(x0, None, Recorded([u.reshape(1, 1), eps]))
        assert loss.t.tolist() == [t]
        assert loss.unweighted.item() == pytest.approx(T * nats.item() / (16 * math.log(2)), rel=1e-9)
        mean += p[t - 1].item() * loss.per_example.item()
    assert mean == pytest.approx(expected, rel=1e-6)


def test_hybrid_sends_the_bound_into_the_variance_alone():
    # [Improved DDPM Eq. 16, §3.4]
    model, net = small_model()
    x0, tape = levels(8), [NoiseSource(2).normal((8, 1, 4, 4))]
    grads = {}
    for scale in (0.0, 1.0):
        objective = sf.objectives.Hybrid(model, scale, times=Given(torch.tensor([1, 2, 3, 5, 8, 13, 19, 20])))
        grads[scale] = torch.autograd.grad(
            objective(x0, None, Recorded(tape)).per_example.mean(), net.weight
        )[0]
    assert torch.allclose(grads[0.0][0], grads[1.0][0], atol=1e-14)  # output 0 is the mean
    assert (grads[0.0][1] == 0).all()
    assert (grads[1.0][1] != 0).any()


@pytest.mark.parametrize("parametrization", ["eps", "x0", "v", "score", "mean", "edm"])
def test_float32_training_step_is_finite_and_near_float64(parametrization):
    values = {}
    for dtype in (torch.float32, torch.float64):
        model, net = small_model(parametrization)
        net.to(dtype)
        objective = sf.objectives.VLB(model, times=Given(torch.arange(1, 21)))
        loss = objective(levels(20).to(dtype), None, NoiseSource(1)).per_example
        loss.mean().backward()
        assert torch.isfinite(net.weight.grad).all()
        values[dtype] = (loss.detach(), net.weight.grad)
    for a, b in zip(values[torch.float32], values[torch.float64], strict=True):
        assert_close(a, b, 1e-3 if parametrization == "mean" else 1e-4)


def test_specs_rebuild_the_objectives():
    model, _ = small_model()
    assert sf.objectives.VLB(model).config == {
        "kind": "vlb",
        "variance": "learned",
        "decoder": "discretized",
        "cdf": "exact",
    }
    hybrid = sf.objectives.Hybrid(model, times={"kind": "importance", "history": 3})
    times = {"kind": "importance", "history": 3, "uniform_prob": 0.0}
    expected = {
        "vlb_scale": 0.001,
        "weighting": "eps",
        "decoder": "discretized",
        "cdf": "exact",
        "times": times,
    }
    assert hybrid.config == {"kind": "hybrid", **expected}
    options = {k: v for k, v in hybrid.config.items() if k != "kind"}
    assert sf.objectives.Hybrid(model, **options).config == hybrid.config
    assert sf.objectives.Simple(model, times="importance").config["times"]["history"] == 10
    fixed, _ = small_model(variance=None)
    assert sf.objectives.VLB(fixed).bound.variance == "upper"


def test_refusals():
    fixed, _ = small_model(variance=None)
    for make in (lambda: sf.objectives.Hybrid(fixed), lambda: sf.objectives.VLB(fixed, "learned")):
        with pytest.raises(sf.IncompatibleModel, match="variance head"):
            make()
    learned, _ = small_model()
    with pytest.raises(sf.InputError, match="vlb_scale"):
        sf.objectives.Hybrid(learned, -1.0)
    with pytest.raises(sf.InputError, match="discretized, density"):
        sf.objectives.VLB(learned, decoder="gaussian")
    with pytest.raises(sf.InputError, match="min-snr"):
        sf.objectives.Hybrid(learned, weighting="mse")
    continuous = sf.Denoiser(lambda x, c, y=None: x, sf.process.vp(), noise_input="scaled")
    with pytest.raises(sf.IncompatibleModel, match="variational bound"):
        sf.objectives.VLB(continuous)
    unknown = sf.Denoiser(learned.net, learned.process, variance="range")
    with pytest.raises(sf.InputError, match="bins=256"):
        sf.objectives.VLB(unknown, times=Given(torch.tensor([1])))(levels(1), None, NoiseSource(0))
    with pytest.raises(sf.InputError, match="17 bins"):
        sf.objectives.VLB(learned, times=Given(torch.tensor([1])))(levels(1) + 0.01, None, NoiseSource(0))


@pytest.mark.parametrize("said", [-1.0, 0.3, 1.0])
def test_the_density_decoder_of_a_learned_variance_has_the_level_above(said):
    """−ln N(x_0; x̂_0, Σ), ln Σ from ln ν to ln σ²_{t|0}, ν = σ²_{u|t} σ_t²/σ_u² of the grid's next level u."""
    process = sf.process.linear(10, 1e-2, 0.4)

    def net(x, c, y=None):
        return torch.cat([x.sin(), torch.full_like(x, said)], dim=1)

    model = sf.Denoiser(net, process, "x0", variance="range")
    x0, eps = (NoiseSource(k).normal((3, 2)).double() for k in (0, 1))
    t, u = 1, 4
    pred = model(process.sample(x0, t, eps), t)
    (a_t, s_t), (a_u, s_u) = process.level(t), process.level(u)
    widest = s_t**2
    least = (s_u**2 - (a_u / a_t * s_t) ** 2) * s_t**2 / s_u**2
    var = widest ** ((1 + said) / 2) * least ** ((1 - said) / 2)
    nats = ((x0 - pred.x0) ** 2 / var + var.log() + math.log(2 * math.pi)).sum(dim=1) / 2
    found = bound_terms(pred, x0, process.level(0), Bound("learned", "density"), None, process.level(u))
    assert torch.allclose(found, nats, rtol=1e-9)
