"""Conversion between diffusers' UNet2DModel and this library's U-Nets: which are the same function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from scorefield.nets import DDPMUNet, UNet
from scorefield.nets.blocks import GROUPS
from scorefield.runtime.description import Described
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.parsing import Options, parse

__all__ = ["Structure", "UNetConfig", "attention_order", "network", "read_structure", "structure_of"]

# What tells the two networks apart in a UNet2DModel: the embedding's order and frequencies, ε of every norm,
# the padding below.
FAMILIES: dict[str, dict[str, object]] = {
    "ddpm-unet": {"flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "downsample_padding": 0},
    "unet": {"flip_sin_to_cos": True, "freq_shift": 0, "norm_eps": 1e-5, "downsample_padding": 1},
}
DownBlock = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
UpBlock = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]
DOWN, UP = get_args(DownBlock), get_args(UpBlock)  # plain, with attention, plain with residual resampling


@dataclass(frozen=True)
class Structure:
    """A U-Net that both libraries can build.

    Attributes:
        kind: As in a recipe, "unet" or "ddpm-unet".
        in_channels: Of the images.
        out_channels: Of the output.
        widths: Channels of each stage, the full resolution first.
        attends: Whether each stage has attention.
        blocks: Residual blocks of a stage on the way down.
        head_dim: Channels of an attention head; None is one head of all channels.
        scale_shift: As in `UNet`.
        updown: As in `UNet`.
        rows: Of the label table, 0 without one.
        dropout: As in `UNet`.
        norm_groups: As in `UNet`.
    """

    kind: str
    in_channels: int
    out_channels: int
    widths: tuple[int, ...]
    attends: tuple[bool, ...]
    blocks: int
    head_dim: int | None = None
    scale_shift: bool = False
    updown: bool = False
    rows: int = 0
    dropout: float = 0.0
    norm_groups: int = GROUPS

    def config(self, size: Sequence[int]) -> dict[str, object]:
        """unet/config.json for images of this height and width."""
        kinds = [1 if attends else 2 * self.updown for attends in self.attends]
        return {
            "_class_name": "UNet2DModel",
            "sample_size": size[0] if size[0] == size[1] else list(size),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "center_input_sample": False,
            "time_embedding_type": "positional",
            **FAMILIES[self.kind],
            "down_block_types": [DOWN[kind] for kind in kinds],
            "mid_block_type": "UNetMidBlock2D",
            "up_block_types": [UP[kind] for kind in reversed(kinds)],
            "block_out_channels": list(self.widths),
            "layers_per_block": self.blocks,
            "mid_block_scale_factor": 1,
            "downsample_type": "resnet" if self.updown else "conv",
            "upsample_type": "resnet" if self.updown else "conv",
            "dropout": self.dropout,
            "act_fn": "silu",
            "attention_head_dim": self.head_dim,
            "norm_num_groups": self.norm_groups,
            "attn_norm_num_groups": self.norm_groups,  # without it, scale and shift leave the middle attention without its norm
            "resnet_time_scale_shift": "scale_shift" if self.scale_shift else "default",
            "add_attention": True,
            "class_embed_type": None,
            "num_class_embeds": self.rows or None,
        }


# From a network


def structure_of(net: object) -> Structure:
    """The structure of one of this library's networks; IncompatibleModel naming everything that UNet2DModel
    lacks.
    """
    if not isinstance(net, UNet | DDPMUNet):
        kind = net.config["kind"] if isinstance(net, Described) else type(net).__name__
        raise IncompatibleModel(
            f"diffusers' UNet2DModel cannot express the network {kind!r}, only {' and '.join(FAMILIES)}"
        )
    n = parse(_NetOptions, net.config, "net")
    widths = [int(n.channels * multiplier) for multiplier in n.channel_mult]
    attends = [2**level in n.attention for level in range(len(widths))]
    dims = _head_dims(n, widths, attends)
    resamples = len(widths) > 1 and not n.updown
    first = (
        f"a first level of {widths[0]} channels beside {n.channels} in the embedding "
        "(channel_mult[0] other than 1)"
    )
    reasons = {
        "super-resolution input (low_res)": n.low_res,
        "residual rescaling by 1/√2 (rescale_residual)": n.rescale_residual,
        "resampling without convolutions (conv_resample = false)": resamples and not n.conv_resample,
        first: widths[0] != n.channels,
        f"attention heads of {', '.join(map(str, dims))} channels in one network (train with net.head_channels)": len(
            dims
        )
        > 1,
    }
    lacking = [reason for reason, lacks in reasons.items() if lacks]
    if lacking:
        raise IncompatibleModel(f"diffusers' UNet2DModel cannot express {'; nor '.join(lacking)}")
    return Structure(
        n.kind,
        n.in_channels,
        n.in_channels if n.out_channels is None else n.out_channels,
        tuple(widths),
        tuple(attends),
        n.blocks,
        dims[0],
        n.scale_shift,
        n.updown and len(widths) > 1,
        n.num_classes + n.null_label,
        n.dropout,
        n.norm_groups,
    )


class _NetOptions(Options):
    """What decides whether diffusers has a network: the arguments of UNet and DDPMUNet, whichever has them."""

    model_config = ConfigDict(extra="ignore")

    kind: str
    in_channels: int
    out_channels: int | None = None
    channels: int
    channel_mult: tuple[float, ...]
    blocks: int
    attention: tuple[int, ...]
    dropout: float
    heads: int = 1
    heads_upsample: int | None = None
    head_channels: int | None = None
    scale_shift: bool = False
    updown: bool = False
    conv_resample: bool = True
    num_classes: int = 0
    null_label: bool = False
    low_res: bool = False
    rescale_residual: bool = False
    norm_groups: int = GROUPS
    attention_order: str = "new"


def attention_order(net: UNet | DDPMUNet) -> str:
    """The order of its attention's channels, "legacy" or "new"."""
    return parse(_NetOptions, net.config, "net").attention_order


def _head_dims(n: _NetOptions, widths: Sequence[int], attends: Sequence[bool]) -> list[int | None]:
    """The different widths of attention heads; [None] where all have one head."""
    if n.head_channels:
        return [n.head_channels]
    down = [(width, n.heads) for width, here in zip(widths, attends, strict=True) if here]
    up = [(width, n.heads_upsample or n.heads) for width, _ in down]
    every = {*down, (widths[-1], n.heads), *up}
    if all(count == 1 for _, count in every):
        return [None]
    return [*sorted({width // count for width, count in every})]


# From a configuration


class UNetConfig(Options):
    """unet/config.json as far as this library's networks compute the same; what is left out has UNet2DModel's
    default.
    """

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = Field(3, ge=1)
    out_channels: int = Field(3, ge=1)
    center_input_sample: Literal[False] = False
    time_embedding_type: Literal["positional"] = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[DownBlock, ...] = (
        "DownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
    )
    mid_block_type: Literal["UNetMidBlock2D"] = "UNetMidBlock2D"
    up_block_types: tuple[UpBlock, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[int, ...] = Field((224, 448, 672, 896), min_length=1)
    layers_per_block: int = Field(2, ge=1)
    mid_block_scale_factor: float = Field(1, ge=1, le=1)
    downsample_padding: int = 1
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    dropout: float = Field(0.0, ge=0, lt=1)
    act_fn: Literal["silu", "swish"] = "silu"
    attention_head_dim: int | None = Field(8, ge=1)
    norm_num_groups: int = Field(32, ge=1)
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: Literal[True] = True
    class_embed_type: Literal[None] = None
    num_class_embeds: int | None = Field(None, ge=1)
    num_train_timesteps: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_private(cls, values: object) -> object:
        """Keys such as _class_name and _diffusers_version are no options."""
        return (
            {name: value for name, value in values.items() if not name.startswith("_")}
            if isinstance(values, dict)
            else values
        )


def read_structure(config: UNetConfig) -> Structure:
    """The structure of this configuration; InputError where no network of this library computes the same."""
    c, levels = config, len(config.block_out_channels)
    if not len(c.down_block_types) == len(c.up_block_types) == levels:
        raise InputError(
            "down_block_types, up_block_types and block_out_channels are one entry a level and differ in length"
        )
    attends = [name == DOWN[1] for name in c.down_block_types]
    if attends != [name == UP[1] for name in reversed(c.up_block_types)]:
        raise InputError(
            "attention on the way down and on the way up is at different levels, which scorefield's networks cannot express"
        )
    if c.resnet_time_scale_shift == "scale_shift" and c.attn_norm_num_groups is None:
        raise InputError(
            "the middle attention has no normalization (attn_norm_num_groups), which scorefield's networks cannot express"
        )
    if c.attn_norm_num_groups not in (None, c.norm_num_groups):
        raise InputError(
            f"attn_norm_num_groups is {c.attn_norm_num_groups} and norm_num_groups {c.norm_num_groups}: scorefield's "
            "networks have one number of groups"
        )
    if c.time_embedding_dim not in (None, 4 * c.block_out_channels[0]):
        raise InputError(
            "time_embedding_dim is not four times the first of block_out_channels, which scorefield cannot express"
        )
    updown = _updown(c)
    kind = _family(c, resamples=levels > 1 and not updown)
    structure = Structure(
        kind,
        c.in_channels,
        c.out_channels,
        c.block_out_channels,
        tuple(attends),
        c.layers_per_block,
        c.attention_head_dim,
        c.resnet_time_scale_shift == "scale_shift",
        updown,
        c.num_class_embeds or 0,
        c.dropout,
        c.norm_num_groups,
    )
    return _ho(structure) if kind == "ddpm-unet" else structure


def _updown(c: UNetConfig) -> bool:
    """Whether residual blocks resample; InputError where only some do. Plain blocks with the option "resnet"
    do not.
    """
    ways = [(c.down_block_types[:-1], DOWN, c.downsample_type), (c.up_block_types[:-1], UP, c.upsample_type)]
    found = {
        name == kinds[2] or (name == kinds[1] and option == "resnet")
        for way, kinds, option in ways
        for name in way
    }
    if len(found) > 1:
        raise InputError(
            "some levels resample by residual blocks and others by convolutions, which scorefield cannot express"
        )
    return found == {True}


def _family(c: UNetConfig, resamples: bool) -> str:
    """The kind of network with these settings; the padding counts only where convolutions resample."""
    given = {name: getattr(c, name) for name in FAMILIES["unet"] if resamples or name != "downsample_padding"}
    for kind, settings in FAMILIES.items():
        if all(settings[name] == value for name, value in given.items()):
            return kind
    written = [
        ", ".join(f"{name} {value}" for name, value in settings.items())
        for settings in (given, *FAMILIES.values())
    ]
    raise InputError(
        f"scorefield has no network with {written[0]}; those there are have {' or '.join(written[1:])}"
    )


def _ho(s: Structure) -> Structure:
    """A structure with the settings of Ho et al.'s network, which has one head and nothing of ADM."""
    under = {width for width, attends in zip(s.widths, s.attends, strict=True) if attends} | {s.widths[-1]}
    odd = {
        "resnet_time_scale_shift": s.scale_shift,
        "residual resampling": s.updown,
        "num_class_embeds": s.rows,
        f"norm_num_groups {s.norm_groups}": s.norm_groups != GROUPS,
        f"attention_head_dim {s.head_dim}": s.head_dim is not None and under != {s.head_dim},
    }
    wrong = [name for name, has in odd.items() if has]
    if wrong:
        raise InputError(
            f"with the embedding and norms of Ho et al.'s network, scorefield cannot express {', '.join(wrong)}"
        )
    return Structure(s.kind, s.in_channels, s.out_channels, s.widths, s.attends, s.blocks, dropout=s.dropout)


def network(s: Structure) -> UNet | DDPMUNet:
    """The network of this structure, freshly initialised; its attention channels in the order q, k, v
    ("new").
    """
    multipliers = [_multiplier(s.widths[0], width) for width in s.widths]
    attention = [2**level for level, attends in enumerate(s.attends) if attends]
    if s.kind == "ddpm-unet":
        return DDPMUNet(
            s.in_channels,
            out_channels=s.out_channels,
            channels=s.widths[0],
            channel_mult=multipliers,
            blocks=s.blocks,
            attention=attention,
            dropout=s.dropout,
        )
    return UNet(
        s.in_channels,
        out_channels=s.out_channels,
        channels=s.widths[0],
        channel_mult=multipliers,
        blocks=s.blocks,
        attention=attention,
        dropout=s.dropout,
        heads=1,
        head_channels=s.head_dim,
        num_classes=s.rows,
        scale_shift=s.scale_shift,
        updown=s.updown,
        norm_groups=s.norm_groups,
        attention_order="new",
    )


def _multiplier(first: int, width: int) -> float:
    """width/first, whole where it is; such that ⌊first · multiplier⌋ is the width, whatever the rounding."""
    ratio = width / first
    if ratio == int(ratio):
        return int(ratio)
    return ratio if int(first * ratio) == width else math.nextafter(ratio, math.inf)
