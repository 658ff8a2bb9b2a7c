"""What networks cost, as bars."""

import pytest
import torch

import scorefield as sf


def bars(axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches]


def test_bars_are_parameters_and_operations():
    nets = {"small": sf.nets.MLP(3, hidden=8, layers=1), "wide": sf.nets.MLP(3, hidden=16, layers=1)}
    left, right = sf.plots.draw_network_costs(nets, sf.DataSpec((3,))).axes
    assert bars(left) == [sum(p.numel() for p in net.parameters()) for net in nets.values()]
    # Of each linear layer 2·in·out operations: embedding of 64, its two layers, in, one residual layer, out.
    assert bars(right) == [2 * (64 * h + h * h + 3 * h + h * h + 3 * h) for h in (8, 16)]
    assert [text.get_text() for text in left.texts][1].endswith(f"+{bars(left)[1] / bars(left)[0] - 1:.0%}")


def test_networks_are_left_as_they_are():
    net = sf.nets.MLP(3, hidden=8, layers=1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sf.plots.draw_network_costs({"one": net, "the same": net}, sf.DataSpec((3,)))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(sf.InputError, match="nets must be a mapping"):
        sf.plots.draw_network_costs({}, sf.DataSpec((3,)))
