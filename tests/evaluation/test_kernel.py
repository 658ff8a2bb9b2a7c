"""The kernel distance against a double loop, torchmetrics, and the value that its kernel has for known
distributions.
"""

import numpy as np
import pytest
import torch

from scorefield.evaluation import kernel_distance
from scorefield.runtime.errors import InputError


def features(n, dimension, seed, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, dimension)) + shift)


def double_loop(a, b):
    def k(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    a, b = a.tolist(), b.tolist()
    within_a = [k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    within_b = [k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    between = [k(x, y) for x in a for y in b]
    return sum(within_a) / len(within_a) + sum(within_b) / len(within_b) - 2 * sum(between) / len(between)


def test_equals_a_double_loop():
    # [Bińkowski et al. 2018 Eq. 4]
    a, b = features(17, 5, 0), features(11, 5, 1, shift=0.3)
    expected = double_loop(a, b)
    assert kernel_distance(a, b).mean == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(a, b).std is None
    assert kernel_distance(a, b, rows=4).mean == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(b, a).mean == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `Kernel")
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_equals_torchmetrics(shift):
    kid = pytest.importorskip("torchmetrics.image.kid")

    class Given(torch.nn.Module):
        num_features = 48

        def forward(self, images):
            return images

    a, b = features(150, 48, 2), features(150, 48, 3, shift)
    metric = kid.KernelInceptionDistance(feature=Given(), subsets=3, subset_size=150).set_dtype(torch.float64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    mean, std = metric.compute()  # each subset is the whole set in another order
    assert float(std) < 1e-10
    assert kernel_distance(a, b).mean == pytest.approx(float(mean), rel=1e-4)
    assert kernel_distance(a, b, subsets=3, subset_size=150).mean == pytest.approx(float(mean), rel=1e-4)


def test_unbiased_at_any_count():
    """For normal x ~ N(0, I), y ~ N(m, I) in one dimension the expectation is |E φ(x) - E φ(y)|², φ of the
    kernel (xy + 1)³.

    φ(x) = (1, √3 x, √3 x², x³), so that it is 3 m² + 3 m⁴ + (m³ + 3m)²; sets of 3 have it as sets of 300 do.
    """
    m = 0.4
    expected = 3 * m**2 + 3 * m**4 + (m**3 + 3 * m) ** 2
    rng = np.random.default_rng(4)
    found = [
        kernel_distance(
            torch.from_numpy(rng.standard_normal((3, 1))), torch.from_numpy(rng.standard_normal((3, 1)) + m)
        ).mean
        for _ in range(1500)
    ]
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / np.sqrt(len(found))


def test_subsets():
    a, b = features(400, 8, 5), features(300, 8, 6, shift=0.5)
    first = kernel_distance(a, b, subsets=50, subset_size=60, seed=1)
    assert first == kernel_distance(a, b, subsets=50, subset_size=60, seed=1)
    assert first != kernel_distance(a, b, subsets=50, subset_size=60, seed=2)
    whole = kernel_distance(a, b).mean
    assert abs(first.mean - whole) < 4 * first.std / 50**0.5
    # The spread shrinks with the subsets' size, and without replacement vanishes at the sets' own.
    assert first.std > 2 * kernel_distance(a, b, subsets=50, subset_size=250, seed=1).std
    assert kernel_distance(a, a, subsets=5, subset_size=400).std < 1e-12
    assert kernel_distance(a, b, subsets=1, subset_size=60).std is None


def test_defaults_by_count():
    a, b = features(300, 4, 7), features(301, 4, 8)
    assert kernel_distance(a, a[:50], whole=300).std is None
    assert kernel_distance(a, b, whole=300) == kernel_distance(a, b, subsets=100, subset_size=300)
    assert kernel_distance(a[:20], b, whole=300) == kernel_distance(a[:20], b, subsets=100, subset_size=20)
    assert kernel_distance(a, a, subset_size=30) == kernel_distance(a, a, subsets=100, subset_size=30)
    many = features(1200, 4, 9)
    assert kernel_distance(many, many, subsets=2) == kernel_distance(many, many, 2, subset_size=1000)


def test_bad_input():
    a = features(10, 3, 9)
    for bad in (torch.nan, torch.inf):
        wrong = a.clone()
        wrong[4, 1] = bad
        for pair in ((a, wrong), (wrong, a)):
            with pytest.raises(InputError, match="1 of 10 feature vectors hold NaN or infinite"):
                kernel_distance(*pair)
    with pytest.raises(InputError, match="3 and 2 features"):
        kernel_distance(a, a[:, :2])
    with pytest.raises(InputError, match=r"\(N, D\), got \(10, 3, 1\)"):
        kernel_distance(a[..., None], a)
    with pytest.raises(InputError, match="between 2 and 4, the smaller of the two counts; got 5"):
        kernel_distance(a, a[:4], subset_size=5)
    with pytest.raises(InputError, match="at least 2 examples of each, and there are 10 and 1"):
        kernel_distance(a, a[:1])
    with pytest.raises(InputError, match="subsets must be a positive integer, got 0"):
        kernel_distance(a, a, subsets=0)


def test_features_whose_third_powers_overflow_are_refused():
    with pytest.raises(InputError, match="third powers overflow"):
        kernel_distance(torch.zeros(9, 3), torch.full((9, 3), 1e200, dtype=torch.float64))
