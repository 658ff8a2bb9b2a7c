"""The Inception Score against closed forms and torchmetrics."""

import math

import numpy as np
import pytest
import torch

from scorefield.evaluation import inception_score
from scorefield.runtime.errors import InputError


def logits(n, classes, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, classes)) * 2)


def test_uniform_rows_score_1():
    score = inception_score(torch.full((40, 7), -math.log(7)))
    assert score.mean == pytest.approx(1.0, abs=1e-6)
    assert score.std == pytest.approx(0.0, abs=1e-6)


def test_certain_and_balanced_scores_the_classes():
    score = inception_score(torch.eye(6, dtype=torch.float64).repeat(10, 1).log())
    assert score.mean == pytest.approx(6.0, rel=1e-12)
    assert score.std == pytest.approx(0.0, abs=1e-12)


def test_certain_and_unbalanced_scores_the_entropy():
    """exp H(p(y)), of shares 1/2, 1/4, 1/4: 2^(3/2); a class that no image has adds nothing."""
    rows = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2]]
    assert inception_score(rows.log(), splits=1).mean == pytest.approx(2**1.5, rel=1e-12)


def test_two_kinds_of_rows():
    """Half (p, 1-p), half (1-p, p): ln 2 - H(p), here at p = 0.9.  [Salimans et al. 2016 §4]"""
    p = 0.9
    rows = torch.tensor([[p, 1 - p], [1 - p, p]], dtype=torch.float64).repeat(5, 1)
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    score = inception_score(rows.log(), splits=1)
    assert score.mean == pytest.approx(2 * math.exp(-entropy), rel=1e-12)
    assert score.std is None


@pytest.mark.filterwarnings("ignore:Metric `Inception", "ignore:std")
def test_equals_torchmetrics():
    module = pytest.importorskip("torchmetrics.image.inception")

    class Given(torch.nn.Module):
        def forward(self, images):
            return images

    z = logits(300, 11)
    metric = module.InceptionScore(feature=Given(), splits=1).set_dtype(torch.float64)
    metric.update(z)
    assert inception_score(z.log_softmax(dim=1), splits=1).mean == pytest.approx(
        float(metric.compute()[0]), rel=1e-10
    )


def test_splits_are_equal_parts_in_order():
    log_probs = logits(103, 5, seed=1).log_softmax(dim=1)
    parts = [
        inception_score(part, splits=1).mean
        for part in (log_probs[:25], log_probs[25:51], log_probs[51:77], log_probs[77:])
    ]
    score = inception_score(log_probs, splits=4)
    assert score.mean == pytest.approx(np.mean(parts), rel=1e-12)
    assert score.std == pytest.approx(np.std(parts), rel=1e-9)


def test_bad_input():
    good = logits(20, 3).log_softmax(dim=1)
    with pytest.raises(InputError, match=r"20 of 20 rows are not log probabilities .*: give log_softmax"):
        inception_score(good + 1)
    bad = good.clone()
    bad[3, 0] = torch.nan
    with pytest.raises(InputError, match="1 of 20 rows are not log probabilities"):
        inception_score(bad)
    with pytest.raises(InputError, match="20 images cannot be cut into 21 splits: use 1 to 20"):
        inception_score(good, splits=21)
    with pytest.raises(InputError, match=r"\(N, K\), got \(20,\)"):
        inception_score(good[:, 0])
    with pytest.raises(InputError, match="there are none"):
        inception_score(good[:0])
