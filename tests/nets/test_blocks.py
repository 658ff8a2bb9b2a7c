"""The parts of the networks: embeddings' dtype, normalization, attention, descriptions."""

import pytest
import torch
import torch.nn.functional as F

from scorefield.nets import fused
from scorefield.nets.attention import AttentionBlock, attention
from scorefield.nets.blocks import Norm, ResidualBlock, as_float, down2, label_table, up2
from scorefield.runtime.errors import InputError


@pytest.mark.parametrize(
    ("c", "weight", "expected"),
    [
        (torch.int64, torch.float32, torch.float32),
        (torch.int64, torch.float64, torch.float64),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float64, torch.float32, torch.float64),
        (torch.bfloat16, torch.bfloat16, torch.float32),
    ],
)
def test_embeddings_are_never_computed_below_float32(
    c: torch.dtype, weight: torch.dtype, expected: torch.dtype
) -> None:
    assert as_float(torch.ones(2, dtype=c), torch.ones(1, dtype=weight)).dtype == expected


def test_norm_is_group_norm_then_modulation_then_silu() -> None:
    # [ADM Sec. 3.1]
    x, modulation = torch.randn(2, 64, 3, 3), torch.randn(2, 128)
    scale, shift = modulation[:, :64, None, None], modulation[:, 64:, None, None]
    norm = Norm(64)
    h = F.group_norm(x, 32)
    torch.testing.assert_close(norm(x), F.silu(h))
    torch.testing.assert_close(norm(x, modulation), F.silu(h * (1 + scale) + shift))
    torch.testing.assert_close(Norm(64, silu=False)(x), h)


def test_norm_in_channels_last_keeps_its_digits_where_the_mean_is_large() -> None:
    x = (torch.randn(2, 32, 8, 8) + 1000).to(memory_format=torch.channels_last)
    torch.testing.assert_close(Norm(32)(x).double(), Norm(32).double()(x.double()), atol=1e-3, rtol=0)


def test_norm_takes_one_example_of_one_pixel() -> None:
    assert Norm(32)(torch.randn(1, 32, 1, 1)).abs().max() < 1e-3


def test_attention_is_the_softmax_of_scaled_products() -> None:
    # [ADM Sec. 3]
    q, k, v = torch.randn(3, 2, 4, 9, 8, dtype=torch.float64)  # (B, heads, L, d) each
    torch.testing.assert_close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
    one = attention(q[:, :, :1], k, v)
    torch.testing.assert_close(one, F.scaled_dot_product_attention(q, k, v)[:, :, :1])


@pytest.mark.parametrize("cached", [1, 2 * 4 * 9 * 9, 3 * 4 * 9 * 9])
def test_attention_of_a_few_examples_at_a_time(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers, gradients and forward-mode derivatives at 1, 2 and 3 of 5 examples at once."""
    parts = torch.randn(3, 5, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(5, 4, 9, 8, dtype=torch.float64)
    found = []
    for numbers in (fused._CACHED, cached):
        monkeypatch.setattr(fused, "_CACHED", numbers)
        out = attention(*parts)
        (gradient,) = torch.autograd.grad(out, parts, upstream, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), parts)
        _, forward = torch.func.jvp(lambda x: attention(*x), (parts.detach(),), (torch.ones_like(parts),))  # type: ignore[misc]
        found.append((out, gradient, second, forward))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_attention_of_equal_pixels_is_their_value() -> None:
    v = torch.randn(1, 1, 1, 4).expand(1, 1, 5, 4)
    torch.testing.assert_close(attention(torch.randn(1, 1, 5, 4), torch.randn(1, 1, 5, 4), v), v)


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_the_attention_orders_written_out(order: str) -> None:
    """ "legacy": each head has its q, k, v in a row of channels; "new": all heads' q, then all k, then all v."""
    torch.manual_seed(0)
    block = AttentionBlock(32, 2, order).double()
    torch.nn.init.normal_(block.proj_out.weight)
    x = torch.randn(1, 32, 2, 3, dtype=torch.float64)
    normal = F.group_norm(x, 32).flatten(2)[0]
    rows = block.qkv.weight[:, :, 0] @ normal + block.qkv.bias[:, None]
    heads = []
    for h in range(2):
        starts = (
            (48 * h, 48 * h + 16, 48 * h + 32) if order == "legacy" else (16 * h, 32 + 16 * h, 64 + 16 * h)
        )
        q, k, v = (rows[start : start + 16] for start in starts)
        weights = [torch.softmax(q[:, i] @ k / 4, dim=0) for i in range(6)]
        heads.append(torch.stack([v @ w for w in weights], dim=1))
    expected = block.proj_out.weight[:, :, 0] @ torch.cat(heads) + block.proj_out.bias[:, None]
    torch.testing.assert_close(block(x), x + expected.reshape(1, 32, 2, 3))


def _resampled(x: torch.Tensor, how: object) -> torch.Tensor:
    if how is up2:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    if how is down2:
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return x


@pytest.mark.parametrize("how", [None, up2, down2])
@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize(("channels", "rescale"), [(32, False), (64, True)])
def test_the_residual_block_written_out(channels: int, scale_shift: bool, how: object, rescale: bool) -> None:
    # [ADM Sec. 3]
    torch.manual_seed(0)
    block = (
        ResidualBlock(32, channels, 8, scale_shift=scale_shift, resample=how, rescale=rescale, dropout=0.5)  # type: ignore[arg-type]
        .double()
        .eval()
    )
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, emb = torch.randn(2, 32, 4, 4, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    p = dict(block.named_parameters())

    def conv(h: torch.Tensor, name: str) -> torch.Tensor:
        return F.conv2d(h, p[f"{name}.weight"], p[f"{name}.bias"], padding=p[f"{name}.weight"].shape[-1] // 2)

    def normal(h: torch.Tensor, name: str) -> torch.Tensor:
        return F.group_norm(h, 32, p[f"{name}.weight"], p[f"{name}.bias"])

    h = conv(_resampled(F.silu(normal(x, "in_layers.0")), how), "in_layers.2")
    e = (F.silu(emb) @ p["emb_layers.1.weight"].T + p["emb_layers.1.bias"])[:, :, None, None]
    scale, shift = (e[:, :channels], e[:, channels:]) if scale_shift else (0.0, 0.0)
    h = normal(h if scale_shift else h + e, "out_layers.0") * (1 + scale) + shift
    skip = _resampled(x, how)
    total = (skip if channels == 32 else conv(skip, "skip_connection")) + conv(F.silu(h), "out_layers.3")
    torch.testing.assert_close(block(x, emb), total / 2**0.5 if rescale else total)


def test_dropout_leaves_the_mean() -> None:
    """After it comes a convolution, so over many draws a block in training returns what it does in
    evaluation.
    """
    torch.manual_seed(0)
    block = ResidualBlock(32, 32, 8, dropout=0.3).double()
    torch.nn.init.normal_(block.out_layers[3].weight)  # type: ignore[arg-type]
    x, emb = torch.randn(1, 32, 2, 2, dtype=torch.float64), torch.randn(1, 8, dtype=torch.float64)
    draws = block.train()(x.expand(4000, -1, -1, -1), emb.expand(4000, -1))
    error = (draws.mean(0) - block.eval()(x, emb)[0]) / (draws.std(0) / 4000**0.5)
    assert error.abs().max() < 4.5
    assert draws.std(0).min() > 0


def test_a_new_block_is_the_identity() -> None:
    x = torch.randn(2, 32, 4, 4)
    assert torch.equal(AttentionBlock(32, 4, "new")(x), x)
    assert torch.equal(ResidualBlock(32, 32, 8)(x, torch.randn(2, 8)), x)
    torch.testing.assert_close(ResidualBlock(32, 32, 8, rescale=True)(x, torch.randn(2, 8)), x / 2**0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionBlock(32, 5, "new"), "32 channels cannot be split into 5 heads"),
        (lambda: AttentionBlock(32, 4, "old"), "legacy"),
        (lambda: Norm(48), "48 channels"),
        (lambda: label_table(0, True, 8), "num_classes"),
    ],
)
def test_errors_say_what_does_not_fit(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
