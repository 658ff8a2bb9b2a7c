"""A residual multilayer perceptron for low-dimensional data, and for score models without noise levels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scorefield.core.shapes import check_batch_of
from scorefield.nets.base import Network
from scorefield.nets.blocks import (
    TimeEmbedding,
    check_call,
    check_flags,
    check_given_sizes,
    check_sizes,
    label_table,
    rows_of,
)
from scorefield.runtime.errors import InputError

__all__ = ["MLP"]


class MLP(Network):
    """A residual multilayer perceptron, F(x, c, y), smooth as score matching needs.

    h ← W_in x, then `layers` times h ← h + W silu(h + emb), and W_out silu(h), with emb = W₂ silu(W₁
    embedding(c)) + label row of y.

    Args:
        dim: Values in one example, whatever their shape.
        hidden: Width.
        layers: Residual layers.
        num_classes: Labels are 0 … num_classes − 1; 0 is unconditional.
        null_label: One more row, index num_classes, for training with dropped labels.
        embed_dim: Size of the sinusoidal embedding of c.
        out_dim: Values returned per example. Default: dim.
        noise_levels: False builds a network that takes no c and has no parameters for it.
    Raises:
        InputError: When x does not have `dim` values, and when c or y is missing or has no use.
    """

    gives = ("data", "logits")

    def __init__(
        self,
        dim: int,
        *,
        hidden: int = 128,
        layers: int = 4,
        num_classes: int = 0,
        null_label: bool = False,
        embed_dim: int = 64,
        out_dim: int | None = None,
        noise_levels: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(dim=dim, hidden=hidden, layers=layers, embed_dim=embed_dim)
        check_given_sizes(out_dim=out_dim)
        check_flags(noise_levels=noise_levels)
        self.dim, self.out_dim = dim, dim if out_dim is None else out_dim
        self.num_classes = num_classes
        self.time_embed = TimeEmbedding(embed_dim, hidden) if noise_levels else None
        self.label_emb = label_table(num_classes, null_label, hidden)
        self.first = nn.Linear(dim, hidden)
        self.layers = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(layers)])
        self.last = nn.Linear(hidden, self.out_dim)

    def forward(self, x: Tensor, c: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """F(x, c, y).

        Args:
            x: (B, *) with `dim` values per example, of any rank.
            c: Noise input, (B,) numbers; None without noise levels.
            y: Labels, (B,) int64, where the network is conditional.
        Returns:
            x's shape for out_dim = dim; for out_dim = k·dim the first data dimension is k times as long (k =
            2 for a variance head), and for any other out_dim the shape is (B, out_dim).
        """
        self._check(x, c, y)
        h = self.first(x.reshape(x.shape[0], self.dim))
        emb = self._embed(c, y)
        for layer in self.layers:
            h = h + layer(F.silu(h if emb is None else h + emb))
        result: Tensor = self.last(F.silu(h))
        return result.reshape(self._out_shape(x))

    def _check(self, x: Tensor, c: Tensor | None, y: Tensor | None) -> None:
        check_batch_of("x", x)
        if x.shape[1:].numel() != self.dim:
            raise InputError(
                f"this MLP takes {self.dim} values an example (dim={self.dim}); got x of shape {tuple(x.shape)}"
            )
        check_call(
            x, c, y, self.num_classes, self.first.weight.dtype, noise_levels=self.time_embed is not None
        )

    def _embed(self, c: Tensor | None, y: Tensor | None) -> Tensor | None:
        emb = None if self.label_emb is None or y is None else rows_of(self.label_emb, y, "labels y")
        if self.time_embed is None or c is None:
            return emb
        time: Tensor = self.time_embed(c)
        return time if emb is None else time + emb

    def _out_shape(self, x: Tensor) -> tuple[int, ...]:
        if x.ndim < 2 or self.out_dim % self.dim:
            return tuple(x.shape) if self.out_dim == self.dim else (x.shape[0], self.out_dim)
        return (x.shape[0], x.shape[1] * (self.out_dim // self.dim), *x.shape[2:])
