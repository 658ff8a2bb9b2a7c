"""The noisy classifier: its four poolings, its description, its errors. Parity with the original is in
test_golden_networks.
"""

import tomllib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scorefield.nets import Classifier
from scorefield.nets.classifier import AttentionPool
from scorefield.runtime.errors import InputError

POOLS = ("attention", "adaptive", "spatial", "spatial_v2")
SMALL: dict[str, Any] = {
    "image_size": 8,
    "channels": 32,
    "channel_mult": (1, 2),
    "blocks": 1,
    "attention": (2,),
    "heads": 2,
}


def make(pool: str, **options) -> Classifier:
    torch.manual_seed(0)
    return Classifier(3, 5, pool=pool, **SMALL | options)


def awake(net: nn.Module) -> nn.Module:
    """The network with its zero-initialised layers set to random numbers."""
    torch.manual_seed(1)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


def images(batch: int = 2, size: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))
    return x.to(dtype), torch.linspace(0.0, 900.0, batch)


@pytest.mark.parametrize("pool", POOLS)
def test_logits_gradients_and_description(pool: str) -> None:
    net = make(pool)
    logits = net(*images())
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    lines = [
        f"{name} = {str(v).lower() if isinstance(v, bool) else repr(v)}" for name, v in net.config.items()
    ]
    assert tomllib.loads("\n".join(lines)) == net.config
    assert net.config["kind"] == "classifier"
    twin = Classifier(**{name: value for name, value in net.config.items() if name != "kind"})
    twin.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(twin(*images()), net(*images()))


@pytest.mark.parametrize("pool", POOLS)
def test_examples_do_not_mix_and_every_weight_acts(pool: str) -> None:
    net = awake(make(pool)).double()
    x, c = images(3, dtype=torch.float64)
    alone = torch.cat([net(x[i : i + 1], c[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, c), alone)
    net(x, c).pow(3).sum().backward()
    # A bias cancels in a normalization of one channel a group, and a key's bias in the softmax.
    assert [
        n for n, p in net.named_parameters() if p.grad.abs().max() < 1e-12 and not n.endswith("bias")
    ] == []


def test_attention_pooling_is_the_attention_of_the_mean() -> None:
    """Written out head by head: position 0 is the mean, every position has its embedding, only position 0
    asks.
    """
    # [ADM Sec. 4]
    torch.manual_seed(0)
    pool = AttentionPool(8, 3, heads=2, pixels=4).double()
    x = torch.randn(2, 8, 2, 2, dtype=torch.float64)
    tokens = (
        torch.cat([x.flatten(2).mean(-1, keepdim=True), x.flatten(2)], dim=-1) + pool.positional_embedding
    )
    weight, bias = pool.qkv_proj.weight[:, :, 0], pool.qkv_proj.bias[:, None]
    q, k, v = (weight @ tokens + bias).split(8, dim=1)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax((q[:, h, :1].transpose(1, 2) @ k[:, h]) / 4**0.5, dim=-1)
        heads.append((v[:, h] * weights).sum(-1))
    expected = torch.cat(heads, dim=1) @ pool.c_proj.weight[:, :, 0].T + pool.c_proj.bias
    torch.testing.assert_close(pool(x), expected)


@pytest.mark.parametrize("pool", ["adaptive", "spatial", "spatial_v2"])
def test_only_attention_pooling_is_bound_to_a_size(pool: str) -> None:
    assert make(pool)(*images(size=12)).shape == (2, 5)
    with pytest.raises(InputError, match=r"built for images of 8 × 8, got 12 × 12.*adaptive"):
        make("attention")(*images(size=12))


@pytest.mark.parametrize("pool", POOLS)
def test_checkpointing_changes_memory_only(pool: str) -> None:
    plain, saving = awake(make(pool)), make(pool, checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    gradients = []
    for net in (plain, saving):
        net(*images()).square().sum().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_guidance_needs_the_gradient_in_x_at_any_precision() -> None:
    net = awake(make("attention"))
    x, c = images()
    x.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(x, c)
    (grad,) = torch.autograd.grad(torch.log_softmax(logits.float(), 1)[:, 0].sum(), x)
    assert grad.abs().max() > 0


def test_dropout_acts_in_training_only() -> None:
    net = awake(make("adaptive", dropout=0.5))
    assert not torch.equal(net.train()(*images()), net(*images()))
    assert torch.equal(net.eval()(*images()), net(*images()))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: make("max"), "attention, adaptive, spatial, spatial_v2; got 'max'"),
        (lambda: Classifier(3, 0, **SMALL), "num_classes must be a positive integer"),
        (lambda: make("attention", heads=3), "3 heads"),
        (lambda: make("attention", head_channels=48), "head_channels=48"),
        (lambda: make("adaptive")(torch.zeros(2, 1, 8, 8), torch.zeros(2)), r"\(B, 3, H, W\)"),
        (lambda: make("adaptive")(torch.zeros(2, 3, 8, 8), torch.zeros(1)), "noise value c"),
        (lambda: make("adaptive")(torch.zeros(2, 3, 9, 8), torch.zeros(2)), "cannot be halved"),
    ],
)
def test_what_does_not_fit_is_refused(run, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run()
