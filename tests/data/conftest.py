"""Pictures made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Paint = Callable[..., np.ndarray]


@pytest.fixture
def paint() -> Paint:
    """paint(height, width, channels=3, seed=0) -> random uint8 (H, W, 3), or (H, W) for one channel."""

    def make(height: int = 32, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
        shape = (height, width) if channels == 1 else (height, width, channels)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return make


@pytest.fixture
def pictures(tmp_path: Path, paint: Paint) -> Path:
    """Two classes, cat (3 pictures) and dog (2), 32×32 RGB."""
    root = tmp_path / "pictures"
    for label, count in (("dog", 2), ("cat", 3)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(paint(seed=number + 10 * count)).save(root / label / f"{number}.png")
    return root
