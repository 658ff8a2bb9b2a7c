"""Facts about recipes and runs, computed on the meta device: nothing is allocated."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from scorefield.core.shapes import DataSpec
from scorefield.data.sources.parse import expected_spec
from scorefield.models.categorical_denoiser import CategoricalDenoiser
from scorefield.models.denoiser import Denoiser
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.models.parametrization import noise_input
from scorefield.models.score_model import ScoreModel
from scorefield.nets import fused
from scorefield.runs.build import (
    Model,
    Recipe,
    TrainedOn,
    build_model,
    build_net,
    build_process,
    read_recipe,
    recipe_names,
    recipe_of,
)
from scorefield.runtime.precision import bf16_units, pick_device

__all__ = [
    "Cost",
    "cost",
    "network_output",
    "expected_data",
    "info_facts",
    "meta_model",
    "noise_input_at_T",
    "readable",
    "recipe_facts",
]

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def expected_data(recipe: Recipe) -> DataSpec:
    """What the recipe's data will look like, without opening it."""
    if recipe.trained_on is not None:
        return recipe.trained_on.spec
    spec = expected_spec(recipe.data, recipe.model.conditional or recipe.is_classifier)
    return replace(spec, range=recipe.data.range)


def recipe_facts() -> list[dict[str, Any]]:
    """One entry a recipe: name, title, paper, shape, parameters."""
    facts = []
    for name in recipe_names():
        recipe = read_recipe(name)
        spec = expected_data(recipe)
        parameters = _count(meta_model(recipe, spec))
        facts.append(
            {
                "name": name,
                "title": recipe.title,
                "shape": list(spec.shape),
                "parameters": parameters,
                "paper": recipe.paper,
            }
        )
    return facts


def info_facts(what: str, allow: Sequence[str] = ()) -> dict[str, Any]:
    """What `scorefield info` prints, for a recipe or a run.   allow: modules of the user's own that it may name."""
    recipe, is_run = recipe_of(what, allow)
    spec = expected_data(recipe)
    model = meta_model(recipe, spec)
    evaluation, training, kept = cost(model)
    facts = {
        "name": f"{what} ({recipe.name})" if is_run else recipe.name,
        "what": recipe.title,
        "paper": recipe.paper,
        "parameters": f"{_count(model):,}",
        "FLOPs of one evaluation": f"{readable(evaluation)} for one example of shape {'×'.join(map(str, spec.shape))}",
        "FLOPs of one training step": f"{readable(training)} an example",
        "activations kept for it": f"{readable(kept)}B an example in fp32",
        "noise levels": _levels(model),
        "network": f"{recipe.net['kind']}, {_meaning(model)}",
        **_machine(),
    }
    if recipe.trained_on is not None:
        facts |= _history(recipe, recipe.trained_on)
    return facts


def _machine() -> dict[str, str]:
    """What this machine will compute in, and by what."""
    device = pick_device(None)
    units = bf16_units(device)
    precision = "fp32 (nothing here multiplies bf16 in hardware)" if units is None else f"bf16 ({units})"
    kernels = "torch's own"
    if device.type == "cpu":
        compiled, without = (
            "compiled normalization, channels-last",
            "plain formulas; pip install scorefield[fast] compiles some",
        )
        kernels = compiled if fused.available() else without
    return {"device here": device.type, "precision here": precision, "kernels here": kernels}


def _history(recipe: Recipe, seen: TrainedOn) -> dict[str, str]:
    if seen.examples == 0:
        return {"imported from": f"{seen.source}, {seen.fingerprint}"}
    amount = "a stream" if seen.examples is None else f"{seen.examples:,} examples"
    return {
        "trained on": f"{amount} of {seen.source}, fingerprint {seen.fingerprint}",
        "training": f"{recipe.training.steps:,} steps of {recipe.training.batch_size}, seed {recipe.training.seed}",
    }


class Cost(NamedTuple):
    """Of one example in float32. evaluation, training: floating-point operations forward, and forward and
    backward.

    kept: bytes that autograd keeps between the two.
    """

    evaluation: int
    training: int
    kept: int


def cost(model: Model) -> Cost:
    """What one evaluation of the network costs, and one step of training, for one example.

    model: on the meta device, so that nothing is allocated. Operations are those of matrix products and
    convolutions, nearly all there are; a multiplication and an addition are two. kept: what is saved on the
    way forward for the way back, each tensor once and no parameters. It grows in proportion to the batch;
    what lives only while it is computed comes on top.
    """
    if model.data is None:
        return Cost(0, 0, 0)
    number = noise_input_at_T(model)
    model = copy.deepcopy(model)
    with FakeTensorMode():
        return _counted(_as_on_cpu(model).train(), number)


def _as_on_cpu(model: nn.Module) -> nn.Module:
    """The model with tensors of the kind that FakeTensorMode makes, which choose a CPU's kernels, in place of
    a meta device's.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            module._parameters[name] = nn.Parameter(
                torch.empty(parameter.shape, dtype=parameter.dtype), parameter.requires_grad
            )
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return model


def _counted(model: Any, number: NoiseInput | None) -> Cost:
    """For a model whose tensors have shapes and no numbers, and pass for a CPU's."""
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, Tensor] = {}  # by storage; the tensors are held so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = network_output(model, number, 1, "cpu")
        evaluation = int(counter.get_total_flops())
        output.sum().backward()
    kept = sum(
        tensor.untyped_storage().nbytes() for storage, tensor in saved.items() if storage not in parameters
    )
    return Cost(evaluation, int(counter.get_total_flops()), kept)


def network_output(model: Any, c: NoiseInput | None, batch: int, device: str) -> Tensor:
    """The network's output for `batch` examples of zeros, made on this device.   c: as `noise_input_at_T` gives
    it.
    """
    x = torch.zeros(batch, *model.data.shape, device=device)
    if c is None:
        return model.net(x, None)
    if isinstance(model, CategoricalDenoiser):
        x = x.repeat(1, model.process.states, *[1] * (x.ndim - 2))
    given: dict[str, Tensor] = {}
    if isinstance(model, Denoiser | CategoricalDenoiser) and model.num_classes:
        given["y"] = torch.zeros(batch, dtype=torch.long, device=device)
    if getattr(model.net, "config", {}).get("low_res"):
        given["low_res"] = x
    return model.net(x, torch.full((batch,), c.value, dtype=c.dtype, device=device), **given)


class NoiseInput(NamedTuple):
    value: float
    dtype: torch.dtype


def noise_input_at_T(model: Any) -> NoiseInput | None:
    """What the network receives as the noisiest level; None for a model without levels."""
    if isinstance(model, ScoreModel):
        return None
    c = noise_input(model.noise_input, model.process, torch.tensor(model.process.T), torch.float32)
    return NoiseInput(c.item(), c.dtype)


def readable(number: float) -> str:
    """Three digits and the prefix of a unit: 1.93 G."""
    prefix, *larger = _PREFIXES
    while number >= 999.5 and larger:
        number, prefix = number / 1000, larger.pop(0)
    return f"{number:.3g} {prefix}"


def _levels(model: Model) -> str:
    if isinstance(model, ScoreModel):
        return "none: a score of the data itself"
    if isinstance(model, CategoricalDenoiser):
        kept = [float(model.process.level(t)) for t in (1, model.process.T)]
        return f"{model.process.T}, values kept from {kept[0]:.3g} to {kept[1]:.3g} ({model.process.config['kind']})"
    process = model.process
    first, last = (float(level.ratio) for level in (process.level(1), process.level(process.T)))
    return f"{process.T}, σ/α from {first:.3g} to {last:.3g} ({process.config['kind']})"


def _meaning(model: Model) -> str:
    if isinstance(model, ScoreModel):
        return "gives an energy" if model.has_energy else "gives the score"
    if isinstance(model, NoisyClassifier):
        return f"tells {model.num_classes} classes apart, noise input {model.noise_input}"
    if isinstance(model, CategoricalDenoiser):
        what = f"predicts which of {model.process.classes} categories each value is"
        return f"{what}, parametrization {model.parametrization}, noise input {model.noise_input}"
    enlarges = f"enlarges images of {model.low_res}×{model.low_res}, " if model.low_res is not None else ""
    return f"{enlarges}predicts {model.parametrization}, noise input {model.noise_input}"


def meta_model(recipe: Recipe, spec: DataSpec) -> Model:
    process = build_process(recipe)
    with torch.device("meta"):
        net = build_net(recipe, spec, process)
    return build_model(recipe, spec, net)


def _count(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
