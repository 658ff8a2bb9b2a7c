"""Every script of examples/ runs, with two steps of training or after them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorefield.runs.open_training import open_training
from scorefield.runs.recipe import read_recipe, with_overrides

ROOT = Path(__file__).parent.parent
LOOPS = sorted(set((ROOT / "examples").glob("*.py")) - {ROOT / "examples" / "paint_a_hat.py"})


@pytest.mark.parametrize("path", LOOPS, ids=lambda path: path.stem)
def test_example_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "--steps", "2"])
    runpy.run_path(str(path), run_name="__main__")
    *steps, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in steps] == ["1", "2"]
    assert last.startswith("sampled (10, 1, ")


def test_hats_are_painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a model that has hardly learnt anything: what is kept is kept by the sampler."""
    small = {
        "net.channels": 32,
        "net.channel_mult": [1],
        "net.attention": [],
        "training.steps": 2,
        "sampling.steps": 3,
    }
    trainer = open_training(with_overrides(read_recipe("portraits"), small), tmp_path / "run")
    for _ in trainer:
        pass
    monkeypatch.setattr(
        sys, "argv", ["paint_a_hat.py", str(tmp_path / "run"), "--out", str(tmp_path / "hats.png")]
    )
    runpy.run_path(str(ROOT / "examples" / "paint_a_hat.py"), run_name="__main__")
    with Image.open(tmp_path / "hats.png") as picture:
        sheet = np.asarray(picture)
    scale, gap = 6, 2
    rows, across = (side // (16 * scale + gap) for side in sheet.shape[:2])
    assert (rows, across) == (4, 7)
    tops = [gap + row * (16 * scale + gap) for row in range(rows)]
    lefts = [gap + column * (16 * scale + gap) for column in range(across)]
    for top in tops:
        known, masked, *hats = (sheet[top : top + 96, left : left + 96][::scale, ::scale] for left in lefts)
        assert (masked[:6] == 128).all()
        assert (masked[6:] == known[6:]).all()
        assert all((hat[6:] == known[6:]).all() for hat in hats)
        assert any((hat[:6] != known[:6]).any() for hat in hats)
