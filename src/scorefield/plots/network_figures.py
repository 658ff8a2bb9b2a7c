"""What networks cost, side by side: parameters and operations of each variant of one network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from scorefield.core.shapes import DataSpec
from scorefield.models.denoiser import Denoiser
from scorefield.planning.facts import cost, readable
from scorefield.plots.figure_arguments import check_text
from scorefield.plots.style import ACCENT, DARK, drawable, new_figure, plot_style
from scorefield.process import cosine
from scorefield.runtime.checks import check_mapping

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_network_costs"]


def draw_network_costs(nets: Mapping[str, nn.Module], data: DataSpec, *, title: str = "") -> Figure:
    """Parameters and floating-point operations of networks, each against the first: what each switch of ADM costs.
    [ADM Sec. 3]

    Operations are those of one evaluation of one example, counted without computing anything; a multiplication and
    an addition are two.

    Args:
        nets: Networks F(x, c, y) by name; the first is the one to compare with.
        data: What one example is, such as `sf.data.portraits().spec`.
        title: A line above.

    Raises:
        InputError: For no networks, and for networks that do not take such data.
    """
    check_mapping("nets", nets, nn.Module, "networks")
    check_text("title", title)
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    flops = {name: _operations(net, data) for name, net in nets.items()}
    with plot_style():
        figure = new_figure(8, 1.1 + 0.34 * len(nets))
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_bars(left, counts, "parameters", DARK)
        _draw_bars(right, flops, "FLOPs of one evaluation", ACCENT)
        if title:
            figure.suptitle(drawable(title), x=0.01, ha="left", fontsize=11)
    return figure


def _operations(net: nn.Module, data: DataSpec) -> int:
    model = Denoiser(copy.deepcopy(net).to("meta"), cosine(1000), data=data)
    return cost(model).evaluation


def _draw_bars(axes: Axes, values: Mapping[str, int], what: str, color: str) -> None:
    first, positions = next(iter(values.values())), range(len(values))
    axes.barh(positions, list(values.values()), height=0.62, color=[*["0.6"], *[color] * (len(values) - 1)])
    for y, value in zip(positions, values.values(), strict=True):
        more = f"{value / first - 1:+.0%}".replace("-", "−")
        change = "" if y == 0 else ", the same" if more in ("+0%", "−0%") else f", {more}"
        label = f"{readable(value).strip()}{change}"
        axes.annotate(label, (value, y), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(positions, [drawable(name) for name in values])
    axes.tick_params(axis="y", length=0)
    axes.set(title=what, xlim=(0, 1.42 * max(values.values())), xticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_ylim(len(values) - 0.5, -0.5)
