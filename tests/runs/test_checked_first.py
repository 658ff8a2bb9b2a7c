"""What a recipe alone shows to be wrong is refused before data are read, and leaves no folder behind."""

from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image
from support import TINY

import scorefield as sf
from scorefield.runs import open_training as module
from scorefield.runs.open_training import open_training
from scorefield.runs.recipe import read_recipe, with_overrides

UNET = ["net.channels=32", "net.blocks=1", "net.channel_mult=[1,1,1,1]", "net.attention=[]", "net.heads=1"]

# Settings of the recipe `images` -> what the error says.
WRONG = {
    "net.channels=33": "groups do not divide",
    "data.size=30": "cannot be halved 3 times",
    "net.dropout=7": "dropout",
    "net.no_such=1": "no option net.no_such",
    "process.kind=nonesuch": "process.kind",
    "process.T=0": "T",
    "model.parametrization=epsilon": "parametrization",
    "sampling.grid=nonesuch": "grid",
    "sampling.sampler.kind=nonesuch": "sampler",
    "sampling.sampler.eta=7": "must be a finite number of at least 0 and of at most 1",
    "objective.weighting=nonesuch": "weighting",
    "training.accumulation=7": "accumulation",
}


def refuse_to_read(*_: object) -> NoReturn:
    raise AssertionError("data were read")


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        Image.fromarray(np.full((64, 64, 3), 20 * i, np.uint8)).save(tmp_path / f"pictures/{i}.png")
    return str(tmp_path / "pictures")


@pytest.mark.parametrize("setting", WRONG)
def test_it_is_refused_before_data_are_read(
    setting: str, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_training_data", refuse_to_read)
    recipe = with_overrides(read_recipe("images"), {"data.source": pictures})
    recipe = with_overrides(recipe, UNET)
    with pytest.raises(sf.InputError, match=WRONG[setting]):
        open_training(with_overrides(recipe, [setting]), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", ["thesis.tex/run", "thesis.tex/a/b", "loop", "loop/run"])
def test_a_folder_that_cannot_be_made_is_refused_before_data_are_read(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_training_data", refuse_to_read)
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(sf.InputError, match=r"cannot be created: .*(thesis\.tex|loop) is not a folder"):
        open_training(read_recipe("digits"), tmp_path / folder, device="cpu")


def test_the_device_and_the_first_weights_are_looked_at_before_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_training_data", refuse_to_read)
    recipe = read_recipe("digits")
    with pytest.raises(sf.InputError, match="device"):
        open_training(recipe, tmp_path / "run", device="tpu")
    with pytest.raises(sf.InputError, match="not a run"):
        open_training(recipe, tmp_path / "run", device="cpu", init=tmp_path / "none")


def test_sizes_that_only_the_data_say_are_checked_before_the_folder_is_made(tmp_path: Path) -> None:
    images = np.zeros((20, 30, 30, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=images)
    recipe = with_overrides(
        read_recipe("images"), {"data.source": str(tmp_path / "x.npz"), "data.size": None}
    )
    recipe = with_overrides(recipe, UNET)
    with pytest.raises(sf.InputError, match="cannot be halved 3 times"):
        open_training(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_data_of_another_kind_than_expected_still_train(tmp_path: Path) -> None:
    """An .npz says its size itself: what is expected of it before it is read refuses nothing."""
    np.savez(tmp_path / "x.npz", images=np.zeros((20, 48, 48, 3), np.uint8))
    recipe = with_overrides(
        read_recipe("images"),
        {"data.source": str(tmp_path / "x.npz"), "data.size": None, "model.low_res": 24},
    )
    trainer = open_training(
        with_overrides(recipe, [*UNET, "training.batch_size=2"]), tmp_path / "run", device="cpu"
    )
    assert trainer.data.spec.shape == (3, 48, 48)
    trainer.close()


def test_weights_of_another_network_are_named(tiny_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = tiny_run("digits", steps=3)
    recipe = with_overrides(read_recipe("digits"), [*TINY, "net.channels=64"])
    with pytest.raises(sf.InputError) as error:
        open_training(recipe, tmp_path / "run", device="cpu", init=run)
    said = str(error.value)
    assert str(run) in said
    assert "of another shape" in said
    assert "instead of" in said
    assert len(said) < 600
    assert not (tmp_path / "run").exists()
