"""Facts about recipes and runs, computed on the meta device: nothing is allocated."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from scorefield.core.shapes import DataSpec
from scorefield.models.network import NetworkInputs
from scorefield.models.network_model import ModelBase
from scorefield.nets import fused
from scorefield.runs.build import (
    Recipe,
    expected_data,
    meta_model,
    naming,
    read_recipe,
    recipe_names,
    recipe_of,
)
from scorefield.runs.opened import OpenedRun
from scorefield.runtime.checks import brief
from scorefield.runtime.errors import InputError
from scorefield.runtime.precision import bf16_units, pick_device

__all__ = [
    "Cost",
    "cost",
    "info_facts",
    "info_rows",
    "readable",
    "recipe_facts",
]

_COSTS = ("evaluation_flops", "training_flops", "activation_bytes")
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def recipe_facts() -> list[dict[str, Any]]:
    """One entry a recipe: name, title, paper, shape, parameters."""
    facts = []
    for name in recipe_names():
        recipe = read_recipe(name)
        spec = expected_data(recipe)
        parameters = _count(meta_model(_here(recipe, spec), spec))
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
    """What there is to know of a recipe or a run, numbers as numbers.

    Args:
        what: Name or file of a recipe, or the folder of a run.
        allow: Modules of the user's own that it may name.
    """
    recipe, is_run = recipe_of(what, allow)
    with naming(recipe.file):
        return _facts(what, recipe, is_run)


def info_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts in words, for people: what `scorefield info` prints."""
    rows = [("what", facts["what"]), ("paper", facts["paper"]), ("parameters", f"{facts['parameters']:,}")]
    if facts["evaluation_flops"] is None:
        rows.append(("FLOPs of one evaluation", f"unknown: {facts['unknown']} is known only from data"))
    else:
        shape = "×".join(map(str, facts["shape"]))
        rows += [
            (
                "FLOPs of one evaluation",
                f"{readable(facts['evaluation_flops'])} for one example of shape {shape}",
            ),
            ("FLOPs of one training step", f"{readable(facts['training_flops'])} per example"),
            (
                "activations kept for the backward pass",
                f"{readable(facts['activation_bytes'])}B per example in fp32",
            ),
        ]
    rows += [(name.replace("_", " "), facts[name]) for name in ("noise_levels", "network")]
    rows += [(f"{name} here", facts[name]) for name in ("device", "precision", "kernels")]
    if "imported_from" in facts:
        rows.append(("imported from", facts["imported_from"]))
    if "trained_on" in facts:
        seen, training = facts["trained_on"], facts["training"]
        amount = "a stream" if seen["examples"] is None else f"{seen['examples']:,} examples"
        done = "none" if training["step"] is None else f"{training['step']:,}"
        rows += [
            ("trained on", f"{amount} of {seen['source']}, fingerprint {seen['fingerprint']}"),
            (
                "training",
                f"{done} of {training['steps']:,} steps of {training['batch_size']}, seed {training['seed']}",
            ),
        ]
    return rows


def _facts(what: str, recipe: Recipe, is_run: bool) -> dict[str, Any]:
    spec = expected_data(recipe)
    recipe = _here(recipe, spec)
    model = meta_model(recipe, spec)
    facts = {
        "name": f"{what} ({recipe.name})" if is_run else recipe.name,
        "what": _title(recipe),
        "paper": recipe.paper,
        "parameters": _count(model),
        "shape": list(spec.shape),
        **_costs(model),
        "noise_levels": model.describe_levels(),
        "network": f"{recipe.net['kind']}, {model.describe_output()}",
        **_machine(),
    }
    seen, options = recipe.trained_on, recipe.training
    if seen is None:
        return facts
    if seen.examples == 0:
        return {**facts, "imported_from": f"{seen.source}, {seen.fingerprint}"}
    return {
        **facts,
        "trained_on": seen.model_dump(include={"source", "examples", "fingerprint", "classes"}),
        "training": {
            "step": OpenedRun(what).step if is_run else None,
            **options.model_dump(include={"steps", "batch_size", "seed"}),
        },
    }


def _here(recipe: Recipe, spec: DataSpec) -> Recipe:
    """The recipe as it would be trained on this machine."""
    return recipe.on(pick_device(None).type, spec)


def _title(recipe: Recipe) -> str:
    """The recipe's title, unless it is of other data than those that were trained on."""
    own = read_recipe(recipe.name).data.source if recipe.name in recipe_names() else None
    if recipe.trained_on is None or own is None or own == recipe.data.source:
        return recipe.title
    return f"the recipe {recipe.name}, on {recipe.trained_on.source}"


def _costs(model: ModelBase) -> dict[str, Any]:
    """What an evaluation and a step of training cost, for one example."""
    if model.data is None or (unknown := sorted(model.missing - {"low_res"})):
        what = "of an example" if model.data is None else f"of the array {unknown[0]!r}"
        return dict.fromkeys(_COSTS) | {"unknown": f"the shape {what}"}
    return dict(zip(_COSTS, cost(model), strict=True))


def _machine() -> dict[str, str]:
    """What this machine will compute in, and by what."""
    device = pick_device(None)
    units = bf16_units(device)
    precision = (
        "fp32 (this machine does not multiply bf16 in hardware)" if units is None else f"bf16 ({units})"
    )
    kernels = "torch's own"
    if device.type == "cpu":
        compiled, without = (
            "compiled normalization, channels-last",
            "plain PyTorch; pip install scorefield[fast] adds compiled kernels",
        )
        kernels = compiled if fused.available() else without
    return {"device": device.type, "precision": precision, "kernels": kernels}


class Cost(NamedTuple):
    """What the network costs for one example in float32.

    Attributes:
        evaluation: Floating-point operations of the forward pass.
        training: Floating-point operations of the forward and the backward pass.
        kept: Bytes that autograd keeps between the two.
    """

    evaluation: int
    training: int
    kept: int


def cost(model: ModelBase) -> Cost:
    """What one evaluation of the network costs, and one step of training, for one example.

    Operations are those of matrix products and convolutions, nearly all there are; a multiplication and an addition
    are two. Of the memory that autograd keeps for the backward pass every tensor counts once, without parameters. It
    grows in proportion to the batch; tensors that live only while they are computed come on top.

    Args:
        model: A model with a network, which knows its data (`data=`). It is copied, and nothing is computed; one on
            the meta device needs no memory.

    Returns:
        The cost of one example.

    Raises:
        InputError: For what is no such model.
    """
    if not isinstance(model, ModelBase):
        raise InputError(f"model must be a model with a network, such as a sf.Denoiser, got {brief(model)}")
    inputs, model = model.network_inputs(1), copy.deepcopy(model)
    with FakeTensorMode():
        return _counted(_as_on_cpu(model.train()), inputs)


def _as_on_cpu(model: ModelBase) -> ModelBase:
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


def _counted(model: ModelBase, inputs: NetworkInputs) -> Cost:
    """For a model whose tensors have shapes and no numbers, and pass for a CPU's."""
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, Tensor] = {}  # by storage; the tensors are held so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = inputs.call(model.net, "cpu")
        evaluation = int(counter.get_total_flops())
        output.sum().backward()
    kept = sum(
        tensor.untyped_storage().nbytes() for storage, tensor in saved.items() if storage not in parameters
    )
    return Cost(evaluation, int(counter.get_total_flops()), kept)


def readable(number: float) -> str:
    """Three digits and the prefix of a unit: 1.93 G."""
    prefix, *larger = _PREFIXES
    while number >= 999.5 and larger:
        number, prefix = number / 1000, larger.pop(0)
    return f"{number:.3g} {prefix}"


def _count(model: ModelBase) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
