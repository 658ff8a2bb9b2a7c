"""Facts about recipes and runs, computed on the meta device: nothing is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from scorefield.config import Recipe, build_model, build_net, build_process, read_recipe, read_run, recipe_names
from scorefield.core.compute import autocast_dtype, pick_device
from scorefield.core.shapes import DataSpec
from scorefield.denoiser import Denoiser
from scorefield.score_model import ScoreModel
from scorefield.training import RunFolder

__all__ = ["expected_data", "flops", "info_facts", "recipe_facts"]

_DIGIT_CLASSES = tuple(str(digit) for digit in range(10))


def expected_data(recipe: Recipe) -> DataSpec:
    """What the recipe's data will look like, without opening it."""
    if recipe.trained_on is not None:
        return recipe.trained_on.spec
    if recipe.data.source == "digits":
        return DataSpec((1, 8, 8), recipe.data.range, _DIGIT_CLASSES, 17)
    if (recipe.data.source or "").startswith("toy:"):
        return DataSpec((2,), recipe.data.range)
    size, classes = recipe.data.size or 32, _DIGIT_CLASSES if recipe.model.conditional else ()
    return DataSpec((recipe.data.channels or 3, size, size), recipe.data.range, classes, 256)


def recipe_facts() -> list[dict[str, Any]]:
    """One entry a recipe: name, title, paper, shape, parameters."""
    facts = []
    for name in recipe_names():
        recipe = read_recipe(name)
        spec = expected_data(recipe)
        parameters = _count(_meta_model(recipe, spec))
        facts.append(
            {"name": name, "title": recipe.title, "shape": list(spec.shape), "parameters": parameters, "paper": recipe.paper}
        )
    return facts


def info_facts(what: str) -> dict[str, Any]:
    """What `scorefield info` prints, for a recipe or a run."""
    is_run = RunFolder(Path(what)).config.is_file()
    recipe = read_run(what)[0] if is_run else read_recipe(what)
    spec = expected_data(recipe)
    model = _meta_model(recipe, spec)
    facts = {
        "name": f"{what} ({recipe.name})" if is_run else recipe.name,
        "what": recipe.title,
        "paper": recipe.paper,
        "parameters": f"{_count(model):,}",
        "FLOPs of one evaluation": f"{flops(model):,} for one example of shape {'×'.join(map(str, spec.shape))}",
        "noise levels": _levels(model),
        "network": f"{recipe.net['kind']}, {_meaning(model)}",
        "precision here": "bf16" if autocast_dtype("auto", pick_device(None)) else "fp32",
    }
    if recipe.trained_on is not None:
        seen = recipe.trained_on
        facts["trained on"] = f"{seen.examples:,} examples of {seen.source}, fingerprint {seen.fingerprint}"
        facts["training"] = f"{recipe.training.steps:,} steps of {recipe.training.batch_size}, seed {recipe.training.seed}"
    return facts


def flops(model: Denoiser | ScoreModel) -> int:
    """Floating-point operations of one prediction for one example (a multiplication and an addition are two)."""
    if model.data is None:
        return 0
    x = torch.zeros(1, *model.data.shape, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if isinstance(model, ScoreModel):
            model.net(x, None)
        else:
            labels = {"y": torch.zeros(1, dtype=torch.long, device="meta")} if model.num_classes else {}
            model.eval()(x, model.process.T, **labels)
    return int(counter.get_total_flops())


def _levels(model: Denoiser | ScoreModel) -> str:
    if isinstance(model, ScoreModel):
        return "none: a score of the data itself"
    process = model.process
    first, last = (float(level.sigma / level.alpha) for level in (process.level(1), process.level(process.T)))
    return f"{process.T}, σ/α from {first:.3g} to {last:.3g} ({process.spec['kind']})"


def _meaning(model: Denoiser | ScoreModel) -> str:
    if isinstance(model, ScoreModel):
        return "gives an energy" if model.has_energy else "gives the score"
    return f"predicts {model.parametrization}, noise input {model.noise_input}"


def _meta_model(recipe: Recipe, spec: DataSpec) -> Denoiser | ScoreModel:
    process = build_process(recipe)
    with torch.device("meta"):
        net = build_net(recipe, spec, process)
    return build_model(recipe, spec, net)


def _count(model: Denoiser | ScoreModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
