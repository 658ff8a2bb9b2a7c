"""The real digits, split as recipes split them, and one classifier trained on them for all tests."""

import pytest

from scorefield.data import digits
from scorefield.evaluation import train_classifier


@pytest.fixture(scope="session")
def split():
    return digits().split(0.2, 0)


@pytest.fixture(scope="session")
def classifier(split):
    return train_classifier(split[0], seed=0)
