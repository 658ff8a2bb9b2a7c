"""The U-Net of Improved DDPM and of "Diffusion Models Beat GANs" (ADM), under the published parameter names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from scorefield.nets.attention import AttentionBlock
from scorefield.nets.base import Network
from scorefield.nets.blocks import (
    GROUPS,
    Norm,
    ResidualBlock,
    TimeEmbedding,
    Upsample,
    check_call,
    check_dropout,
    check_flags,
    check_given_sizes,
    check_images,
    check_sizes,
    down2,
    label_table,
    level_widths,
    rows_of,
    up2,
    zero,
)
from scorefield.nets.fused import to_layout
from scorefield.runtime.errors import InputError

__all__ = ["UNet"]


class UNet(Network):
    """ADM's U-Net, F(x, c, y).  [ADM Sec. 3]

    emb = W₂ silu(W₁ embedding(c)) + label row of y conditions every residual block. Each stage halves the
    image once more; it has `blocks` residual blocks on the way down and `blocks` + 1 on the way up, which
    also read what the way down computed. The last convolution of the network and of each block starts at
    zero.

    Args:
        in_channels: Channels of x.
        out_channels: Channels of the result, twice in_channels for a variance head. Default: in_channels.
        channels: Width that channel_mult multiplies; the width of every stage must be a multiple of norm_groups.
        channel_mult: One multiplier per stage, the full resolution first; may be fractions (0.5).
        blocks: Residual blocks per stage.
        attention: Down-sampling factors (1, 2, 4 …, not pixels) of the stages with attention; the middle
            always has it.
        heads: Attention heads.
        heads_upsample: Attention heads on the way up. Default: heads.
        head_channels: Channels of one head; replaces both.
        num_classes: Labels are 0 … num_classes − 1; 0 is unconditional.
        null_label: One more row, index num_classes, for training with dropped labels.
        low_res: Super-resolution: the network reads x beside a smaller image, enlarged to x's size
            (bilinear). [ADM Sec. 5]
        scale_shift: The embedding scales and shifts the normalized features (adaptive group normalization);
            otherwise it is added before the normalization, which at 32 channels cancels it.
        updown: Residual blocks change the resolution (as in BigGAN) instead of a convolution or pooling.
        conv_resample: Without updown: convolutions take part in resampling, or only nearest neighbour and 2 ×
            2 means do.
        attention_order: "legacy" or "new", the order of the query/key/value channels; must match the weights.
        dropout: Probability, before the last convolution of each residual block, in training only.
        rescale_residual: Residual blocks return (skip + h)/√2. Not in the published code.
        norm_groups: Groups of channels of every normalization, each with its own mean and variance; 32 in the
            published code. Fewer suit narrow networks: with as many groups as channels, every normalization
            removes the mean of each channel, and colours are learnt slowly.
        checkpoint: Recompute activations in the backward pass, for less memory; no forward-mode derivatives
            then.
    Raises:
        InputError: When the sizes do not fit, here or when called.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: int | None = None,
        channels: int = 128,
        channel_mult: Sequence[float] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (2, 4),
        heads: int = 4,
        heads_upsample: int | None = None,
        head_channels: int | None = None,
        num_classes: int = 0,
        null_label: bool = False,
        low_res: bool = False,
        scale_shift: bool = True,
        updown: bool = False,
        conv_resample: bool = True,
        attention_order: str = "legacy",
        dropout: float = 0.0,
        rescale_residual: bool = False,
        norm_groups: int = GROUPS,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, blocks=blocks, heads=heads, norm_groups=norm_groups)
        check_given_sizes(
            out_channels=out_channels, heads_upsample=heads_upsample, head_channels=head_channels
        )
        check_flags(
            low_res=low_res,
            scale_shift=scale_shift,
            updown=updown,
            conv_resample=conv_resample,
            rescale_residual=rescale_residual,
            checkpoint=checkpoint,
        )
        check_dropout(dropout)
        widths = level_widths(channels, channel_mult, attention, norm_groups)
        self.in_channels, self.num_classes = in_channels, num_classes
        self.levels, self.enlarges, self.checkpoint = len(widths), low_res, checkpoint
        self.time_embed = TimeEmbedding(channels, 4 * channels)
        self.label_emb = label_table(num_classes, null_label, 4 * channels)
        make = Parts(
            4 * channels,
            heads,
            head_channels,
            attention_order,
            scale_shift,
            updown,
            conv_resample,
            dropout,
            rescale_residual,
            norm_groups,
        )
        self.input_blocks, skips = encoder(make, (1 + low_res) * in_channels, widths, blocks, attention)
        self.middle_block = middle(make, widths[-1])
        self.output_blocks = decoder(make, widths, skips, blocks, attention, heads_upsample)
        last = nn.Conv2d(widths[0], in_channels if out_channels is None else out_channels, 3, padding=1)
        self.out = nn.Sequential(Norm(widths[0], groups=norm_groups), nn.Identity(), zero(last))

    def embed(self, c: Tensor, y: Tensor | None = None) -> Tensor:
        """The embedding (B, 4·channels) that every residual block receives.

        Args:
            c: The noise input, (B,).
            y: Labels (B,) int64, or None.
        """
        emb: Tensor = self.time_embed(c)
        return emb if self.label_emb is None or y is None else emb + rows_of(self.label_emb, y, "labels y")

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None, low_res: Tensor | None = None) -> Tensor:
        """F(x, c, y).

        Args:
            x: Images (B, in_channels, H, W), H and W divisible by 2^(stages − 1).
            c: Noise input, (B,) numbers.
            y: Labels, (B,) int64, where the network is conditional.
            low_res: Images (B, in_channels, h, w) to upsample, where the network is for super-resolution.
        Returns:
            (B, out_channels, H, W).
        """
        check_images(x, self.in_channels, self.levels)
        check_call(x, c, y, self.num_classes, next(self.parameters()).dtype)
        emb = self.embed(c, y)
        h, skips = to_layout(self._input(x, low_res)), []
        for stage in self.input_blocks:
            h = run_stage(stage, h, emb, self.checkpoint)
            skips.append(h)
        h = run_stage(self.middle_block, h, emb, self.checkpoint)
        for stage in self.output_blocks:
            h = run_stage(stage, torch.cat([h, skips.pop()], dim=1), emb, self.checkpoint)
        result: Tensor = self.out(h)
        return result

    def _input(self, x: Tensor, low_res: Tensor | None) -> Tensor:
        """x, and in super-resolution the enlarged image beside it."""
        if not self.enlarges:
            if low_res is not None:
                raise InputError(
                    "this is not a super-resolution network: remove low_res, or build it with low_res=True"
                )
            return x
        if low_res is None or low_res.ndim != 4 or low_res.shape[:2] != x.shape[:2]:
            got = "nothing" if low_res is None else f"shape {tuple(low_res.shape)}"
            shape = f"({x.shape[0]}, {x.shape[1]}, h, w)"
            raise InputError(
                f"this network needs the low-resolution images, low_res= of shape {shape}; got {got}"
            )
        enlarged = F.interpolate(low_res.to(x.dtype), size=x.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([x, enlarged], dim=1)


class Stage(nn.ModuleList):
    """Layers one after the other; residual blocks also receive the embedding."""

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            h = layer(h, emb) if isinstance(layer, ResidualBlock) else layer(h)
        return h


def run_stage(stage: nn.Module, h: Tensor, emb: Tensor, checkpoint: bool) -> Tensor:
    """stage(h, emb), keeping only its input for the backward pass if checkpoint."""
    if checkpoint and torch.is_grad_enabled():
        recomputed: Tensor = recompute(stage, h, emb, use_reentrant=False)
        return recomputed
    result: Tensor = stage(h, emb)
    return result


class Downsample(nn.Module):
    """A 3 × 3 convolution of stride 2 if conv, otherwise the mean of 2 × 2 pixels."""

    def __init__(self, channels: int, conv: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.op(x)
        return result


@dataclass(frozen=True)
class Parts:
    """The options that all blocks of one network share, and the blocks made with them."""

    emb_channels: int
    heads: int
    head_channels: int | None
    attention_order: str
    scale_shift: bool
    updown: bool
    conv_resample: bool
    dropout: float = 0.0
    rescale: bool = False
    groups: int = GROUPS

    def residual(
        self, channels: int, out_channels: int, resample: Callable[[Tensor], Tensor] | None = None
    ) -> ResidualBlock:
        return ResidualBlock(
            channels,
            out_channels,
            self.emb_channels,
            dropout=self.dropout,
            scale_shift=self.scale_shift,
            resample=resample,
            rescale=self.rescale,
            groups=self.groups,
        )

    def heads_of(self, channels: int, heads: int | None = None) -> int:
        """The heads of attention on this many channels: `heads` if given, and in both cases head_channels
        overrides.
        """
        if self.head_channels is None:
            return heads or self.heads
        if channels % self.head_channels:
            raise InputError(
                f"head_channels={self.head_channels} does not divide the {channels} channels under attention"
            )
        return channels // self.head_channels

    def attention(self, channels: int, heads: int | None = None) -> AttentionBlock:
        return AttentionBlock(channels, self.heads_of(channels, heads), self.attention_order, self.groups)

    def downsample(self, channels: int) -> nn.Module:
        return (
            self.residual(channels, channels, down2)
            if self.updown
            else Downsample(channels, self.conv_resample)
        )

    def upsample(self, channels: int) -> nn.Module:
        return (
            self.residual(channels, channels, up2) if self.updown else Upsample(channels, self.conv_resample)
        )


def encoder(
    make: Parts, in_channels: int, widths: Sequence[int], blocks: int, attention: Sequence[int]
) -> tuple[nn.ModuleList, list[int]]:
    """The stages on the way down, and how many channels each of them returns."""
    stages, channels = [Stage([nn.Conv2d(in_channels, widths[0], 3, padding=1)])], [widths[0]]
    for level, width in enumerate(widths):
        for _ in range(blocks):
            attend = [make.attention(width)] if 2**level in attention else []
            stages.append(Stage([make.residual(channels[-1], width), *attend]))
            channels.append(width)
        if level < len(widths) - 1:
            stages.append(Stage([make.downsample(width)]))
            channels.append(width)
    return nn.ModuleList(stages), channels


def middle(make: Parts, width: int) -> Stage:
    """The stage at the lowest resolution, between the two ways."""
    return Stage([make.residual(width, width), make.attention(width), make.residual(width, width)])


def decoder(
    make: Parts,
    widths: Sequence[int],
    skips: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    heads: int | None,
) -> nn.ModuleList:
    """The stages on the way up; each reads the last one's channels and those of the last unread skip."""
    stages, width, unread = [], widths[-1], list(skips)
    for level in reversed(range(len(widths))):
        for block in range(blocks + 1):
            layers: list[nn.Module] = [make.residual(width + unread.pop(), widths[level])]
            width = widths[level]
            if 2**level in attention:
                layers.append(make.attention(width, heads))
            if level and block == blocks:
                layers.append(make.upsample(width))
            stages.append(Stage(layers))
    return nn.ModuleList(stages)
