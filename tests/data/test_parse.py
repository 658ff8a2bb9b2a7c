from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scorefield.data import open_source
from scorefield.runtime.errors import InputError


def test_digits() -> None:
    assert len(open_source("digits")) == len(open_source("digits", size=8, channels=1)) == 1797  # type: ignore[arg-type]
    for options in ({"size": 32}, {"channels": 3}):
        with pytest.raises(InputError, match="8×8 and grey"):
            open_source("digits", **options)


def test_a_folder_is_32_pixels_rgb_unless_told_otherwise(pictures: Path) -> None:
    assert open_source(str(pictures)).spec.shape == (3, 32, 32)
    assert open_source(str(pictures), size=8, channels=1).spec.shape == (1, 8, 8)
    assert open_source(str(pictures), size=40, upscale=True).spec.shape == (3, 40, 40)
    (pictures / "cat" / "0.png").write_bytes(b"x")
    assert len(open_source(str(pictures)).skipped) == 1
    with pytest.raises(InputError, match="1 of 5 images cannot be read"):
        open_source(str(pictures), strict=True)


def test_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.NPZ"
    with path.open("wb") as stream:
        np.savez(stream, images=np.zeros((2, 10, 12), dtype=np.uint8))
    assert open_source(str(path)).spec.shape == (1, 10, 12)
    assert open_source(str(path), size=8, channels=3).spec.shape == (3, 8, 8)
    assert open_source(str(path), size=16, upscale=True).spec.shape == (1, 16, 16)
    with pytest.raises(InputError, match="no such file"):
        open_source(str(tmp_path / "b.npz"))


def test_a_folder_named_digits(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.rename(pictures.parent / "digits")
    monkeypatch.chdir(pictures.parent)
    assert len(open_source("./digits")) == 5  # type: ignore[arg-type]
    assert len(open_source("digits")) == 1797  # type: ignore[arg-type]


def test_hub_names_are_passed_on(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", pictures.parent / "cache")
    assert open_source(f"hf:{pictures}", size=16, channels=1).spec.shape == (1, 16, 16)


@pytest.mark.parametrize("source", ["digit", "Digits", "digtis", "DIGITS"])
def test_did_you_mean(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"'{source}' is not a source of data: did you mean 'digits'"):
        open_source(source)


@pytest.mark.parametrize(
    "source", ["", "no/such/folder", "mnist", "x" * 5000, "~nobody-here/x", "a\0b", "sample.txt"]
)
def test_anything_else_says_what_is_accepted(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample.txt").write_text("x")
    with pytest.raises(InputError, match=r"digits.*folder of images.*\.npz.*hf:NAME") as caught:
        open_source(source)
    assert "\n" not in str(caught.value)


def test_importing_is_light() -> None:
    """The libraries that take a second to import are not touched until they are needed, and for digits never."""
    code = (
        "import sys; from scorefield.data import digits; digits(); "
        "print([m for m in ('sklearn', 'datasets', 'pandas', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
