"""What all the networks promise: one call signature, a description that rebuilds them, clear errors,
gradients.
"""

import copy
import tomllib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scorefield.nets import MLP, DDPMUNet, RefineNet, Transformer, UNet
from scorefield.runtime.errors import InputError

KINDS = {"mlp": MLP, "unet": UNet, "ddpm-unet": DDPMUNet, "refinenet": RefineNet, "transformer": Transformer}
SMALL: dict[str, Any] = {"channels": 32, "channel_mult": (1, 2), "blocks": 1, "attention": (2,)}
NETWORKS = {
    "mlp": lambda: MLP(3 * 8 * 8, hidden=16, layers=2),
    "mlp, classes": lambda: MLP(3 * 8 * 8, hidden=16, layers=1, num_classes=4, null_label=True, embed_dim=8),
    "unet": lambda: UNet(3, heads=2, **SMALL),
    "unet, every option": lambda: UNet(
        3, num_classes=4, null_label=True, head_channels=16, scale_shift=False, updown=True, attention_order="new",
        dropout=0.1, rescale_residual=True, checkpoint=True, **SMALL | {"channel_mult": (2, 1)},
    ),
    "unet, pooling": lambda: UNet(3, conv_resample=False, heads_upsample=8, **SMALL),
    "ddpm-unet": lambda: DDPMUNet(3, **SMALL),
    "ddpm-unet, pooling": lambda: DDPMUNet(3, conv_resample=False, **SMALL),
    "refinenet": lambda: RefineNet(3, filters=4, levels=5, unit_input=True),
    "transformer": lambda: Transformer(3, 8, patch=2, hidden=16, depth=2, heads=2),
    "transformer, every option": lambda: Transformer(
        3, 8, patch=4, hidden=24, depth=1, heads=2, mlp_ratio=2.0, bottleneck=6, positions="rotary", norm="rms", mlp="swiglu",
        num_classes=4, null_label=True, dropout=0.1,
    ),
    "transformer, learned positions": lambda: Transformer(3, 8, patch=2, hidden=16, depth=1, heads=2, positions="learned"),
}  # fmt: skip


def awake(net: nn.Module) -> nn.Module:
    """The network with its zero-initialised layers set to random numbers."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


def call(net: nn.Module, batch: int = 2, size: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, size, size, generator=generator).to(dtype)
    c = torch.arange(batch) % 4 if isinstance(net, RefineNet) else torch.linspace(0.0, 900.0, batch)
    y = torch.arange(batch) % 4 if getattr(net, "num_classes", 0) else None
    return net(x, c, y)


@pytest.fixture(params=NETWORKS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]()


def test_the_result_has_the_shape_of_the_data(net: nn.Module) -> None:
    assert call(net).shape == (2, 3, 8, 8)


def test_spec_rebuilds_the_network(net: Any) -> None:
    arguments = {name: value for name, value in net.config.items() if name != "kind"}
    twin = KINDS[net.config["kind"]](**arguments)
    assert twin.config == net.config
    twin.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(call(twin.eval()), call(net.eval()))


def test_spec_holds_toml_values(net: nn.Module) -> None:
    lines = [
        f"{name} = {str(v).lower() if isinstance(v, bool) else repr(v)}" for name, v in net.config.items()
    ]
    assert tomllib.loads("\n".join(lines)) == net.config


def test_every_parameter_receives_a_gradient(net: nn.Module) -> None:
    """DistributedDataParallel fails at its second step where one does not."""
    call(net).square().sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_every_weight_acts_on_the_result(net: nn.Module) -> None:
    awake(net).double()
    call(net, dtype=torch.float64).pow(3).sum().backward()
    still = {name for name, p in net.named_parameters() if p.grad.abs().max() < 1e-9}
    # A bias or an added embedding cancels in a normalization of one channel a group, and a key's bias in the
    # softmax.
    may_cancel = ("bias", "emb_layers.1.weight", "temb_proj.weight")
    assert [name for name in still if not name.endswith(may_cancel)] == []


def test_examples_do_not_mix(net: nn.Module) -> None:
    awake(net).eval()
    x = torch.randn(3, 3, 8, 8)
    c = torch.tensor([0, 3, 1])
    y = torch.tensor([2, 0, 3]) if getattr(net, "num_classes", 0) else None
    alone = torch.cat(
        [net(x[i : i + 1], c[i : i + 1], None if y is None else y[i : i + 1]) for i in range(3)]
    )
    torch.testing.assert_close(net(x, c, y), alone, atol=1e-4, rtol=1e-4)


def test_float64(net: nn.Module) -> None:
    double = copy.deepcopy(awake(net)).double().eval()
    result = call(double, dtype=torch.float64)
    assert result.dtype == torch.float64
    torch.testing.assert_close(call(net.eval()).double(), result, atol=1e-3, rtol=1e-3)


def test_bf16_autocast_and_channels_last(net: nn.Module) -> None:
    awake(net).eval()
    expected = call(net)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = call(net)
    assert (result.float() - expected).norm() < 0.1 * expected.norm()


def test_noise_level_and_image_both_act(net: nn.Module) -> None:
    awake(net).eval()
    x, low, high = torch.rand(1, 3, 8, 8), torch.tensor([0]), torch.tensor([4])
    y = torch.tensor([1]) if getattr(net, "num_classes", 0) else None
    assert (net(x, low, y) - net(x, high, y)).abs().max() > 1e-4
    assert (net(x, low, y) - net(x.flip(-1), low, y)).abs().max() > 1e-4


def test_wrong_calls_are_refused(net: nn.Module) -> None:
    x, c = torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    y = torch.zeros(2, dtype=torch.int64)
    classes = getattr(net, "num_classes", 0)
    with pytest.raises(InputError, match="labels"):
        net(x, c, None if classes else y)
    with pytest.raises(InputError, match="noise value c"):
        net(x, c[:1], y if classes else None)
    with pytest.raises(InputError, match="takes"):
        net(x[:, :2], c, y if classes else None)
    if classes:
        with pytest.raises(InputError, match="integers"):
            net(x, c, y.float())


@pytest.mark.parametrize("name", ["unet", "unet, every option", "ddpm-unet"])
def test_dropout_acts_in_training_only(name: str) -> None:
    arguments = {k: v for k, v in NETWORKS[name]().config.items() if k != "kind"} | {"dropout": 0.5}
    net = awake(KINDS["ddpm-unet" if name == "ddpm-unet" else "unet"](**arguments))
    assert not torch.equal(call(net.train()), call(net))
    assert torch.equal(call(net.eval()), call(net))


@pytest.mark.parametrize("name", ["mlp", "unet", "unet, pooling", "ddpm-unet", "refinenet", "transformer"])
def test_forward_mode_agrees_with_backward_mode(name: str) -> None:
    net = awake(NETWORKS[name]()).double().eval()
    x, v, u = torch.randn(3, 1, 3, 8, 8, dtype=torch.float64)
    c = torch.tensor([2])
    _, jvp = torch.func.jvp(lambda z: net(z, c), (x,), (v,))  # type: ignore[misc]
    x.requires_grad_()
    (vjp,) = torch.autograd.grad((net(x, c) * u).sum(), x)
    torch.testing.assert_close((jvp * u).sum(), (vjp * v).sum())
