"""Draw the forward paths of tutorial 4 as a moving picture: one digit under the Markov chain and under DDIM's joint
distribution for two η.

    python tools/site/forward_paths.py --out docs/figures/forward.gif

All three have the same q(x_t | x_0) at every t. The Markov chain draws new noise in every step, so that its pixels flicker;
at η = 0 one noise grows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

import scorefield as sf

WAYS = {"Markov chain": None, "η = 0.5": 0.5, "η = 0": 0.0}
STEPS, SIDE, GAP, HEAD, REACH = 40, 128, 12, 24, 2.5
DURATIONS = (800, 120, 1500)  # milliseconds of the first frame, of those in between, and of the last


def paths(seed: int) -> dict[str, list[torch.Tensor]]:
    """x_0, x_1, … of one digit, by name."""
    image, _ = sf.data.digits().batch(torch.tensor([3]))
    process = sf.process.cosine(1000)
    grid = sf.grids.uniform(process, STEPS).flip(0)
    return {
        name: [
            image[0, 0],
            *(step.x[0, 0] for step in sf.forward(process, image, grid, sf.NoiseSource(seed), eta)),
        ]
        for name, eta in WAYS.items()
    }


def frame(states: dict[str, torch.Tensor], font: ImageFont.FreeTypeFont) -> Image.Image:
    """The states side by side, under their names."""
    page = Image.new("L", (len(states) * (SIDE + GAP) - GAP, SIDE + HEAD), 255)
    draw = ImageDraw.Draw(page)
    for k, (name, x) in enumerate(states.items()):
        left = k * (SIDE + GAP)
        levels = ((x + REACH) / (2 * REACH)).clamp(0, 1).mul(15).round().mul(17)
        pixels = Image.fromarray(levels.numpy().astype(np.uint8))
        page.paste(pixels.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, HEAD))
        draw.text((left + SIDE / 2, HEAD / 2), name, fill=0, font=font, anchor="mm")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/figures/forward.gif"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = paths(arguments.seed)
    font = ImageFont.truetype(findfont("DejaVu Sans"), 14)
    frames = [frame({name: states[k] for name, states in found.items()}, font) for k in range(STEPS + 1)]
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
