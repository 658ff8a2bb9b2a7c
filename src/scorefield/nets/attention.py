"""Attention of the networks; `fused` chooses the kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorefield.nets.blocks import GROUPS, Norm, zero
from scorefield.nets.fused import examples_at_once, is_fused, takes_fused_attention
from scorefield.runtime.checks import one_of
from scorefield.runtime.errors import InputError

__all__ = ["AttentionBlock", "attention", "attention_of"]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Weights softmax over keys of (q·k)/√d, applied to v. q and the result: (B, heads, L, d); k, v: (B,
    heads, M, d).
    """
    if takes_fused_attention(q):
        return F.scaled_dot_product_attention(q, k, v)
    if len(q) <= (most := examples_at_once(q, k)):
        return _attend(q, k, v)
    return torch.cat(
        [_attend(*part) for part in zip(*(whole.split(most) for whole in (q, k, v)), strict=True)]
    )


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # In this orientation no product, forward or backward, has to bring the weights into another layout.
    return torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1) @ v


def attention_of(qkv: Tensor, heads: int, order: str, queries: int | None = None) -> Tensor:
    """Attention with several heads, joined: qkv (B, 3C, L) -> (B, C, L), or (B, C, queries) for the first
    `queries` positions.

    order: how the 3C channels are read: "legacy" is head by head (q, k, v inside each), "new" is q, k, v
    first, then heads.
    """
    batch, channels, length = qkv.shape
    outer, to_front = ((heads, 3), (3, 0, 2, 1, 4)) if order == "legacy" else ((3, heads), (2, 0, 3, 1, 4))
    rows = qkv.transpose(1, 2).reshape(batch, length, *outer, channels // (3 * heads))
    # One copy for all three, which products of many matrices would otherwise make of each, again and again.
    q, k, v = rows.permute(to_front).contiguous().unbind(0)
    return attention(q[:, :, :queries], k, v).transpose(1, 2).flatten(2).transpose(1, 2)


class AttentionBlock(nn.Module):
    """x + proj(attention of GN(x)) over the pixels of x (B, C, H, W), with several heads.  [ADM Sec. 3]

    order: "legacy" or "new", as in `attention_of`. groups: of its norm. Raises InputError for another one, or if the heads do not
    divide the channels.
    """

    def __init__(self, channels: int, heads: int, order: str, groups: int = GROUPS) -> None:
        super().__init__()
        one_of("attention_order", order, ("legacy", "new"))
        if heads < 1 or channels % heads:
            raise InputError(
                f"attention on {channels} channels cannot be split into {heads} heads: choose `heads` (or "
                "`head_channels`) so that it divides the channels of every level that has attention and of the last one"
            )
        self.heads, self.order = heads, order
        self.norm = Norm(channels, silu=False, groups=groups)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if is_fused(
            x
        ):  # in channels-last memory a pixel is a row, and a convolution over pixels a matrix product
            rows = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
            joined = attention_of(_per_row(self.qkv, rows).transpose(1, 2), self.heads, self.order)
            return x + _per_row(self.proj_out, joined.transpose(1, 2)).reshape(
                x.permute(0, 2, 3, 1).shape
            ).permute(0, 3, 1, 2)
        qkv = self.qkv(self.norm(x).flatten(2))
        h: Tensor = self.proj_out(attention_of(qkv, self.heads, self.order))
        return x + h.reshape(x.shape)


def _per_row(conv: nn.Conv1d, rows: Tensor) -> Tensor:
    """A convolution of kernel 1 on rows (B, L, C)."""
    return F.linear(rows, conv.weight[:, :, 0], conv.bias)
