"""Loading weights into the model that flags describe; names the flag where they differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor, nn

from scorefield.models.denoiser import Denoiser
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.weights import check_tensors, misfit

__all__ = ["Either", "Hints", "Original", "Shapes", "count", "fit", "network_of", "shapes_of"]

Shapes = Mapping[str, tuple[int, ...]]
Hints = Mapping[str, Callable[[Shapes], str]]
Either = Denoiser | NoisyClassifier
Kind = TypeVar("Kind", bound=Either, covariant=True)
Model = TypeVar("Model", bound=Either)

# A parameter that the networks of one origin have, and no others.
SIGNS = {
    "time_embed.0.weight": "guided-diffusion or improved-diffusion",
    "temb.dense.0.weight": "ddpm",
    "begin_conv.weight": "ncsn",
}


@dataclass(frozen=True)
class Original(Generic[Kind]):
    """The model that flags describe.

    Attributes:
        model: Its network is untrained and on the meta device.
        hints: flag -> what names and shapes say of it (a LookupError where they say nothing).
        details: The same for flags that show only where all hints agree.
        sampling: How the original samples, as a recipe's table.
        objective: How the original trains, as a recipe's table.
    """

    model: Kind
    hints: Hints
    details: Hints = field(default_factory=dict)
    sampling: Mapping[str, object] = field(default_factory=dict)
    objective: Mapping[str, object] = field(default_factory=dict)


def network_of(model: Either) -> nn.Module:
    """A model's network. IncompatibleModel where it is a function without parameters."""
    if not isinstance(model.net, nn.Module):
        raise IncompatibleModel(f"this model's network is a {type(model.net).__name__}, which has no weights")
    return model.net


def shapes_of(state_dict: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in state_dict.items()}


def count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that `pattern`, with one group, finds in the names; LookupError where
    it finds none.
    """
    found = [int(match[1]) for name in shapes if (match := re.match(pattern, name))]
    if not found:
        raise LookupError(pattern)
    return max(found) + 1


def fit(original: Original[Model], state_dict: Mapping[str, Tensor]) -> Model:
    """The model with these weights, in evaluation mode, on their device.

    Raises:
        InputError: Unless names and shapes are exactly the network's; it names the flags that differ where
            names and shapes show them.
    """
    model = original.model
    net = network_of(model)
    found, expected = shapes_of(state_dict), shapes_of(net.state_dict())
    if found != expected:
        raise InputError(_misfit(original, state_dict, net.state_dict()))
    check_tensors(state_dict, meta=True)
    net.to_empty(device=next(iter(state_dict.values())).device)
    net.load_state_dict(state_dict, strict=True)
    model.eval()
    return model


def _misfit(original: Original[Either], given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    found, expected = shapes_of(given), shapes_of(wanted)
    sign, own = _sign(found), _sign(expected)
    if sign != own:
        what = (
            f"these are weights of {SIGNS[sign]} (there is {sign})"
            if sign
            else f"there is no {own} among these weights"
        )
        return f"{what}, and the flags describe a network of {SIGNS[own] if own else 'another kind'}"
    for hints in (original.hints, original.details):
        wrong = [
            f"{flag} is {there} in the file but {here} in the flags"
            for flag, hint in hints.items()
            if (there := _read(hint, found)) != (here := _read(hint, expected)) and there and here
        ]
        if wrong:
            return f"the flags do not describe this file: {'; '.join(wrong)}"
    return f"the flags do not describe this file: {misfit(wanted, given)}"


def _sign(shapes: Shapes) -> str | None:
    return next((name for name in SIGNS if name in shapes), None)


def _read(hint: Callable[[Shapes], str], shapes: Shapes) -> str | None:
    try:
        return hint(shapes)
    except (LookupError, ZeroDivisionError):
        return None
