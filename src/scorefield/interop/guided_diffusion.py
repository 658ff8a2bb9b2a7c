"""Networks of openai/guided-diffusion ("Diffusion Models Beat GANs"), by their original names and arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from scorefield.core.errors import InputError
from scorefield.interop.arguments import build
from scorefield.nets import UNet

__all__ = ["network"]


def network(kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network `kind` ("UNetModel") with the original constructor's arguments; it loads the original state dict.

    Arguments left out have the original's defaults. Raises InputError for an unknown kind or argument.
    """
    return build({"UNetModel": unet_model}, kind, arguments)


def unet_model(
    *,
    in_channels: int,
    model_channels: int,
    out_channels: int,
    num_res_blocks: int,
    attention_resolutions: Sequence[int],
    image_size: int | None = None,
    dropout: float = 0.0,
    channel_mult: Sequence[float] = (1, 2, 4, 8),
    conv_resample: bool = True,
    dims: int = 2,
    num_classes: int | None = None,
    use_checkpoint: bool = False,
    use_fp16: bool = False,
    num_heads: int = 1,
    num_head_channels: int = -1,
    num_heads_upsample: int = -1,
    use_scale_shift_norm: bool = False,
    resblock_updown: bool = False,
    use_new_attention_order: bool = False,
) -> UNet:
    """UNetModel as a `UNet`. image_size changes nothing, as in the original, nor use_fp16: precision is autocast's."""
    if dims != 2:
        raise InputError(f"UNetModel is available for images only (dims=2), got dims={dims}")
    return UNet(
        in_channels,
        out_channels=out_channels,
        channels=model_channels,
        channel_mult=channel_mult,
        blocks=num_res_blocks,
        # The original ignores factors that no level has.
        attention=[2**level for level in range(len(channel_mult)) if 2**level in attention_resolutions],
        heads=num_heads,
        heads_upsample=None if num_heads_upsample == -1 else num_heads_upsample,
        head_channels=None if num_head_channels == -1 else num_head_channels,
        num_classes=num_classes or 0,
        scale_shift=use_scale_shift_norm,
        updown=resblock_updown,
        conv_resample=conv_resample,
        attention_order="new" if use_new_attention_order else "legacy",
        dropout=dropout,
        checkpoint=use_checkpoint,
    )
