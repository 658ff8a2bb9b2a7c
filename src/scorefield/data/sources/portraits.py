"""The embedded portraits: pixel art in colour, with classes and attributes."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files

from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset
from scorefield.data.sources.npz import npz
from scorefield.data.sources.opener import Embedded
from scorefield.runtime.errors import InputError

__all__ = ["CLASSES", "portraits"]

CLASSES = ("plain", "glasses", "hat", "beard")
_SPEC = DataSpec((3, 16, 16), classes=CLASSES, bins=256)


def portraits() -> Dataset:
    """12,800 pixel-art portraits, 16×16 in RGB, in four classes of equal size; no two images are equal.

    They are drawn by an artist (DiceBear's "Pixel Art", CC0 1.0) and combined by a program; they are not
    photographs, and no person is shown. docs/results/portraits.md is the data card.

    Returns:
        uint8 values (12800, 3, 16, 16), 256 bins, classes "plain", "glasses", "hat", "beard", of which an
        image has one. Further arrays: glasses, hat, beard, happy, long_hair (bool), skin_color (0 light … 7
        dark) and hair_color (0 … 10).
    Raises:
        InputError: If the installed package lacks its data.
    """
    try:
        with as_file(files("scorefield.data") / "portraits.npz") as path:
            data = npz(path)
    except (OSError, InputError) as fault:
        raise InputError(f"the embedded portraits cannot be read ({fault}): reinstall scorefield") from None
    # The archive's classes are in alphabetical order; the data's begin with the plain ones.
    order = [CLASSES.index(name) for name in data.spec.classes]
    labels = None if data.labels is None else data.labels.new_tensor(order)[data.labels]
    return replace(data, spec=_SPEC, labels=labels, source="portraits", read_as={"source": "portraits"})


SOURCE = Embedded(portraits, _SPEC, "the embedded portraits are 16×16 in colour")
