"""Every figure refuses what is no mapping of the things that it draws, and an empty one, before it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_hostile_arguments import HOSTILE, Case, outcome

import scorefield as sf

POINTS = torch.tensor([[0.0, 0.0], [0.5, 1.0], [1.0, 0.5]])
PATHS = torch.stack([POINTS, POINTS / 2])
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
    with pytest.raises(
        sf.InputError, match=r"must be a mapping of (names|scales) to .*, with at least one, got"
    ):
        DRAW[name](given)


@pytest.mark.parametrize("name", sorted(DRAW.keys() - {"draw_fields", "draw_step_counts"}))
def test_values_of_another_kind_are_refused(name: str) -> None:
    with pytest.raises(sf.InputError, match=r"must be a mapping of (names|scales) to"):
        DRAW[name]({"a": 3})


IMAGE = torch.zeros(1, 1, 4, 4)
WALK = torch.zeros(1, 2, 1, 4, 4)
LIMITS = [(-1.0, 1.0), (-1.0, 1.0)]
LEARNED = sf.Denoiser(sf.nets.MLP(2, hidden=8, out_dim=4), sf.process.cosine(10), variance="range").eval()
LEVELS = tuple(0.5 for _ in range(2))
ACCURACY = sf.evaluation.NoisyAccuracy((1, 2), LEVELS, LEVELS, LEVELS, LEVELS, LEVELS, 5, 0.5, 0.6)
CASES: dict[str, Case] = {
    "draw_accuracy": Case(sf.plots.draw_accuracy, {"parts": {"a": ACCURACY}, "name": "a run"}),
    "draw_guided_mixture": Case(
        sf.plots.draw_guided_mixture, {"mixture": MIXTURE, "y": 0, "samples": {1.0: POINTS}}
    ),
    "points of draw_guided_mixture": Case(
        lambda points: sf.plots.draw_guided_mixture(MIXTURE, 0, {1.0: points}), {"points": POINTS}
    ),
    "draw_step_counts": Case(
        sf.plots.draw_step_counts,
        {
            "model": MODEL,
            "x_T": IMAGE,
            "samplers": {"DDIM": sf.samplers.DDIM()},
            "steps": [2],
            "grid": sf.grids.uniform,
            "seed": 0,
            "span": (-1, 1),
        },
    ),
    "draw_images": Case(
        sf.plots.draw_images,
        {"rows": {"a": IMAGE}, "columns": 2, "span": (-1, 1), "title": "t", "heads": ["h"]},
    ),
    "images of draw_images": Case(lambda images: sf.plots.draw_images({"a": images}), {"images": IMAGE}),
    "draw_guidance_scales": Case(sf.plots.draw_guidance_scales, {"samples": {1.0: IMAGE}, "title": "t"}),
    "images of draw_guidance_scales": Case(
        lambda images: sf.plots.draw_guidance_scales({1.0: images}), {"images": IMAGE}
    ),
    "draw_walks": Case(
        sf.plots.draw_walks, {"images": WALK, "latents": WALK, "frames": WALK, "title": "a walk"}
    ),
    "draw_points": Case(sf.plots.draw_points, {"points": {"a": POINTS}, "limits": LIMITS}),
    "points of draw_points": Case(
        lambda points: sf.plots.draw_points({"a": points}, LIMITS), {"points": POINTS}
    ),
    "draw_fields": Case(
        sf.plots.draw_fields,
        {
            "scores": {"a": MIXTURE.score},
            "points": POINTS,
            "log_density": MIXTURE.log_prob,
            "limits": LIMITS,
        },
    ),
    "scores of draw_fields": Case(
        lambda score: sf.plots.draw_fields({"a": score}, POINTS, limits=LIMITS), {"score": MIXTURE.score}
    ),
    "draw_paths": Case(
        sf.plots.draw_paths, {"paths": {"a": PATHS}, "points": POINTS, "count": 2, "limits": LIMITS}
    ),
    "paths of draw_paths": Case(
        lambda paths: sf.plots.draw_paths({"a": paths}, POINTS, limits=LIMITS), {"paths": PATHS}
    ),
    "draw_noising": Case(
        sf.plots.draw_noising,
        {"x0": IMAGE[0], "processes": {"a": MODEL.process}, "columns": 2, "seed": 0, "span": (-1, 1)},
    ),
    "draw_loss_weights": Case(
        sf.plots.draw_loss_weights, {"processes": {"a": MODEL.process}, "variance": "upper"}
    ),
    "draw_terms": Case(sf.plots.draw_terms, {"terms": {"a": torch.ones(2, 5)}}),
    "terms of draw_terms": Case(lambda terms: sf.plots.draw_terms({"a": terms}), {"terms": torch.ones(2, 5)}),
    "draw_variances": Case(sf.plots.draw_variances, {"model": LEARNED, "x0": POINTS, "seed": 0}),
    "draw_time_shares": Case(sf.plots.draw_time_shares, {"times": sf.objectives.ImportanceTimes(20)}),
}
# Of every kind of value one, since some figures are drawn whichever it is.
TRIED = (
    "None", "word", "object", "class", "function", "NaN", "0", "10**5000", "words", "ragged", "empty tensor", "number tensor",
    "NaN tensor", "long tensor", "complex tensor", "cube", "array", "sparse tensor", "meta tensor",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_every_argument_is_met_by_words(name: str) -> None:
    case = CASES[name]
    assert not outcome(case, case.good), "it must work with good arguments"
    wrong = [
        f"{argument}={word}: {found}"
        for argument in case.good
        for word in TRIED
        if (found := outcome(case, {**case.good, argument: HOSTILE[word]}))
    ]
    assert not wrong, f"{len(wrong)} arguments of {name} are met by no words:\n" + "\n".join(wrong)


def test_every_figure_is_tried() -> None:
    tried = DRAW.keys() | {name.split()[-1] for name in CASES} | {"draw_bound", "plot_run"}
    assert tried == set(sf.plots.__all__)


@pytest.mark.parametrize("title", [3, None])
def test_keys_are_names(title: object) -> None:
    with pytest.raises(sf.InputError, match="must be a mapping of names to"):
        sf.plots.draw_points({title: POINTS})  # type: ignore[dict-item]
    with pytest.raises(sf.InputError, match="must be a mapping of scales to"):
        sf.plots.draw_guidance_scales({"word": IMAGE})  # type: ignore[dict-item]


def test_a_bound_is_a_metric() -> None:
    with pytest.raises(sf.InputError, match="the metric bpd of an evaluation, got"):
        sf.plots.draw_bound(MODEL, "a run")  # type: ignore[arg-type]
