"""Features, distances and counts that no figure can be made of are refused in words."""

from typing import Any

import pytest
import torch

import scorefield as sf
from scorefield.evaluation import (
    ModuleFeatures,
    Moments,
    copying_ratio,
    enough,
    frechet_distance,
    inception_score,
    kernel_distance,
    nearest_distances,
    noisy_accuracy,
    precision_recall,
)

GOOD = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
WRONG: dict[str, Any] = {
    "complex": GOOD.to(torch.complex64),
    "boolean": GOOD > 0,
    "meta": GOOD.to("meta"),
    "sparse": GOOD.to_sparse(),
    "array": GOOD.numpy(),
    "nothing": None,
    "number": 3,
    "scalar": torch.tensor(1.0),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_table_of_real_numbers(name):
    wrong = WRONG[name]
    for figure in (kernel_distance, precision_recall, nearest_distances, copying_ratio):
        for pair in ((wrong, GOOD), (GOOD, wrong)):
            with pytest.raises(sf.InputError):
                figure(*pair)  # type: ignore[operator]
    for of_one in (inception_score, Moments().update):
        with pytest.raises(sf.InputError):
            of_one(wrong)  # type: ignore[operator]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, None, "3", float("nan"), torch.tensor([1.0, 2.0])])
def test_counts_are_counts(wrong):
    digits = sf.data.digits()
    calls = [
        lambda: precision_recall(GOOD, GOOD, k=wrong),
        lambda: precision_recall(GOOD, GOOD, block=wrong),
        lambda: precision_recall(GOOD, GOOD, columns=wrong),
        lambda: kernel_distance(GOOD, GOOD, rows=wrong),
        lambda: nearest_distances(GOOD, GOOD, block=wrong),
        lambda: inception_score(GOOD.log_softmax(1), splits=wrong),
        lambda: noisy_accuracy(lambda x, t: x, digits, batch_size=wrong),
    ]
    for call in calls:
        with pytest.raises(sf.ScorefieldError):
            call()


def test_features_without_columns_and_sets_that_are_no_moments():
    for figure in (kernel_distance, precision_recall):
        with pytest.raises(sf.InputError, match="shape"):
            figure(torch.zeros(4, 0), torch.zeros(4, 0))
    with pytest.raises(sf.InputError, match="Moments of its features"):
        frechet_distance(Moments().update(GOOD), GOOD)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match="dimension"):
        enough(3, -1)


def test_an_extractor_needs_a_function_and_a_spec():
    with pytest.raises(sf.InputError, match="module must be"):
        ModuleFeatures(3, sf.DataSpec((1, 8, 8)), "mine")  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match="a DataSpec"):
        ModuleFeatures(lambda x: x.flatten(1), (1, 8, 8), "mine")  # type: ignore[arg-type]
