"""The parts of the networks: embeddings' dtype, normalization, attention, descriptions."""

import pytest
import torch
import torch.nn.functional as F

from scorefield.core.errors import InputError
from scorefield.nets.blocks import AttentionBlock, Norm, ResidualBlock, as_float, attention, describe, label_table


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
def test_embeddings_are_never_computed_below_float32(c: torch.dtype, weight: torch.dtype, expected: torch.dtype) -> None:
    assert as_float(torch.ones(2, dtype=c), torch.ones(1, dtype=weight)).dtype == expected


def test_norm_is_group_norm_then_modulation_then_silu() -> None:
    x, scale, shift = torch.randn(2, 64, 3, 3), torch.randn(2, 64, 1, 1), torch.randn(2, 64, 1, 1)
    norm = Norm(64)
    h = F.group_norm(x, 32)
    torch.testing.assert_close(norm(x), F.silu(h))
    torch.testing.assert_close(norm(x, scale, shift), F.silu(h * (1 + scale) + shift))
    torch.testing.assert_close(Norm(64, silu=False)(x), h)


def test_norm_in_channels_last_keeps_its_digits_where_the_mean_is_large() -> None:
    x = (torch.randn(2, 32, 8, 8) + 1000).to(memory_format=torch.channels_last)
    torch.testing.assert_close(Norm(32)(x).double(), Norm(32).double()(x.double()), atol=1e-3, rtol=0)


def test_norm_takes_one_example_of_one_pixel() -> None:
    assert Norm(32)(torch.randn(1, 32, 1, 1)).abs().max() < 1e-3


def test_attention_is_the_softmax_of_scaled_products() -> None:
    q, k, v = torch.randn(3, 2, 4, 8, 9, dtype=torch.float64)  # (B, heads, d, L) each
    expected = F.scaled_dot_product_attention(*(z.transpose(-1, -2) for z in (q, k, v))).transpose(-1, -2)
    torch.testing.assert_close(attention(q, k, v), expected)


def test_attention_of_equal_pixels_is_their_value() -> None:
    v = torch.randn(1, 1, 4, 1).expand(1, 1, 4, 5)
    torch.testing.assert_close(attention(torch.randn(1, 1, 4, 5), torch.randn(1, 1, 4, 5), v), v)


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


def test_describe_gives_values_that_toml_can_hold() -> None:
    arguments = {"self": object(), "__class__": object, "a": (1, 2), "b": None, "c": "text", "d": [0.5]}
    assert describe("kind", arguments) == {"kind": "kind", "a": [1, 2], "c": "text", "d": [0.5]}
