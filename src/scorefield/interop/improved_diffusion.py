"""openai/improved-diffusion ("Improved DDPM"): its networks by constructor, its checkpoints by the scripts'
flags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from scorefield.interop import guided_diffusion, openai
from scorefield.interop.arguments import build
from scorefield.interop.fit import Original, Shapes, fit, shapes_of
from scorefield.interop.flags import read_flags
from scorefield.models.denoiser import Denoiser
from scorefield.nets import UNet

__all__ = ["load", "network"]


class Flags(openai.UNetFlags):
    """Flags of the scripts."""

    sigma_small: bool = False
    rescale_timesteps: bool = True
    rescale_learned_sigmas: bool = True


def load(state_dict: Mapping[str, Tensor], flags: Mapping[str, object]) -> Denoiser:
    """A published diffusion model or upsampler, ready to sample; arguments as in `guided_diffusion.load`.

    Args:
        state_dict: Original names -> tensors; the model is made on their device.
        flags: Names and values of the original scripts, as text or numbers; those left out have the scripts'
            defaults.
    Raises:
        InputError: For an unknown flag, and for flags that do not describe the weights; it names the flag
            where names and shapes show which it is.
    """
    return fit(describe(flags, shapes_of(state_dict)), state_dict)


def describe(flags: Mapping[str, object], shapes: Shapes) -> Original[Denoiser]:
    """The model of these flags; shapes are those of the file, {} if there is none."""
    table = read_flags(Flags, flags)
    return openai.describe(table, unet_model, shapes, variance="lower" if table.sigma_small else "upper")


def network(kind: str, arguments: Mapping[str, object]) -> nn.Module:
    """The network with the original constructor's arguments; it loads the original state dict.

    Args:
        kind: "UNetModel" or "SuperResModel".
        arguments: The original constructor's; those left out have its defaults.

    Raises:
        InputError: For an unknown kind or argument.
    """
    return build(KINDS, kind, arguments)


def unet_model(
    low_res: bool = False,
    /,
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
) -> UNet:
    """As guided-diffusion's with the legacy attention order, without resblock_updown and num_head_channels."""
    arguments = {name: value for name, value in locals().items() if name != "low_res"}
    return guided_diffusion.unet_model(low_res, **arguments)


KINDS: dict[str, Callable[..., nn.Module]] = {
    "UNetModel": partial(unet_model, False),
    "SuperResModel": partial(unet_model, True),
}
