"""Figures of data in the plane: points, score fields, and the paths of samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scorefield.core.shapes import check_real
from scorefield.plots.figure_arguments import Limits, as_limits, as_points, check_function
from scorefield.plots.style import DARK, drawable, new_figure, plot_style
from scorefield.runtime.checks import brief, check_finite, check_mapping, positive_int
from scorefield.runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "add_arrows",
    "add_paths",
    "draw_fields",
    "draw_paths",
    "draw_points",
    "limits_of",
    "shade",
]

_BINS, _ARROWS, _MARGIN = 80, 23, 0.1
_LATTICE = 120  # points along a side, for contours
_SIDE, _WIDTH, _COLUMNS = 4.2, 9.5, 4  # inches of a panel and of a figure, at most; panels in a row
_PATHS = 8


def draw_points(points: Mapping[str, Tensor], limits: Limits | None = None) -> Figure:
    """Samples in the plane, one panel a set.

    Args:
        points: Sets of points (N, 2) by the titles of their panels.
        limits: (left, right) and (bottom, top) of every panel. Default: those of the first set, with a margin.

    Raises:
        InputError: For what are no points in the plane.
    """
    check_mapping("points", points, Tensor, "points (N, 2)")
    sets = {title: as_points(title, x) for title, x in points.items()}
    shown = limits_of(next(iter(sets.values()))) if limits is None else as_limits(limits)
    with plot_style():
        figure, panels = _panels(list(sets), shown)
        for axes, x in zip(panels, sets.values(), strict=True):
            axes.plot(*x.T, ".", color=DARK, markersize=2.5, alpha=0.35, markeredgewidth=0)
            axes.set(xlim=shown[0], ylim=shown[1])
    return figure


def draw_fields(
    scores: Mapping[str, Callable[[Tensor], Tensor]],
    points: Tensor,
    log_density: Callable[[Tensor], Tensor] | None = None,
    limits: Limits | None = None,
) -> Figure:
    """Score fields in the plane as arrows, one panel a field.

    Scores grow without bound away from the data, so an arrow's length is |s|/(|s| + m/4) with m the median |s| of
    the first field: the arrows of all panels have the same scale.

    Args:
        scores: Functions from points (N, 2) to scores (N, 2), by the titles of their panels.
        points: Data (N, 2), shaded in grey.
        log_density: From points (N, 2) to ln p (N,) up to a constant; its contours take the place of the points.
        limits: (left, right) and (bottom, top) of every panel. Default: those of the points, with a margin.

    Raises:
        InputError: For points or scores of another shape.
    """
    check_mapping("scores", scores, object, "functions from points (N, 2) to scores")
    for title, score in scores.items():
        check_function(title, score, "points (N, 2) to scores (N, 2)")
    if log_density is not None:
        check_function("log_density", log_density, "points (N, 2) to ln p (N,)")
    points = as_points("points", points)
    shown = limits_of(points) if limits is None else as_limits(limits)
    with plot_style():
        figure, panels = _panels(list(scores), shown)
        scale = None
        for axes, score in zip(panels, scores.values(), strict=True):
            if log_density is None:
                shade(axes, points, shown, faint=True)
            else:
                _contours(axes, log_density, shown)
            scale = add_arrows(axes, score, shown, count=15, scale=scale)
    return figure


def draw_paths(
    paths: Mapping[str, Tensor], points: Tensor, count: int = _PATHS, limits: Limits | None = None
) -> Figure:
    """Paths of samplers over the data, one panel a set of paths, from pale at the start to dark at the end.

    A path is drawn from the last state outside the panel on: at the largest noise levels the states are spread far
    around the data, and their jumps would hide the rest.

    Args:
        paths: States (times, N, 2) in the order of sampling, by the titles of their panels.
        points: Data (N, 2), shaded in grey.
        count: Paths that are drawn, the first ones of the N.
        limits: (left, right) and (bottom, top) of every panel. Default: those of the points, with a margin.

    Raises:
        InputError: For points or paths of another shape.
    """
    check_mapping("paths", paths, Tensor, "states (times, N, 2)")
    positive_int("count", count)
    points = as_points("points", points)
    shown = limits_of(points) if limits is None else as_limits(limits)
    for title, states in paths.items():
        check_real(title, states, "states (times, N, 2)")
        if states.ndim != 3 or states.shape[2] != 2 or len(states) < 2:
            raise InputError(
                f"{title}: paths are states (times, N, 2) of two times or more, got {brief(states)}"
            )
        check_finite(states, f"times of {title}", "remove these paths first")
    with plot_style():
        figure, panels = _panels(list(paths), shown)
        for axes, states in zip(panels, paths.values(), strict=True):
            shade(axes, points, shown, faint=True)
            add_paths(axes, states[:, :count].detach().cpu(), shown)
    return figure


def limits_of(points: Tensor) -> list[tuple[float, float]]:
    """(left, right) and (bottom, top) of points (N, 2) with a margin."""
    low, high = points.min(dim=0).values, points.max(dim=0).values
    margin = _MARGIN * float((high - low).max())
    return [(float(a) - margin, float(b) + margin) for a, b in zip(low, high, strict=True)]


def shade(axes: Axes, points: Tensor, limits: Limits, faint: bool = False) -> None:
    """Draw the logarithm of the points' density, by counting them in squares.

    Args:
        axes: Where to draw.
        points: (N, 2).
        limits: (left, right) and (bottom, top).
        faint: In pale grey, as a background.
    """
    from matplotlib.colors import LogNorm

    x, y = points.double().numpy().T
    counts = axes.hist2d(
        x, y, bins=_BINS, range=list(limits), norm=LogNorm(), cmap="Greys" if faint else "Blues"
    )[0]
    axes.collections[-1].set_clim(0.3, max(counts.max(), 1.0) * (8 if faint else 1))
    axes.set(xlim=limits[0], ylim=limits[1], aspect="equal")


def add_arrows(
    axes: Axes,
    score: Callable[[Tensor], Tensor],
    limits: Limits,
    count: int = _ARROWS,
    scale: float | None = None,
) -> float:
    """Draw a score field as arrows of length |s|/(|s| + scale) on a lattice.

    Args:
        axes: Where to draw.
        score: From points (N, 2) to scores (N, 2).
        limits: (left, right) and (bottom, top).
        count: Arrows along the longer side.
        scale: The |s| whose arrow has half the longest length. Default: a quarter of the median |s|.

    Returns:
        The scale, for other fields beside this one.

    Raises:
        InputError: For a score of another shape.
    """
    (left, right), (low, high) = limits
    longest = max(right - left, high - low)
    columns, rows = (max(3, round(count * (b - a) / longest)) for a, b in limits)
    lattice = torch.cartesian_prod(torch.linspace(left, right, columns), torch.linspace(low, high, rows))
    with torch.no_grad():
        found = score(lattice)
    if not isinstance(found, Tensor) or found.shape != lattice.shape:
        raise InputError(f"a score has the shape of its points, {tuple(lattice.shape)}; got {brief(found)}")
    size = found.norm(dim=1, keepdim=True)
    scale = float(size.median() / 4) if scale is None else scale
    x, y, u, v = torch.cat([lattice, found / (size + scale)], dim=1).double().numpy().T
    spacing = (right - left) / columns
    axes.quiver(
        x, y, u, v, color=DARK, angles="xy", scale_units="xy", scale=0.85 / spacing, width=0.0028, pivot="mid"
    )
    return scale


def add_paths(axes: Axes, states: Tensor, limits: Limits) -> None:
    """Draw paths as lines that darken with time, with a dot at the end, from the last state outside the limits on.

    Args:
        axes: Where to draw.
        states: (times, N, 2).
        limits: (left, right) and (bottom, top).
    """
    from matplotlib.collections import LineCollection

    found = states.double()
    low, high = torch.tensor(list(limits), dtype=torch.float64).T
    outside = ((found < low) | (found > high)).any(dim=2)
    steps, values = len(found), found.numpy()
    for k in range(found.shape[1]):
        last = outside[:, k].nonzero()
        first = min(int(last[-1]), steps - 2) if len(last) else 0
        pieces = [values[i : i + 2, k] for i in range(first, steps - 1)]
        lines = LineCollection(pieces, cmap="Reds", linewidths=1.2, capstyle="round")
        lines.set_array(range(len(pieces)))
        lines.set_clim(-0.35 * len(pieces), 1.2 * len(pieces))  # the palest red is hard to see on white
        axes.add_collection(lines)
    axes.plot(
        *values[-1].T, "o", color=DARK, markersize=4, markeredgecolor="white", markeredgewidth=0.6, zorder=3
    )


def _panels(titles: Sequence[str], limits: Limits) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each title, in rows of up to four."""
    columns = min(len(titles), _COLUMNS)
    rows = -(-len(titles) // columns)
    (left, right), (low, high) = limits
    lines = max(title.count("\n") for title in titles)
    side = min(_SIDE, _WIDTH / columns)
    height = side * (high - low) / (right - left) + 0.35 + 0.17 * lines
    figure = new_figure(side * columns, rows * height)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels[len(titles) :]:
        axes.remove()
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(drawable_lines(title))
        axes.set_aspect("equal")
    return figure, panels[: len(titles)]


def drawable_lines(text: str) -> str:
    """A title of one or more lines that may hold foreign text."""
    return "\n".join(map(drawable, text.split("\n")))


def _contours(axes: Axes, log_density: Callable[[Tensor], Tensor], limits: Limits) -> None:
    """Contours of a density, where it is at least a thousandth of the largest value."""
    x, y = (torch.linspace(*pair, _LATTICE) for pair in limits)
    with torch.no_grad():
        found = log_density(torch.cartesian_prod(x, y))
    if not isinstance(found, Tensor) or found.numel() != _LATTICE**2:
        raise InputError(
            f"log_density of points (N, 2) must be ln p (N,), N {_LATTICE**2}; got {brief(found)}"
        )
    values = found.reshape(_LATTICE, _LATTICE).T.double()
    below = (values - values.max()).clamp_min(-6.9)
    axes.contourf(x.numpy(), y.numpy(), below.numpy(), levels=9, cmap="Greys", vmax=6)
    axes.set(xlim=limits[0], ylim=limits[1])
