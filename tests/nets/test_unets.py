"""The two U-Nets and RefineNet: published sizes, small images, options, errors."""

import pytest
import torch
from torch import nn

from scorefield.core.errors import InputError
from scorefield.nets import DDPMUNet, RefineNet, UNet

SMALL = {"channels": 32, "channel_mult": (1, 2), "blocks": 1, "attention": ()}


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_parameters_of_the_ddpm_cifar10_network() -> None:
    with torch.device("meta"):
        net = DDPMUNet(3, channels=128, channel_mult=(1, 2, 2, 2), blocks=2, attention=(2,), dropout=0.1)
        adm = UNet(3, channels=128, channel_mult=(1, 2, 2, 2), blocks=2, attention=(2,), scale_shift=False)
    assert count(net) == 35_746_307
    assert count(adm) == 35_746_307  # the same number in another network: names, epsilon, padding and embedding differ


@pytest.mark.parametrize("make", [UNet, DDPMUNet])
@pytest.mark.parametrize(("size", "levels"), [(28, 3), (8, 2), (8, 4), (7, 1)])
def test_small_images(make: type[nn.Module], size: int, levels: int) -> None:
    net = make(1, channels=32, channel_mult=(1,) * levels, blocks=1, attention=(1,))
    assert net(torch.randn(1, 1, size, size), torch.zeros(1)).shape == (1, 1, size, size)


@pytest.mark.parametrize("size", [28, 32, 8])
def test_small_images_of_refinenet(size: int) -> None:
    assert RefineNet(1, filters=4)(torch.rand(2, 1, size, size), torch.tensor([0, 9])).shape == (2, 1, size, size)


def test_images_need_not_be_square() -> None:
    assert UNet(1, **SMALL)(torch.randn(1, 1, 6, 10), torch.zeros(1)).shape == (1, 1, 6, 10)


def test_out_channels() -> None:
    for make in (UNet, DDPMUNet):
        assert make(3, out_channels=6, **SMALL)(torch.randn(1, 3, 4, 4), torch.zeros(1)).shape == (1, 6, 4, 4)


def test_new_networks_return_zero() -> None:
    for make in (UNet, DDPMUNet):
        assert not make(3, **SMALL)(torch.randn(1, 3, 4, 4), torch.zeros(1)).any()


def test_widths_of_fractional_multipliers() -> None:
    net = UNet(3, channels=64, channel_mult=(0.5, 1, 1.5), blocks=1, attention=())
    assert net.input_blocks[0][0].out_channels == 32
    assert net.out[2].in_channels == 32
    assert net.middle_block[0].out_layers[3].out_channels == 96


def test_the_null_label_is_one_more_row() -> None:
    assert UNet(1, num_classes=10, **SMALL).label_emb.num_embeddings == 10
    net = UNet(1, num_classes=10, null_label=True, **SMALL)
    assert net.label_emb.num_embeddings == 11
    net(torch.randn(1, 1, 4, 4), torch.zeros(1), torch.tensor([10]))


def test_checkpointing_changes_memory_only() -> None:
    torch.manual_seed(0)
    plain = UNet(1, dropout=0.3, **SMALL | {"attention": (2,)})
    saving = UNet(1, dropout=0.3, checkpoint=True, **SMALL | {"attention": (2,)})
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.1)
    saving.load_state_dict(plain.state_dict())
    gradients, saved = [], []
    for net in (plain, saving):
        torch.manual_seed(1)
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            loss = net(torch.ones(2, 1, 8, 8), torch.tensor([3.0, 700.0])).square().sum()
        loss.backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
        saved.append(sum(kept))
    assert saved[1] < saved[0] / 2
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_second_derivatives_pass_through_checkpointing() -> None:
    net = UNet(1, checkpoint=True, **SMALL).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x, torch.ones(1)).pow(2).sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert x.grad.abs().max() > 0


def test_unit_input_is_a_change_of_variables() -> None:
    torch.manual_seed(0)
    plain, unit = RefineNet(1, filters=4), RefineNet(1, filters=4, unit_input=True)
    unit.load_state_dict(plain.state_dict())
    x, c = torch.rand(2, 1, 8, 8), torch.tensor([0, 3])
    assert torch.equal(unit(x, c), plain(2 * x - 1, c))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNet(3, channels=32, channel_mult=(1, 1.5)), r"level 1 has 48 channels .* multiple of 32"),
        (lambda: UNet(3, channels=40), "level 0 has 40 channels"),
        (lambda: UNet(3, channel_mult=()), "channel_mult is empty"),
        (lambda: UNet(3, channel_mult=(1, 2), attention=(16,)), r"not pixels\) out of \[1, 2\]"),
        (lambda: UNet(3, heads=5), "5 heads"),
        (lambda: UNet(3, head_channels=48), "head_channels=48 does not divide the"),
        (lambda: UNet(3, attention_order="old"), "'old'"),
        (lambda: UNet(3, null_label=True), "num_classes"),
        (lambda: DDPMUNet(3, channels=48), "level 0 has 48 channels"),
        (lambda: DDPMUNet(3, num_classes=10), "use UNet"),
        (lambda: RefineNet(1, filters=1), "filters"),
    ],
)
def test_sizes_that_do_not_fit(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_images_that_cannot_be_halved() -> None:
    for net in (
        UNet(1, **SMALL | {"channel_mult": (1, 1, 1, 1)}),
        DDPMUNet(1, **SMALL | {"channel_mult": (1, 1, 1, 1)}),
    ):
        with pytest.raises(InputError, match=r"28 × 28 cannot be halved 3 times.*divisible by 8"):
            net(torch.zeros(1, 1, 28, 28), torch.zeros(1))


def test_refinenet_takes_the_index_of_the_level() -> None:
    with pytest.raises(InputError, match="rank"):
        RefineNet(1, filters=4)(torch.zeros(1, 1, 8, 8), torch.zeros(1))
