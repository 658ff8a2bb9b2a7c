"""A network in place of a model is refused by every objective that needs noise levels."""

import pytest
import torch

import scorefield as sf
from scorefield.objectives import NCSN, VLB, Classify, Hybrid, Simple


@pytest.mark.parametrize("objective", [Simple, VLB, Hybrid, NCSN, Classify])
def test_a_network_is_no_model(objective):
    with pytest.raises(sf.IncompatibleModel, match=f"{objective.__name__} trains a"):
        objective(torch.nn.Linear(2, 2))
