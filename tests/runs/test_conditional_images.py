"""`scorefield train images`: class-conditional where subfolders are classes, and a word on the choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import call, tiny

import scorefield as sf
from scorefield.runs.build import build_model
from scorefield.runs.recipe import read_recipe, with_overrides

SMALL = tiny("images", "data.size=8", "training.warmup=0")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("animals", "big, red flags"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(
                tmp_path / "data" / name / f"{i}.png"
            )
    return tmp_path / "data"


def test_subfolders_are_classes_that_can_be_asked_for(capsys, tmp_path, classes):
    run = tmp_path / "run"
    status, _, err = call(capsys, "train", "images", "--data", classes, "--run", run, "--steps", 2, *SMALL)
    assert status == 0, err
    assert "2 classes: animals (" in err
    assert "class-conditional, as the data have 2 classes, and 10% of the labels are dropped" in err
    assert "to 8×8, 10 of them cropped" in err
    model = sf.Run(run).model("cpu")
    assert (model.num_classes, model.null_label) == (2, 2)
    out = tmp_path / "a.npz"
    words = ["sample", run, "-n", 3, "--steps", 2, "--device", "cpu", "--out", out]
    status, _, err = call(capsys, *words, "--label", "big, red flags", "--guidance", 2)
    assert status == 0, err
    assert np.load(out)["labels"].tolist() == [1, 1, 1]
    status, _, err = call(
        capsys, "train", "images", "--run", run, "--resume", "--steps", 3, "--device", "cpu"
    )
    assert status == 0, err
    again = tmp_path / "again"  # the run's own description is a recipe that makes the same choice
    words = ["train", run / "config.toml", "--run", again, "--steps", 2, "--device", "cpu"]
    status, _, err = call(capsys, *words)
    assert status == 0, err
    assert sf.Run(again).model("cpu").null_label == 2


def test_without_subfolders_and_by_choice_it_is_unconditional(capsys, tmp_path, classes):
    run = tmp_path / "flat"
    data = classes / "animals"
    status, _, err = call(capsys, "train", "images", "--data", data, "--run", run, "--steps", 1, *SMALL)
    assert status == 0, err
    assert "the model is unconditional, as the data have no classes" in err
    assert sf.Run(run).model("cpu").num_classes == 0
    status, _, err = call(capsys, "sample", run, "--label", "animals", "--device", "cpu")
    assert status == 1
    assert "model.conditional=true" in err
    words = ["train", "images", "--data", classes, "--run", tmp_path / "off", "--steps", 1, *SMALL]
    status, _, err = call(capsys, *words, "--set", "model.conditional=false")
    assert status == 1
    assert "--set model.conditional=true" in err
    assert "set label_dropout to 0" in err
    off = ["--set", "model.conditional=false", "--set", "training.label_dropout=0"]
    status, _, err = call(capsys, *words, *off)
    assert status == 0, err
    assert "note: the 2 classes of the data are not used; --set model.conditional=true" in err


def test_a_run_as_a_recipe_obeys_what_is_set(tmp_path, tiny_run):
    recipe = read_recipe(str(tiny_run("digits") / "config.toml"))
    spec = sf.data.digits().spec
    assert recipe.model.conditional is None
    assert build_model(recipe, spec).num_classes == 10
    assert build_model(with_overrides(recipe, ["model.conditional=false"]), spec).num_classes == 0
    bare = with_overrides(recipe, ["net.num_classes=0"])
    assert build_model(bare, spec).num_classes == 0
    assert build_model(with_overrides(bare, ["model.conditional=true"]), spec).num_classes == 10
    with pytest.raises(sf.InputError, match=r"model.conditional"):
        with_overrides(recipe, ["model.conditional=maybe"])
