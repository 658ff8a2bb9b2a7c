"""Figures of noise levels: the forward process, the weight of each t in the bound, learned variances, and the
times that training draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.core.shapes import are_images, check_batch_of, check_real
from scorefield.models.base import Denoise
from scorefield.models.foreign import as_gaussian
from scorefield.objectives.times import ImportanceTimes
from scorefield.plots.figure_arguments import check_span
from scorefield.plots.image_figures import pixels, show_image
from scorefield.plots.style import ACCENT, DARK, SERIES, drawable, new_figure, plot_style
from scorefield.process import transitions
from scorefield.process.base import GaussianProcess, count_levels
from scorefield.runtime.checks import brief, check_mapping, instance_of, one_of, positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_loss_weights", "draw_noising", "draw_terms", "draw_time_shares", "draw_variances"]

_MOST_COLUMNS = 40
_RAREST = 1e-3  # of the shares that are shown, where 1 is uniform
_TIMES = 60  # at which the variances of a model are computed


def draw_noising(
    x0: Tensor,
    processes: Mapping[str, GaussianProcess],
    columns: int = 9,
    seed: int = 0,
    span: tuple[float, float] = (-1.0, 1.0),
) -> Figure:
    """One image under the forward process, a row for each process, over the share ᾱ of the signal.

    x_t = α_t x_0 + σ_t ε  [DDPM Eq. 4], with the same ε in every picture; ᾱ_t = α_t²/(α_t² + σ_t²), which is α_t² of
    variance-preserving processes.

    Args:
        x0: One image (C, H, W) with 1 or 3 channels, in the model's range.
        processes: By name; all of them with the same kind of time, which runs from 0 to T.
        columns: Pictures in a row, at evenly spaced t from 0 to T.
        seed: Seed of ε.
        span: Values of the darkest and the brightest pixel.

    Raises:
        InputError: For what is no image, and without a process.
    """
    columns = positive_int("columns", columns, at_least=2, at_most=_MOST_COLUMNS)
    check_mapping("processes", processes, GaussianProcess, "processes")
    check_span(span)
    if not isinstance(x0, Tensor) or not are_images(x0.shape):
        raise InputError(f"x0 must be one image (C, H, W) with 1 or 3 channels, got {brief(x0)}")
    check_batch_of("x0", x0)
    eps = NoiseSource(seed).normal((1, *x0.shape)).to(x0)
    shares = torch.linspace(0, 1, columns, dtype=torch.float64)
    with plot_style():
        rows = len(processes)
        figure = new_figure(9, 9 / columns * rows + 3.4, layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[9 / columns * rows, 3.1])
        above, below = parts
        pictures = above.subplots(rows, columns, squeeze=False)
        axes = below.subplots()
        for row, (name, process), (color, line) in zip(pictures, processes.items(), SERIES, strict=False):
            times = _times(process, shares)
            for cell, t in zip(row, times.tolist(), strict=True):
                x_t = process.sample(x0[None], t, eps)[0]
                show_image(cell, pixels(x_t, span))
                cell.set_title(f"t = {t:g}", fontsize=8, loc="center")
            row[0].set_ylabel(drawable(name), fontsize=9)
            fine = _times(process, torch.linspace(0, 1, 401, dtype=torch.float64))
            alpha, sigma = process.level(fine)
            share = alpha**2 / (alpha**2 + sigma**2)
            axes.plot(fine / process.T, share, color=color, linestyle=line, label=drawable(name))
        axes.set(xlabel="t/T", ylabel="ᾱ(t)", ylim=(0, 1.03), xlim=(0, 1))
        axes.legend()
    return figure


def draw_loss_weights(processes: Mapping[str, GaussianProcess], variance: str = "upper") -> Figure:
    """The weight w_t of |ε̂ − ε|² in the variational bound, against t/T, with the constant weight of L_simple.

    L_{t−1} = w_t·‖ε̂ − ε‖² with w_t = c_0²·(σ_t/α_t)²/(2 Σ_t), c_0 the factor of x_0 in the posterior's mean: for
    variance-preserving processes β_t²/(2 Σ_t α_t(1 − ᾱ_t)) in the paper's symbols.  [DDPM Eq. 12]

    Args:
        processes: Discrete Gaussian processes by name.
        variance: Σ_t, "upper" (β_t) or "lower" (β̃_t).

    Raises:
        InputError: For another variance, and without a process.
        IncompatibleModel: For a process of continuous time.
    """
    check_mapping("processes", processes, GaussianProcess, "processes")
    one_of("variance", variance, ("upper", "lower"))
    with plot_style():
        figure = new_figure(7.5, 3.9)
        axes = figure.subplots()
        for (name, process), (color, line) in zip(processes.items(), SERIES, strict=False):
            t = torch.arange(2, count_levels(process, "the variational bound") + 1)
            axes.plot(
                t / process.T,
                _weights(process, t, variance),
                color=color,
                linestyle=line,
                label=drawable(name),
            )
        axes.axhline(1, color="0.45", linewidth=1.2, linestyle=":", label="L_simple: every t counts the same")
        axes.set(yscale="log", xlabel="t/T", ylabel="w(t)", xlim=(0, 1))
        axes.set_title("weight of ‖ε̂ − ε‖² in the bound")
        axes.legend()
    return figure


def draw_terms(terms: Mapping[str, Tensor]) -> Figure:
    """The terms of the variational bound against t, in bits per dimension, averaged over the examples.

    Args:
        terms: Terms (B, T) by name, as in `sf.likelihood.BitsPerDim.terms`: entry k belongs to t = k + 1, and entry 0
            is the decoder's L_0, drawn as a dot, or as a triangle on the axis where it lies below.

    Raises:
        InputError: For terms of another shape.
    """
    check_mapping("terms", terms, Tensor, "tensors (B, T)")
    with plot_style():
        figure = new_figure(7.5, 3.9)
        axes = figure.subplots()
        decoders = []
        for (name, values), (color, line) in zip(terms.items(), SERIES, strict=False):
            if check_real(name, values, "a tensor (B, T)").ndim != 2 or values.shape[1] < 2:
                raise InputError(f"{name}: the terms of a bound are a tensor (B, T), got {brief(values)}")
            mean = values.double().mean(dim=0)
            t = torch.arange(1, len(mean) + 1)
            label = f"{drawable(name)}: {float(mean.sum()):.2f} bits/dim in all, L₀ {float(mean[0]):.2g}"
            axes.plot(t[1:], mean[1:], color=color, linestyle=line, linewidth=1.3, label=label)
            decoders.append((float(mean[0]), color))
        axes.set(xscale="log", yscale="log", xlabel="t", ylabel="bits per dimension")
        low = axes.get_ylim()[0]
        for value, color in decoders:  # that of few grey levels may be 10²⁰ times smaller than the others
            marker = "o" if value > low else "v"
            axes.plot([1], [max(value, low)], marker, color=color, markersize=6, clip_on=False)
        axes.set_title("terms of the bound; ● is L₀, the decoder, ▼ where it lies below the axis")
        axes.legend()
    return figure


def draw_variances(model: Denoise, x0: Tensor, seed: int = 0) -> Figure:
    """The learned variance of each reverse step between its two bounds β̃_t and β_t.

    Σ = exp(v ln β_t + (1 − v) ln β̃_t)  [Improved DDPM Eq. 15], at x_t of the examples. Lines are means over examples
    and values, the band holds nine tenths of them.

    Args:
        model: A model with variance="range" on a discrete process, with its labels bound, in evaluation mode.
        x0: Examples (B, *) in the model's range.
        seed: Seed of the noise of x_t.

    Raises:
        IncompatibleModel: For a model without such a variance.
    """
    asked = as_gaussian(model, "a learned variance")
    if asked.variance != "range":
        raise IncompatibleModel(
            'this model has no variance between two bounds: train one with variance="range"'
        )
    process, T = model.process, count_levels(model.process, "a learned variance")
    exponents = torch.linspace(math.log(2), math.log(T), _TIMES, dtype=torch.float64)
    t = exponents.exp().round().long().unique()
    noise = NoiseSource(seed)
    with torch.no_grad():
        fractions = [
            model(process.sample(x0, int(k), noise.at(int(k)).normal_like(x0)), int(k)).var_frac for k in t
        ]
    v = torch.stack([f.flatten() for f in fractions if f is not None]).double()
    hi, lo = process.level(t), process.level(t - 1)
    upper, lower = transitions.transition(hi, lo)[1], transitions.lower_var(hi, lo)
    with plot_style():
        figure = new_figure(9, 3.7)
        left, right = figure.subplots(1, 2)
        log_lower, log_upper = lower.log()[:, None], upper.log()[:, None]
        learned = (v * log_upper + (1 - v) * log_lower - log_upper).exp()  # in units of β_t
        left.plot(t, torch.ones(len(t)), color=DARK, linestyle="--", label="upper: β")
        left.plot(t, lower / upper, color=DARK, linestyle=":", label="lower: β̃")
        _band(left, t, learned)
        left.set(xscale="log", ylim=(0, None), xlabel="t", ylabel="Σ/β")
        left.set_title("variance of a step, in units of β")
        left.legend(loc="lower right")
        _band(right, t, v)
        right.axhline(1, color=DARK, linestyle="--", linewidth=1)
        right.axhline(0, color=DARK, linestyle=":", linewidth=1)
        right.set(xscale="log", xlabel="t", ylabel="v", title="where between them: 0 lower, 1 upper")
    return figure


def draw_time_shares(times: ImportanceTimes) -> Figure:
    """How often importance sampling draws each t, beside uniform draws, and the share of draws at or below t.

    p_t ∝ √E[L_t²]  [Improved DDPM Eq. 18]

    Args:
        times: The sampling, after training has shown it the losses.
    """
    p = instance_of("times", times, ImportanceTimes, "sf.objectives.ImportanceTimes").probabilities()
    t = torch.arange(1, len(p) + 1)
    with plot_style():
        figure = new_figure(9, 3.7)
        left, right = figure.subplots(1, 2)
        left.plot(t, p * len(p), color=ACCENT, linewidth=1, label="importance sampling")
        left.axhline(1, color=DARK, linestyle="--", linewidth=1.2, label="uniform")
        left.set(xscale="log", yscale="log", xlabel="t", ylabel="T · p(t)", title="how often each t is drawn")
        left.set_ylim(bottom=max(_RAREST, left.get_ylim()[0]))
        left.legend()
        right.plot(t, p.cumsum(0), color=ACCENT, label="importance sampling")
        right.plot(t, t / len(p), color=DARK, linestyle="--", linewidth=1.2, label="uniform")
        right.set(xlabel="t", ylim=(0, 1.03), title="share of the draws at or below t")
    return figure


def _band(axes: Axes, t: Tensor, values: Tensor) -> None:
    """The mean of values (times, N) against t, and the band of nine tenths of them."""
    low, high = (values.quantile(q, dim=1) for q in (0.05, 0.95))
    axes.fill_between(t, low, high, color=ACCENT, alpha=0.25, linewidth=0)
    axes.plot(t, values.mean(dim=1), color=ACCENT, label="learned")


def _weights(process: GaussianProcess, t: Tensor, variance: str) -> Tensor:
    """w_t of the bound in ε units, (T,)."""
    hi, lo = process.level(t), process.level(t - 1)
    c_0, _ = transitions.posterior_coefficients(hi, lo)
    var = transitions.transition(hi, lo)[1] if variance == "upper" else transitions.lower_var(hi, lo)
    return c_0**2 * hi.ratio**2 / (2 * var)


def _times(process: GaussianProcess, shares: Tensor) -> Tensor:
    """Times at these shares of T, whole ones where the process is a table."""
    times = shares * process.T
    return times.round() if process.is_discrete else times
