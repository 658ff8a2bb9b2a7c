"""The categorical bound: all paths of a small chain, finite differences, its estimate over t and in training,
and its refusals.
"""

import math
from itertools import product

import numpy as np
import pytest
import torch
from categories import (
    KINDS,
    Table,
    bayes,
    between,
    chain_matrix,
    joint_states,
    noise_of,
    random_tables,
    step_matrices,
)

import scorefield as sf
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.objectives.categorical_vlb import categorical_prior_term, categorical_term
from scorefield.objectives.times import ImportanceTimes

F64 = torch.float64
KAPPAS = {"uniform": [0.7, 0.3, 0.05], "absorbing": [0.7, 0.3, 0.0]}
K, D, T = 3, 2, 3


class Chain:
    """The toy: a fixed random denoiser of two values, and its chain and bound from matrices alone."""

    def __init__(self, kind, seed=0):
        self.process = KINDS[kind](KAPPAS[kind], K)
        self.S, self.u = self.process.states, noise_of(kind, K)
        self.matrices = step_matrices(kind, K, KAPPAS[kind])
        rng = np.random.default_rng(seed)
        possible = lambda x_t, t: between(self.matrices, t, 0)[:K, x_t] > 0  # noqa: E731
        tables = random_tables(rng, self.process, T, D, possible)
        self.model = Table(self.process, tables, D)
        self.states = joint_states(self.S, D)
        self.steps = {
            t: chain_matrix(tables[t], [self._posteriors(x_t, t) for x_t in range(self.S)], self.S, D, K)
            for t in (1, 2, 3)
        }

    def _posteriors(self, x_t, t):
        """q(x_{t−1} | x_t, x_0 = i), (K, S)."""
        rows = [bayes(self.matrices, x_t, i, t, t - 1) for i in range(K)]
        return np.stack([np.zeros(self.S) if row is None else row for row in rows])

    def start(self):
        return np.array([np.prod([self.u[k] for k in x]) for x in self.states])

    def log_likelihood(self):
        """ln p(x_0) of every x_0 that is data, by multiplying the chain out."""
        p = self.start() @ self.steps[3] @ self.steps[2] @ self.steps[1]
        return {x: math.log(p[i]) for i, x in enumerate(self.states) if max(x) < K}

    def forward(self, t, s):
        """q(x_t | x_s) of whole examples."""
        single = between(self.matrices, t, s)
        return np.array(
            [
                [np.prod([single[a, b] for a, b in zip(x, y, strict=True)]) for y in self.states]
                for x in self.states
            ]
        )

    def bound(self, x0):
        """E over all paths (x_1, x_2, x_3) of ln q(x_{1:T} | x_0) − ln p(x_{0:T})."""
        i = self.states.index(x0)
        one, two, three = (self.forward(t, t - 1) for t in (1, 2, 3))
        q = one[i][:, None, None] * two[:, :, None] * three[None]
        p = (
            self.steps[1][:, i][:, None, None]
            * self.steps[2].T[:, :, None]
            * self.steps[3].T[None]
            * self.start()
        )
        seen = q > 0
        return (q[seen] * (np.log(q[seen]) - np.log(p[seen]))).sum()

    def terms(self, x0):
        """(prior, [E over x_t of L_t for t = 1 … T]) of the library, the expectation by summing over x_t."""
        x_t, clean = torch.tensor(self.states), torch.tensor([x0] * len(self.states))
        terms = []
        for t in range(1, T + 1):
            q = torch.from_numpy(self.forward(t, 0)[self.states.index(x0)])
            seen = q > 0
            each = categorical_term(self.process, self.model(x_t[seen], t), x_t[seen], clean[seen], t, t - 1)
            terms.append((q[seen] * each).sum().item())
        return categorical_prior_term(self.process, clean[:1], T).item(), terms


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_is_that_of_all_paths_and_above_the_likelihood(kind):
    # [D3PM Eq. 1]
    chain = Chain(kind)
    log_p = chain.log_likelihood()
    assert math.isclose(
        sum(math.exp(value) for value in log_p.values()), 1, rel_tol=1e-12
    )  # nothing ends erased
    gaps = []
    for x0 in product(range(K), repeat=D):
        prior, terms = chain.terms(x0)
        assert prior + sum(terms) == pytest.approx(chain.bound(x0), rel=1e-12)
        gaps.append(prior + sum(terms) + log_p[x0])
        assert min(prior, *terms) >= -1e-12
    assert min(gaps) > 0.01  # a bound, and of a random denoiser not a tight one


@pytest.mark.parametrize("kind", KINDS)
def test_bits_per_dim_estimates_that_bound(kind):
    chain, x0, n = Chain(kind), (2, 0), 4000
    prior, terms = chain.terms(x0)
    bits = sf.likelihood.categorical_bits_per_dim(chain.model, torch.tensor([x0] * n), NoiseSource(0))
    assert bits.terms.shape == (n, T)
    assert torch.allclose(bits.total, bits.prior + bits.terms.sum(1), atol=1e-14)
    assert bits.prior[0].item() * D * math.log(2) == pytest.approx(prior, abs=1e-12)
    for column, expected in zip(bits.terms.T * D * math.log(2), terms, strict=True):
        assert abs(column.mean() - expected) <= 4 * column.std() / n**0.5 + 1e-12


def test_bits_per_dim_reads_data_and_any_grid():
    """Values on the bins and integers are the same data, an example has the same bound in any batch, and
    levels may be left out.
    """
    model, _ = small_model()
    x0, noise = levels(model, 4), NoiseSource(3)
    together = sf.likelihood.categorical_bits_per_dim(model, x0, noise)
    assert torch.equal(
        together.total, sf.likelihood.categorical_bits_per_dim(model, model.categories(x0), noise).total
    )
    alone = sf.likelihood.categorical_bits_per_dim(model, x0[2:3], noise.of([2]))
    assert torch.allclose(together.terms[2:3], alone.terms, rtol=1e-12)
    assert sf.likelihood.categorical_bits_per_dim(model, x0, noise, [8, 3, 1, 0]).terms.shape == (4, 3)


def small_model(kind="uniform", T=8, parametrization="x0", K=5, **options):
    torch.manual_seed(0)
    process = KINDS[kind](sf.process.cosine_kappas(T), K)
    net = torch.nn.Conv2d(process.states, K, 3, padding=1).double()
    model = sf.CategoricalDenoiser(
        Plain(net), process, parametrization, data=sf.DataSpec((1, 4, 4), bins=K), **options
    )
    return model, net


class Plain(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, c, y=None):
        return self.net(x) + 0.01 * c[:, None, None, None]


def levels(model, n, seed=0):
    K = model.process.classes
    return model.data.from_bins(
        torch.randint(0, K, (n, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parametrization", ["x0", "bayes"])
def test_gradients_are_those_of_finite_differences(kind, parametrization):
    model, net = small_model(kind, parametrization=parametrization)
    objective, x0 = sf.objectives.CategoricalVLB(model, auxiliary=0.3), levels(model, 16)

    def loss():
        return objective(x0, None, NoiseSource(1)).per_example.mean()

    loss().backward()
    for index in ((0, 0, 1, 1), (4, 2, 0, 2), (2, 4, 1, 0)):
        values = []
        for h in (1e-4, -1e-4):
            with torch.no_grad():
                net.weight[index] += h
                values.append(loss().item())
                net.weight[index] -= h
        difference = (values[0] - values[1]) / 2e-4
        assert net.weight.grad[index].item() == pytest.approx(difference, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("times", ["uniform", "importance"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_estimates_the_sum_of_all_terms(kind, times):
    """E over t of the reweighted loss is Σ_t (L_t + λ CE_t) in bits a dimension, whatever the distribution of
    t.
    """
    # [D3PM Eq. 5]
    model, _ = small_model(kind)
    T, x0, weight = 8, levels(model, 1), 0.25
    u = NoiseSource(5).uniform((1, 1, 4, 4))
    objective = sf.objectives.CategoricalVLB(model, auxiliary=weight, times=times)
    drawn = objective.times
    assert isinstance(drawn, ImportanceTimes) == (times == "importance")
    if isinstance(drawn, ImportanceTimes):
        drawn.update(
            torch.arange(1, T + 1).repeat(10), torch.rand(10 * T, generator=torch.Generator().manual_seed(0))
        )
        assert drawn.warm
    p = drawn.probabilities() if isinstance(drawn, ImportanceTimes) else torch.full((T,), 1 / T, dtype=F64)
    clean, expected, mean = model.categories(x0), 0.0, 0.0
    for t in range(1, T + 1):
        x_t = model.process.sample(clean, t, u)
        p0 = model(x_t, t)
        entropy = -p0.log_prob(clean).item()
        nats = categorical_term(model.process, p0, x_t, clean, t, t - 1).item()
        expected += (nats + weight * entropy) / (16 * math.log(2))
        middle = p.cumsum(0)[t - 1] - p[t - 1] / 2
        loss = objective(x0, None, Recorded([middle.reshape(1, 1), u]))
        assert loss.t.tolist() == [t]
        scale = 1 / (T * p[t - 1].item())
        assert loss.parts["cross_entropy"].item() == pytest.approx(
            scale * entropy / (16 * math.log(2)), rel=1e-9
        )
        assert loss.parts["vlb"].item() == pytest.approx(
            scale * T * nats / (16 * math.log(2)), rel=1e-9, abs=1e-12
        )
        mean += p[t - 1].item() * loss.per_example.item()
    assert mean == pytest.approx(expected, rel=1e-6)


def test_the_exact_denoiser_is_the_best():
    """On data of independent values the exact p(x_0 | x_t) costs the entropy and the chain's slack; any other
    costs more.
    """
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    process = sf.process.uniform_categorical(sf.process.cosine_kappas(40), 3)

    def cost(belief):
        model = sf.CategoricalDenoiser(lambda x, c, y=None: belief.log().expand(len(x), 3), process, "bayes")
        total = 0.0
        for x0, w in enumerate(weights):
            clean, x_t = torch.full((3, 1), x0), torch.arange(3)[:, None]
            for t in range(1, 41):
                q = process.transition(clean[:1], t, 0, F64).log_p.exp()[0, :, 0]
                total += w * (q * categorical_term(process, model(x_t, t), x_t, clean, t, t - 1)).sum()
        return total.item()  # type: ignore[attr-defined]

    entropy = -(weights * weights.log()).sum().item()
    assert cost(weights) == pytest.approx(
        entropy, rel=1e-10
    )  # one value: the exact reverse chain is no mixture's approximation
    assert cost(torch.tensor([0.4, 0.3, 0.3], dtype=F64)) > entropy + 0.01


def test_it_trains(tmp_path):
    """A few steps on the digits' grey values through the trainer: the loss falls, and the run's description
    rebuilds it.
    """
    data = sf.data.digits().subset(torch.arange(64))
    process = sf.process.uniform_categorical(sf.process.cosine_kappas(20), 17)
    net = sf.nets.MLP(17 * 64, hidden=16, layers=1)
    objective = sf.objectives.CategoricalVLB(sf.CategoricalDenoiser(net, process, "bayes"))
    steps = list(sf.train(objective, data, steps=20, batch_size=16, lr=1e-2, precision="fp32", device="cpu"))
    assert objective.model.data == data.spec
    assert np.mean([step.loss for step in steps[-5:]]) < 0.9 * np.mean([step.loss for step in steps[:3]])
    assert set(steps[-1].parts) == {"vlb", "cross_entropy"}


def test_spec_rebuilds_it():
    model, _ = small_model()
    objective = sf.objectives.CategoricalVLB(model, times={"kind": "importance", "history": 3})
    times = {"kind": "importance", "history": 3, "uniform_prob": 0.0}
    assert objective.config == {"kind": "categorical-vlb", "auxiliary": 0.001, "times": times}
    options = {key: value for key, value in objective.config.items() if key != "kind"}
    assert sf.objectives.CategoricalVLB(model, **options).config == objective.config


def test_refusals():
    model, _ = small_model()
    gaussian = sf.Denoiser(
        lambda x, c, y=None: x, sf.process.from_betas(sf.process.cosine_betas(8)), data=model.data
    )
    x0, noise = levels(model, 2), NoiseSource(0)
    for act, message in (
        (lambda: sf.objectives.CategoricalVLB(gaussian), "trains a CategoricalDenoiser"),  # type: ignore[arg-type]
        (lambda: sf.objectives.VLB(model), "is trained by CategoricalVLB"),
        (lambda: sf.objectives.Simple(model), "is trained by CategoricalVLB"),
        (lambda: sf.objectives.Hybrid(model), "is trained by CategoricalVLB"),
        (lambda: sf.objectives.NCSN(model), "is trained by CategoricalVLB"),
        (lambda: sf.objectives.ScoreMatching(model), "is trained by CategoricalVLB"),
        (lambda: sf.likelihood.estimate_bits_per_dim(model, x0, noise, 2), "categorical"),
        (lambda: sf.likelihood.ode_log_prob(model, x0.float()), "categorical"),
        (lambda: sf.likelihood.bits_per_dim(model, x0, noise), "categorical"),
        (lambda: sf.likelihood.categorical_bits_per_dim(gaussian, x0, noise), "bits_per_dim"),  # type: ignore[arg-type]
    ):
        with pytest.raises(sf.IncompatibleModel, match=message):
            act()
    for act, message in (
        (lambda: sf.objectives.CategoricalVLB(model, auxiliary=-1.0), "auxiliary"),
        (lambda: sf.objectives.CategoricalVLB(model)(x0 + 0.01, None, noise), "grid of 5 bins"),
        (lambda: sf.likelihood.categorical_bits_per_dim(model, x0, noise, [8, 4, 1]), "descends to 0"),
    ):
        with pytest.raises(sf.InputError, match=message):
            act()
