"""ermongroup/ncsn (Song & Ermon 2019): its network by constructor, and its checkpoints by its configuration."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from scorefield.core.shapes import DataSpec
from scorefield.interop.arguments import CASE_KEYS, build
from scorefield.interop.fit import Hints, Original, Shapes, fit, shapes_of
from scorefield.interop.flags import read_flags
from scorefield.models.denoiser import Denoiser
from scorefield.nets import RefineNet
from scorefield.process import geometric
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options

__all__ = ["load", "network"]

_STEP = 4e-5  # x ← x + (step/2)·s + √step·z: the published step_lr = 2e-5 multiplies s, so it is half of this


class Flags(Options):
    """The fields of the repository's configurations that describe a model; their sections may be left out."""

    image_size: int = Field(ge=2)
    channels: int = Field(ge=1)
    ngf: int
    num_classes: int = Field(ge=2)
    sigma_begin: float
    sigma_end: float
    logit_transform: bool = False


def load(state_dict: Mapping[str, Tensor], flags: Mapping[str, object]) -> Denoiser:
    """A published NCSN, ready to sample with annealed Langevin dynamics.

    The data are in [0, 1]. The published σ_i is the level t = L + 1 − i here.

    Args:
        state_dict: Original names -> tensors; the model is made on their device.
        flags: Fields of the original's configuration, in their sections {"model": {"ngf": 128, …}, "data": …}
            or without, as text or numbers; all are needed.
    Raises:
        InputError: For an unknown flag, and for flags that do not describe the weights; it names the flag
            where names and shapes show which it is.
    """
    return fit(describe(flags, shapes_of(state_dict)), state_dict)


def describe(flags: Mapping[str, object], shapes: Shapes) -> Original[Denoiser]:
    """The model of these flags."""
    table = read_flags(Flags, flags)
    if table.logit_transform:
        raise InputError(
            "logit_transform=true is not supported: no published NCSN was trained on logits of its images"
        )
    with torch.device("meta"):
        net = cond_refinenet_dilated(channels=table.channels, ngf=table.ngf, num_classes=table.num_classes)
    with torch.device("cpu"):
        process = geometric(table.sigma_begin, table.sigma_end, table.num_classes)
    data = DataSpec((table.channels, table.image_size, table.image_size), (0.0, 1.0), (), 256)
    sampling = {
        "sampler": {"kind": "langevin", "step": _STEP},
        "grid": "staircase",
        "repeats": 100,
        "start": "uniform",
        "clip": False,
    }
    model = Denoiser(net, process, parametrization="score", noise_input="rank", data=data)
    return Original(model, HINTS, sampling=sampling, objective={"kind": "ncsn"})


def network(kind: str, arguments: Mapping[str, object]) -> nn.Module:
    """The network of the original's configuration; it loads the original state dict.

    Args:
        kind: "CondRefineNetDilated".
        arguments: The fields of the original's configuration.

    Raises:
        InputError: For an unknown kind or argument.
    """
    return build({"CondRefineNetDilated": cond_refinenet_dilated}, kind, arguments, ignored=CASE_KEYS)


def cond_refinenet_dilated(
    *, channels: int, ngf: int, num_classes: int, image_size: int | None = None, logit_transform: bool = False
) -> RefineNet:
    """CondRefineNetDilated as a `RefineNet`; num_classes are the noise levels, and image_size does not
    matter.
    """
    return RefineNet(channels, filters=ngf, levels=num_classes, unit_input=not logit_transform)


# What names and shapes say about the flags.
HINTS: Hints = {
    "ngf": lambda s: str(s["begin_conv.weight"][0]),
    "channels": lambda s: str(s["begin_conv.weight"][1]),
    "num_classes": lambda s: str(s["normalizer.embed.weight"][0]),
}
