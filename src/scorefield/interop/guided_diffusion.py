"""openai/guided-diffusion ("Diffusion Models Beat GANs"): its networks by constructor, its checkpoints by the
scripts' flags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from scorefield.interop import openai
from scorefield.interop.arguments import build
from scorefield.interop.fit import Original, Shapes, fit, shapes_of
from scorefield.interop.flags import Integers, Numbers, read_flags
from scorefield.interop.openai_hints import classifier_details, classifier_hints
from scorefield.models.denoiser import Denoiser
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.nets import Classifier, UNet
from scorefield.runtime.errors import InputError

__all__ = ["load", "load_classifier", "network"]


class Flags(openai.UNetFlags):
    """Flags of the scripts that train and sample diffusion models and upsamplers."""

    num_head_channels: int = -1
    channel_mult: Numbers = ()
    resblock_updown: bool = False
    use_fp16: bool = False
    use_new_attention_order: bool = False


class ClassifierFlags(openai.ProcessFlags):
    """Flags of the scripts that train classifiers and sample with them."""

    image_size: int = 64
    classifier_use_fp16: bool = False
    classifier_width: int = 128
    classifier_depth: int = 2
    classifier_attention_resolutions: Integers = (32, 16, 8)
    classifier_use_scale_shift_norm: bool = True
    classifier_resblock_updown: bool = True
    classifier_pool: Literal["adaptive", "attention", "spatial", "spatial_v2"] = "attention"


def load(state_dict: Mapping[str, Tensor], flags: Mapping[str, object]) -> Denoiser:
    """A published diffusion model or upsampler, ready to sample.

    The number of classes is read off the label table. use_new_attention_order changes no shape: a wrong one
    loads and gives noise.

    Args:
        state_dict: Original names -> tensors; the model is made on their device.
        flags: Names and values of the original scripts, as text or numbers; those left out have the scripts'
            defaults. An upsampler has large_size and small_size in place of image_size.
    Raises:
        InputError: For an unknown flag, and for flags that do not describe the weights; it names the flag
            where names and shapes show which it is.
    """
    return fit(describe(flags, shapes_of(state_dict)), state_dict)


def load_classifier(state_dict: Mapping[str, Tensor], flags: Mapping[str, object]) -> NoisyClassifier:
    """A published classifier of noisy images, (x_t, t) -> logits.

    Args:
        state_dict: Original names -> tensors; the model is made on their device.
        flags: Names and values of the original classifier scripts, as text or numbers; those left out have
            the scripts' defaults. noise_schedule and diffusion_steps are those of the diffusion model that
            it guides: they change no shape either.

    Raises:
        InputError: As `sf.interop.guided_diffusion.load`.
    """
    return fit(describe_classifier(flags, shapes_of(state_dict)), state_dict)


def describe(flags: Mapping[str, object], shapes: Shapes) -> Original[Denoiser]:
    """The model of these flags; shapes are those of the file, {} if there is none."""
    table = read_flags(Flags, flags)
    return openai.describe(
        table,
        unet_model,
        shapes,
        channel_mult=table.channel_mult,
        num_head_channels=table.num_head_channels,
        resblock_updown=table.resblock_updown,
        use_new_attention_order=table.use_new_attention_order,
    )


def describe_classifier(flags: Mapping[str, object], shapes: Shapes) -> Original[NoisyClassifier]:
    """The classifier of these flags; shapes as in `describe`. The scripts fix 64 channels a head and the
    legacy order.
    """
    table = read_flags(ClassifierFlags, flags)
    size, depth = table.image_size, table.classifier_depth
    last = ("out.2.c_proj.weight", "out.3.weight", "out.2.weight")
    classes = next((shapes[name][0] for name in last if name in shapes), openai.IMAGENET_CLASSES)
    with torch.device("meta"):
        net = encoder_unet_model(
            image_size=size,
            in_channels=3,
            model_channels=table.classifier_width,
            out_channels=classes,
            num_res_blocks=depth,
            attention_resolutions=openai.factors(table.classifier_attention_resolutions, size),
            channel_mult=openai.multipliers(size),
            num_head_channels=64,
            use_scale_shift_norm=table.classifier_use_scale_shift_norm,
            resblock_updown=table.classifier_resblock_updown,
            pool=table.classifier_pool,
        )
    model = NoisyClassifier(net, openai.process(table), data=openai.image_data(size, classes))
    return Original(model, classifier_hints(), classifier_details(), objective={"kind": "classifier"})


def network(kind: str, arguments: Mapping[str, object]) -> nn.Module:
    """The network with the original constructor's arguments; it loads the original state dict.

    Args:
        kind: "UNetModel", "SuperResModel" or "EncoderUNetModel".
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
    """UNetModel as a `UNet`, SuperResModel if low_res. image_size and use_fp16 change nothing: precision is
    autocast's.
    """
    _check_dims(dims)
    return UNet(
        in_channels,
        out_channels=out_channels,
        channels=model_channels,
        channel_mult=channel_mult,
        blocks=num_res_blocks,
        attention=_factors(attention_resolutions, channel_mult),
        heads=num_heads,
        heads_upsample=_given(num_heads_upsample),
        head_channels=_given(num_head_channels),
        num_classes=num_classes or 0,
        low_res=low_res,
        scale_shift=use_scale_shift_norm,
        updown=resblock_updown,
        conv_resample=conv_resample,
        attention_order="new" if use_new_attention_order else "legacy",
        dropout=dropout,
        checkpoint=use_checkpoint,
    )


def encoder_unet_model(
    *,
    image_size: int,
    in_channels: int,
    model_channels: int,
    out_channels: int,
    num_res_blocks: int,
    attention_resolutions: Sequence[int],
    dropout: float = 0.0,
    channel_mult: Sequence[float] = (1, 2, 4, 8),
    conv_resample: bool = True,
    dims: int = 2,
    use_checkpoint: bool = False,
    use_fp16: bool = False,
    num_heads: int = 1,
    num_head_channels: int = -1,
    num_heads_upsample: int = -1,
    use_scale_shift_norm: bool = False,
    resblock_updown: bool = False,
    use_new_attention_order: bool = False,
    pool: str = "adaptive",
) -> Classifier:
    """EncoderUNetModel as a `Classifier` of out_channels classes. It has no way up, so num_heads_upsample
    changes nothing.
    """
    _check_dims(dims)
    return Classifier(
        in_channels,
        out_channels,
        image_size=image_size,
        channels=model_channels,
        channel_mult=channel_mult,
        blocks=num_res_blocks,
        attention=_factors(attention_resolutions, channel_mult),
        heads=num_heads,
        head_channels=_given(num_head_channels),
        pool=pool,
        scale_shift=use_scale_shift_norm,
        updown=resblock_updown,
        conv_resample=conv_resample,
        attention_order="new" if use_new_attention_order else "legacy",
        dropout=dropout,
        checkpoint=use_checkpoint,
    )


KINDS: dict[str, Callable[..., nn.Module]] = {
    "UNetModel": partial(unet_model, False),
    "SuperResModel": partial(unet_model, True),
    "EncoderUNetModel": encoder_unet_model,
}


def _factors(attention_resolutions: Sequence[int], channel_mult: Sequence[float]) -> list[int]:
    """The levels' factors that are asked for; the original ignores those that no level has."""
    return [2**level for level in range(len(channel_mult)) if 2**level in attention_resolutions]


def _given(value: int) -> int | None:
    return None if value == -1 else value


def _check_dims(dims: int) -> None:
    if dims != 2:
        raise InputError(f"these networks are available for images only (dims=2), got dims={dims}")
