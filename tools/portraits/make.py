"""Make src/scorefield/data/portraits.npz: 12,800 pixel-art portraits, 16×16 in colour, in four classes of equal size.

    npm install --prefix tools/portraits
    python tools/portraits/make.py

`render.mjs` draws portrait k of a class from the seed "CLASS-k" and passes over images that were drawn before, so the
file is a function of this folder and of the pinned packages. docs/results/portraits.md is its data card.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TARGET = HERE.parent.parent / "src" / "scorefield" / "data" / "portraits.npz"
CLASSES = ("plain", "glasses", "hat", "beard")
SKIN = ("ffdbac", "f5cfa0", "eac393", "e0b687", "cb9e6e", "b68655", "a26d3d", "8d5524")  # light to dark
HAIR = (
    "cab188",
    "a78961",
    "83623b",
    "603a14",
    "603015",
    "612616",
    "611c17",
    "28150a",
    "bd1700",
    "009bbd",
    "91cb15",
)


def render(count: int) -> list[dict[str, str]]:
    """What render.mjs says of `count` portraits of each class, class by class."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "portraits.json"
        subprocess.run(["node", str(HERE / "render.mjs"), str(out), str(count)], check=True)
        portraits: list[dict[str, str]] = json.loads(out.read_text())
    return portraits


def arrays(portraits: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """The arrays of the archive. The classes take turns, so that any part of the file holds all of them."""
    count = len(portraits) // len(CLASSES)
    turns = [portraits[k * count + i] for i in range(count) for k in range(len(CLASSES))]
    pixels = [np.frombuffer(base64.b64decode(p["pixels"]), np.uint8).reshape(16, 16, 3) for p in turns]
    labels = np.array([p["label"] for p in turns], dtype=np.int64)
    return {
        "images": np.stack(pixels),
        "labels": np.array(CLASSES)[labels],
        "glasses": labels == 1,
        "hat": labels == 2,
        "beard": labels == 3,
        "happy": np.array([p["mouth"].startswith("happy") for p in turns]),
        "long_hair": np.array([p["hair"].startswith("long") for p in turns]),
        "skin_color": np.array([SKIN.index(p["skin"]) for p in turns], dtype=np.uint8),
        "hair_color": np.array([HAIR.index(p["hairColor"]) for p in turns], dtype=np.uint8),
    }


def save(path: Path, found: dict[str, np.ndarray]) -> None:
    """An .npz whose bytes depend on the arrays alone: without the times that NumPy would write."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in found.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=3200, help="portraits of each class")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    found = arrays(render(options.count))
    save(options.out, found)
    print(f"{options.out}: {len(found['images']):,} images, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
