"""The embedded digits: handwritten, 8×8 pixels, from an installed package, so that nothing is downloaded."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch

from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset
from scorefield.data.sources.opener import Embedded
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import open_file, reading

__all__ = ["digits"]

_SPEC = DataSpec((1, 8, 8), classes=tuple("0123456789"), bins=17)


def digits() -> Dataset:
    """scikit-learn's 1,797 scans of handwritten digits, 8×8, grey.

    The packaged table is read directly, because importing scikit-learn takes a second or more.

    Returns:
        uint8 values (1797, 1, 8, 8), 17 bins (0 … 16), classes "0" … "9".

    Raises:
        InputError: If scikit-learn is not installed, or its table is missing or damaged.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "the embedded digits come with scikit-learn, which is not installed: pip install scikit-learn"
        )
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    try:
        with open_file(path, "the table of digits") as file, reading(path), gzip.open(file) as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    except InputError as fault:
        raise InputError(
            f"the embedded digits are not where scikit-learn kept them ({fault}): reinstall scikit-learn"
        ) from None
    if table.shape != (1797, 65):
        raise InputError(
            f"{path} holds {table.shape}, expected 1,797 digits of 64 pixels and a label: reinstall "
            "scikit-learn"
        )
    values = torch.from_numpy(table[:, :64].reshape(-1, 1, 8, 8).copy())
    labels = torch.from_numpy(table[:, 64].astype(np.int64))
    return Dataset(_SPEC, values, labels, "digits", read_as={"source": "digits"})


SOURCE = Embedded(digits, _SPEC, "the embedded digits are 8×8 and grey")
