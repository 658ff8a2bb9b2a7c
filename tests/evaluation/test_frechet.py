"""The Fréchet distance against closed forms and two other implementations; streaming against batch formulas."""

import numpy as np
import pytest
import scipy.linalg
import torch

from scorefield.evaluation import Moments, frechet_distance
from scorefield.runtime.errors import InputError


def normals(n, dimension, seed, scale=1.0, shift=0.0):
    """Correlated normal features (n, D), float64."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((dimension, dimension)) / np.sqrt(dimension)
    return torch.from_numpy(rng.standard_normal((n, dimension)) @ mix * scale + shift)


def exactly(mean, cov):
    """Features whose sample mean and unbiased covariance are exactly these."""
    mean, cov = np.asarray(mean, float), np.asarray(cov, float)
    points = np.random.default_rng(0).standard_normal((4 * len(mean), len(mean)))
    points -= points.mean(axis=0)
    white = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points.T).reshape(len(mean), -1))).T
    root = scipy.linalg.sqrtm(cov).real
    return Moments().update(torch.from_numpy(white @ root + mean))


def textbook(x, y):
    a, b = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(a @ b).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)


def test_one_dimension():
    a, b = exactly([1.0], [[4.0]]), exactly([-2.0], [[0.25]])
    assert frechet_distance(a, b) == pytest.approx(3.0**2 + (2.0 - 0.5) ** 2, rel=1e-10)


def test_commuting_covariances():
    # [Fréchet 1957; Heusel et al. 2017 Eq. 6]
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    p, q = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.1, 7.0, 2.0, 1.0, 0.5])
    a, b = exactly(np.zeros(5), turn * p @ turn.T), exactly(np.ones(5), turn * q @ turn.T)
    assert frechet_distance(a, b) == pytest.approx(5 + ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(), rel=1e-9)


def test_two_by_two():
    # tr (A B)^½ = √(tr AB + 2 √det AB) for 2×2 matrices.
    A, B = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.7], [-0.7, 3.0]])
    shared = np.sqrt(np.trace(A @ B) + 2 * np.sqrt(np.linalg.det(A @ B)))
    expected = np.trace(A) + np.trace(B) - 2 * shared
    assert frechet_distance(exactly([0, 0], A), exactly([0, 0], B)) == pytest.approx(expected, rel=1e-9)


def test_identical_and_symmetric():
    x, y = normals(300, 32, 0, scale=10.0), normals(200, 32, 1)
    a, b = Moments().update(x), Moments().update(y)
    assert 0 <= frechet_distance(a, a) < 1e-8 * float(a.cov.trace())
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)


def test_equals_scipy():
    x, y = normals(400, 48, 2), normals(300, 48, 3, scale=1.5, shift=0.2)
    distance = frechet_distance(Moments().update(x), Moments().update(y))
    assert distance == pytest.approx(textbook(x.numpy(), y.numpy()), rel=1e-8)


def test_equals_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Flat(torch.nn.Module):
        num_features = 27

        def forward(self, images):
            return images.flatten(1)

    # Built by hand, because its own constructor probes the feature module with images of Inception's size.
    metric = fid.FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 3, 3)).set_dtype(
        torch.float64
    )
    real, fake = torch.rand(200, 3, 3, 3).double(), torch.rand(150, 3, 3, 3).double() ** 2
    metric.update(real, real=True)
    metric.update(fake, real=False)
    ours = frechet_distance(Moments().update(real.flatten(1)), Moments().update(fake.flatten(1)))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-4)


def test_singular_covariances():
    # Rank 3 and rank 2 in 20 dimensions, on different axes: nothing is shared, so both variances count in
    # full.
    x, y = torch.zeros(50, 20, dtype=torch.float64), torch.zeros(40, 20, dtype=torch.float64)
    x[:, :3], y[:, 5:7] = normals(50, 3, 4), normals(40, 2, 5)
    a, b = Moments().update(x), Moments().update(y)
    expected = float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    # Fewer examples than features, the usual case: a set against itself, and constants.
    few = Moments().update(normals(10, 64, 6))
    assert 0 <= frechet_distance(few, few) < 1e-7
    assert (
        frechet_distance(Moments().update(torch.zeros(5, 4)), Moments().update(torch.full((5, 4), 2.0)))
        == 16.0
    )


def test_streaming_equals_batch_far_from_zero():
    x = normals(1000, 16, 7) + 1e4
    moments = Moments()
    for size, part in zip((1, 2, 300, 0, 697), x.split([1, 2, 300, 0, 697]), strict=True):
        assert len(part) == size
        moments.update(part)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.cov, np.cov(x.numpy().T), atol=1e-11)


def test_half_precision_features_are_summed_in_float64():
    moments = Moments().update(torch.ones(5000, 2, dtype=torch.bfloat16))
    assert moments.mean.dtype == moments.cov.dtype == torch.float64
    assert moments.mean.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite(bad):
    features = torch.zeros(4, 3)
    features[2, 1] = bad
    with pytest.raises(InputError, match="1 of 4 feature vectors hold NaN or infinite"):
        Moments().update(features)


def test_bad_shapes_and_counts():
    moments = Moments().update(torch.zeros(1, 3))
    with pytest.raises(InputError, match=r"\(B, 3\), got \(2, 4\)"):
        moments.update(torch.zeros(2, 4))
    with pytest.raises(InputError, match="at least 2 examples, got 1"):
        frechet_distance(moments, moments)
    with pytest.raises(InputError, match="3 and 4 features"):
        frechet_distance(moments, Moments().update(torch.zeros(2, 4)))
    with pytest.raises(InputError, match=r"\(B, D\), got \(2, 4, 4\)"):
        Moments().update(torch.zeros(2, 4, 4))


def test_too_few_examples_name_the_number_needed():
    assert Moments().update(torch.zeros(65, 64)).warning("samples") is None
    text = Moments().update(torch.zeros(64, 64)).warning("samples")
    assert text is not None
    assert "at least 65" in text
