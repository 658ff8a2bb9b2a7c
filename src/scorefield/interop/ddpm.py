"""ermongroup/ddim, with the network of DDPM (Ho et al. 2020): by constructor, and its checkpoints by its
configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from scorefield.core.shapes import DataSpec
from scorefield.interop.arguments import CASE_KEYS, build
from scorefield.interop.fit import Hints, Original, Shapes, count, fit, shapes_of
from scorefield.interop.flags import Integers, Numbers, read_flags
from scorefield.models.denoiser import Denoiser
from scorefield.nets import DDPMUNet
from scorefield.process import DiscreteProcess, from_betas, linear
from scorefield.runtime.checks import one_of
from scorefield.runtime.parsing import Options

__all__ = ["load", "network"]


class Flags(Options):
    """The fields of the repository's configurations that describe a model; their sections may be left out."""

    image_size: int = Field(ge=1)
    channels: int = 3
    type: Literal["simple"] = "simple"
    in_channels: int = 3
    out_ch: int = 3
    ch: int
    ch_mult: Numbers
    num_res_blocks: int
    attn_resolutions: Integers
    dropout: float = 0.0
    var_type: Literal["fixedsmall", "fixedlarge"] = "fixedlarge"
    ema_rate: float = 0.9999
    ema: bool = True
    resamp_with_conv: bool = True
    beta_schedule: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    num_diffusion_timesteps: int = Field(1000, ge=1)


def load(state_dict: Mapping[str, Tensor], flags: Mapping[str, object]) -> Denoiser:
    """A published DDPM, ready to sample.

    Args:
        state_dict: Original names -> tensors; the model is made on their device.
        flags: Fields of the original's configuration, in their sections {"model": {"ch": 128, …},
            "diffusion": …} or without, as text or numbers.
    Raises:
        InputError: For an unknown flag, and for flags that do not describe the weights; it names the flag
            where names and shapes show which it is.
    """
    return fit(describe(flags, shapes_of(state_dict)), state_dict)


def describe(flags: Mapping[str, object], shapes: Shapes) -> Original[Denoiser]:
    """The model of these flags."""
    table = read_flags(Flags, flags)
    one_of("beta_schedule", table.beta_schedule, SCHEDULES)
    with torch.device("meta"):
        net = model(
            ch=table.ch,
            out_ch=table.out_ch,
            in_channels=table.in_channels,
            ch_mult=table.ch_mult,
            num_res_blocks=table.num_res_blocks,
            attn_resolutions=table.attn_resolutions,
            image_size=table.image_size,
            dropout=table.dropout,
            resamp_with_conv=table.resamp_with_conv,
        )
    with torch.device("cpu"):
        process = SCHEDULES[table.beta_schedule](
            table.beta_start, table.beta_end, table.num_diffusion_timesteps
        )
    data = DataSpec((table.channels, table.image_size, table.image_size), (-1.0, 1.0), (), 256)
    variance = "lower" if table.var_type == "fixedsmall" else "upper"
    sampling = {"sampler": {"kind": "ancestral", "variance": variance}, "grid": "full", "clip": True}
    return Original(
        Denoiser(net, process, data=data), hints(), details(table.image_size), sampling, {"kind": "simple"}
    )


def network(kind: str, arguments: Mapping[str, object]) -> nn.Module:
    """The network of the original's configuration; it loads the original state dict.

    Args:
        kind: "Model".
        arguments: The fields of the original's configuration.

    Raises:
        InputError: For an unknown kind or argument.
    """
    return build({"Model": model}, kind, arguments, ignored=CASE_KEYS)


def model(
    *,
    ch: int,
    out_ch: int,
    in_channels: int,
    ch_mult: Sequence[float],
    num_res_blocks: int,
    attn_resolutions: Sequence[int],
    image_size: int,
    dropout: float = 0.0,
    resamp_with_conv: bool = True,
) -> DDPMUNet:
    """Model as a `DDPMUNet`. attn_resolutions are pixels of an image of image_size."""
    return DDPMUNet(
        in_channels,
        out_channels=out_ch,
        channels=ch,
        channel_mult=ch_mult,
        blocks=num_res_blocks,
        attention=[2**level for level in range(len(ch_mult)) if image_size // 2**level in attn_resolutions],
        conv_resample=resamp_with_conv,
        dropout=dropout,
    )


def quad_betas(start: float, end: float, T: int) -> Tensor:
    """The squares of numbers equally spaced from √start to √end."""
    return torch.linspace(start**0.5, end**0.5, T, dtype=torch.float64) ** 2


def const_betas(start: float, end: float, T: int) -> Tensor:
    """`end` at every step."""
    return torch.full((T,), end, dtype=torch.float64)


def sigmoid_betas(start: float, end: float, T: int) -> Tensor:
    """start + (end − start)/(1 + e^{−u}), u equally spaced from −6 to 6."""
    return start + (end - start) * torch.linspace(-6, 6, T, dtype=torch.float64).sigmoid()


# The original's "jsd" ends at β = 1, which leaves no process to reverse.
SCHEDULES: dict[str, Callable[[float, float, int], DiscreteProcess]] = {
    "linear": lambda start, end, T: linear(T, start, end),
    "quad": lambda start, end, T: from_betas(quad_betas(start, end, T)),
    "const": lambda start, end, T: from_betas(const_betas(start, end, T)),
    "sigmoid": lambda start, end, T: from_betas(sigmoid_betas(start, end, T)),
}


def hints() -> Hints:
    """What names and shapes say about the flags."""
    return {
        "ch": lambda s: str(s["temb.dense.0.weight"][1]),
        "in_channels": lambda s: str(s["conv_in.weight"][1]),
        "out_ch": lambda s: str(s["conv_out.weight"][0]),
        "ch_mult": lambda s: ",".join(
            f"{s[f'down.{level}.block.0.conv1.weight'][0] / s['temb.dense.0.weight'][1]:g}"
            for level in range(_levels(s))
        ),
        "num_res_blocks": lambda s: str(count(s, r"down\.0\.block\.(\d+)\.")),
        "resamp_with_conv": lambda s: "true" if "down.0.downsample.conv.weight" in s else "false",
    }


def details(size: int) -> Hints:
    """The same for images of this size, where all of `hints` agree."""
    return {
        "attn_resolutions": lambda s: (
            ",".join(
                str(size // 2**level) for level in range(_levels(s)) if f"down.{level}.attn.0.q.weight" in s
            )
            or "empty"
        )
    }


def _levels(shapes: Shapes) -> int:
    return count(shapes, r"down\.(\d+)\.")
