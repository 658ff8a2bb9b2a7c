"""Every script of examples/ runs, with two steps of training or after them."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorefield.runs.open_training import open_training
from scorefield.runs.recipe import read_recipe, with_overrides

ROOT = Path(__file__).parent.parent
LOOPS = ["accelerate_loop", "own_network", "own_process", "own_torch_dataset", "plain_pytorch_loop"]
# What a line of each of the others says.
SAYS = {
    "ddpm_from_scratch": r"largest difference of the samples \d\.\de-1[0-9]",
    "evaluate_in_python": r"by hand: \d+\.\d+, precision [01]\.\d+, recall [01]\.\d+",
    "guided_sampling": r"wrote sevens-classifier\.png",
    "import_published_weights": r"refused: .*num_res_blocks is 1 in the file but 2 in the flags",
    "likelihood": r"ODE +\d+\.\d+ bits/dim by \d+ network calls",
    "own_sampler": r"AdamsBashforth\(\): 2 calls, mean distance to the exact flow \d\.\d+",
}
FURTHER = {"evaluate_in_python": ["--images", "70"], "likelihood": ["--images", "2"]}
OWN_TESTS = ["paint_a_hat", "train_own_images"]


def test_every_example_has_a_test() -> None:
    assert sorted([*LOOPS, *SAYS, *OWN_TESTS]) == sorted(
        path.stem for path in (ROOT / "examples").glob("*.py")
    )


@pytest.fixture
def run_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """The lines that an example prints, run in a temporary folder."""

    def run(name: str, *arguments: str) -> list[str]:
        path = ROOT / "examples" / f"{name}.py"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("name", LOOPS)
def test_training_example_runs(name: str, run_example: Callable[..., list[str]]) -> None:
    *steps, last = run_example(name, "--steps", "2")
    assert [line.split()[0] for line in steps] == ["1", "2"]
    assert last.startswith("sampled (10, 1, ")


@pytest.mark.parametrize("name", SAYS)
def test_example_says_what_it_found(name: str, run_example: Callable[..., list[str]]) -> None:
    lines = run_example(name, "--steps", "2", *FURTHER.get(name, []))
    assert any(re.fullmatch(SAYS[name], line) for line in lines), lines


def test_a_folder_of_images_is_trained_on(tmp_path: Path, run_example: Callable[..., list[str]]) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            picture = np.full((20, 24, 3), 20 * number, dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / name / f"{number}.png")
    lines = run_example("train_own_images", "photos", "--size", "16", "--steps", "2", "--run", "run")
    assert lines[0].endswith("2 classes: cats (6), dogs (6)")
    assert lines[-1] == f"wrote {Path('run', 'samples.png')}"
    assert (tmp_path / "run" / "samples.png").stat().st_size > 0


def test_hats_are_painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a model that has hardly learnt anything: what is kept is kept by the sampler."""
    small = {
        "net.hidden": 32,
        "net.depth": 1,
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
