"""Pictures of a run: points of the plane with their score field and the sampler's paths; for other data, the
curve of training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.core.shapes import are_images
from scorefield.generation.sampling import Sampling
from scorefield.models.foreign import as_gaussian
from scorefield.plots.figure_arguments import Limits
from scorefield.plots.image_figures import draw_step_counts
from scorefield.plots.plane_figures import add_arrows, add_paths, limits_of, shade
from scorefield.plots.process_figures import draw_noising, draw_variances
from scorefield.plots.style import ACCENT, DARK, drawable, new_figure, plot_style, save_figure
from scorefield.process.base import GaussianProcess
from scorefield.runs.build import open_data
from scorefield.runs.recipe import Recipe
from scorefield.runs.run import Run
from scorefield.runtime.atomic import make_folder
from scorefield.runtime.checks import one_of
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import as_path, read_bytes, reading
from scorefield.samplers.base import trajectory
from scorefield.samplers.ddim import DDIM
from scorefield.store.outputs import check_output
from scorefield.training import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "plot_run"]

_SAMPLES, _PATHS, _STATES, _SEED = 3000, 7, 40, 0
_NEAR = 2 / 3  # of the data's spread, the σ/α from which paths are drawn
_OF_IMAGES = ("noising", "steps")
_IMAGES, _EXAMPLES, _COUNTS = 2, 32, (10, 20, 50, 100)
_LONGEST = 2**30  # bytes of metrics


def plot_run(run: Run | str | Path, out: Path | None = None, figure: str | None = None) -> Path:
    """Draw a run and return where the picture is.

    Args:
        run: The run, or its folder.
        out: The picture, a .png. Default: RUN/figures/FIGURE.png.
        figure: "plane" (data in the plane: data, samples, score, paths), "training" (the loss by step), "noising" (an
            image of the data under the run's process), "steps" (samples of one x_T by number of steps and η) or
            "variances" (learned variances between their bounds). Default: "plane" for points, else "training".

    Raises:
        InputError: Where there is no run, no weights or no metrics yet, for a figure that this run does not have, and
            where `out` is not a .png in an existing folder, or a file that scorefield did not write.
        IncompatibleModel: For the variances of a model that learned none.
    """
    run = run if isinstance(run, Run) else Run(run)
    plane = run.data_spec.shape == (2,) and not run.recipe.is_classifier
    name = figure or ("plane" if plane else "training")
    one_of("figure", name, FIGURES)
    if out is not None:
        out = as_path(out, "a figure")
        if out.suffix.lower() != ".png":
            raise InputError(f"{out}: a figure is written as .png")
        check_output(out)
    if (name == "plane" and not plane) or (name in _OF_IMAGES and not are_images(run.data_spec.shape)):
        what = "points of the plane" if name == "plane" else "images"
        raise InputError(
            f'the figure "{name}" is for {what}, and an example of this run has shape {run.data_spec.shape}'
        )
    drawn = FIGURES[name](run)
    if out is None:
        out = run.path / "figures" / f"{name}.png"
        make_folder(out.parent)
    save_figure(drawn, out)
    return out


def _draw_noising(run: Run) -> Figure:
    """The first image of the data under the run's process."""
    process = _gaussian(run)
    images, _ = open_data(run.recipe.data)[0].batch(torch.arange(1))
    return draw_noising(images[0], {process.config["kind"]: process}, seed=_SEED, span=run.data_spec.range)


def _draw_steps(run: Run) -> Figure:
    """Four samples of one x_T each, at several numbers of steps and values of η."""
    process = _gaussian(run)
    model: Any = run.model(device="cpu", precision="fp32")
    classes = model.num_classes
    x_T = process.prior((_IMAGES, *run.data_spec.shape), NoiseSource(_SEED))
    bound = model.given([k % classes for k in range(_IMAGES)]) if classes else model
    levels = process.T if isinstance(process.T, int) else max(_COUNTS)
    samplers = {f"η = {eta:g}": DDIM(eta) for eta in (0.0, 0.5, 1.0)}
    return draw_step_counts(
        bound, x_T, samplers, [n for n in _COUNTS if n <= levels], seed=_SEED, span=run.data_spec.range
    )


def _draw_variances(run: Run) -> Figure:
    """The learned variances at the first examples of the data."""
    model: Any = run.model(device="cpu", precision="fp32")
    _gaussian(run)
    x0, y = open_data(run.recipe.data)[0].batch(torch.arange(_EXAMPLES))
    return draw_variances(model.given(y) if model.num_classes else model, x0, seed=_SEED)


def _gaussian(run: Run) -> GaussianProcess:
    """The process of a run that has Gaussian noise levels. IncompatibleModel for another one."""
    return as_gaussian(run.model(device="cpu", precision="fp32"), "this figure").process


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
        bottom_right.set_title(f"{_PATHS} paths{begin}, pale to dark")
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


FIGURES: Mapping[str, Callable[[Run], Figure]] = {
    "plane": _draw_plane,
    "training": lambda run: _draw_training(run.folder, run.recipe.name),
    "noising": _draw_noising,
    "steps": _draw_steps,
    "variances": _draw_variances,
}
