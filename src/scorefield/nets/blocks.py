"""Building blocks of the networks: embeddings, normalization, resampling and the ADM residual block.

Normalization, with modulation and activation, is computed here and nowhere else; `fused` says by which
kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorefield.core.shapes import check_batch_of
from scorefield.nets.fused import fused_norm, is_fused, plain_norm
from scorefield.runtime.checks import brief, check_length, flag, is_list, number, positive_int
from scorefield.runtime.errors import InputError

__all__ = [
    "Norm",
    "ResidualBlock",
    "TimeEmbedding",
    "Upsample",
    "as_float",
    "check_call",
    "check_dropout",
    "check_flags",
    "check_given_sizes",
    "check_images",
    "check_sizes",
    "cos_sin_embedding",
    "down2",
    "label_table",
    "level_widths",
    "pieces",
    "rows_of",
    "sin_cos_embedding",
    "up2",
    "zero",
]

M = TypeVar("M", bound=nn.Module)
_LARGEST_SIZE = 2**20  # of any number that a network is built of
GROUPS = 32  # of every group normalization in the published U-Nets
LEVELS = 32  # at most: every further one halves the sides of the images


# Embeddings


def as_float(c: Tensor, weight: Tensor) -> Tensor:
    """c in the dtype in which its embedding is computed: float32, or float64 if c or the parameters are;
    never less.

    bf16 would turn t = 999 into 1,000.
    """
    return c.to(torch.promote_types(torch.promote_types(c.dtype, torch.float32), weight.dtype))


def cos_sin_embedding(c: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """[cos(c·w_i), sin(c·w_i)] with w_i = max_period^(-i/half), i < half = ⌊dim/2⌋; a zero column if dim is
    odd.

    The embedding of Improved DDPM and ADM. c: (B,) floating point, the result (B, dim) has its dtype.
    """
    half = dim // 2
    index = torch.arange(half, dtype=c.dtype, device=c.device)
    # The order of the roundings is that of the published code: at t = 999 one ulp of w is already 5e-5 in the
    # cosine.
    angle = c[:, None] * torch.exp(-math.log(max_period) * index / half)
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, dim % 2))


def sin_cos_embedding(c: Tensor, dim: int) -> Tensor:
    """[sin(c·w_i), cos(c·w_i)] with w_i = 10000^(-i/(half - 1)), i < half = ⌊dim/2⌋; a zero column if dim is
    odd.

    The embedding of DDPM. c: (B,) floating point, the result (B, dim) has its dtype.
    """
    half = dim // 2
    index = torch.arange(half, dtype=c.dtype, device=c.device)
    angle = c[:, None] * torch.exp(index * -(math.log(10_000.0) / (half - 1)))
    return F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, dim % 2))


class TimeEmbedding(nn.Sequential):
    """W₂ silu(W₁ embedding(c)), with the embedding of Improved DDPM: c (B,), the result (B, width)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width))
        self.dim = dim

    def forward(self, c: Tensor) -> Tensor:
        weight = next(self.parameters())
        h = cos_sin_embedding(as_float(c, weight), self.dim).to(weight.dtype)
        for layer in self:
            h = layer(h)
        return h


def label_table(num_classes: int, null_label: bool, dim: int) -> nn.Embedding | None:
    """One row per class, and the row `num_classes` for "no label" if asked for; None without classes."""
    positive_int("num_classes", num_classes, at_least=0, at_most=_LARGEST_SIZE)
    flag("null_label", null_label)
    if null_label and not num_classes:
        raise InputError(
            "null_label adds an embedding for dropped labels, but this network has no classes: set num_classes "
            "too"
        )
    return nn.Embedding(num_classes + null_label, dim) if num_classes else None


def rows_of(table: nn.Embedding, index: Tensor, what: str) -> Tensor:
    """The rows of a table, (B, dim).

    Args:
        table: The table.
        index: (B,) integers.
        what: What they are, for the message.

    Raises:
        InputError: For rows that the table does not have; the device itself says so on a GPU.
    """
    try:
        rows: Tensor = table(index.long())
    except IndexError:
        raise InputError(
            f"{what} must lie in 0 … {table.num_embeddings - 1}, got values from {int(index.min())} to {int(index.max())}"
        ) from None
    return rows


def pieces(net: nn.Module) -> list[nn.Module]:
    """The blocks that a network calls one after another: its children, and instead of lists, tables and
    sequences what these hold.
    """

    def inside(module: nn.Module) -> list[nn.Module]:
        if not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            return [module]
        return [piece for child in module.children() for piece in inside(child)]

    return [piece for child in net.children() for piece in inside(child)] or [net]


def zero(module: M) -> M:
    """The module with its parameters set to zero, so that a block ending in it starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


# Normalization


class Norm(nn.GroupNorm):
    """GN(x), modulated to GN(x)·(1 + scale) + shift if these are given, then SiLU unless silu=False.

    Modulation by an embedding is adaptive group normalization.  [ADM Sec. 3.1]
    x is (B, C, *); modulation (B, 2C), the scales, then the shifts.

    Args:
        channels: C, a multiple of groups.
        eps: Added to the variance of a group.
        silu: Whether SiLU follows.
        groups: The groups of channels that have a mean and a variance each.
    """

    def __init__(self, channels: int, eps: float = 1e-5, silu: bool = True, groups: int = GROUPS) -> None:
        if channels % groups:
            raise InputError(
                f"{groups} normalization groups do not divide {channels} channels: use a multiple of {groups}"
            )
        super().__init__(groups, channels, eps=eps)
        self.silu = silu

    def forward(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        norm = fused_norm if is_fused(x) else plain_norm
        return norm(x, self.num_groups, self.weight, self.bias, self.eps, modulation, self.silu)


# Resampling


def up2(x: Tensor) -> Tensor:
    """Nearest-neighbour doubling: (B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def down2(x: Tensor) -> Tensor:
    """Mean of 2 × 2 pixels: (B, C, H, W) -> (B, C, H/2, W/2)."""
    return F.avg_pool2d(x, 2)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3 × 3 convolution if conv."""

    def __init__(self, channels: int, conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(up2(x))
        return result


class ResidualBlock(nn.Module):
    """skip(x) + h, h = conv(silu(norm(conv(silu(GN(x)))))), conditioned on the embedding (B, E).  [ADM Sec.
    3]

    scale_shift: the embedding gives (scale, shift) of the second norm; otherwise it is added before that
    norm.
    resample: up2 or down2, applied to x and between the first activation and convolution.
    rescale: multiply skip(x) + h by 1/√2.
    groups: of both norms. The second convolution starts at zero, the indices are the
    original's.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        dropout: float = 0.0,
        scale_shift: bool = True,
        resample: Callable[[Tensor], Tensor] | None = None,
        rescale: bool = False,
        groups: int = GROUPS,
    ) -> None:
        super().__init__()
        self.scale_shift, self.resample, self.rescale = scale_shift, resample, rescale
        self.in_layers = nn.Sequential(
            Norm(channels, groups=groups), nn.Identity(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, (1 + scale_shift) * out_channels))
        last = zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        norm = Norm(out_channels, groups=groups)
        self.out_layers = nn.Sequential(norm, nn.Identity(), nn.Dropout(dropout), last)
        self.skip_connection = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm_in, _, conv_in = self.in_layers
        norm_out, _, dropout, conv_out = self.out_layers
        h = norm_in(x)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv_in(h)
        e = self.emb_layers(emb)
        h = norm_out(h, e) if self.scale_shift else norm_out(h + e[:, :, None, None])
        total: Tensor = self.skip_connection(x) + conv_out(dropout(h))
        return total * 0.5**0.5 if self.rescale else total


# Descriptions and checks


def level_widths(
    channels: int, channel_mult: Sequence[float], attention: Sequence[int], groups: int = GROUPS
) -> tuple[int, ...]:
    """The channels of each level, ⌊channels · multiplier⌋.

    Raises InputError unless the groups of a normalization divide each of them, and every factor of `attention` is that of a
    level.
    """
    for name, values in (("channel_mult", channel_mult), ("attention", attention)):
        if not is_list(values):
            raise InputError(
                f"{name} must be a list of numbers, one for each of its levels; got {brief(values)}"
            )
        check_length(name, values)
    check_sizes(channels=channels)
    if not channel_mult:
        raise InputError("channel_mult is empty: give one multiplier for each level, such as (1, 2, 2)")
    if len(channel_mult) > LEVELS:
        raise InputError(
            f"channel_mult has {len(channel_mult):,} levels, and images are halved between them: give at most {LEVELS}"
        )
    for multiplier in channel_mult:
        number("a multiplier of channel_mult", multiplier, above=0, at_most=_LARGEST_SIZE)
    widths = tuple(int(channels * multiplier) for multiplier in channel_mult)
    for level, width in enumerate(widths):
        if width < 1 or width % groups:
            raise InputError(
                f"level {level} has {width} channels ({channels} times channel_mult[{level}] = {channel_mult[level]}), "
                f"which {groups} normalization groups do not divide: make it a multiple of {groups}"
            )
    factors = [2**level for level in range(len(widths))]
    if not all(isinstance(factor, int) and factor in factors for factor in attention):
        raise InputError(
            f"attention={brief(list(attention))} must be down-sampling factors (not pixels) out of {factors}"
        )
    return widths


def check_sizes(**sizes: object) -> None:
    """InputError unless each of these is a positive integer that a network may be built of."""
    for name, value in sizes.items():
        positive_int(name, value, at_most=_LARGEST_SIZE)


def check_given_sizes(**sizes: object) -> None:
    """The same of those that are not None."""
    check_sizes(**{name: value for name, value in sizes.items() if value is not None})


def check_flags(**flags: object) -> None:
    """InputError unless each of these is True or False."""
    for name, value in flags.items():
        flag(name, value)


def check_dropout(dropout: float) -> None:
    """InputError unless this is a probability below 1."""
    number("dropout, a probability,", dropout, at_least=0, below=1)


def check_call(
    x: Tensor,
    c: Tensor | None,
    y: Tensor | None,
    num_classes: int,
    dtype: torch.dtype,
    noise_levels: bool = True,
) -> None:
    """Raise InputError unless c (B,) is given exactly with noise levels, and y (B,) exactly with classes, and x has the
    dtype of the network.

    dtype: of the network's parameters.
    """
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise InputError(
            f"x is {x.dtype} and this network {dtype}: convert x by .to({dtype}), or the network"
        )
    for name, value in (("the noise value c", c), ("labels y", y)):
        if value is not None and not isinstance(value, Tensor):
            raise InputError(f"{name} must be a tensor (B,), got {brief(value)}")
        if value is not None and value.device != x.device:
            raise InputError(f"{name} must be on the device of x, {x.device}; got {value.device}")
    batch = tuple(x.shape[:1])
    if c is not None and not noise_levels:
        raise InputError(
            "this network was built without noise levels: call it with c=None, or set noise_levels=True"
        )
    if noise_levels and (c is None or tuple(c.shape) != batch):
        got = "None" if c is None else f"shape {tuple(c.shape)}"
        raise InputError(f"this network takes one noise value c for each example, shape {batch}; got {got}")
    if y is None and num_classes:
        raise InputError(
            f"this network is class-conditional: give labels y, shape {batch}, of 0 … {num_classes - 1}"
        )
    if y is not None and not num_classes:
        raise InputError("labels y were given to an unconditional network: remove them, or set num_classes")
    if c is not None and (c.is_complex() or c.dtype == torch.bool):
        raise InputError(f"the noise value c must be numbers, got {c.dtype}")
    if y is not None and (tuple(y.shape) != batch or y.dtype not in _INTEGERS):
        raise InputError(
            f"labels y must be integers of shape {batch}; got {y.dtype} of shape {tuple(y.shape)}"
        )


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_images(x: Tensor, channels: int, levels: int) -> None:
    """Raise InputError unless x is (B, channels, H, W) and H, W can be halved between all the levels."""
    check_batch_of("x", x)
    if x.ndim != 4 or x.shape[1] != channels:
        raise InputError(f"this network takes images of shape (B, {channels}, H, W); got {tuple(x.shape)}")
    factor = 2 ** (levels - 1)
    height, width = x.shape[2:]
    if height % factor or width % factor:
        raise InputError(
            f"images of {height} × {width} cannot be halved {levels - 1} times, as {levels} levels need: "
            f"use sizes divisible by {factor}, fewer levels (a shorter channel_mult), or pad the images"
        )
