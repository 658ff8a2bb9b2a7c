"""Latents of the digits: how well encoding reconstructs, how far one x_T gives one image at any number of
steps, and a picture.

On a trained run of the recipe `digits` (class-conditional, cosine schedule, T = 1,000), DDIM with η = 0 on
uniform grids, fp32:

- reconstruction: the mean squared error of a pixel on [0, 1] of decoding what was encoded, held-out images
  under their own labels, against the number of steps S.  [DDIM Table 2]
- consistency: images made from the same x_T in S and in 1,000 steps: their mean squared error, whether the
  1,000-step image of the same x_T is the nearest among those of its class, and whether a classifier gives
  both one class; beside pairs of one class from different x_T.  [DDIM §5.2]
- the picture: walks between held-out digits of one class, and fillings of digits whose lower or left half is
unknown.

    python benchmarks/latents.py RUN [--images 100] [--most 1000] [--figure FILE.png]

It prints the tables as they stand in docs/howto/latents.md, and how large the latents are in pixels that vary in
the data and in others.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.data import Dataset
from scorefield.evaluation import train_classifier
from scorefield.runs.build import load, open_data, read_run

COUNTS = (10, 20, 50, 100, 200, 500, 1000)
PAPER = {
    10: 0.014,
    20: 0.0065,
    50: 0.0023,
    100: 0.0009,
    200: 0.0004,
    500: 0.0001,
    1000: 0.0001,
}  # DDIM Table 2, CIFAR-10
FEW = (10, 20, 50, 100)
WALKS, FRAMES, FILLINGS = (0, 2, 3, 5, 8), 9, 6


def squares(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared error of a pixel on [0, 1], an image each, of images in [−1, 1]."""
    return ((a - b) / 2).square().flatten(1).mean(dim=1)


def shown(values: Tensor, digits: int = 2) -> str:
    """The mean and its standard error."""
    return f"{float(values.mean()):.{digits - 1}e} ± {float(values.std()) / math.sqrt(len(values)):.0e}"


def reconstruction(model: Any, data: Dataset, most: int) -> None:
    """Print a row for each S."""
    x0, y = data.batch(torch.arange(len(data)))
    bound = model.given(y)
    print(
        f"\n{len(data)} held-out digits\n\n| S | error | standard deviation of the latents | DDIM's paper, CIFAR-10 |\n|---|---|---|---|"
    )
    for count in (count for count in COUNTS if count <= most):
        grid = sf.grids.uniform(model.process, count)
        latents = sf.latents.encode(bound, x0, grid)
        errors = squares(sf.latents.decode(bound, latents, grid), x0)
        print(f"| {count:,} | {shown(errors)} | {float(latents.std()):.2f} | {PAPER[count]:g} |", flush=True)


def by_pixel(model: Any, train: Dataset, data: Dataset, steps: int) -> None:
    """Print the root mean square of the latents of 64 digits in pixels that vary in the training data and in
    those that do not.
    """
    x0, y = data.batch(torch.arange(64))
    latents = sf.latents.encode(model.given(y), x0, sf.grids.uniform(model.process, steps))
    spread = train.batch(torch.arange(len(train)))[0].std(dim=0)
    for name, chosen in (("above 0.5", spread > 0.5), ("below 0.1", spread <= 0.1)):
        size = float(latents[:, chosen].square().mean().sqrt())
        print(
            f"{int(chosen.sum())} pixels of standard deviation {name}: latents {size:.2f}, at {steps} steps"
        )


def consistency(model: Any, train: Dataset, images: int, most: int) -> None:
    """Print a row for each S, and one for different x_T."""
    labels = torch.arange(images) % model.num_classes
    x_T = model.process.prior((images, *model.data.shape), NoiseSource(0).at(0))
    bound, judge = model.given(labels), train_classifier(train)
    reference = sf.latents.decode(bound, x_T, sf.grids.uniform(model.process, most))
    far = ((reference[:, None] - reference[None]) / 2).square().flatten(2).mean(dim=2)
    others = (labels[:, None] == labels[None]) & ~torch.eye(images, dtype=torch.bool)
    classes = judge.predict(reference)
    print(
        f"\n{images} latents\n\n| S | error to {most:,} steps | its own is the nearest | classes agree |\n|---|---|---|---|"
    )
    for count in FEW:
        made = sf.latents.decode(bound, x_T, sf.grids.uniform(model.process, count))
        distances = ((made[:, None] - reference[None]) / 2).square().flatten(2).mean(dim=2)
        nearest = distances.masked_fill(labels[:, None] != labels[None], torch.inf).argmin(
            dim=1
        ) == torch.arange(images)
        agree = judge.predict(made) == classes
        print(
            f"| {count} | {shown(squares(made, reference))} | {share(nearest)} | {share(agree)} |", flush=True
        )
    agree = (classes[:, None] == classes[None])[others]
    print(f"| other x_T, same class | {float(far[others].mean()):.1e} | | {share(agree)} |")


def share(flags: Tensor) -> str:
    return f"{float(flags.double().mean()):.0%}"


def walks(model: Any, data: Dataset, steps: int) -> Tensor:
    """Walks between the first two digits of each class in WALKS, (walks, FRAMES, C, H, W)."""
    grid = sf.grids.uniform(model.process, steps)
    rows = []
    for label in WALKS:
        x0 = data.batch(torch.nonzero(data.labels == label)[:2, 0])[0]
        bound = model.given(label)
        rows.append(sf.latents.interpolate(bound, *sf.latents.encode(bound, x0, grid), FRAMES, grid))  # type: ignore[call-arg]
    return torch.stack(rows)


def fillings(model: Any, data: Dataset, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """(digits, masks, fillings): the third digit of each class in WALKS, what is known of it, (walks,
    FILLINGS, C, H, W).
    """
    grid, shape = sf.grids.uniform(model.process, steps), model.data.shape
    rows, originals, masks = [], [], []
    for k, label in enumerate(WALKS):
        x0 = data.batch(torch.nonzero(data.labels == label)[2:3, 0])[0][0]
        mask = torch.zeros(shape, dtype=torch.bool)
        if k % 2:
            mask[..., shape[2] // 2 :] = True
        else:
            mask[:, : shape[1] // 2] = True
        sampler = sf.samplers.Inpaint(sf.samplers.Ancestral(), x0, mask)
        rows.append(sf.sample(model.given(label), sampler, grid, n=FILLINGS, noise=NoiseSource(k)))
        originals.append(x0)
        masks.append(mask)
    return torch.stack(originals), torch.stack(masks), torch.stack(rows)


def draw(model: Any, data: Dataset, path: Path, steps: int) -> None:
    """Walks on the left, fillings on the right, grey levels as ink on paper."""
    from matplotlib.figure import Figure

    from scorefield.plots.style import plot_style, save_figure

    between = walks(model, data, steps)
    originals, masks, filled = fillings(model, data, steps)
    hidden = torch.where(masks, originals, torch.nan)
    right = torch.cat([originals[:, None], hidden[:, None], filled], dim=1)
    with plot_style():
        figure = Figure(figsize=(11, 3.6), layout="compressed")
        left_axes, right_axes = figure.subplots(1, 2, width_ratios=[FRAMES, FILLINGS + 2])
        panel(
            left_axes, between, "walks between two held-out digits, the first and the last of a row", FRAMES
        )
        panel(right_axes, right, f"a held-out digit, what is known of it, {FILLINGS} fillings", FILLINGS + 2)
        save_figure(figure, path)


def panel(axes: Any, rows: Tensor, title: str, columns: int) -> None:
    """(R, columns, 1, H, W) in [−1, 1] as one sheet; what is unknown (NaN) in a colour of its own."""
    from matplotlib import colormaps

    height, width = rows.shape[3:]
    sheet = torch.full((len(rows) * (height + 1), columns * (width + 1)), -1.0)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (height + 1), j * (width + 1)
            sheet[top : top + height, left : left + width] = image[0]
    colours = colormaps["Greys"].with_extremes(bad="#e9a7af")
    axes.imshow(sheet[:-1, :-1].numpy(), cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
    for k in range(1, columns):
        axes.axvline(k * (width + 1) - 1, color="0.85", linewidth=0.8)
    for k in range(1, len(rows)):
        axes.axhline(k * (height + 1) - 1, color="0.85", linewidth=0.8)
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a trained run of the recipe digits")
    parser.add_argument(
        "--images", type=int, default=100, help="held-out images, and latents of the consistency"
    )
    parser.add_argument("--most", type=int, default=1000, help="the largest number of steps")
    parser.add_argument("--figure", type=Path, help="RUN/figures/latents.png if not given")
    options = parser.parse_args()
    model = load(options.run)
    train, heldout = open_data(read_run(options.run)[0].data)
    figure = options.figure or options.run / "figures" / "latents.png"
    figure.parent.mkdir(exist_ok=True)
    draw(model, heldout, figure, steps=min(100, options.most))
    print(f"figure: {figure}")
    reconstruction(model, heldout.subset(torch.arange(options.images)), options.most)
    by_pixel(model, train, heldout, min(200, options.most))
    consistency(model, train, options.images, options.most)


if __name__ == "__main__":
    main()
