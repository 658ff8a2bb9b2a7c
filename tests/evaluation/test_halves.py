"""Two random halves of the same real images are as near as sampling allows, in every distance, and others are
not.
"""

import numpy as np
import pytest
import torch

from scorefield.evaluation import Moments, frechet_distance, kernel_distance, precision_recall
from scorefield.evaluation.features import batches

SPLITS = 20


@pytest.fixture(scope="module")
def digits(split, classifier):
    """Features and labels of the 1,437 training digits, in a random order: they are stored writer by writer."""
    order = torch.randperm(len(split[0]), generator=torch.Generator().manual_seed(0))
    return torch.cat([classifier(x0).features for x0 in batches(split[0])])[order], split[0].labels[order]


@pytest.fixture(scope="module")
def halves(digits):
    features, count = digits[0], len(digits[0]) // 2
    orders = [
        torch.randperm(len(features), generator=torch.Generator().manual_seed(1 + k)) for k in range(SPLITS)
    ]
    return [(features[order[:count]], features[order[count : 2 * count]]) for order in orders]


def frechet(a, b):
    return frechet_distance(Moments().update(a), Moments().update(b))


def test_frechet_distance_of_halves_is_that_of_independent_normal_draws(digits, halves):
    features, count = digits[0].double().numpy(), len(halves[0][0])
    rng = np.random.default_rng(0)

    def draw():
        return torch.from_numpy(
            rng.multivariate_normal(features.mean(0), np.cov(features.T), count, method="eigh")
        )

    floor = np.array([frechet(draw(), draw()) for _ in range(SPLITS)])
    found = np.array([frechet(a, b) for a, b in halves])
    print(
        f"Fréchet distance: halves {found.mean():.2f} ± {found.std():.2f}, normal draws {floor.mean():.2f} ± {floor.std():.2f}"
    )
    assert floor.min() < np.median(found) < floor.max()
    assert found.max() < 2 * floor.max()


def test_kernel_distance_of_halves_is_zero_on_average(halves):
    """Over random halves of a set its expectation is exactly 0: every term is a mean over pairs of different
    examples.
    """
    found = np.array([kernel_distance(a, b).mean for a, b in halves])
    print(f"kernel distance of halves: {found.mean():.2f} ± {found.std():.2f}")
    assert abs(found.mean()) < 4 * found.std() / SPLITS**0.5
    assert found.min() < 0 < found.max()


@pytest.mark.parametrize("distance", [frechet, lambda a, b: kernel_distance(a, b).mean])
def test_another_distribution_is_far_from_it(distance, digits, halves, classifier):
    features, labels = digits
    found = np.array([distance(a, b) for a, b in halves])
    without = np.array([distance(features[:718][labels[:718] != k], features[718:]) for k in range(10)])
    print(
        f"halves {found.mean():.2f} ± {found.std():.2f}, one class left out of one half {without.mean():.2f} ± {without.std():.2f}"
    )
    assert without.mean() > max(found.max(), found.mean() + 3 * found.std())
    noise = classifier(torch.rand(718, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1).features
    assert distance(noise, features[:718]) > 20 * found.max()


def test_precision_and_recall_of_halves(halves, digits):
    """Both are the same in expectation; leaving out a class costs recall its share and leaves precision."""
    features, labels = digits
    found = np.array([precision_recall(a, b) for a, b in halves[:5]])
    print(f"precision and recall of halves: {found.mean(axis=0)}")
    assert abs(found.mean(axis=0)[0] - found.mean(axis=0)[1]) < 0.02
    less = precision_recall(features[:718][labels[:718] != 0], features[718:])
    share = float((labels[718:] == 0).double().mean())
    assert less.precision == pytest.approx(found.mean(axis=0)[0], abs=0.03)
    assert less.recall == pytest.approx(found.mean(axis=0)[1] - share, abs=0.03)
