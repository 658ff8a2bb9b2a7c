"""Categorical chains by brute force, in NumPy: explicit transition matrices of one value, and of all values
of an example at once.
"""

from itertools import product

import numpy as np
import torch

import scorefield as sf
from scorefield.core.distributions import LOG_ZERO, Categorical

KINDS = {"uniform": sf.process.uniform_categorical, "absorbing": sf.process.absorbing}


def noise_of(kind, K):
    """u of the S states."""
    return np.full(K, 1 / K) if kind == "uniform" else np.eye(K + 1)[K]


def step_matrices(kind, K, kappas):
    """Q_t[i, j] = q(x_t = j | x_{t−1} = i) for t = 1 … T: kept with κ_t/κ_{t−1}, otherwise redrawn."""
    u = noise_of(kind, K)
    before = np.concatenate([[1.0], kappas[:-1]])
    return [k / b * np.eye(len(u)) + (1 - k / b) * u[None] for k, b in zip(kappas, before, strict=True)]


def between(matrices, t, s):
    """q(x_t = j | x_s = i), a product of neighbours."""
    result = np.eye(len(matrices[0]))
    for matrix in matrices[s:t]:
        result = result @ matrix
    return result


def bayes(matrices, x_t, x0, t, s):
    """q(x_s | x_t, x_0), (S,), or None where x_t cannot be reached from x_0."""
    joint = between(matrices, s, 0)[x0] * between(matrices, t, s)[:, x_t]
    return joint / joint.sum() if joint.sum() > 0 else None


def log_of(p):
    """ln p as the library writes it, float64."""
    p = torch.as_tensor(p, dtype=torch.float64)
    return torch.where(p > 0, p.clamp_min(1e-300).log(), LOG_ZERO)


def probabilities(distribution):
    return distribution.log_p.double().exp().numpy()


class Table:
    """A denoiser of few joint states: p(x_0 | x_t) of every dimension is a row of a table.

    tables[t]: (states of the example, D, K) probabilities, the states in the order of `joint_states`.
    """

    def __init__(self, process, tables, D):
        self.process, self.tables, self.D = process, {t: log_of(p) for t, p in tables.items()}, D
        self.data = sf.DataSpec((D,), bins=process.classes)

    def __call__(self, x_t, t):
        index = sum(x_t[:, d] * self.process.states ** (self.D - 1 - d) for d in range(self.D))
        return Categorical(self.tables[int(t)][index].movedim(2, 1))


def joint_states(S, D):
    """All states of an example, the last dimension fastest."""
    return list(product(range(S), repeat=D))


def random_tables(rng, process, T, D, possible):
    """p(x_0 | x_t) at random, with probability 0 where possible(d, x_t, t) says so."""
    tables = {}
    for t in range(1, T + 1):
        p = rng.dirichlet(np.ones(process.classes), size=(process.states**D, D))
        for i, x_t in enumerate(joint_states(process.states, D)):
            for d in range(D):
                p[i, d] *= possible(x_t[d], t)
                p[i, d] /= max(p[i, d].sum(), 1e-300)
        tables[t] = p
    return tables


def chain_matrix(tables, kernels, S, D, K):
    """p(x_s | x_t) of whole examples, (S^D, S^D), dimensions independent given x_t; kernels[x_t value] (K,
    S): given x_0.
    """
    states = joint_states(S, D)
    matrix = np.ones((len(states), len(states)))
    for i, x_t in enumerate(states):
        rows = [tables[i, d] @ kernels[x_t[d]] for d in range(D)]
        for j, x_s in enumerate(states):
            matrix[i, j] = np.prod([rows[d][x_s[d]] for d in range(D)])
    return matrix
