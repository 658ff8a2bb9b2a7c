"""Charts of what `evaluate` measures: a classifier under noise, the terms of a bound, samples against the
scale of guidance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from scorefield.evaluation import Evaluation, NoisyAccuracy
from scorefield.evaluation import MetricValue as Measured
from scorefield.evaluation.metric_value import stamp_lines
from scorefield.plots.figure_arguments import check_text
from scorefield.plots.style import ACCENT, DARK, drawable, new_figure, plot_style
from scorefield.runtime.checks import check_mapping, instance_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


__all__ = ["draw_accuracy", "draw_bound", "draw_guidance"]

_EVERY = 4  # levels from one σ/α that is written to the next


def draw_accuracy(parts: Mapping[str, NoisyAccuracy], name: str) -> Figure:
    """Accuracy and cross-entropy against t, with σ/α above, and what guessing attains as a dashed line.

    Args:
        parts: By what the examples are, such as "held-out"; the first is drawn with its standard errors, the
            others thin.
        name: What the title calls the classifier.
    """
    from matplotlib.ticker import PercentFormatter

    check_mapping("parts", parts, NoisyAccuracy, "accuracies (NoisyAccuracy)")
    check_text("name", name)
    first = next(iter(parts.values()))
    with plot_style():
        figure = new_figure(9, 4.2)
        left, right = figure.subplots(1, 2)
        _draw_levels(left, parts, "accuracy", first.chance)
        left.yaxis.set_major_formatter(PercentFormatter(1))
        _draw_levels(right, parts, "cross_entropy", first.entropy)
        right.set_title("cross-entropy in nats")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=1 + len(parts))
        figure.suptitle(drawable(f"{name}: accuracy on noisy examples"), x=0.01, ha="left", fontsize=12)
    return figure


def _draw_levels(axes: Axes, parts: Mapping[str, NoisyAccuracy], field: str, guessing: float) -> None:
    first = next(iter(parts.values()))
    for name, part in parts.items():
        errors = getattr(part, f"{field}_error") if part is first else None
        style: Any = (
            {"color": ACCENT, "marker": "o", "zorder": 3}
            if part is first
            else {"color": "0.55", "linewidth": 1}
        )
        label = f"{part.examples:,} {name} examples"
        axes.errorbar(
            part.times, getattr(part, field), errors, markersize=3.5, capsize=2, label=label, **style
        )
    axes.axhline(guessing, color=DARK, linestyle="--", linewidth=1, label="guessing")
    axes.set(title=field, xlabel="t", ylim=(0, None))
    above = axes.secondary_xaxis("top")
    above.set_xticks(first.times[::_EVERY], [f"{ratio:.2g}" for ratio in first.ratios[::_EVERY]])
    above.set_xlabel("σ/α", loc="right")


def draw_bound(bound: Measured, name: str) -> Figure:
    """The terms of a variational bound against t, where they are positive, over its stamp.

    A decoder that is far smaller, or negative as a density of continuous data may be, is at the bottom with
    its value beside it.

    Args:
        bound: A figure of `evaluation.bound_figures` whose `parts` are the "times" and "terms".
        name: What the title calls the run.
    """
    instance_of("bound", bound, Measured, "the metric bpd of an evaluation")
    check_text("name", name)
    times, terms = (torch.tensor(bound.parts[part], dtype=torch.float64) for part in ("times", "terms"))
    shown = (terms > 0) & (torch.arange(len(terms)) > 0)
    error = "" if bound.error is None else f" ± {bound.error:.3f}"
    with plot_style():
        figure = new_figure(8, 5, layout="constrained")
        axes = figure.subplots()
        marker = "." if len(terms) <= 50 else ""
        axes.plot(
            times[shown],
            terms[shown],
            color=DARK,
            linewidth=1.2,
            marker=marker,
            label="L of the step down from t",
        )
        axes.set(xscale="log", yscale="log", xlabel="t", ylabel=f"mean of the term, {bound.unit}")
        low = axes.get_ylim()[0]  # the decoder of few grey levels may be 10²⁰ times smaller
        seen = "" if terms[0] >= low else ", below this"
        label = f"L₀, the decoder: {float(terms[0]):.3g}{seen}"
        axes.plot(
            times[:1],
            terms[:1].clamp_min(low),
            "v" if seen else "o",
            color=ACCENT,
            markersize=6,
            label=label,
            clip_on=False,
        )
        axes.set_title(drawable(f"{name}: {bound.label}, {bound.value:.3f}{error} {bound.unit} in all"))
        axes.legend()
        stamp = "\n".join(map(drawable, stamp_lines(bound.stamp, 140)))
        figure.supxlabel(stamp, x=0.01, ha="left", fontsize=6, family="monospace", color="0.35")
    return figure


def draw_guidance(scales: Mapping[float, Evaluation], name: str) -> Figure:
    """Precision and recall, Fréchet distance and class agreement, those that were measured, against the scale
    of the guidance.

    Dashed lines are the held-out images' own figures.

    Args:
        scales: The evaluation of each scale.
        name: What the title calls the run.
    """
    check_mapping("scales", scales, Evaluation, "evaluations", "scales")
    check_text("name", name)
    found = {scale: {figure.name: figure for figure in result.figures} for scale, result in scales.items()}
    measured = next(iter(found.values()))
    panels = [
        [key for key in keys if key in measured]
        for keys in (("precision", "recall"), ("frechet",), ("agreement",))
    ]
    panels = [keys for keys in panels if keys]
    with plot_style():
        figure = new_figure(3.6 * len(panels), 3.6)
        for axes, keys in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for key, color in zip(keys, (ACCENT, DARK), strict=False):
                _draw_scales(axes, {scale: figures[key] for scale, figures in found.items()}, color)
            axes.set_title(" and ".join(_TITLES[key] for key in keys))
            if len(keys) > 1:
                axes.legend()
        figure.suptitle(
            drawable(f"{name}: samples against the scale of the guidance"), x=0.01, ha="left", fontsize=12
        )
    return figure


_TITLES = {
    "precision": "precision",
    "recall": "recall",
    "frechet": "Fréchet distance",
    "agreement": "agreement with the class",
}


def _draw_scales(axes: Axes, figures: Mapping[float, Measured], color: str) -> None:
    """One figure against the scale, evenly spaced as the scales were chosen, with its error."""
    from matplotlib.ticker import PercentFormatter

    first, places = next(iter(figures.values())), range(len(figures))
    values, errors = (
        [figure.value for figure in figures.values()],
        [figure.error or 0.0 for figure in figures.values()],
    )
    axes.errorbar(
        places, values, errors, color=color, marker="o", markersize=4, capsize=2, label=_TITLES[first.name]
    )
    if first.heldout is not None:
        axes.axhline(first.heldout, color=color, linestyle="--", linewidth=1, alpha=0.6)
    axes.set_xticks(places, [f"{scale:g}" for scale in figures])
    axes.set(xlabel="scale", ylim=(0, None))
    if first.unit == "%":
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
