"""The two U-Nets and RefineNet: published sizes, small images, options, errors."""

from typing import Any

import pytest
import torch
from torch import nn

from scorefield.nets import DDPMUNet, RefineNet, UNet
from scorefield.nets.attention import AttentionBlock
from scorefield.nets.blocks import ResidualBlock
from scorefield.runtime.errors import InputError

SMALL: dict[str, Any] = {"channels": 32, "channel_mult": (1, 2), "blocks": 1, "attention": ()}


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_parameters_of_the_ddpm_cifar10_network() -> None:
    with torch.device("meta"):
        net = DDPMUNet(3, channels=128, channel_mult=(1, 2, 2, 2), blocks=2, attention=(2,), dropout=0.1)
        adm = UNet(3, channels=128, channel_mult=(1, 2, 2, 2), blocks=2, attention=(2,), scale_shift=False)
    assert count(net) == 35_746_307
    assert (
        count(adm) == 35_746_307
    )  # the same number in another network: names, epsilon, padding and embedding differ


@pytest.mark.parametrize("make", [UNet, DDPMUNet])
@pytest.mark.parametrize(("size", "levels"), [(28, 3), (8, 2), (8, 4), (7, 1)])
def test_small_images(make: type[nn.Module], size: int, levels: int) -> None:
    net = make(1, channels=32, channel_mult=(1,) * levels, blocks=1, attention=(1,))
    assert net(torch.randn(1, 1, size, size), torch.zeros(1)).shape == (1, 1, size, size)


@pytest.mark.parametrize("size", [28, 32, 8])
def test_small_images_of_refinenet(size: int) -> None:
    assert RefineNet(1, filters=4)(torch.rand(2, 1, size, size), torch.tensor([0, 9])).shape == (
        2,
        1,
        size,
        size,
    )


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
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: kept.append(t.numel()) or t,  # type: ignore[misc]
            lambda t: t,  # type: ignore[misc]
        ):
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


def test_super_resolution_is_a_network_of_twice_the_channels() -> None:
    """Its input is x beside the bilinear enlargement, which for a factor of 2 mixes neighbours 3 : 1
    (half-pixel centres).
    """
    # [ADM Sec. 5]
    torch.manual_seed(0)
    net = UNet(1, low_res=True, **SMALL).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    plain = UNet(2, out_channels=1, **SMALL).double()
    plain.load_state_dict(net.state_dict(), strict=True)
    x, small, c = torch.randn(2, 1, 4, 6).double(), torch.randn(2, 1, 2, 3).double(), torch.ones(2)

    def doubled(rows: torch.Tensor) -> torch.Tensor:
        before = torch.cat([rows[..., :1], rows[..., :-1]], dim=-1)
        after = torch.cat([rows[..., 1:], rows[..., -1:]], dim=-1)
        return torch.stack([(3 * rows + before) / 4, (3 * rows + after) / 4], dim=-1).flatten(-2)

    enlarged = doubled(doubled(small).transpose(-1, -2)).transpose(-1, -2)
    torch.testing.assert_close(net(x, c, low_res=small), plain(torch.cat([x, enlarged], dim=1), c))


@pytest.mark.parametrize(
    ("options", "low_res", "message"),
    [
        ({}, torch.zeros(2, 1, 2, 2), "remove low_res"),
        ({"low_res": True}, None, "got nothing"),
        ({"low_res": True}, torch.zeros(2, 3, 2, 2), r"got shape \(2, 3, 2, 2\)"),
        ({"low_res": True}, torch.zeros(1, 2, 2), r"got shape \(1, 2, 2\)"),
    ],
)
def test_the_image_to_be_enlarged_is_checked(
    options: dict, low_res: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        UNet(1, **SMALL | options)(torch.zeros(2, 1, 4, 4), torch.zeros(2), low_res=low_res)


@pytest.mark.parametrize(("blocks", "updown", "levels"), [(1, False, 2), (3, True, 3), (2, True, 1)])
def test_depth_is_the_number_of_blocks(blocks: int, updown: bool, levels: int) -> None:
    """`blocks` a level down, one more up, two in the middle; BigGAN's resampling is one more at each change
    of resolution.
    """
    net = UNet(1, **SMALL | {"blocks": blocks, "updown": updown, "channel_mult": (1,) * levels})
    found = sum(isinstance(module, ResidualBlock) for module in net.modules())
    assert found == levels * (2 * blocks + 1) + 2 + 2 * (levels - 1) * updown


def test_heads_and_channels_of_a_head_are_two_ways_to_say_the_same() -> None:
    by_count, by_size = (
        UNet(1, **SMALL | {"channel_mult": (1, 1), "attention": (1, 2)} | o).double()
        for o in ({"heads": 4}, {"head_channels": 8})
    )
    for parameter in by_count.parameters():
        nn.init.normal_(parameter, std=0.1)
    by_size.load_state_dict(by_count.state_dict())
    x = torch.randn(1, 1, 4, 4).double()
    assert torch.equal(by_count(x, torch.ones(1)), by_size(x, torch.ones(1)))
    wide = UNet(1, head_channels=16, heads_upsample=1, **SMALL | {"attention": (1, 2)})
    assert {b.heads for b in wide.modules() if isinstance(b, AttentionBlock)} == {
        2,
        4,
    }  # of 32 and of 64 channels
    upwards = UNet(1, heads=2, heads_upsample=8, **SMALL | {"attention": (1, 2)})
    assert {b.heads for b in upwards.output_blocks.modules() if isinstance(b, AttentionBlock)} == {8}
    assert {b.heads for b in upwards.input_blocks.modules() if isinstance(b, AttentionBlock)} == {2}


def test_attention_stands_where_it_is_asked_for() -> None:
    net = UNet(1, **SMALL | {"channel_mult": (1, 1, 1), "attention": (2,), "blocks": 1})
    stages = {f"in.{i}": s for i, s in enumerate(net.input_blocks)} | {
        f"out.{i}": s for i, s in enumerate(net.output_blocks)
    }
    attending = {name for name, s in stages.items() if any(isinstance(m, AttentionBlock) for m in s)}  # type: ignore[attr-defined]
    assert attending == {"in.3", "out.2", "out.3"}  # the middle level of three, one block down and two up
    assert any(isinstance(m, AttentionBlock) for m in net.middle_block)


def test_the_label_is_a_row_added_to_the_embedding_of_time() -> None:
    net = UNet(1, num_classes=3, null_label=True, **SMALL).double()
    c, y = torch.tensor([1.0, 5.0]), torch.tensor([2, 3])
    torch.testing.assert_close(net.embed(c, y) - net.time_embed(c), net.label_emb.weight[y])


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
        (lambda: UNet(3, channels=36, norm_groups=8), r"level 0 has 36 channels .* multiple of 8"),
        (lambda: UNet(3, norm_groups=0), "norm_groups"),
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
