"""Sheets of small images: rows with names, the same seeds under several scales of guidance, walks between latents.

An image is enlarged by a whole number of pixels, nearest neighbour, so that every pixel of it can be counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec, are_images, check_batch_of
from scorefield.generation.samples import Samples
from scorefield.plots.figure_arguments import check_text, check_texts
from scorefield.plots.style import drawable, new_figure, plot_style
from scorefield.runtime.checks import brief, check_mapping, positive_int
from scorefield.runtime.errors import InputError
from scorefield.store.writers import channels_last

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Images", "draw_guidance_scales", "draw_images", "draw_walks"]

Images = Tensor | np.ndarray | Samples

_DPI = 144  # what a notebook shows too, see NotebookFigure
_WIDE, _SIDE = 640, 96  # pixels that all images of a row share; pixels of the side of one, at most
_GAP, _MARGIN = 4, 8
_FONT = 13  # pixels
_MOST_COLUMNS = 1000
_LATENT_SPAN = 3.0  # standard deviations of a latent from mid grey to black or white


def draw_images(
    rows: Mapping[str, Images] | Images,
    columns: int = 10,
    span: tuple[float, float] = (-1.0, 1.0),
    *,
    title: str = "",
    heads: Sequence[str] = (),
) -> Figure:
    """Images in rows, with a name on the left of each row that has one.

    Args:
        rows: Images, or images by the name of their row: floating-point tensors (N, C, H, W), uint8 arrays
            (N, H, W[, C]), or `Samples`; C is 1 or 3. All images have one size.
        columns: Images in a line, at most; a longer row goes on in the next line.
        span: What is drawn as black and as white in tensors; values beyond are clamped.
        title: A line above.
        heads: A text above each column. Default: none.

    Raises:
        InputError: For no rows, for what are no images, and for images of different sizes.
    """
    positive_int("columns", columns, at_most=_MOST_COLUMNS)
    check_text("title", title)
    check_texts("heads", heads)
    if isinstance(rows, Mapping):
        check_texts("the names of rows", [*rows])
    lines: list[tuple[str, np.ndarray]] = []
    for name, images in (rows if isinstance(rows, Mapping) else {"": rows}).items():
        pictures = _pictures(name, images, span)
        for start in range(0, len(pictures), columns):
            lines.append((name if start == 0 else "", pictures[start : start + columns]))
    return _sheet(lines, title, heads)


def draw_guidance_scales(samples: Mapping[float, Images], *, title: str = "") -> Figure:
    """The same seeds at several guidance scales s: a row for each scale, a column for each seed.

    Args:
        samples: Images by scale, as `draw_images` takes them, made with the same noise.
        title: A line above.

    Raises:
        InputError: As `draw_images`, and for rows of different lengths, which are not of the same seeds.
    """
    check_mapping("samples", samples, Images, "images", "scales")
    rows = {f"s = {scale:g}": _pictures(f"s = {scale:g}", x, (-1.0, 1.0)) for scale, x in samples.items()}
    if len({len(images) for images in rows.values()}) > 1:
        counts = ", ".join(f"{len(images)} at {scale}" for scale, images in rows.items())
        raise InputError(f"every scale needs the same seeds, and so the same number of images; got {counts}")
    return draw_images(rows, max(map(len, rows.values())), title=title)


def draw_walks(images: Tensor, latents: Tensor, frames: Tensor, *, title: str = "") -> Figure:
    """Walks between latents, one a row: image, its latent, the decoded frames, the other latent, its image.  [DDIM
    §5.3]

    Args:
        images: The ends of each walk, (W, 2, C, H, W) in [−1, 1].
        latents: What `sf.latents.encode` makes of them, (W, 2, C, H, W); drawn as mid grey plus a third of a
            half range for each unit.
        frames: What `sf.latents.interpolate` decodes between them, (W, F, C, H, W) in [−1, 1].
        title: A line above.

    Raises:
        InputError: For tensors of other shapes.
    """
    check_text("title", title)
    for name, x, ends in (("images", images, 2), ("latents", latents, 2), ("frames", frames, None)):
        check_batch_of(name, x)
        if x.ndim != 5 or len(x) != len(images) or (ends is not None and x.shape[1] != ends):
            expected = "(W, F, C, H, W)" if ends is None else "(W, 2, C, H, W)"
            raise InputError(f"{name} of {len(images)} walks must be {expected}; got {tuple(x.shape)}")
    shown = latents / _LATENT_SPAN
    columns = [images[:, :1], shown[:, :1], frames, shown[:, 1:], images[:, 1:]]
    lines = [("", _pictures("a walk", row, (-1.0, 1.0))) for row in torch.cat(columns, dim=1)]
    between = [""] * (frames.shape[1] - 1)
    return _sheet(lines, title, ["x₀", "x_T", "decoded", *between, "x_T", "x₀"])


def _pictures(name: str, images: Images, span: tuple[float, float]) -> np.ndarray:
    """uint8 (N, H, W[, 3]). InputError for what are no images."""
    if isinstance(images, Samples):
        return images.images
    if isinstance(images, Tensor) and images.ndim == 4 and are_images(images.shape[1:]) and len(images):
        spec = DataSpec(tuple(images.shape[1:]), span)
        return channels_last(spec.to_uint8(images.detach().cpu().float()))
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim in (3, 4) and len(images):
        return images
    raise InputError(
        f"{name or 'rows'}: images are a tensor (N, C, H, W) with 1 or 3 channels, a uint8 array (N, H, W[, C]), or what Run.sample "
        f"returns; got {brief(images)}"
    )


def _sheet(lines: Sequence[tuple[str, np.ndarray]], title: str, heads: Sequence[str]) -> Figure:
    """The figure of named lines of images: everything is placed in whole pixels."""
    names, rows = [name for name, _ in lines], [row for _, row in lines]
    sizes = {row.shape[1:3] for row in rows}
    if not sizes:
        raise InputError("there is nothing to draw: give at least one row of images")
    if len(sizes) > 1:
        raise InputError(f"a sheet needs images of one size; got sizes {sorted(sizes)}")
    ((height, width),) = sizes
    across = max(map(len, rows))
    scale = max(1, min(_SIDE // max(height, width), (_WIDE // across - _GAP) // width))
    height, width = scale * height, scale * width
    top = _MARGIN + (2 * _FONT if title else 0) + (3 * _FONT // 2 if any(heads) else 0)
    with plot_style():
        figure = new_figure(1, 1, layout=None, dpi=_DPI)
        points = 72 * _FONT / _DPI
        left = (
            _MARGIN
            + max(_text_width(figure, name, points) for name in names)
            + (_MARGIN if any(names) else 0)
        )
        high = top + len(rows) * (height + _GAP) - _GAP + _MARGIN
        wide = left + across * (width + _GAP) - _GAP + _MARGIN
        wide = max(wide, 2 * _MARGIN + _text_width(figure, title, points))
        figure.set_size_inches(wide / _DPI, high / _DPI)

        def write(x: float, y: float, text: str, **how: Any) -> None:
            figure.text(x / wide, 1 - y / high, drawable(text), fontsize=points, **how)

        write(left, _MARGIN, title, ha="left", va="top")
        for j, name in enumerate(heads):
            write(left + j * (width + _GAP), top - _FONT // 3, name, ha="left", va="bottom")
        for i, (name, row) in enumerate(zip(names, rows, strict=True)):
            y = top + i * (height + _GAP)
            write(left - _MARGIN, y + height / 2, name, ha="right", va="center")
            for j, image in enumerate(row):
                x = left + j * (width + _GAP)
                axes = figure.add_axes((x / wide, 1 - (y + height) / high, width / wide, height / high))
                axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
                axes.axis("off")
    return figure


def _text_width(figure: Figure, text: str, points: float) -> int:
    """Pixels of a line in the figure's font; 0 for none."""
    if not text:
        return 0
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    line = figure.text(0, 0, drawable(text), fontsize=points)
    width = line.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width
    line.remove()
    return round(width)
