"""The noisy classifier of ADM: the downsampling half of its U-Net, under the published parameter names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from scorefield.nets.attention import attention_of
from scorefield.nets.base import Network
from scorefield.nets.blocks import (
    Norm,
    TimeEmbedding,
    check_call,
    check_dropout,
    check_flags,
    check_given_sizes,
    check_images,
    check_sizes,
    level_widths,
    zero,
)
from scorefield.nets.fused import to_layout
from scorefield.nets.unet_adm import Parts, encoder, middle, run_stage
from scorefield.runtime.checks import one_of, positive_int
from scorefield.runtime.errors import InputError

__all__ = ["Classifier"]

_LARGEST_SIDE = 2**14
HIDDEN = 2048  # features between the two linear layers of spatial pooling


class Classifier(Network):
    """ADM's noisy classifier, F(x, c): the way down and the middle of its U-Net, pooled to one logit per
    class. [ADM Sec. 4]

    Args:
        in_channels: Channels of x.
        num_classes: Number of logits.
        image_size: Pixels of a side. Attention pooling has a parameter for each pixel and takes only this
            size; the others any.
        channels: As in `UNet`.
        channel_mult: As in `UNet`.
        blocks: As in `UNet`.
        attention: As in `UNet`.
        heads: As in `UNet`; attention pooling has the same heads, in the "new" order as published.
        head_channels: As in `UNet`.
        pool: "attention", of the mean feature over all pixels; "adaptive", the mean over pixels; "spatial"
            and "spatial_v2", two linear layers on the means of every stage, the second kind with a
            normalization between them.
        scale_shift: As in `UNet`.
        updown: As in `UNet`.
        conv_resample: As in `UNet`.
        attention_order: As in `UNet`.
        dropout: As in `UNet`.
        checkpoint: As in `UNet`.
    Raises:
        InputError: When the sizes do not fit, here or when called.
    """

    gives = ("logits",)

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        image_size: int,
        channels: int = 128,
        channel_mult: Sequence[float] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (2, 4),
        heads: int = 4,
        head_channels: int | None = None,
        pool: str = "attention",
        scale_shift: bool = True,
        updown: bool = True,
        conv_resample: bool = True,
        attention_order: str = "legacy",
        dropout: float = 0.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes, image_size=image_size)
        check_sizes(blocks=blocks, heads=heads)
        check_given_sizes(head_channels=head_channels)
        check_flags(
            scale_shift=scale_shift, updown=updown, conv_resample=conv_resample, checkpoint=checkpoint
        )
        check_dropout(dropout)
        one_of("pool", pool, POOLS)
        widths = level_widths(channels, channel_mult, attention)
        self.in_channels, self.levels, self.checkpoint = in_channels, len(widths), checkpoint
        self.side = image_size if pool == "attention" else None
        self.reads_all = pool in ("spatial", "spatial_v2")
        self.time_embed = TimeEmbedding(channels, 4 * channels)
        make = Parts(
            4 * channels, heads, head_channels, attention_order, scale_shift, updown, conv_resample, dropout
        )
        self.input_blocks, stages = encoder(make, in_channels, widths, blocks, attention)
        self.middle_block = middle(make, widths[-1])
        positive_int("image_size", image_size, at_least=2 ** (len(widths) - 1), at_most=_LARGEST_SIDE)
        pixels = (image_size // 2 ** (len(widths) - 1)) ** 2
        self.out = POOLS[pool]([*stages, widths[-1]], num_classes, make.heads_of(widths[-1]), pixels)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The logits of p(y | x_t).

        Args:
            x: Images (B, in_channels, H, W), H and W divisible by 2^(stages − 1).
            c: Noise input, (B,) numbers.
        Returns:
            (B, num_classes).
        """
        check_images(x, self.in_channels, self.levels)
        check_call(x, c, None, 0, next(self.parameters()).dtype)
        if self.side is not None and tuple(x.shape[2:]) != (self.side, self.side):
            raise InputError(
                f"this classifier was built for images of {self.side} × {self.side}, got {x.shape[2]} × {x.shape[3]}: attention "
                'pooling has a parameter for each pixel; build it with this image_size, or with pool="adaptive"'
            )
        emb = self.time_embed(c)
        h, means = to_layout(x), []
        for stage in (*self.input_blocks, self.middle_block):
            h = run_stage(stage, h, emb, self.checkpoint)
            means.append(h.mean(dim=(2, 3)))
        logits: Tensor = self.out(torch.cat(means, dim=1) if self.reads_all else h)
        return logits


class AttentionPool(nn.Module):
    """Attention of the mean over pixels to itself and all pixels, then a linear map: (B, C, H, W) -> (B,
    num_classes).
    """

    def __init__(self, channels: int, num_classes: int, heads: int, pixels: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(channels, pixels + 1) / channels**0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(2)
        h = torch.cat([h.mean(dim=2, keepdim=True), h], dim=2) + self.positional_embedding
        logits: Tensor = self.c_proj(attention_of(self.qkv_proj(h), self.heads, "new", queries=1))
        return logits[:, :, 0]


def _attention_pool(channels: Sequence[int], num_classes: int, heads: int, pixels: int) -> nn.Sequential:
    width = channels[-1]
    return nn.Sequential(Norm(width), nn.Identity(), AttentionPool(width, num_classes, heads, pixels))


def _adaptive_pool(channels: Sequence[int], num_classes: int, heads: int, pixels: int) -> nn.Sequential:
    last = zero(nn.Conv2d(channels[-1], num_classes, 1))
    return nn.Sequential(Norm(channels[-1]), nn.Identity(), nn.AdaptiveAvgPool2d(1), last, nn.Flatten())


def _spatial_pool(channels: Sequence[int], num_classes: int, heads: int, pixels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(sum(channels), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_classes))


def _spatial_v2_pool(channels: Sequence[int], num_classes: int, heads: int, pixels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(sum(channels), HIDDEN), Norm(HIDDEN), nn.Identity(), nn.Linear(HIDDEN, num_classes)
    )


# The indices of the layers are those of the published code.
POOLS: dict[str, Callable[[Sequence[int], int, int, int], nn.Sequential]] = {
    "attention": _attention_pool,
    "adaptive": _adaptive_pool,
    "spatial": _spatial_pool,
    "spatial_v2": _spatial_v2_pool,
}
