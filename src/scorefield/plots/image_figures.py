"""Figures of images: one start in several numbers of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.models.base import Denoise
from scorefield.models.foreign import as_gaussian
from scorefield.plots.figure_arguments import check_function, check_span
from scorefield.plots.style import drawable, new_figure, plot_style
from scorefield.runtime.checks import brief, check_mapping, is_list
from scorefield.runtime.errors import InputError
from scorefield.samplers.base import AnySampler, Grid, sample
from scorefield.samplers.grids import uniform

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_step_counts", "pixels", "show_image"]

_LETTER = 0.09  # inches of a letter of a name
_MOST_COLUMNS = 40
_GAP = 1  # pixels between the images of one cell


def draw_step_counts(
    model: Denoise,
    x_T: Tensor,
    samplers: Mapping[str, AnySampler],
    steps: Sequence[int] = (10, 20, 50, 100, 1000),
    grid: Callable[[Any, int], Grid] = uniform,
    seed: int = 0,
    span: tuple[float, float] = (-1.0, 1.0),
) -> Figure:
    """Samples from the same x_T: a row for each sampler, a column for each number of steps.

    Args:
        model: Any model of images with noise levels.
        x_T: Starts (B, C, H, W); the samples of a cell stand side by side.
        samplers: By the names of their rows, such as {"η = 0": sf.samplers.DDIM(0), "η = 1": sf.samplers.DDIM(1)}.
        steps: Numbers of steps.
        grid: From the process and a number of steps to the times.
        seed: Seed of the noise that samplers add.
        span: Values of the darkest and the brightest pixel.

    Raises:
        InputError: For what are no images, and as `sf.sample`.
    """
    _images("x_T", x_T)
    check_mapping("samplers", samplers, object, "samplers")
    if not is_list(steps) or not 1 <= len(steps) <= _MOST_COLUMNS:
        raise InputError(f"steps must be a list of 1 to {_MOST_COLUMNS} numbers of steps, got {brief(steps)}")
    check_function("grid", grid, "the process and a number of steps to times")
    check_span(span)
    process = as_gaussian(model, "a sheet of images").process
    with plot_style():
        margin = _LETTER * max(map(len, samplers))
        width = (9.5 - margin) / len(steps)
        shape = strip(x_T, span, len(x_T)).shape
        figure = new_figure(9.5, len(samplers) * (width * shape[0] / shape[1] + 0.1) + 0.3)
        panels = figure.subplots(len(samplers), len(steps), squeeze=False, gridspec_kw={"wspace": 0.08})
        for row, (name, sampler) in zip(panels, samplers.items(), strict=True):
            row[0].set_ylabel(drawable(name), rotation=0, ha="right", va="center", fontsize=9)
            for axes, n in zip(row, steps, strict=True):
                images = sample(model, sampler, grid(process, n), x_T=x_T, noise=NoiseSource(seed))
                show_image(axes, strip(images, span, len(images)))
        for axes, n in zip(panels[0], steps, strict=True):
            axes.set_title(f"{n:,} steps", loc="center", fontsize=9)
    return figure


def pixels(image: Tensor, span: tuple[float, float]) -> np.ndarray:
    """An image (C, H, W) as (H, W, 3) in [0, 1], clipped to the span of its values."""
    low, high = span
    shown = ((image.detach().cpu().double() - low) / (high - low)).clamp(0, 1)
    return shown.expand(3, *shown.shape[1:]).permute(1, 2, 0).numpy()


def strip(images: Tensor, span: tuple[float, float], places: int) -> np.ndarray:
    """Images (N, C, H, W) side by side with white between them, padded with white to this many places."""
    _, _, height, width = images.shape
    paper = np.ones((height, places * (width + _GAP) - _GAP, 3))
    for k, image in enumerate(images):
        left = k * (width + _GAP)
        paper[:, left : left + width] = pixels(image, span)
    return paper


def show_image(axes: Axes, picture: np.ndarray) -> None:
    """A picture (H, W, 3) without ticks and frame, its pixels as squares."""
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _images(name: str, images: object) -> Tensor:
    """The images themselves. InputError for what are none."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else brief(images)
        raise InputError(
            f"{name or 'images'}: a tensor (N, C, H, W) with 1 or 3 channels is needed, got {got}"
        )
    return images
