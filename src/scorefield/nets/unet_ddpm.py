"""The U-Net of DDPM (Ho et al. 2020), under the parameter names of its PyTorch port in the DDIM authors'
code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorefield.nets.attention import attention
from scorefield.nets.base import Network
from scorefield.nets.blocks import (
    Norm,
    Upsample,
    as_float,
    check_call,
    check_dropout,
    check_flags,
    check_given_sizes,
    check_images,
    check_sizes,
    level_widths,
    sin_cos_embedding,
    zero,
)
from scorefield.nets.fused import to_layout
from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import InputError

__all__ = ["DDPMUNet"]

EPS = 1e-6  # of the group normalizations; 1e-5 in ADM's network


class DDPMUNet(Network):
    """Ho et al.'s U-Net, F(x, c): the embedding of c is added inside each residual block.  [DDPM App. B]

    It differs from `UNet` in names, in the norm's epsilon, in the padding before down-sampling, in the order
    and the frequencies of the embedding, and in having one attention head. As in Ho et al.'s code, the last
    convolution and the last one of each block start at zero.

    Args:
        in_channels: Channels of x.
        out_channels: Channels of the result, twice in_channels for a variance head. Default: in_channels.
        channels: Width that channel_mult multiplies; the width of every stage must be a multiple of 32.
        channel_mult: One multiplier per stage, the full resolution first.
        blocks: Residual blocks per stage on the way down; one more on the way up.
        attention: Down-sampling factors (1, 2, 4 …, not pixels) of the stages with attention; the middle
            always has it.
        conv_resample: Convolutions take part in resampling; otherwise nearest neighbour and the mean of 2 × 2
            pixels.
        dropout: Probability, before the last convolution of each residual block, in training only.
        num_classes: 0; the network is unconditional.
    Raises:
        InputError: When the sizes do not fit, here or when called, and when it is given labels.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: int | None = None,
        channels: int = 128,
        channel_mult: Sequence[float] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (2,),
        conv_resample: bool = True,
        dropout: float = 0.0,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, blocks=blocks)
        check_given_sizes(out_channels=out_channels)
        check_flags(conv_resample=conv_resample)
        check_dropout(dropout)
        if positive_int("num_classes", num_classes, at_least=0):
            raise InputError(
                "DDPM's network takes no labels (num_classes must be 0): use UNet for class-conditional models"
            )
        widths = level_widths(channels, channel_mult, attention)
        last, self.in_channels = widths[-1], in_channels
        make = partial(Block, emb_channels=4 * channels, dropout=dropout)
        self.temb = Embedding(channels, 4 * channels)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.down, skips = _down(make, channels, widths, blocks, attention, conv_resample)
        self.mid = nn.ModuleDict(
            {"block_1": make(last, last), "attn_1": Attention(last), "block_2": make(last, last)}
        )
        self.reads = blocks + 1  # of the skips, at each level on the way up
        self.up = _up(make, widths, skips, blocks, attention, conv_resample)
        self.norm_out = Norm(widths[0], EPS)
        self.conv_out = zero(
            nn.Conv2d(widths[0], in_channels if out_channels is None else out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """F(x, c).

        Args:
            x: Images (B, in_channels, H, W), H and W divisible by 2^(stages − 1).
            c: Noise input, (B,) numbers.
            y: None; the network is unconditional.
        Returns:
            (B, out_channels, H, W).
        """
        check_images(x, self.in_channels, len(self.down))
        check_call(x, c, y, 0, self.conv_in.weight.dtype)
        emb = self.temb(c)
        skips = [self.conv_in(to_layout(x))]
        for level in self.down:
            skips += level(skips[-1], emb)
        h = self.mid["block_2"](self.mid["attn_1"](self.mid["block_1"](skips[-1], emb)), emb)
        for level in reversed(self.up):
            h = level(h, [skips.pop() for _ in range(self.reads)], emb)
        result: Tensor = self.conv_out(self.norm_out(h))
        return result


class Embedding(nn.Module):
    """W₂ silu(W₁ embedding(c)), with DDPM's embedding: c (B,), the result (B, width)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.dense = nn.ModuleList([nn.Linear(dim, width), nn.Linear(width, width)])

    def forward(self, c: Tensor) -> Tensor:
        first, second = self.dense
        weight = next(first.parameters())
        h = first(sin_cos_embedding(as_float(c, weight), self.dim).to(weight.dtype))
        result: Tensor = second(F.silu(h))
        return result


class Block(nn.Module):
    """shortcut(x) + h, h = conv2(silu(GN(conv1(silu(GN(x))) + W silu(emb)))); the second convolution starts
    at zero.
    """

    def __init__(self, channels: int, out_channels: int, *, emb_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = Norm(channels, EPS)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.temb_proj = nn.Linear(emb_channels, out_channels)
        self.norm2 = Norm(out_channels, EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.nin_shortcut = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(self.norm1(x)) + self.temb_proj(F.silu(emb))[:, :, None, None]
        result: Tensor = self.nin_shortcut(x) + self.conv2(self.dropout(self.norm2(h)))
        return result


class Attention(nn.Module):
    """x + proj(attention of GN(x)) over the pixels of x (B, C, H, W), with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels, EPS, silu=False)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj_out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (project(h).flatten(2).transpose(1, 2)[:, None] for project in (self.q, self.k, self.v))
        result: Tensor = x + self.proj_out(attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape))
        return result


class PaddedDownsample(nn.Module):
    """A 3 × 3 convolution of stride 2 on the image padded by one pixel on the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class Down(nn.Module):
    """A level on the way down: every residual block followed by attention, if any, then down-sampling, if
    any.
    """

    def __init__(self, blocks: list[Block], attends: bool, downsample: nn.Module | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList([_after(block, attends) for block in blocks])
        self.downsample = downsample

    def forward(self, h: Tensor, emb: Tensor) -> list[Tensor]:
        """All that the way up will read; the last one is the input of the next level."""
        outputs = []
        for block, attend in zip(self.block, self.attn, strict=True):
            h = attend(block(h, emb))
            outputs.append(h)
        return outputs if self.downsample is None else [*outputs, self.downsample(h)]


class Up(nn.Module):
    """A level on the way up: each residual block also takes one of `skips`, in turn; then up-sampling."""

    def __init__(self, blocks: list[Block], attends: bool, upsample: nn.Module | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList([_after(block, attends) for block in blocks])
        self.upsample = upsample

    def forward(self, h: Tensor, skips: list[Tensor], emb: Tensor) -> Tensor:
        for block, attend, skip in zip(self.block, self.attn, skips, strict=True):
            h = attend(block(torch.cat([h, skip], dim=1), emb))
        return h if self.upsample is None else self.upsample(h)


def _after(block: Block, attends: bool) -> nn.Module:
    return Attention(block.conv2.out_channels) if attends else nn.Identity()


def _down(
    make: Callable[[int, int], Block],
    channels: int,
    widths: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    conv_resample: bool,
) -> tuple[nn.ModuleList, list[int]]:
    """The levels on the way down, and the channels of everything that the way up reads."""
    levels, skips = [], [channels]
    for index, width in enumerate(widths):
        chain = [make(skips[-1] if block == 0 else width, width) for block in range(blocks)]
        skips += [width] * blocks
        downsample: nn.Module | None = None
        if index < len(widths) - 1:
            downsample = PaddedDownsample(width) if conv_resample else nn.AvgPool2d(2)
            skips.append(width)
        levels.append(Down(chain, 2**index in attention, downsample))
    return nn.ModuleList(levels), skips


def _up(
    make: Callable[[int, int], Block],
    widths: Sequence[int],
    skips: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    conv_resample: bool,
) -> nn.ModuleList:
    """The levels on the way up, listed from the full resolution like those on the way down."""
    levels, width, unread = [], widths[-1], list(skips)
    for index in reversed(range(len(widths))):
        chain = []
        for _ in range(blocks + 1):
            chain.append(make(width + unread.pop(), widths[index]))
            width = widths[index]
        levels.append(Up(chain, 2**index in attention, Upsample(width, conv_resample) if index else None))
    return nn.ModuleList(reversed(levels))
