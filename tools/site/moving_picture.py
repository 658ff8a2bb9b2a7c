"""Draw the moving picture of the documentation's first page: points that follow an exact score from noise to a word.

    python tools/site/moving_picture.py --out docs/figures/flow.gif

The data are a mixture of Gaussians along the letters, whose score is known at every noise level; Heun's method walks from
pure noise to t = 0, and the picture shows every step, the last one for longer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

import scorefield as sf

WORD, COMPONENTS, POINTS, STEPS = "scorefield", 600, 4000, 40
WIDTH, HEIGHT, REACH = 720, 240, 3.4
DURATIONS = (60, 60, 2400)  # milliseconds of the first frames, of those in between, and of the last


def letters(n: int, seed: int) -> np.ndarray:
    """n points inside the letters, (n, 2), three units wide to either side."""
    font = ImageFont.truetype(findfont("DejaVu Sans:bold"), 200)
    low_x, low_y, high_x, high_y = font.getbbox(WORD)
    page = Image.new("L", (int(high_x), int(high_y)))
    ImageDraw.Draw(page).text((0, 0), WORD, fill=255, font=font)
    rows, columns = np.nonzero(np.asarray(page) > 128)
    points = np.stack([columns - (low_x + high_x) / 2, (low_y + high_y) / 2 - rows], axis=1)
    chosen = np.random.default_rng(seed).choice(len(points), n, replace=False)
    return points[chosen] * (6 / (high_x - low_x))


def walk(seed: int) -> list[np.ndarray]:
    """The points after every step, from noise to the data."""
    means = torch.from_numpy(letters(COMPONENTS, seed))
    covariances = (0.025**2 * torch.eye(2, dtype=torch.float64)).expand(COMPONENTS, 2, 2)
    process = sf.process.ve(0.005, 3.0)
    model = sf.oracle.MixtureDenoiser(sf.oracle.GaussianMixture(means, covariances), process)
    grid = sf.grids.karras(process, STEPS)
    start = 3.0 * sf.noise.NoiseSource(seed).normal((POINTS, 2))
    steps = sf.trajectory(model, sf.samplers.Heun(), grid, start.double())
    return [start.numpy(), *(step.x.numpy() for step in steps)]


def frame(points: np.ndarray, colors: np.ndarray) -> Image.Image:
    """The points as light dots on a dark ground, twice as large and then reduced."""
    wide, high = 2 * WIDTH, 2 * HEIGHT
    canvas = np.full((high, wide, 3), (19, 20, 22), np.float32)
    scale = wide / (2 * REACH)
    columns = np.round(points[:, 0] * scale + wide / 2).astype(int)
    rows = np.round(high / 2 - points[:, 1] * scale).astype(int)
    for right in range(3):
        for down in range(3):
            x, y = columns + right, rows + down
            seen = (x >= 0) & (x < wide) & (y >= 0) & (y < high)
            canvas[y[seen], x[seen]] = colors[seen]
    return Image.fromarray(canvas.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BOX)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/figures/flow.gif"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    positions = walk(arguments.seed)
    ends = (positions[-1][:, 0] + 3) / 6
    colors = 255 * colormaps["plasma"](0.25 + 0.7 * ends.clip(0, 1))[:, :3].astype(np.float32)
    frames = [frame(points, colors).quantize(32, dither=Image.Dither.NONE) for points in positions]
    first, between, last = DURATIONS
    frames[0].save(
        arguments.out,
        save_all=True,
        append_images=frames[1:],
        duration=[first, *[between] * (len(frames) - 2), last],
        loop=0,
        optimize=True,
    )
    print(f"{arguments.out}: {len(frames)} frames")


if __name__ == "__main__":
    main()
