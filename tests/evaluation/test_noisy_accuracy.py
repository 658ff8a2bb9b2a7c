"""Accuracy per noise level: against Bayes's rule integrated over x_t, on the oracle and on a classifier that
was trained.
"""

import json
import math
from typing import Any

import pytest
import torch

import scorefield as sf
from scorefield.evaluation import noisy_accuracy

PROCESS = sf.process.from_betas(sf.process.cosine_betas(50))
TIMES = [1, 10, 25, 40, 50]
# Three unequal blobs in the plane, two of them overlapping; the covariances are diagonal so that densities
# are products.
MEANS, STDS, WEIGHTS = (
    torch.tensor([[-1.0, 0.0], [0.5, 0.5], [0.9, -0.4]]),
    torch.tensor([0.3, 0.25, 0.4]),
    (0.5, 0.3, 0.2),
)


def mixture():
    covariances = torch.stack([std.double() ** 2 * torch.eye(2, dtype=torch.float64) for std in STDS])
    return sf.oracle.GaussianMixture(MEANS, covariances, WEIGHTS)


def examples(n, seed=0):
    x, k = mixture().sample_labelled(n, sf.noise.NoiseSource(seed))
    return sf.data.tensor(x, k)


def bayes(t, side=1201, reach=6.0):
    """(accuracy of the best rule, entropy of the class) given x_t: sums over a lattice of w_k N(x; α m_k,
    (α²s_k² + σ²) I).
    """
    level = PROCESS.level(t)
    alpha, sigma = float(level.alpha), float(level.sigma)
    axis = torch.linspace(-reach, reach, side, dtype=torch.float64)
    joint = []
    for mean, std, w in zip(MEANS.double(), STDS.double(), WEIGHTS, strict=True):
        var = alpha**2 * float(std) ** 2 + sigma**2
        one = [
            torch.exp(-((axis - alpha * float(m)) ** 2) / (2 * var)) / math.sqrt(2 * math.pi * var)
            for m in mean
        ]
        joint.append(w * one[0][:, None] * one[1][None, :])
    joint = torch.stack(joint)  # type: ignore[assignment]
    area = (2 * reach / (side - 1)) ** 2
    posterior = joint / joint.sum(dim=0)  # type: ignore[attr-defined]
    accuracy = float(joint.max(dim=0).values.sum()) * area  # type: ignore[attr-defined]
    return accuracy, float(-(joint * posterior.clamp_min(1e-300).log()).sum()) * area


def test_the_exact_posterior_attains_bayes():
    result = noisy_accuracy(mixture().classifier(PROCESS), examples(40_000), TIMES)
    for k, t in enumerate(TIMES):
        accuracy, entropy = bayes(t)
        assert abs(result.accuracy[k] - accuracy) < 4 * result.accuracy_error[k], t
        assert abs(result.cross_entropy[k] - entropy) < 4 * result.cross_entropy_error[k], t
        level = PROCESS.level(t)
        assert result.ratios[k] == pytest.approx(float(level.sigma / level.alpha), rel=1e-12)
    assert result.examples == 40_000
    assert result.chance == pytest.approx(0.5, abs=0.01)
    assert result.entropy == pytest.approx(-sum(w * math.log(w) for w in WEIGHTS), abs=0.01)
    # At the noisiest level nothing is left to see, so the best rule is the one that does not look.
    assert result.accuracy[-1] == pytest.approx(result.chance, abs=4 * result.accuracy_error[-1])
    assert result.cross_entropy[-1] == pytest.approx(result.entropy, abs=0.01)


def test_standard_errors_are_those_of_repeated_sets():
    results = [
        noisy_accuracy(mixture().classifier(PROCESS), examples(200, seed), [25]) for seed in range(200)
    ]
    for name in ("accuracy", "cross_entropy"):
        values = torch.tensor([getattr(one, name)[0] for one in results])
        claimed = torch.tensor([getattr(one, f"{name}_error")[0] for one in results]).mean()
        # The standard deviation of 200 values is known to about 5 % (a quarter covers heavier tails).
        assert float(values.std() / claimed) == pytest.approx(1, abs=0.25)


def test_a_trained_classifier_approaches_bayes_from_below():
    torch.manual_seed(0)
    net = sf.nets.MLP(2, hidden=32, layers=2, out_dim=3)
    objective = sf.objectives.Classify(sf.NoisyClassifier(net, PROCESS))
    options: dict[str, Any] = {
        "batch_size": 256,
        "lr": 1e-2,
        "anneal": True,
        "ema": 0.0,
        "precision": "fp32",
        "device": "cpu",
    }
    list(sf.train(objective, examples(8000, seed=1), steps=250, **options))
    objective.eval()
    data = examples(8000, seed=2)
    learned, exact = (
        noisy_accuracy(model, data, TIMES) for model in (objective.model, mixture().classifier(PROCESS))
    )
    for k, t in enumerate(TIMES):
        best, _ = bayes(t)
        assert best - 0.02 < learned.accuracy[k] < best + 4 * learned.accuracy_error[k], t
        # On the same noise the comparison is paired: only the exact posterior attains the entropy.
        assert exact.cross_entropy[k] - 0.001 < learned.cross_entropy[k] < exact.cross_entropy[k] + 0.03, t


def test_the_batch_does_not_matter():
    whole = noisy_accuracy(mixture().classifier(PROCESS), examples(700), TIMES)
    parts = noisy_accuracy(mixture().classifier(PROCESS), examples(700), TIMES, batch_size=64)
    assert parts.accuracy == whole.accuracy
    assert parts.cross_entropy == pytest.approx(whole.cross_entropy, rel=1e-9)
    other = noisy_accuracy(mixture().classifier(PROCESS), examples(700), TIMES, sf.noise.NoiseSource(1))
    assert other.cross_entropy != whole.cross_entropy


@pytest.mark.parametrize(
    ("process", "count", "ends"),
    [
        (PROCESS, 21, (1, 50)),
        (sf.process.from_betas(sf.process.linear_betas(1000)), 21, (1, 1000)),
        (sf.process.from_sigmas([0.1, 0.2, 0.4]), 3, (1, 3)),
        (sf.process.vp(), 20, (sf.process.vp().t_min, 1.0)),
    ],
    ids=["T=50", "T=1000", "three levels", "continuous"],
)
def test_levels_if_none_are_asked_for(process, count, ends):
    result = noisy_accuracy(mixture().classifier(process), examples(50))
    assert len(result.times) == count
    assert (result.times[0], result.times[-1]) == ends
    assert list(result.ratios) == sorted(result.ratios)
    assert json.loads(json.dumps(result.as_dict()))["times"] == list(result.times)


def test_classes_are_matched_by_name():
    """Data that number their classes otherwise than the classifier does are judged by the classes' names."""
    data = sf.data.tensor(torch.eye(3), torch.tensor([5, 7, 9]))

    def net(x, c):
        return 10 * x.flip(1)

    classifier = sf.NoisyClassifier(net, PROCESS, data=sf.DataSpec((3,), classes=("9", "7", "5")))
    assert noisy_accuracy(classifier, data, [1]).accuracy == (1.0,)
    with pytest.raises(sf.InputError, match="class '8'"):
        noisy_accuracy(classifier, sf.data.tensor(torch.eye(3), torch.tensor([5, 8, 9])), [1])


def test_refusals():
    classifier = mixture().classifier(PROCESS)
    with pytest.raises(sf.InputError, match="labelled"):
        noisy_accuracy(classifier, sf.data.tensor(torch.zeros(4, 2)))
    for times in ([], [0, 3]):
        with pytest.raises(sf.InputError, match="0 < t"):
            noisy_accuracy(classifier, examples(10), times)
    with pytest.raises(sf.InputError, match="51"):
        noisy_accuracy(classifier, examples(10), [51])
