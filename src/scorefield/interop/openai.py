"""Flags of network and process that guided-diffusion and improved-diffusion share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field

from scorefield.core.shapes import DataSpec
from scorefield.interop.fit import Original, Shapes
from scorefield.interop.flags import Integers
from scorefield.interop.openai_hints import unet_details, unet_hints
from scorefield.models.denoiser import Denoiser
from scorefield.nets import UNet
from scorefield.process import GaussianProcess, cosine, linear
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options

__all__ = [
    "IMAGENET_CLASSES",
    "MULTIPLIERS",
    "ProcessFlags",
    "UNetFlags",
    "describe",
    "factors",
    "image_data",
    "multipliers",
    "process",
]

# What an empty channel_mult means at each image_size.
MULTIPLIERS: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}
_UPSAMPLER_512 = (1, 1, 2, 2, 4, 4)
IMAGENET_CLASSES = 1000


class ProcessFlags(Options):
    """Flags of the noise process."""

    diffusion_steps: int = Field(1000, ge=2)
    noise_schedule: Literal["linear", "cosine"] = "linear"


class UNetFlags(ProcessFlags):
    """Flags of both repositories. Upsamplers have large_size and small_size in place of image_size."""

    image_size: int = Field(64, ge=1)
    large_size: int = Field(256, ge=1)
    small_size: int = Field(64, ge=1)
    num_channels: int = 128
    num_res_blocks: int = 2
    num_heads: int = 4
    num_heads_upsample: int = -1
    attention_resolutions: Integers = (16, 8)
    dropout: float = 0.0
    class_cond: bool = False
    use_checkpoint: bool = False
    use_scale_shift_norm: bool = True
    learn_sigma: bool = False
    timestep_respacing: str = ""
    use_kl: bool = False
    predict_xstart: bool = False
    rescale_timesteps: bool = False
    rescale_learned_sigmas: bool = False


def describe(
    flags: UNetFlags,
    unet_model: Callable[..., UNet],
    shapes: Shapes,
    *,
    channel_mult: Sequence[float] = (),
    variance: str = "upper",
    **arguments: object,
) -> Original[Denoiser]:
    """The denoiser of these flags.

    Args:
        flags: Of the original scripts.
        unet_model: The repository's constructor.
        shapes: Of the file, which show an upsampler and the number of classes where the flags do not.
        channel_mult: Of the U-Net. Default: follows from the size.
        variance: Of ancestral steps without a variance head.
        **arguments: Of the constructor, beside those of the common flags.
    """
    enlarges = _enlarges(flags, shapes)
    size = flags.large_size if enlarges else flags.image_size
    classes = shapes.get("label_emb.weight", (IMAGENET_CLASSES,))[0] if flags.class_cond else 0
    with torch.device("meta"):
        net = unet_model(
            enlarges,
            in_channels=3,
            model_channels=flags.num_channels,
            out_channels=6 if flags.learn_sigma else 3,
            num_res_blocks=flags.num_res_blocks,
            attention_resolutions=factors(flags.attention_resolutions, size),
            dropout=flags.dropout,
            channel_mult=channel_mult or multipliers(size, enlarges),
            num_classes=classes or None,
            use_checkpoint=flags.use_checkpoint,
            num_heads=flags.num_heads,
            num_heads_upsample=flags.num_heads_upsample,
            use_scale_shift_norm=flags.use_scale_shift_norm,
            **arguments,
        )
    model = Denoiser(
        net,
        process(flags),
        parametrization="x0" if flags.predict_xstart else "eps",
        variance="range" if flags.learn_sigma else None,
        noise_input="scaled" if flags.rescale_timesteps else "index",
        data=image_data(size, classes),
        low_res=flags.small_size if enlarges else None,
    )
    sampling = _sampling(flags, "learned" if flags.learn_sigma else variance)
    return Original(model, unet_hints(MULTIPLIERS), unet_details(size), sampling, _objective(flags))


def process(flags: ProcessFlags) -> GaussianProcess:
    """The β's of these flags; the linear ones end at 20/T, which for T = 1,000 are DDPM's."""
    T = flags.diffusion_steps
    with torch.device("cpu"):
        return cosine(T) if flags.noise_schedule == "cosine" else linear(T, 0.1 / T, 20 / T)


def image_data(size: int, classes: int) -> DataSpec:
    """8-bit colour images in [−1, 1]; the classes are called by their numbers."""
    return DataSpec((3, size, size), (-1.0, 1.0), tuple(str(k) for k in range(classes)), 256)


def multipliers(size: int, enlarges: bool = False) -> Sequence[float]:
    """What an empty channel_mult means at this size. InputError for a size that the scripts do not know."""
    if size not in MULTIPLIERS:
        raise InputError(
            "the original scripts define channel_mult for images of "
            f"{', '.join(str(known) for known in sorted(MULTIPLIERS))} pixels, not of {size}: give channel_mult, "
            "such as 1,2,2,2"
        )
    return _UPSAMPLER_512 if enlarges and size == 512 else MULTIPLIERS[size]


def factors(pixels: Sequence[int], size: int) -> list[int]:
    """Attention at these pixels a side, as down-sampling factors. InputError for a number that is not
    positive.
    """
    if any(side < 1 for side in pixels):
        raise InputError(f"attention_resolutions are pixels of a side, such as 32,16,8; got {list(pixels)}")
    return [size // side for side in pixels]


def _enlarges(flags: UNetFlags, shapes: Shapes) -> bool:
    """Whether this is an upsampler: by its sizes, or where the flags have no size by the six channels that it
    reads.
    """
    given = flags.model_fields_set & {"image_size", "large_size", "small_size"}
    if not given:
        return shapes.get("input_blocks.0.0.weight", (0, 3))[1] == 6
    if len(given) > 1 and "image_size" in given:
        raise InputError(
            "image_size is for models of images, large_size and small_size are for upsamplers: give one or the other"
        )
    return "image_size" not in given


def _sampling(flags: UNetFlags, variance: str) -> Mapping[str, object]:
    """The scripts' default sampler: ancestral, clipped, on every level or on those that timestep_respacing
    keeps.
    """
    kept, T = flags.timestep_respacing.strip(), flags.diffusion_steps
    sampler: dict[str, object] = {"kind": "ancestral", "variance": variance}
    if not kept.startswith("ddim"):
        return {"sampler": sampler, "grid": kept or "full", "clip": True}
    steps = int(kept.removeprefix("ddim") or 0) if kept.removeprefix("ddim").isdecimal() else 0
    if not steps or T % steps:
        raise InputError(
            f"timestep_respacing {kept!r}: a number of steps after ddim must divide diffusion_steps = {T}"
        )
    return {"sampler": {"kind": "ddim", "eta": 0.0}, "grid": "leading", "steps": steps, "clip": True}


def _objective(flags: UNetFlags) -> Mapping[str, object]:
    """The loss that these flags train with. [Improved DDPM Sec. 3.4; the plain learned-variance loss adds one
    term of the bound]
    """
    if flags.use_kl:
        return {"kind": "vlb"}
    if not flags.learn_sigma:
        return {"kind": "simple", "weighting": "network"}
    scale = 0.001 if flags.rescale_learned_sigmas else 1 / flags.diffusion_steps
    return {"kind": "hybrid", "vlb_scale": scale, "weighting": "network"}
