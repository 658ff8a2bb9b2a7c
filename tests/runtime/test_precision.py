"""Precision: weights that are cast once give the same bits, and are cast again when they change; what the
machine can do.
"""

import copy

import pytest
import torch
from torch import nn

from scorefield.nets import UNet
from scorefield.runtime import precision
from scorefield.runtime.errors import InputError
from scorefield.runtime.precision import Precision, autocast_dtype

BF16 = torch.bfloat16


def network():
    torch.manual_seed(0)
    net = UNet(3, channels=32, channel_mult=(1, 2), blocks=1, attention=(2,), num_classes=4)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net.eval()


def autocast(net, *arguments):
    with torch.no_grad(), torch.autocast("cpu", BF16):
        return net(*arguments)


def test_the_same_bits_as_autocast():
    net, precision = network(), Precision()
    x, c, y = torch.randn(5, 3, 8, 8), torch.rand(5) * 1000, torch.arange(5) % 4
    for _ in range(2):
        with torch.no_grad():
            assert torch.equal(precision.call(net, BF16, x, c, y=y), autocast(net, x, c, y))
            assert torch.equal(precision.call(net, None, x, c, y), net(x, c, y))
        precision.keep()
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


def test_weights_that_are_shared():
    """By two layers, by one layer in two places, and with a table, which autocast leaves in fp32."""
    torch.manual_seed(0)

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.first, self.second = nn.Embedding(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight = self.table.weight
            self.again = self.first

        def forward(self, x):
            return self.again(self.second(self.first(x))) + self.table(torch.arange(len(x)))

    net, precision, x = Shared(), Precision(), torch.randn(4, 8)
    precision.keep()
    for _ in range(2):
        with torch.no_grad():
            assert torch.equal(precision.call(net, BF16, x), autocast(net, x))
    assert net.first.weight is net.second.weight is net.table.weight
    assert net.table.weight.dtype == torch.float32


@pytest.mark.parametrize("change", ["in place", "unseen", "loaded"])
def test_changed_weights_count_unless_they_were_to_stay(change):
    """By default every call sees the weights as they are, however they were changed; after `keep`, those of
    its first call.
    """
    net, precision = network(), Precision()
    x, c, y = torch.randn(2, 3, 8, 8), torch.rand(2), torch.zeros(2, dtype=torch.long)

    def call():
        with torch.no_grad():
            return precision.call(net, BF16, x, c, y)

    def double():
        with torch.no_grad():
            if change == "in place":
                net.out[2].weight.mul_(2)
            elif change == "unseen":
                net.out[2].weight.data.mul_(2)
            else:
                net.load_state_dict({**net.state_dict(), "out.2.weight": 2 * net.out[2].weight})

    call()
    double()
    assert torch.equal(call(), autocast(net, x, c, y))
    precision.keep()
    kept = call()
    double()
    assert torch.equal(call(), kept)
    assert not torch.equal(kept, autocast(net, x, c, y))
    precision.keep()
    assert torch.equal(call(), autocast(net, x, c, y))


def test_gradients_reach_the_weights_and_copies_are_of_their_own():
    net, precision = network(), Precision()
    precision.keep()
    x, c, y = torch.randn(2, 3, 8, 8), torch.rand(2), torch.zeros(2, dtype=torch.long)
    with torch.no_grad():
        before = precision.call(net, BF16, x, c, y)
    precision.call(net, BF16, x, c, y).float().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    other, its = copy.deepcopy((net, precision))
    with torch.no_grad():
        other.out[2].weight.zero_()
        its.keep()
        assert torch.equal(its.call(other, BF16, x, c, y), autocast(other, x, c, y))
        assert torch.equal(precision.call(net, BF16, x, c, y), before)


def test_without_bf16_units_the_choice_is_fp32(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(precision, "bf16_units", lambda device: None)
    assert autocast_dtype("auto", cpu) is None
    assert autocast_dtype("bf16", cpu) is BF16  # asked for by name
    monkeypatch.setattr(precision, "bf16_units", lambda device: "AMX")
    assert autocast_dtype("auto", cpu) is BF16
    assert autocast_dtype("fp32", cpu) is None
    with pytest.raises(InputError, match="precision must be one of"):
        autocast_dtype("fp16", cpu)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    """Never another one in its place: a job on the wrong device would run for days."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(InputError, match=r"finds no (cuda|mps) device on this machine"):
            precision.pick_device(name)
    assert precision.pick_device(None) == precision.pick_device("cpu") == torch.device("cpu")
