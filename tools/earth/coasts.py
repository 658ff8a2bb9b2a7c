"""Continue held-out coasts with a run of the recipe `earth`: fill a masked half, and go on beyond the edge of the tile.

    python tools/earth/coasts.py RUN --out FOLDER

FOLDER/fillings.png has a row for each tile: the tile, what the model sees of it, and its fillings of the right half.
FOLDER/beyond.png has strips that begin with a tile: its right half is the left half of the next image, whose right half is
filled, and so on. tile-K.png and mask.png are there for `scorefield sample RUN --label coast --inpaint tile-K.png mask.png`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import scorefield as sf
from scorefield.runs.build import open_data
from scorefield.store.picture_grid import picture_grid

LABEL, UNKNOWN = "coast", np.array([233, 167, 175], dtype=np.uint8)
SCALE = 3  # a pixel of a tile in pixels of a strip


def held_out(run: sf.Run, chosen: list[int]) -> np.ndarray:
    """uint8 (N, H, W, 3): the held-out coasts of these numbers, in the order of the data."""
    _, data = open_data(run.recipe.data)
    coasts = torch.nonzero(data.labels == data.spec.classes.index(LABEL))[:, 0]
    return data.subset(coasts[chosen]).everything().permute(0, 2, 3, 1).numpy()


def right_half(side: int) -> np.ndarray:
    """A mask (1, side, side): white, to be filled, in the right half."""
    mask = np.zeros((1, side, side), dtype=np.uint8)
    mask[:, :, side // 2 :] = 255
    return mask


def fill(run: sf.Run, image: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` images (count, H, W, 3) whose left half is that of `image` (H, W, 3)."""
    where = (image[None], right_half(image.shape[1]))
    return run.sample(n=count, seed=seed, labels=[LABEL], inpaint=where, device="cpu").images


def beyond(run: sf.Run, tile: np.ndarray, times: int, seed: int) -> np.ndarray:
    """A strip (H, W + times · W/2, 3) that begins with the tile."""
    strip, half = tile, tile.shape[1] // 2
    for k in range(times):
        known = np.concatenate([strip[:, -half:], np.zeros_like(strip[:, :half])], axis=1)
        strip = np.concatenate([strip, fill(run, known, 1, seed + k)[0][:, half:]], axis=1)
    return strip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a trained run of the recipe earth")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--tiles", type=int, nargs="+", default=[0, 1, 2, 3], help="of the held-out coasts")
    parser.add_argument("--fillings", type=int, default=5, help="of each tile")
    parser.add_argument("--times", type=int, default=4, help="half tiles that a strip goes on")
    options = parser.parse_args()
    run = sf.Run(options.run)
    tiles = held_out(run, options.tiles)
    options.out.mkdir(parents=True, exist_ok=True)
    mask = right_half(tiles.shape[2])
    Image.fromarray(mask[0]).save(options.out / "mask.png")
    rows, strips = [], []
    for number, tile in zip(options.tiles, tiles, strict=True):
        Image.fromarray(tile).save(options.out / f"tile-{number}.png")
        seen = np.where(mask[0, :, :, None] > 0, UNKNOWN, tile)
        rows += [tile, seen, *fill(run, tile, options.fillings, seed=0)]
        strips += [beyond(run, tile, options.times, seed) for seed in (0, 100)]
    shown = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
    picture_grid(shown, columns=2 + options.fillings).save(options.out / "fillings.png", optimize=True)
    enlarged = np.stack(strips).repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    sheet = picture_grid(torch.from_numpy(enlarged).permute(0, 3, 1, 2), columns=2)
    sheet.save(options.out / "beyond.png", optimize=True)
    print(f"{options.out}: fillings.png, beyond.png, mask.png and {len(tiles)} tiles")


if __name__ == "__main__":
    main()
