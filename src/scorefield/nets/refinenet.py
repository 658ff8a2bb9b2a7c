"""The noise-conditional RefineNet of NCSN (Song & Ermon 2019), under the parameter names of the published
code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorefield.nets.base import Network
from scorefield.nets.blocks import check_call, check_flags, check_images, check_sizes, rows_of
from scorefield.runtime.errors import InputError

__all__ = ["RefineNet"]

EPS = 1e-5  # under the roots of the normalization


class RefineNet(Network):
    """NCSN's score network, F(x, c): a dilated residual network and a RefineNet, normalized per noise level.
    [NCSN App. A]

    Nothing is divided by σ here.

    Args:
        channels_in: Channels of x.
        filters: The network is `filters` and twice as many wide.
        levels: Number of noise levels.
        unit_input: x is in [0, 1], and mapped by 2x − 1 first.
    Raises:
        InputError: For sizes that do not fit, for a c that is not an integer, and when it is given labels.
    """

    def __init__(
        self, channels_in: int, *, filters: int = 128, levels: int = 10, unit_input: bool = False
    ) -> None:
        super().__init__()
        check_sizes(channels_in=channels_in, filters=filters, levels=levels)
        check_flags(unit_input=unit_input)
        if filters < 2:
            raise InputError(
                f"filters must be at least 2 (the normalization compares channels), got {filters}"
            )
        self.channels_in, self.unit_input = channels_in, unit_input
        narrow, wide = filters, 2 * filters
        self.begin_conv = _conv3(channels_in, narrow)
        self.res1 = nn.ModuleList([_block(narrow, levels), _block(narrow, levels)])
        pooled = Residual(
            narrow, levels, _conv3(narrow, narrow), PooledConv(narrow, wide, 3), PooledConv(narrow, wide, 1)
        )
        self.res2 = nn.ModuleList([pooled, _block(wide, levels)])
        self.res3 = _dilated_pair(wide, levels, dilation=2)
        self.res4 = _dilated_pair(wide, levels, dilation=4)
        self.refine1 = Refine([wide], wide, levels)
        self.refine2 = Refine([wide, wide], wide, levels)
        self.refine3 = Refine([wide, wide], narrow, levels)
        self.refine4 = Refine([narrow, narrow], narrow, levels, last_units=3)
        self.normalizer = LevelNorm(narrow, levels)
        self.end_conv = _conv3(narrow, channels_in)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """F(x, c).

        Args:
            x: Images (B, channels_in, H, W) of even H and W (28, 32, 8 …).
            c: Index of the noise level from the noisiest, (B,) integers 0 … levels − 1: noise_input "rank".
            y: None; the network is unconditional.
        Returns:
            x's shape.
        """
        check_images(x, self.channels_in, levels=2)
        check_call(x, c, y, 0, self.begin_conv.weight.dtype)
        if c.is_floating_point():
            raise InputError(
                f'RefineNet takes the integer index of the noise level (noise_input "rank"), got {c.dtype}'
            )
        h = self.begin_conv(2 * x - 1 if self.unit_input else x)
        outputs = []
        for pair in (self.res1, self.res2, self.res3, self.res4):
            for block in pair:
                h = block(h, c)
            outputs.append(h)
        h = self.refine1([outputs[3]], c)
        h = self.refine2([outputs[2], h], c)
        h = self.refine3([outputs[1], h], c)
        h = self.refine4([outputs[0], h], c)
        result: Tensor = self.end_conv(F.elu(self.normalizer(h, c)))
        return result


class LevelNorm(nn.Module):
    """CondInstanceNorm++: instance normalization that keeps the channels' means, with parameters a noise
    level.

    γ·(h + α·(μ - m)/√(v + ε)) + β with h the instance-normalized x, μ (B, C) the means of x over the pixels,
    m and v the mean and the unbiased variance of μ over channels. In the paper γ does not multiply the α
    term; here it does, as in the published code. x: (B, C, H, W); c: (B,) integers.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(levels, 3 * channels)  # rows (γ, α, β)
        nn.init.normal_(self.embed.weight.detach()[:, : 2 * channels], 1.0, 0.02)
        nn.init.zeros_(self.embed.weight.detach()[:, 2 * channels :])

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        rows = rows_of(self.embed, c, "the index c of the noise level")
        gamma, alpha, beta = rows.chunk(3, dim=1)
        mean = x.mean(dim=(2, 3))
        spread = (mean.var(dim=1, keepdim=True) + EPS).sqrt()
        shift = gamma * alpha * (mean - mean.mean(dim=1, keepdim=True)) / spread + beta
        return gamma[:, :, None, None] * F.instance_norm(x, eps=EPS) + shift[:, :, None, None]


class Residual(nn.Module):
    """shortcut(x) + conv2(elu(norm(conv1(elu(norm(x))))))."""

    def __init__(
        self, channels: int, levels: int, conv1: nn.Module, conv2: nn.Module, shortcut: nn.Module
    ) -> None:
        super().__init__()
        self.normalize1, self.conv1 = LevelNorm(channels, levels), conv1
        self.normalize2, self.conv2 = LevelNorm(channels, levels), conv2
        self.shortcut = shortcut

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(F.elu(self.normalize1(x, c)))
        result: Tensor = self.shortcut(x) + self.conv2(F.elu(self.normalize2(h, c)))
        return result


class PooledConv(nn.Module):
    """A convolution, then the mean of 2 × 2 pixels."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(x), 2)


class Units(nn.ModuleDict):
    """Residual units, each x + conv(elu(norm(conv(elu(norm(x)))))), no biases; keys are unit_stage_part, from
    1.
    """

    def __init__(self, channels: int, levels: int, units: int) -> None:
        super().__init__()
        self.units = units
        for name in (f"{unit}_{stage}" for unit in range(1, units + 1) for stage in (1, 2)):
            self[f"{name}_norm"] = LevelNorm(channels, levels)
            self[f"{name}_conv"] = _conv3(channels, channels, bias=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        for unit in range(1, self.units + 1):
            h = x
            for name in (f"{unit}_1", f"{unit}_2"):
                h = self[f"{name}_conv"](F.elu(self[f"{name}_norm"](h, c)))
            x = x + h
        return x


class Fusion(nn.Module):
    """Σ_k of conv(norm(h_k)), each resized to the first one's size (bilinear, corners aligned)."""

    def __init__(self, widths: Sequence[int], out_channels: int, levels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([LevelNorm(width, levels) for width in widths])
        self.convs = nn.ModuleList([_conv3(width, out_channels) for width in widths])

    def forward(self, inputs: Sequence[Tensor], c: Tensor) -> Tensor:
        size = inputs[0].shape[2:]
        mapped = [conv(norm(h, c)) for h, norm, conv in zip(inputs, self.norms, self.convs, strict=True)]
        return torch.stack(
            [F.interpolate(h, size=size, mode="bilinear", align_corners=True) for h in mapped]
        ).sum(0)


class ChainedPool(nn.Module):
    """x = elu(h), then twice: path ← conv(mean of 5 × 5 pixels of norm(path)), x ← x + path."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([LevelNorm(channels, levels) for _ in range(2)])
        self.convs = nn.ModuleList([_conv3(channels, channels, bias=False) for _ in range(2)])

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        x = path = F.elu(h)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(F.avg_pool2d(norm(path, c), 5, stride=1, padding=2))
            x = x + path
        return x


class Refine(nn.Module):
    """Residual units on each input, fusion of the inputs if there are several, chained pooling, residual
    units.
    """

    def __init__(self, widths: Sequence[int], out_channels: int, levels: int, last_units: int = 1) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList([Units(width, levels, 2) for width in widths])
        self.msf = Fusion(widths, out_channels, levels) if len(widths) > 1 else None
        self.crp = ChainedPool(out_channels, levels)
        self.output_convs = Units(out_channels, levels, last_units)

    def forward(self, inputs: Sequence[Tensor], c: Tensor) -> Tensor:
        adapted = [units(x, c) for units, x in zip(self.adapt_convs, inputs, strict=True)]
        h = adapted[0] if self.msf is None else self.msf(adapted, c)
        result: Tensor = self.output_convs(self.crp(h, c), c)
        return result


def _conv3(channels: int, out_channels: int, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias)


def _block(channels: int, levels: int, dilation: int = 1, shortcut: nn.Module | None = None) -> Residual:
    """A residual block that keeps the number of channels and the resolution."""
    first, second = _conv3(channels, channels, dilation), _conv3(channels, channels, dilation)
    return Residual(channels, levels, first, second, nn.Identity() if shortcut is None else shortcut)


def _dilated_pair(channels: int, levels: int, dilation: int) -> nn.ModuleList:
    """Two dilated residual blocks; the shortcut of the first is a dilated convolution."""
    first = _block(channels, levels, dilation, _conv3(channels, channels, dilation))
    return nn.ModuleList([first, _block(channels, levels, dilation)])
