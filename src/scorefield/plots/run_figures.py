"""Pictures of a run: points of the plane with their score field and the sampler's paths; for other data, the
curve of training.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.generation.sampling import Sampling
from scorefield.plots.plane_figures import Limits, add_arrows, add_paths, limits_of, shade
from scorefield.plots.style import ACCENT, DARK, drawable, new_figure, plot_style, save_figure
from scorefield.runs.build import open_data
from scorefield.runs.recipe import Recipe
from scorefield.runs.run import Run
from scorefield.runtime.atomic import make_folder
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import read_bytes, reading
from scorefield.samplers.base import trajectory
from scorefield.store.outputs import check_output
from scorefield.training import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_run"]

_SAMPLES, _PATHS, _STATES, _SEED = 3000, 7, 40, 0
_NEAR = 2 / 3  # of the data's spread, the σ/α from which paths are drawn
_LONGEST = 2**30  # bytes of metrics


def plot_run(run: Run | str | Path, out: Path | None = None) -> Path:
    """Draw a run and return where the picture is.

    Args:
        run: The run or its folder.
        out: A .png in a folder that exists. Default: RUN/figures/plane.png for two-dimensional data,
            otherwise RUN/figures/training.png.

    Raises:
        InputError: Where there is no run, no weights or no metrics yet, and where `out` is not a .png in an
            existing folder, or a file that scorefield did not write.
    """
    run = run if isinstance(run, Run) else Run(run)
    recipe = run.recipe
    plane = run.data_spec.shape == (2,) and not recipe.is_classifier
    if out is None:
        out = run.path / "figures" / ("plane.png" if plane else "training.png")
        make_folder(out.parent)
    elif out.suffix.lower() != ".png":
        raise InputError(f"{out}: a figure is written as .png")
    else:
        check_output(out)
    figure = _draw_plane(run) if plane else _draw_training(run.folder, recipe.name)
    save_figure(figure, out)
    return out


def _draw_plane(run: Run) -> Figure:
    """Data, samples, the score as arrows, and the sampler's paths."""
    recipe, sampling = run.recipe, run.sampling(device="cpu", precision="fp32")
    model = sampling.model
    samples, paths, begin = _walk(model, sampling)
    data = samples if recipe.data.source is None else open_data(recipe.data)[0].everything()
    limits = limits_of(data)
    with plot_style():
        wide, high = (b - a for a, b in limits)
        figure = new_figure(9, 0.9 + 8.6 * high / wide)
        (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2, sharex=True, sharey=True)
        shade(top_left, data, limits)
        top_left.set_title(
            f"data: {len(data):,} points"
            if recipe.data.source
            else "samples (the data of this run are not available)"
        )
        shade(top_right, samples, limits)
        top_right.set_title(f"{len(samples):,} samples: {_sampler_name(sampling)}")
        shade(bottom_left, data, limits, faint=True)
        bottom_left.set_title(_arrows(bottom_left, model, data, limits))
        shade(bottom_right, data, limits, faint=True)
        add_paths(bottom_right, paths, limits)
        bottom_right.set_title(f"{_PATHS} paths{begin}: pale at the start, dark at the end")
        figure.suptitle(drawable(f"{recipe.name}: {_trained_by(recipe)}"), x=0.01, ha="left", fontsize=12)
    return figure


def _walk(model: Any, sampling: Sampling) -> tuple[Tensor, Tensor, str]:
    """Samples (N, 2), states (times, paths, 2) of the first of them, and where these states begin, in words.

    At noise levels the states are the last one of each level, from the level on whose σ/α is below two thirds of the
    samples' spread: above it they are spread wider than the data, and their jumps would hide the rest.
    """
    noise = NoiseSource(_SEED, range(_SAMPLES))
    x = (sampling.start or model.process.prior)((_SAMPLES, 2), noise.at(0))
    states, ratios = [x[:_PATHS]], [math.inf]
    for step in trajectory(sampling.wrap(model), sampling.sampler, sampling.grid, x, noise):
        x = step.x
        ratio = math.inf if model.process is None else float(model.process.level(step.s).ratio)
        if model.process is not None and step.s == step.t:
            continue
        states.append(x[:_PATHS])
        ratios.append(ratio)
    widest = _NEAR * float(x.std(dim=0).mean())
    near = [k for k, ratio in enumerate(ratios) if ratio <= widest]
    first = near[0] if len(near) > 1 else 0
    shown = torch.linspace(first, len(states) - 1, min(_STATES + 1, len(states) - first)).round().long()
    return x, torch.stack(states)[shown], f" from σ/α = {ratios[first]:.2g} on" if first else ""


def _arrows(axes: Axes, model: Any, points: Tensor, limits: Limits) -> str:
    """Draw the score at the level whose σ/α is nearest to an eighth of the data's spread; the panel's title."""
    t, title = None, "score of the data"
    if model.process is not None:
        times = torch.arange(1, model.process.T + 1)
        level = model.process.level(times)
        ratio = level.ratio
        t = int(times[(ratio.log() - (points.std(dim=0).mean() / 8).log()).abs().argmin()])
        title = f"score at σ = {float(level.sigma[t - 1]):.2g} (level {t} of {model.process.T})"
    add_arrows(axes, lambda x: model.score(x, t), limits)
    return title


def _sampler_name(sampling: Sampling) -> str:
    return f"{type(sampling.sampler).__name__}, {len(sampling.grid) - 1:,} steps"


def _trained_by(recipe: Recipe) -> str:
    objective = recipe.objective
    method = f", {objective['method']}" if "method" in objective else ""
    levels = "no noise levels" if recipe.process is None else "at noise levels"
    return f"{objective['kind']}{method}, {levels}, {recipe.training.steps:,} steps"


def _draw_training(folder: RunFolder, name: str) -> Figure:
    """The loss of every line of metrics.jsonl, and its running mean over a tenth of them."""
    steps, losses = _values(folder, "loss")
    if not steps:
        raise InputError(f"{folder.metrics} holds no losses yet: train the run first")
    with plot_style():
        figure = new_figure(8, 4.2)
        axes = figure.subplots()
        window = max(1, len(losses) // 10)
        if window > 1:
            axes.plot(steps, losses, color="0.75", linewidth=0.8, label="training")
        mean = torch.tensor(losses, dtype=torch.float64).unfold(0, window, 1).mean(dim=1)
        label = f"training, mean of {window} lines" if window > 1 else "training"
        axes.plot(steps[window - 1 :], mean.tolist(), color=ACCENT, linewidth=1.8, label=label)
        axes.plot(
            *_values(folder, "heldout_loss"),
            color=DARK,
            marker="o",
            markersize=3.5,
            label="held-out examples",
        )
        if min(losses) > 0 and max(losses) > 10 * min(losses):
            axes.set_yscale("log")
        axes.set(title=drawable(f"{name}: loss"), xlabel="step", ylabel="loss")
        axes.legend()
    return figure


def _values(folder: RunFolder, name: str) -> tuple[list[int], list[float]]:
    """The step and the value of every line that was written whole and has one of this name."""
    if not folder.metrics.is_file():
        raise InputError(f"{folder.path} has no metrics.jsonl yet: train the run first")
    steps, values = [], []
    for line in (
        read_bytes(folder.metrics, "the metrics of a run", _LONGEST).decode(errors="replace").splitlines()
    ):
        with suppress(InputError), reading(folder.metrics):
            entry = json.loads(line)
            if name in entry:
                step, value = int(entry["step"]), float(entry[name])
                steps.append(step)
                values.append(value)
    return steps, values
