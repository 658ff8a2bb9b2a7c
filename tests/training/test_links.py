"""Fixed names in a run's folder: what others put there is not written through, emptied or deleted."""

import json
import os
import shutil

import pytest
from support import call

import scorefield as sf
from scorefield.runs.open_training import next_run
from scorefield.runs.recipe import read_recipe, with_overrides
from scorefield.store.run_folder import fitting_name
from scorefield.training import checkpoint

GO_ON = ["train", "toy-moons", "--resume", "--steps", 4, "--device", "cpu"]


@pytest.fixture
def run(tiny_run, tmp_path):
    return tiny_run.copy(tmp_path / "run", "toy-moons", "training.log_every=1")


@pytest.fixture
def outside(tmp_path):
    """Files of the user's own, which no command may touch."""
    folder = tmp_path / "outside"
    (folder / "step-1").mkdir(parents=True)
    (folder / "step-00000001").mkdir()
    for name in ("thesis.tex", "step-1/weights", "step-00000001/weights", ".a.partial"):
        (folder / name).write_text("mine")
    yield folder
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == dict.fromkeys(
        ("thesis.tex", "step-1/weights", "step-00000001/weights", ".a.partial"), "mine"
    )


def linked(path, target):
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "checkpoints"])
def test_training_refuses_links(capsys, run, outside, name):
    linked(run / name, outside if name == "checkpoints" else outside / "thesis.tex")
    status, _, err = call(capsys, *GO_ON, "--run", run)
    assert status == 1
    assert "symbolic link" in err
    assert (run / name).is_symlink()


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("samples", ["sample", "-n", 2, "--steps", 20]),
        ("figures", ["plot"]),
    ],
)
def test_commands_refuse_folders_that_are_links(capsys, run, outside, folder, command):
    linked(run / folder, outside)
    status, _, err = call(capsys, command[0], run, *command[1:])
    assert status == 1
    assert f"{folder} is a symbolic link" in err


def test_results_are_not_added_to_what_a_link_points_to(outside, tmp_path):
    from scorefield.evaluation.metric_value import append_line

    (tmp_path / "results.jsonl").symlink_to(outside / "thesis.tex")
    with pytest.raises(sf.InputError, match="symbolic link"):
        append_line(tmp_path / "results.jsonl", {"value": 1})


def test_a_figure_takes_the_place_of_a_link(capsys, run, outside):
    (run / "figures").mkdir()
    (run / "figures" / "plane.png").symlink_to(outside / "thesis.tex")
    assert call(capsys, "plot", run)[0] == 0
    assert not (run / "figures" / "plane.png").is_symlink()


def test_pruning_leaves_what_is_not_ours(run, outside):
    """Other names, links, and folders without a manifest of ours, also where their name is a checkpoint's."""
    folder = run / "checkpoints"
    for name in ("step-1", "step-000000001", "step-٣", "step-00000001.bak", "notes"):
        (folder / name).mkdir()
    (folder / "step-00000001").symlink_to(outside / "step-00000001")
    foreign = {
        "step-00000000": None,
        "step-00000003": "[]",
        "step-00000004": '{"state.json"',
        "step-00000005": "{}",
    }
    shutil.rmtree(folder / "step-00000000", ignore_errors=True)
    for name, manifest in foreign.items():
        (folder / name).mkdir()
        (folder / name / "mine").write_text("")
        if manifest is not None:
            (folder / name / "manifest.json").write_text(manifest)
    os.mkfifo(folder / "step-00000003" / "state.json")
    before = set(os.listdir(folder))
    saved = checkpoint.save(folder, 100, {}, {"step": 100})
    checkpoint.prune(folder, saved, keep=1)
    assert before - set(os.listdir(folder)) == {"step-00000002"}  # the run's own


def test_a_checkpoint_of_another_step_is_damaged(run):
    """A folder that was renamed or copied: its state says which step it is of."""
    folder = run / "checkpoints"
    last = checkpoint.newest(folder)
    shutil.copytree(last.path, folder / "step-00000007")
    found = checkpoint.newest(folder)
    assert found.path == last.path
    assert found.skipped == ("step-00000007 (state.json is of step 2)",)


def rewritten(path, state):
    """The checkpoint with another state, and a manifest that vouches for it."""
    (path / "state.json").write_text(state)
    (path / "manifest.json").unlink()
    checkpoint._write_manifest(path)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": None},
        {"skipped": "many"},
        {"in_a_row": -1},
        {"lr_factor": 1e400},
        {"lr_factor": [1]},
        {"epoch_length": True},
    ],
)
def test_a_state_without_what_it_needs_is_one_line(capsys, run, change):
    last = checkpoint.newest(run / "checkpoints").path
    state = json.loads((last / "state.json").read_text()) | change
    rewritten(last, json.dumps({name: value for name, value in state.items() if value is not None}))
    status, _, err = call(capsys, *GO_ON, "--run", run)
    assert status == 1
    assert "step-00000002" in err
    assert next(iter(change)) in err


@pytest.mark.parametrize("name", ["weights", "ema", "optimizer"])
def test_a_checkpoint_without_a_group_is_one_line(capsys, run, name):
    last = checkpoint.newest(run / "checkpoints").path
    (last / f"{name}.safetensors").unlink()
    rewritten(last, (last / "state.json").read_text())
    status, _, err = call(capsys, *GO_ON, "--run", run)
    assert status == 1
    assert f"step-00000002: cannot be read ('{name}' is missing)" in err


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", "[" * 20_000),
        ("manifest.json", '{"state.json": {"bytes": ' + "9" * 5000 + "}}"),
        ("manifest.json", '{"state.json": 3}'),
        ("manifest.json", "pipe"),
        ("manifest.json", '{"state.json": {}, "../../model.safetensors": {}}'),
        ("state.json", "pipe"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(run, file, content):
    last = checkpoint.newest(run / "checkpoints").path
    copy = shutil.copytree(last, last.with_name("step-00000009"))
    (copy / file).unlink()
    os.mkfifo(copy / file) if content == "pipe" else (copy / file).write_text(content)
    found = checkpoint.newest(run / "checkpoints")
    assert found.path == last
    assert "step-00000009" in found.skipped[0]


@pytest.mark.parametrize(
    "name", ["../escape", "/abs", "..", "", "a\nb", "a\0b", "a\\b", "a" * 101, "\x1b[31m", "\u202e"]
)
def test_the_name_of_a_recipe_is_one_part_of_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sf.InputError, match="option name: must be one part of a path"):
        with_overrides(read_recipe("toy-moons"), {"name": name})
    with_overrides(read_recipe("toy-moons"), {"name": fitting_name(name)})


@pytest.mark.parametrize("name", ["**", "[a-z]", "Ω 1", "a.b", "-n"])
def test_a_name_is_no_pattern(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert with_overrides(read_recipe("toy-moons"), {"name": name}).name == name
    (tmp_path / "runs" / "abc-1").mkdir(parents=True)
    with next_run(name) as first, next_run(name) as second:
        assert (first.name, second.name) == (f"{name}-1", f"{name}-2")


def test_a_claimed_folder_goes_where_training_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claim = next_run("a")
    assert claim.__enter__().is_dir()
    assert not claim.__exit__(ValueError, ValueError(), None)
    assert os.listdir() == [], "the folder above it goes too, if it was made for it"
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError), next_run("a"):
        raise ValueError
    assert os.listdir("runs") == []
    (tmp_path / "runs").rmdir()
    (tmp_path / "runs").write_text("")
    with pytest.raises(sf.InputError, match="runs cannot be written"):
        next_run("a").__enter__()
