"""ADM's derivation of classifier guidance on chains of few states, where every distribution is a table."""

import numpy as np
import pytest
import torch
from categories import KINDS, between, log_of, probabilities, step_matrices

from scorefield.core.distributions import Categorical

KAPPAS = [0.9, 0.7, 0.4, 0.15, 0.0]
LABELS = 3
F64 = torch.float64


def tables(kind, K, t, s):
    """q(y, x_0, x_s, x_t) of random p(x_0) and p(y | x_0): data are labelled, then noised without regard to the label."""
    rng, matrices = np.random.default_rng(K), step_matrices(kind, K, KAPPAS)
    p0, labels = rng.dirichlet(np.ones(K)), rng.dirichlet(np.ones(LABELS), size=K)
    to_s, to_t = between(matrices, s, 0)[:K], between(matrices, t, s)
    return np.einsum("i,iy,ia,ab->yiab", p0, labels, to_s, to_t)


def given(joint, axes):
    """The joint distribution as that of the axes that are left out, given these; 0 where these cannot be."""
    others = tuple(k for k in range(joint.ndim) if k not in axes)
    total = joint.sum(axis=others, keepdims=True)
    return np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [2, 4, 7])
@pytest.mark.parametrize(("t", "s"), [(2, 1), (4, 3), (5, 2), (3, 1)])
def test_reverse_given_a_label_is_proportional_to_reverse_times_classifier(kind, K, t, s):
    """p(x_s | x_t, y) ∝ p(x_s | x_t)·p(y | x_s), against the sums over the whole table.  [ADM Eq. 2]"""
    joint = tables(kind, K, t, s)
    process = KINDS[kind](KAPPAS, K)
    states = process.states
    # The label tells nothing more of x_t once x_s is known: q(x_t | x_s, y) = q(x_t | x_s), and so q(y | x_s, x_t) = q(y | x_s).
    pairs = joint.sum(axis=1)  # (y, x_s, x_t)
    classifier = given(pairs.sum(axis=2), (1,))  # q(y | x_s)
    possible = pairs.sum(axis=0) > 0
    assert np.abs(given(pairs, (1, 2)) - classifier[:, :, None])[:, possible].max() < 1e-12
    # The reverse process from the exact p(x_0 | x_t), which knows no label.
    posterior = given(joint.sum(axis=(0, 2)), (1,))  # q(x_0 | x_t), (K, states)
    known = np.flatnonzero(joint.sum(axis=(0, 1, 2)) > 0)
    p0 = Categorical(log_of(posterior[:, known].T)[:, :, None])
    reverse = probabilities(process.reverse(torch.from_numpy(known)[:, None], p0, t, s))[:, :, 0]
    expected = given(pairs, (0, 2))  # q(x_s | x_t, y)
    for y in range(LABELS):
        guided = reverse * classifier[y][None]  # rows x_t
        guided /= guided.sum(axis=1, keepdims=True)
        assert np.abs(guided - expected[y][:, known].T).max() < 1e-12
        # ... and not to p(x_s | x_t)·p(y | x_t), which is p(x_s | x_t) itself.
        if K > 2 and t < 5 and states == K:
            assert np.abs(reverse - expected[y][:, known].T).max() > 1e-3
