"""Networks of openai/improved-diffusion ("Improved DDPM"), by their original names and arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from scorefield.interop import guided_diffusion
from scorefield.interop.arguments import build

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
    dropout: float = 0.0,
    channel_mult: Sequence[float] = (1, 2, 4, 8),
    conv_resample: bool = True,
    dims: int = 2,
    num_classes: int | None = None,
    use_checkpoint: bool = False,
    num_heads: int = 1,
    num_heads_upsample: int = -1,
    use_scale_shift_norm: bool = False,
) -> nn.Module:
    """UNetModel: guided-diffusion's with the legacy attention order, without resblock_updown and num_head_channels."""
    return guided_diffusion.unet_model(**locals())
