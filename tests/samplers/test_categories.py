"""The categorical samplers against exact marginals of chains that can be multiplied out, and their refusals."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from categories import KINDS, Table, bayes, between, chain_matrix, joint_states, noise_of, step_matrices

import scorefield as sf
from scorefield.core.distributions import Categorical
from scorefield.core.noise import NoiseSource, Recorded
from scorefield.generation.sample_blocks import sample_blocks

F64 = torch.float64
K, KAPPAS = 4, [0.9, 0.6, 0.3, 0.1, 0.0]
T = len(KAPPAS)
GRIDS = {"full": [5, 4, 3, 2, 1, 0], "skips": [5, 3, 0], "one": [5, 0]}
SAMPLERS = {
    "ancestral": sf.samplers.CategoricalAncestral(),
    "ddim0": sf.samplers.CategoricalDDIM(),
    "ddim0.3": sf.samplers.CategoricalDDIM(0.3),
    "ddim1": sf.samplers.CategoricalDDIM(1.0),
}
ETAS = {"ddim0": 0.0, "ddim0.3": 0.3, "ddim1": 1.0}


def kernel(kind, name, x_t, t, s):
    """(K, S): row i is the sampler's distribution of x_s given x_t if x_0 were i, by matrices and the paper's
    formula.
    """
    matrices, u = step_matrices(kind, K, KAPPAS), noise_of(kind, K)
    if name == "ancestral":
        rows = [bayes(matrices, x_t, i, t, s) for i in range(K)]
        return np.stack([np.zeros(len(u)) if row is None else row for row in rows])
    kappa_t, kappa_s = KAPPAS[t - 1], 1.0 if s == 0 else KAPPAS[s - 1]
    varsigma, eye = (1 - ETAS[name]) * (1 - kappa_s) / (1 - kappa_t), np.eye(len(u))
    rest = (1 - kappa_s) - (1 - kappa_t) * varsigma
    return np.stack(
        [varsigma * eye[x_t] + (kappa_s - varsigma * kappa_t) * eye[i] + rest * u for i in range(K)]
    )


class Exact:
    """p(x_0^d | x_t) of two dependent values by Bayes' rule over whole examples: the best that a factorized
    model can say.
    """

    def __init__(self, kind, weights):
        self.process, D = KINDS[kind](KAPPAS, K), weights.ndim
        S, matrices = self.process.states, step_matrices(kind, K, KAPPAS)
        self.states = joint_states(S, D)
        self.tables = {}
        for t in range(1, T + 1):
            q = between(matrices, t, 0)[:K]
            table = np.zeros((S**D, D, K))
            for i, x_t in enumerate(self.states):
                joint = weights.copy()
                for d in range(D):
                    joint = joint * q[:, x_t[d]].reshape([-1 if axis == d else 1 for axis in range(D)])
                total = joint.sum()
                for d in range(D):
                    others = tuple(axis for axis in range(D) if axis != d)
                    table[i, d] = joint.sum(axis=others) / total if total > 0 else 0
            self.tables[t] = table
        self.model = Table(self.process, self.tables, D)

    def ends_in(self, kind, name, grid):
        """The distribution of the last state of the sampler's chain, multiplied out."""
        S, D = self.process.states, len(self.states[0])
        u = noise_of(kind, K)
        p = np.array([np.prod([u[k] for k in x]) for x in self.states])
        for t, s in pairwise(grid):
            p = p @ chain_matrix(self.tables[t], [kernel(kind, name, x, t, s) for x in range(S)], S, D, K)
        return p


def shares(x, states):
    return np.array([(x == torch.tensor(state)).all(dim=1).double().mean().item() for state in states])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("grid", GRIDS)
def test_one_value_comes_out_as_distributed(kind, name, grid):
    """With the exact denoiser of one value every member of the family and Bayes' posterior end in the data,
    in any number of steps.
    """
    weights = np.array([0.1, 0.45, 0.05, 0.4])
    exact, n = Exact(kind, weights), 10_000
    assert np.abs(exact.ends_in(kind, name, GRIDS[grid])[:K] - weights).max() < 1e-12
    x = sf.sample(exact.model, SAMPLERS[name], GRIDS[grid], n=n, noise=NoiseSource(3))
    found = shares(x, exact.states[:K])
    assert (np.abs(found - weights) < 4 * np.sqrt(weights * (1 - weights) / n)).all()
    assert x.dtype == torch.int64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_two_dependent_values_come_out_as_the_chain_says(kind, name):
    """Dimensions are drawn independently given x_t: the frequencies are those of the multiplied-out chain,
    not quite the data's.
    """
    weights = np.random.default_rng(0).dirichlet(np.ones(K * K) * 0.5).reshape(K, K)
    exact, n = Exact(kind, weights), 10_000
    expected = exact.ends_in(kind, name, GRIDS["skips"])
    x = sf.sample(exact.model, SAMPLERS[name], GRIDS["skips"], n=n, noise=NoiseSource(4))
    assert (
        np.abs(shares(x, exact.states) - expected) <= 4 * np.sqrt(expected * (1 - expected) / n) + 1e-12
    ).all()
    assert np.abs(expected[: K * K] - weights.reshape(-1)).max() > 1e-3 or kind == "absorbing"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_state_on_the_way_has_the_right_marginal(kind, name):
    """At each s the states are distributed as q(x_s) of the data, although the chains differ."""
    weights = np.array([0.1, 0.45, 0.05, 0.4])
    exact, n = Exact(kind, weights), 10_000
    matrices = step_matrices(kind, K, KAPPAS)
    x_T = exact.process.prior((n, 1), NoiseSource(1))
    for step in sf.trajectory(exact.model, SAMPLERS[name], GRIDS["full"], x_T, NoiseSource(2)):
        expected = weights @ between(matrices, int(step.s), 0)[:K]
        found = np.bincount(step.x.flatten(), minlength=exact.process.states) / n
        assert (np.abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / n) + 1e-12).all(), step.s
        assert step.x0.dtype == torch.int64
        assert int(step.x0.max()) < K  # what is predicted is never the erased state


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_draw_and_one_call_a_step(name):
    calls = []

    def net(x, c, y=None):
        calls.append(float(c[0]))
        return torch.zeros_like(x)

    process = sf.process.uniform_categorical(sf.process.cosine_kappas(30), 3)
    model = sf.CategoricalDenoiser(net, process, data=sf.DataSpec((2, 2), bins=3))
    grid = sf.grids.uniform(process, 10)
    tape = Recorded([torch.rand(5, 2, 2, generator=torch.Generator().manual_seed(k)) for k in range(11)])
    x = sf.sample(model, SAMPLERS[name], grid, n=5, noise=tape)
    assert x.shape == (5, 2, 2)
    assert calls == [t - 1 for t in grid[:-1].tolist()]
    assert SAMPLERS[name].calls(grid) == 10
    with pytest.raises(sf.InputError, match="used up"):
        tape.uniform((5, 2, 2))


def test_a_sample_is_the_same_at_any_batch_size():
    process = sf.process.uniform_categorical(sf.process.cosine_kappas(20), 6)
    logits = torch.randn(6 * 6, 6 * 6, generator=torch.Generator().manual_seed(0))
    model = sf.CategoricalDenoiser(lambda x, c, y=None: x @ logits, process, data=sf.DataSpec((6,), bins=6))
    grid = sf.grids.uniform(process, 7)
    for sampler in SAMPLERS.values():
        together = sf.sample(model, sampler, grid, n=9, noise=NoiseSource(8))
        alone = sf.sample(model, sampler, grid, n=2, noise=NoiseSource(8, [4, 7]))
        assert torch.equal(together[[4, 7]], alone)


def test_blocks_of_categories_are_always_whole():
    """The last bit of a network's output can decide which category is drawn, so every block has the same
    batch size.
    """
    sizes = []

    def net(x, c, y=None):
        sizes.append(len(x))
        return torch.zeros_like(x)

    process = sf.process.uniform_categorical(KAPPAS, 3)
    model = sf.CategoricalDenoiser(net, process, data=sf.DataSpec((2,), bins=3))
    blocks = list(sample_blocks(model, sf.samplers.CategoricalAncestral(), [5, 0], 40, 0, size=32))
    assert sizes == [32, 32]
    assert [len(block.x) for block in blocks] == [32, 8]


def test_absorbed_values_stay_as_they_are_once_revealed():
    """Bayes' posterior never changes a value that is not erased; the noisier members of the family erase
    again.
    """
    process = sf.process.absorbing(sf.process.linear_kappas(12), 5)
    model = sf.CategoricalDenoiser(
        lambda x, c, y=None: torch.zeros(len(x), 5 * 40), process, data=sf.DataSpec((40,), bins=5)
    )
    changed = {}
    for name, sampler in SAMPLERS.items():
        x, changed[name] = process.prior((8, 40), NoiseSource(0)), 0
        for step in sf.trajectory(model, sampler, sf.grids.full(process), x, NoiseSource(1)):
            changed[name] += int(((x != 5) & (step.x != x)).sum())
            x = step.x
        assert int(x.max()) < 5
    assert changed["ancestral"] == changed["ddim0"] == 0
    assert 0 < changed["ddim0.3"] < changed["ddim1"]


def test_bad_options():
    for eta in (-0.1, 1.1):
        with pytest.raises(
            sf.InputError, match=r"η.* must be a finite number of at least 0 and of at most 1"
        ):
            sf.samplers.CategoricalDDIM(eta)


def test_the_guided_model_of_a_class_is_sampled():
    process = sf.process.uniform_categorical(KAPPAS, 3)
    net = sf.nets.MLP(3 * 2, num_classes=4)
    model = sf.CategoricalDenoiser(net, process, data=sf.DataSpec((2,), classes=tuple("abcd"), bins=3))
    x = sf.sample(
        model.given([0, 3]), sf.samplers.CategoricalAncestral(), [5, 2, 0], n=2, noise=NoiseSource(0)
    )
    assert x.shape == (2, 2)
    assert isinstance(model.given(1)(x, 1), Categorical)
