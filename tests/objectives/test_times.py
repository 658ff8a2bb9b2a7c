"""Which t: the distribution drawn, its importance weights, golden D01, and the state that processes share and
checkpoints keep.
"""

import math
from statistics import NormalDist

import pytest
import torch
from support import Golden, assert_close

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.objectives.times import ImportanceTimes, UniformTimes, as_times

PROCESS = sf.process.from_sigmas([1.0, 2.0, 3.0, 4.0])


def warm(T=4, history=3, **options):
    times = ImportanceTimes(T, history, **options)
    times.update(
        torch.arange(1, T + 1).repeat(history),
        torch.rand(T * history, generator=torch.Generator().manual_seed(0)),
    )
    return times


def test_golden_resampler():
    # [Improved DDPM Eq. 18]
    golden = Golden("D01_loss_second_moment_resampler")
    times = ImportanceTimes(8, history=10, uniform_prob=0.001)
    weights = golden["out.weights"]
    assert_close(times.probabilities(), weights[0] / weights[0].sum(), 1e-12)
    for u in range(30):
        times.update(golden["in.timesteps"][u] + 1, golden["in.losses"][u])
        p = times.probabilities()
        assert times.warm == bool(golden["out.warmed_up"][u])
        assert_close(p, weights[u + 1] / weights[u + 1].sum(), 1e-12)
        assert torch.equal(times.state_dict()["counts"], golden["out.counts"][u])
        importance = 1 / (8 * p[golden["in.sample_indices"][u]])
        assert_close(importance, golden["out.importance_weights"][u], 1e-6)
    assert_close(times.state_dict()["losses"], golden["out.loss_history"], 1e-15)


def test_draws_follow_the_distribution_and_stay_unbiased():
    times, values = warm(), torch.tensor([3.0, -1.0, 10.0, 0.5], dtype=torch.float64)
    t, importance = times.draw(PROCESS, 40_000, NoiseSource(1))
    p = times.probabilities()
    counts = torch.bincount(t, minlength=5)[1:] / 40_000
    assert (counts - p).abs().max() < 4 * (0.25 / 40_000) ** 0.5
    assert torch.equal(importance, 1 / (4 * p[t - 1]))
    estimate = importance * values[t - 1]
    assert abs(estimate.mean() - values.mean()) < 4 * estimate.std() / 200


def test_draw_inverts_the_distribution_function():
    times = warm()
    edges = times.probabilities().cumsum(0).float()
    u = torch.tensor([0.0, edges[0] - 1e-4, edges[0] + 1e-4, edges[2] - 1e-4, edges[2] + 1e-4, 1 - 1e-7])
    t, _ = times.draw(PROCESS, 6, Recorded([u[:, None]]))
    assert t.tolist() == [1, 1, 2, 3, 4, 4]


def test_never_draws_what_has_no_probability():
    times = ImportanceTimes(4, history=1)
    times.update(torch.arange(1, 5), torch.tensor([0.0, 2.0, 0.0, 0.0]))
    t, importance = times.draw(PROCESS, 3, Recorded([torch.tensor([[0.0], [0.5], [1.0]])]))
    assert t.tolist() == [2, 2, 2]
    assert importance.tolist() == [0.25] * 3


def test_cold_draws_are_the_uniform_ones():
    ours = ImportanceTimes(4).draw(PROCESS, 100, NoiseSource(2))
    for a, b in zip(ours, UniformTimes().draw(PROCESS, 100, NoiseSource(2)), strict=True):
        assert torch.equal(a, b)


def test_all_zero_losses_stay_uniform():
    times = ImportanceTimes(4, history=1)
    times.update(torch.arange(1, 5), torch.zeros(4))
    assert times.probabilities().tolist() == [0.25] * 4


def test_resumes_exactly():
    whole, first = ImportanceTimes(4, 3), ImportanceTimes(4, 3)
    g = torch.Generator().manual_seed(3)
    batches = [(torch.randint(1, 5, (8,), generator=g), torch.rand(8, generator=g)) for _ in range(12)]
    for t, losses in batches:
        whole.update(t, losses)
    for t, losses in batches[:5]:
        first.update(t, losses)
    saved = first.state_dict()
    first.update(*batches[5])  # what happens after saving does not reach the state
    resumed = ImportanceTimes(4, 3)
    resumed.load_state_dict(saved)
    for t, losses in batches[5:]:
        resumed.update(t, losses)
    assert whole.warm
    assert torch.equal(whole.probabilities(), resumed.probabilities())


def test_processes_that_share_their_losses_agree():
    """Two processes hold halves of each batch; both update with the gathered lists, in rank order."""
    one, ranks = ImportanceTimes(4, 3), [ImportanceTimes(4, 3), ImportanceTimes(4, 3)]
    g = torch.Generator().manual_seed(4)
    for _ in range(12):
        t, losses = torch.randint(1, 5, (8,), generator=g), torch.rand(8, generator=g)
        one.update(t, losses)
        shares = list(zip(t.chunk(2), losses.chunk(2), strict=True))
        for rank in ranks:
            rank.update(torch.cat([s[0] for s in shares]), torch.cat([s[1] for s in shares]))
    assert one.warm
    for rank in ranks:
        assert torch.equal(rank.probabilities(), one.probabilities())


def test_uniform_on_a_continuous_process():
    process = sf.process.vp(t_min=0.1)
    t, importance = UniformTimes().draw(process, 1000, NoiseSource(0))
    assert t.min() >= 0.1
    assert t.max() <= 1
    assert t.mean().item() == pytest.approx(0.55, abs=0.04)
    assert (importance == 1).all()


def test_names_and_tables():
    assert isinstance(as_times(None, PROCESS), UniformTimes)
    assert isinstance(as_times("uniform", PROCESS), UniformTimes)
    assert as_times("importance", PROCESS).config == {  # type: ignore[attr-defined]
        "kind": "importance",
        "history": 10,
        "uniform_prob": 0.0,
    }
    table = {"kind": "importance", "history": 4, "uniform_prob": 0.001}
    assert as_times(table, PROCESS).config == table  # type: ignore[attr-defined]
    with pytest.raises(sf.InputError, match="importance"):
        as_times("important", PROCESS)
    with pytest.raises(sf.InputError, match=r"times\.histroy"):
        as_times({"kind": "importance", "histroy": 4}, PROCESS)
    with pytest.raises(sf.InputError, match="draw"):
        as_times(3, PROCESS)  # type: ignore[arg-type]


def test_refusals():
    with pytest.raises(sf.InputError, match="history"):
        ImportanceTimes(4, 0)
    with pytest.raises(sf.InputError, match="uniform_prob"):
        ImportanceTimes(4, uniform_prob=1.5)
    times = ImportanceTimes(5)
    with pytest.raises(sf.InputError, match="T = 5"):
        times.draw(PROCESS, 2, NoiseSource(0))
    with pytest.raises(sf.IncompatibleModel, match="continuous"):
        times.draw(sf.process.vp(), 2, NoiseSource(0))
    for t, losses in (([0], [1.0]), ([6], [1.0]), ([1, 2], [1.0]), ([1], [float("nan")])):
        with pytest.raises(sf.InputError):
            times.update(torch.tensor(t), torch.tensor(losses))
    with pytest.raises(sf.InputError, match=r"expected \{'losses'"):
        times.load_state_dict(ImportanceTimes(4).state_dict())


class Every:
    """Each t once, as if drawn with these probabilities."""

    def __init__(self, p):
        self.p = p

    def draw(self, process, batch, noise):
        return torch.arange(1, len(self.p) + 1), 1 / (len(self.p) * self.p)


def points(x, c, y=None):
    return torch.cat([(3 * x).sin(), x.cos()], dim=1) + 0.1 * c[:, None]


def categories(x, c, y=None):
    return (2 * x).sin() + 0.1 * c[:, None]


LEVELS = sf.DataSpec((2,), bins=3)
WITH_HEAD = sf.Denoiser(points, sf.process.cosine(6), variance="range", data=LEVELS)
CATEGORICAL = sf.CategoricalDenoiser(
    categories, sf.process.uniform_categorical(sf.process.linear_kappas(6), 3), data=LEVELS
)
LOSSES = {
    "simple": lambda times: sf.objectives.Simple(WITH_HEAD, "x0", times),
    "hybrid": lambda times: sf.objectives.Hybrid(WITH_HEAD, 0.1, times=times),
    "vlb": lambda times: sf.objectives.VLB(WITH_HEAD, times=times),
    "ncsn": lambda times: sf.objectives.NCSN(WITH_HEAD, times),
    "ncsn, sliced": lambda times: sf.objectives.NCSN(WITH_HEAD, times, "sliced-vr"),
    "categorical": lambda times: sf.objectives.CategoricalVLB(CATEGORICAL, 0.1, times),
}


@pytest.mark.parametrize("name", LOSSES)
def test_importance_weights_make_the_mean_over_all_times_and_history_goes_without(name):
    """Σ_t p_t·loss(t) is the plain mean over t, of the loss and of its parts; `unweighted` is the loss at equal p_t."""
    p = torch.tensor([0.3, 0.1, 0.05, 0.25, 0.2, 0.1], dtype=torch.float64)
    x0 = LEVELS.from_bins(torch.tensor([[0, 1], [2, 2], [1, 0], [0, 0], [1, 1], [2, 0]])).double()
    even = LOSSES[name](Every(torch.full((6,), 1 / 6, dtype=torch.float64)))(x0, None, NoiseSource(3))
    loss = LOSSES[name](Every(p))(x0, None, NoiseSource(3))
    assert (p * loss.per_example).sum().item() == pytest.approx(even.per_example.mean().item(), rel=1e-5)
    assert torch.allclose(loss.unweighted, even.per_example, rtol=1e-5)
    assert torch.allclose(loss.unweighted, even.unweighted)
    assert not torch.allclose(loss.per_example, even.per_example)
    for part, value in loss.parts.items():
        assert (p * value).sum().item() == pytest.approx(even.parts[part].mean().item(), rel=1e-5)


def test_every_time_is_drawn_equally_often():
    """Uniform times are 1 … T, each with probability 1/T, within 4 standard errors.  [DDPM Algorithm 1]"""
    t, _ = UniformTimes().draw(PROCESS, 40_000, NoiseSource(5))
    shares = torch.bincount(t, minlength=5).double() / 40_000
    assert shares[0] == 0
    assert ((shares[1:] - 1 / 4).abs() < 4 * (3 / 16 / 40_000) ** 0.5).all()


def kolmogorov(values, distribution):
    """√n·sup|F_n − F|: above 1.95 once in a thousand times."""
    values = values.sort().values
    n = len(values)
    at = torch.tensor([distribution(value) for value in values.tolist()], dtype=torch.float64)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(torch.maximum((at - steps[:-1]).abs().max(), (at - steps[1:]).abs().max())) * n**0.5


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.7, 0.6), (1.1, 1.5)])
def test_logit_normal_times_have_their_distribution(mean, std):
    """P(t ≤ a) = Φ((logit(a) − mean)/std), and its density is the weight: every importance is 1."""
    # [Esser et al. 2024 Eq. 19]
    t, importance = sf.objectives.LogitNormalTimes(mean, std).draw(sf.process.flow(), 5000, NoiseSource(1))
    assert (importance == 1).all()
    assert kolmogorov(t, lambda a: NormalDist(mean, std).cdf(math.log(a / (1 - a)))) < 1.95
    z = torch.tensor([[-40.0], [0.0], [40.0]])
    ends, _ = sf.objectives.LogitNormalTimes().draw(sf.process.flow(), 3, Recorded([z]))
    assert ends.tolist() == [1e-3, 0.5, 1.0]


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_shifted_times_multiply_the_ratio(shift):
    """σ/α is s times that of uniform times, so that P(t ≤ a) = a/(s − (s − 1)a) up to t_min."""
    # [Esser et al. 2024 Eq. 23]
    flow = sf.process.flow(t_min=1e-9)
    t, importance = sf.objectives.ShiftedTimes(shift).draw(flow, 5000, NoiseSource(2))
    even, _ = UniformTimes().draw(flow, 5000, NoiseSource(2))
    assert (importance == 1).all()
    assert_close(flow.level(t).ratio, shift * flow.level(even).ratio, 1e-9)
    assert kolmogorov(t, lambda a: a / (shift - (shift - 1) * a)) < 1.95


def test_a_shift_of_logit_normal_times_is_a_shift_of_their_mean():
    flow, z = sf.process.flow(), NoiseSource(0).normal((100, 1))
    moved, _ = sf.objectives.LogitNormalTimes(math.log(3.0)).draw(flow, 100, Recorded([z]))
    plain, _ = sf.objectives.LogitNormalTimes().draw(flow, 100, Recorded([z]))
    assert_close(flow.level(moved).ratio, 3 * flow.level(plain).ratio, 1e-12)


def test_times_of_continuous_processes_are_built_by_name_and_refuse_tables():
    flow = sf.process.flow()
    model = sf.Denoiser(lambda x, c, y=None: x, flow, "flow", noise_input="scaled")
    objective = sf.objectives.Simple(model, "network", {"kind": "logit-normal", "mean": 0.5})
    assert objective.config["times"] == {"kind": "logit-normal", "mean": 0.5, "std": 1.0}
    assert sf.objectives.Simple(model, times="shifted").config["times"] == {"kind": "shifted", "shift": 3.0}
    assert objective(torch.zeros(4, 2), None, NoiseSource(0)).t.dtype == torch.float64
    for name in ("logit-normal", "shifted"):
        with pytest.raises(sf.IncompatibleModel, match="continuous t"):
            as_times(name, PROCESS).draw(PROCESS, 3, NoiseSource(0))
    for make in (lambda: sf.objectives.ShiftedTimes(0.0), lambda: sf.objectives.LogitNormalTimes(std=0.0)):
        with pytest.raises(sf.InputError, match=r"shift|std"):
            make()
