"""The network of ermongroup/ddim, which is that of DDPM (Ho et al. 2020), by its original name and arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from scorefield.interop.arguments import CASE_KEYS, build
from scorefield.nets import DDPMUNet

__all__ = ["network"]


def network(kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network `kind` ("Model") with the fields of the original's configuration; it loads the original state dict.

    Raises InputError for an unknown kind or argument.
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
