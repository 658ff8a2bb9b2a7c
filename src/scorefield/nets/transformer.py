"""A transformer over the patches of an image, under the parameter names of DiT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorefield.core.shapes import check_batch_of
from scorefield.nets.attention import attention
from scorefield.nets.base import Network
from scorefield.nets.blocks import (
    as_float,
    check_call,
    check_dropout,
    check_given_sizes,
    check_sizes,
    cos_sin_embedding,
    label_table,
    rows_of,
    zero,
)
from scorefield.runtime.checks import number, one_of
from scorefield.runtime.errors import InputError

__all__ = ["Transformer"]

FREQUENCIES = 256  # of the embedding of c, in the published code
EPS = 1e-6  # of every normalization
_LARGEST_GRID = 2**12  # patches along a side


class Transformer(Network):
    """A transformer over patches with adaptive-norm-zero blocks, F(x, c, y).  [Peebles & Xie 2023, Sec. 3.2]

    Each block computes h ← h + g₁·attention(N(h)·(1 + s₁) + b₁), then h ← h + g₂·mlp(N(h)·(1 + s₂) + b₂); shift b,
    scale s and gate g of every block are linear in silu(W₂ silu(W₁ embedding(c)) + label row of y), and start at zero, so
    that every block starts as the identity.

    The defaults are DiT's. The plain pixel transformers of 2025 [Li & He 2025] predict x̂0 and use `bottleneck`,
    `positions="rotary"`, `norm="rms"` and `mlp="swiglu"`.

    Args:
        in_channels: Channels of x.
        image_size: Side of the images, a multiple of patch.
        out_channels: Channels of the result, twice in_channels for a variance head. Default: in_channels.
        patch: Side of a patch; (image_size / patch)² tokens.
        hidden: Width of a token, a multiple of heads, and of 4 for the positions.
        depth: Blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of each block's perceptron, over `hidden`.
        bottleneck: Width that a patch is first mapped to; None maps it to `hidden` at once.
        positions: "fixed", sines and cosines added to the patches; "learned", the same as the start of parameters;
            "rotary", fixed ones, and queries and keys turned by angles of their row and column.
        norm: "layer", of mean and variance, or "rms", of the mean square, then also of queries and keys.
        mlp: "gelu", two maps, or "swiglu", two thirds as wide with a third map as gate.
        num_classes: Labels are 0 … num_classes − 1; 0 is unconditional.
        null_label: One more row, index num_classes, for training with dropped labels.
        dropout: Probability, after the perceptrons' activation, in training only.
    Raises:
        InputError: When the sizes do not fit, here or when called.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        *,
        out_channels: int | None = None,
        patch: int = 2,
        hidden: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        bottleneck: int | None = None,
        positions: str = "fixed",
        norm: str = "layer",
        mlp: str = "gelu",
        num_classes: int = 0,
        null_label: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, image_size=image_size, patch=patch, hidden=hidden, depth=depth)
        check_sizes(heads=heads)
        check_given_sizes(out_channels=out_channels, bottleneck=bottleneck)
        check_dropout(dropout)
        number("mlp_ratio", mlp_ratio, above=0, at_most=64)
        one_of("positions", positions, ("fixed", "learned", "rotary"))
        one_of("norm", norm, ("layer", "rms"))
        one_of("mlp", mlp, ("gelu", "swiglu"))
        _check_fit(image_size, patch, hidden, heads, positions)
        self.in_channels, self.num_classes = in_channels, num_classes
        self.out_channels = in_channels if out_channels is None else out_channels
        self.image_size, self.patch, self.side = image_size, patch, image_size // patch
        self.x_embedder = PatchEmbedding(in_channels, patch, hidden, bottleneck)
        self.t_embedder = NoiseEmbedding(hidden)
        table = label_table(num_classes, null_label, hidden)
        self.y_embedder = None if table is None else LabelEmbedding(table)
        start = grid_embedding(hidden, self.side)[None]
        if positions == "learned":
            self.pos_embed = nn.Parameter(start)
        else:
            self.register_buffer("pos_embed", start)
        angles = rotary_angles(hidden // heads, self.side) if positions == "rotary" else None
        width = int(hidden * mlp_ratio)
        self.blocks = nn.ModuleList(
            [Block(hidden, heads, width, mlp, norm, dropout, angles) for _ in range(depth)]
        )
        self.final_layer = FinalLayer(hidden, patch * patch * self.out_channels, norm)
        self._initialize()

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """F(x, c, y).

        Args:
            x: Images (B, in_channels, image_size, image_size).
            c: Noise input, (B,) numbers.
            y: Labels, (B,) int64, where the network is conditional.
        Returns:
            (B, out_channels, image_size, image_size).
        """
        self._check(x, c, y)
        emb = self.t_embedder(c)
        if self.y_embedder is not None and y is not None:
            emb = emb + self.y_embedder(y)
        h = self.x_embedder(x) + self.pos_embed
        for block in self.blocks:
            h = block(h, emb)
        return self._unpatchify(self.final_layer(h, emb))

    def _check(self, x: Tensor, c: Tensor, y: Tensor | None) -> None:
        check_batch_of("x", x)
        size = (self.in_channels, self.image_size, self.image_size)
        if tuple(x.shape[1:]) != size:
            raise InputError(
                f"this network takes images of shape (B, {', '.join(map(str, size))}); got {tuple(x.shape)}"
            )
        check_call(x, c, y, self.num_classes, next(self.parameters()).dtype)

    def _unpatchify(self, h: Tensor) -> Tensor:
        """(B, tokens, patch² · out_channels), a patch row by row with its channels last -> images."""
        h = h.reshape(len(h), self.side, self.side, self.patch, self.patch, self.out_channels)
        return h.permute(0, 5, 1, 3, 2, 4).reshape(
            len(h), self.out_channels, self.image_size, self.image_size
        )

    def _initialize(self) -> None:
        """As DiT: Xavier's uniform maps without offsets, small embeddings, gates and the last map at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.x_embedder.initialize()
        for layer in self.t_embedder.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Modulation):
                zero(module)
        zero(self.final_layer.linear)


def _check_fit(image_size: int, patch: int, hidden: int, heads: int, positions: str) -> None:
    if image_size % patch:
        raise InputError(f"patches of {patch} × {patch} do not divide images of {image_size} × {image_size}")
    if image_size // patch > _LARGEST_GRID:
        raise InputError(
            f"{image_size // patch:,} patches along a side are more than {_LARGEST_GRID:,}: choose larger patches"
        )
    if hidden % 4 or hidden % heads:
        raise InputError(
            f"hidden={hidden} must be a multiple of {heads} heads, and of 4: positions have a sine and a cosine for rows and for "
            "columns"
        )
    if positions == "rotary" and (hidden // heads) % 4:
        raise InputError(
            f"hidden={hidden} in {heads} heads is {hidden // heads} a head, and rotary positions turn pairs for rows and pairs for "
            "columns: make it a multiple of 4"
        )


class PatchEmbedding(nn.Module):
    """Images -> (B, tokens, hidden), one linear map a patch, or two through a bottleneck."""

    def __init__(self, channels: int, patch: int, hidden: int, bottleneck: int | None) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, bottleneck or hidden, patch, stride=patch, bias=bottleneck is None)
        self.expand = nn.Identity() if bottleneck is None else nn.Linear(bottleneck, hidden)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.expand(self.proj(x).flatten(2).transpose(1, 2))
        return h

    def initialize(self) -> None:
        nn.init.xavier_uniform_(self.proj.weight.detach().flatten(1))
        if self.proj.bias is not None:
            nn.init.zeros_(self.proj.bias)


class NoiseEmbedding(nn.Module):
    """W₂ silu(W₁ embedding(c)): c (B,), the result (B, hidden)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, c: Tensor) -> Tensor:
        weight = next(self.parameters())
        h: Tensor = self.mlp(cos_sin_embedding(as_float(c, weight), FREQUENCIES).to(weight.dtype))
        return h


class LabelEmbedding(nn.Module):
    """The row of a label in a table, under DiT's name for it."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.embedding_table = table

    def forward(self, y: Tensor) -> Tensor:
        return rows_of(self.embedding_table, y, "labels y")


class Modulation(nn.Sequential):
    """Shifts, scales and gates of the embedding, (B, parts · hidden)."""

    def __init__(self, hidden: int, parts: int) -> None:
        super().__init__(nn.SiLU(), nn.Linear(hidden, parts * hidden))


class RMSNorm(nn.Module):
    """x/√(mean x² + ε) over the last dimension, times a weight a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), EPS)


def make_norm(norm: str, hidden: int) -> nn.Module:
    """The normalization of a token; layer normalization has no parameters here, since modulation follows."""
    return RMSNorm(hidden) if norm == "rms" else nn.LayerNorm(hidden, eps=EPS, elementwise_affine=False)


class Attention(nn.Module):
    """Self-attention of tokens (B, L, hidden).

    normed: normalize queries and keys. angles: (L, width of a head / 2), by which pairs of their channels are turned.
    """

    def __init__(self, hidden: int, heads: int, normed: bool, angles: Tensor | None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.proj = nn.Linear(hidden, hidden)
        self.q_norm = RMSNorm(hidden // heads) if normed else nn.Identity()
        self.k_norm = RMSNorm(hidden // heads) if normed else nn.Identity()
        self.angles: Tensor | None
        self.register_buffer("angles", angles, persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        batch, length, width = h.shape
        rows = self.qkv(h).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = rows.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.angles is not None:
            q, k = turned(q, self.angles), turned(k, self.angles)
        joined: Tensor = self.proj(attention(q, k, v).transpose(1, 2).flatten(2))
        return joined


class Perceptron(nn.Module):
    """fc2(gelu(fc1(h))), with the tanh approximation of GELU."""

    def __init__(self, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(width, hidden)

    def forward(self, h: Tensor) -> Tensor:
        h = self.fc2(self.drop(F.gelu(self.fc1(h), approximate="tanh")))
        return h


class GatedPerceptron(nn.Module):
    """w3(silu(a)·b), (a, b) = w12(h), two thirds as wide, so that it has as many parameters."""

    def __init__(self, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        inner = max(width * 2 // 3, 1)
        self.w12 = nn.Linear(hidden, 2 * inner)
        self.drop = nn.Dropout(dropout)
        self.w3 = nn.Linear(inner, hidden)

    def forward(self, h: Tensor) -> Tensor:
        gate, value = self.w12(h).chunk(2, dim=-1)
        h = self.w3(self.drop(F.silu(gate) * value))
        return h


_PERCEPTRONS = {"gelu": Perceptron, "swiglu": GatedPerceptron}


class Block(nn.Module):
    """Attention and a perceptron, each modulated and gated by the embedding (adaLN-Zero)."""

    def __init__(
        self, hidden: int, heads: int, width: int, mlp: str, norm: str, dropout: float, angles: Tensor | None
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = make_norm(norm, hidden), make_norm(norm, hidden)
        self.attn = Attention(hidden, heads, norm == "rms", angles)
        self.mlp = _PERCEPTRONS[mlp](hidden, width, dropout)
        self.adaLN_modulation = Modulation(hidden, 6)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(emb)[:, None].chunk(6, dim=-1)
        h = h + gate1 * self.attn(torch.addcmul(shift1, self.norm1(h), 1 + scale1))
        h = h + gate2 * self.mlp(torch.addcmul(shift2, self.norm2(h), 1 + scale2))
        return h


class FinalLayer(nn.Module):
    """Normalization, modulation and a linear map to the pixels of a patch."""

    def __init__(self, hidden: int, numbers: int, norm: str) -> None:
        super().__init__()
        self.norm_final = make_norm(norm, hidden)
        self.linear = nn.Linear(hidden, numbers)
        self.adaLN_modulation = Modulation(hidden, 2)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(emb)[:, None].chunk(2, dim=-1)
        pixels: Tensor = self.linear(torch.addcmul(shift, self.norm_final(h), 1 + scale))
        return pixels


# Positions


def grid_embedding(hidden: int, side: int) -> Tensor:
    """[sin(x·w), cos(x·w), sin(y·w), cos(y·w)] of each patch's column x and row y, (side², hidden), row by row.

    w_i = 10000^(−4i/hidden), i < hidden/4, in float64 until the end.
    """
    w = 10_000.0 ** (-torch.arange(hidden // 4, dtype=torch.float64) * 4 / hidden)
    steps = torch.arange(side, dtype=torch.float64)
    row, column = torch.meshgrid(steps, steps, indexing="ij")
    parts = [
        part
        for axis in (column, row)
        for part in ((axis.reshape(-1, 1) * w).sin(), (axis.reshape(-1, 1) * w).cos())
    ]
    return torch.cat(parts, dim=1).float()


def rotary_angles(width: int, side: int) -> Tensor:
    """Angles (side², width/2): of a patch's row for the first half, of its column for the second."""
    w = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    steps = torch.arange(side, dtype=torch.float64)
    row, column = torch.meshgrid(steps, steps, indexing="ij")
    return torch.cat([row.reshape(-1, 1) * w, column.reshape(-1, 1) * w], dim=1).float()


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Pairs (x_i, x_{i + d/2}) of the last dimension d, each turned by its angle."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
