"""Guided samples in the plane over the density that guidance is meant to have, which is exact for a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.oracle import GaussianMixture
from scorefield.plots.figure_arguments import as_points
from scorefield.plots.style import ACCENT, DARK, new_figure, plot_style
from scorefield.runtime.checks import check_mapping, instance_of, positive_int
from scorefield.runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_guided_mixture"]

_POINTS, _EXACT = 200, 2000  # grid points a side; draws that give the extent
_REACH = 0.06  # margin around them, of the extent
_SHADES = (0.02, 0.1, 0.3, 0.6, 1.0)  # of the largest value of a density


def draw_guided_mixture(mixture: GaussianMixture, y: int, samples: Mapping[float, Tensor]) -> Figure:
    """Samples at several guidance scales s over the density p(x)·p(y|x)^s, a panel for each scale.  [ADM Sec. 4]

    Shaded is p(x)·p(y|x)^s, scaled to its largest value; grey lines are p(x). y is a component of the mixture.

    Args:
        mixture: Of two dimensions.
        y: The component that guidance asks for.
        samples: Points (N, 2) by scale.

    Raises:
        InputError: For a mixture of other dimensions, a component that it does not have, and points of another shape.
    """
    instance_of("mixture", mixture, GaussianMixture, "a sf.oracle.GaussianMixture")
    check_mapping("samples", samples, Tensor, "points (N, 2)", "scales")
    if mixture.D != 2:
        raise InputError(f"a picture needs a mixture of two dimensions, this one has {mixture.D}")
    positive_int("y, the component,", y, at_least=0, at_most=len(mixture.weights) - 1)
    sets = {float(scale): as_points(f"the samples at s = {scale:g}", x) for scale, x in samples.items()}
    exact = mixture.sample(_EXACT, NoiseSource(0))
    low, high = exact.amin(dim=0), exact.amax(dim=0)
    low, high = low - _REACH * (high - low), high + _REACH * (high - low)
    across, up = (torch.linspace(low[i], high[i], _POINTS, dtype=torch.float64) for i in (0, 1))
    plane = torch.cartesian_prod(across, up)
    log_p, log_class = mixture.log_prob(plane), mixture.posterior(plane)[:, y].log()
    with plot_style():
        figure = new_figure(
            2.3 * len(samples) + 0.2, 2.3 * float((high[1] - low[1]) / (high[0] - low[0])) + 0.4
        )
        panels = figure.subplots(1, len(samples), squeeze=False, sharex=True, sharey=True)[0]
        for axes, (scale, points) in zip(panels, sets.items(), strict=True):
            guided = _relative(log_p + scale * log_class)
            axes.contourf(across, up, guided, levels=_SHADES, colors=[_tint(share) for share in _SHADES[:-1]])
            axes.contour(across, up, _relative(log_p), levels=_SHADES[:-1], colors="0.6", linewidths=0.6)
            axes.plot(*points.T, ".", color=DARK, markersize=2.6, alpha=0.5, markeredgewidth=0)
            axes.set(title=f"s = {scale:g}", aspect="equal", xticks=[], yticks=[])
            axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            axes.spines[:].set_visible(False)
    return figure


def _relative(log_density: Tensor) -> Tensor:
    """The density over its largest value, as matplotlib reads a grid: (up, across)."""
    return (log_density - log_density.max()).exp().reshape(_POINTS, _POINTS).T


def _tint(share: float) -> tuple[float, float, float]:
    """The accent colour, mixed with white more the smaller the share of the largest density is."""
    from matplotlib.colors import to_rgb

    strength = 0.15 + 0.65 * share
    red, green, blue = (1 - strength * (1 - channel) for channel in to_rgb(ACCENT))
    return red, green, blue
