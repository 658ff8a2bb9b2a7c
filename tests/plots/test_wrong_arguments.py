"""Every figure refuses what is no mapping of the things that it draws, and an empty one, before it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import scorefield as sf

POINTS = torch.zeros(3, 2)
MIXTURE = sf.oracle.GaussianMixture([[0.0, 0.0], [1.0, 1.0]], torch.eye(2).expand(2, 2, 2))
MODEL = MIXTURE.denoiser(sf.process.cosine(10))
DRAW: dict[str, Callable[[Any], object]] = {
    "draw_accuracy": lambda given: sf.plots.draw_accuracy(given, "a run"),
    "draw_guidance": lambda given: sf.plots.draw_guidance(given, "a run"),
    "draw_guided_mixture": lambda given: sf.plots.draw_guided_mixture(MIXTURE, 0, given),
    "draw_step_counts": lambda given: sf.plots.draw_step_counts(MODEL, torch.zeros(1, 1, 2, 2), given),
    "draw_guidance_scales": sf.plots.draw_guidance_scales,
    "draw_network_costs": lambda given: sf.plots.draw_network_costs(given, sf.DataSpec((1, 8, 8))),
    "draw_points": sf.plots.draw_points,
    "draw_fields": lambda given: sf.plots.draw_fields(given, POINTS),
    "draw_paths": lambda given: sf.plots.draw_paths(given, POINTS),
    "draw_noising": lambda given: sf.plots.draw_noising(torch.zeros(1, 4, 4), given),
    "draw_loss_weights": sf.plots.draw_loss_weights,
    "draw_terms": sf.plots.draw_terms,
}


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("given", [torch.zeros(2, 2), None, {}, [POINTS], 3], ids=repr)
def test_what_is_no_mapping_is_refused(name: str, given: object) -> None:
    with pytest.raises(sf.InputError, match=r"must be a mapping of names to .*, with at least one, got"):
        DRAW[name](given)


@pytest.mark.parametrize("name", sorted(DRAW.keys() - {"draw_fields", "draw_step_counts"}))
def test_values_of_another_kind_are_refused(name: str) -> None:
    with pytest.raises(sf.InputError, match="must be a mapping of names to"):
        DRAW[name]({"a": 3})


def test_a_bound_is_a_metric() -> None:
    with pytest.raises(sf.InputError, match="the metric bpd of an evaluation, got"):
        sf.plots.draw_bound(MODEL, "a run")  # type: ignore[arg-type]
