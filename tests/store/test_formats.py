"""The format of files: what was written before is read, what was written later is refused."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest

import scorefield as sf
from scorefield.runs.build import read_recipe, read_run
from scorefield.store import formats
from scorefield.store.block_store import StoredSamples
from scorefield.store.formats import FORMAT, first_names, upgraded
from scorefield.store.run_folder import RunFolder
from scorefield.training import checkpoint

OLD = Path(__file__).parent.parent / "old_runs"
NEWER = f'format = {FORMAT + 1}\nscorefield = "9.1"\n'


def test_what_is_written_says_its_format(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.write_config({"net": {"kind": "mlp"}, "format": 7})
    written = tomllib.loads(folder.config.read_text())
    assert list(written) == ["format", "scorefield", "net"]
    assert (written["format"], written["scorefield"]) == (FORMAT, sf.__version__)
    assert folder.read_config() == {"net": {"kind": "mlp"}}


@pytest.mark.parametrize("text", [NEWER, 'format = "one"\n', "format = true\n", "format = -1\n"])
def test_a_newer_config_is_refused(tmp_path, text):
    shutil.copytree(OLD / "digits", tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(text + config.read_text())
    message = (
        "newer scorefield .format 2, version 9.1.*upgrade" if text == NEWER else "format must be a number"
    )
    for read in (read_run, sf.load):
        with pytest.raises(sf.InputError, match=message):
            read(tmp_path / "run")
    with pytest.raises(sf.InputError, match=message):
        read_recipe(str(config))


def test_a_newer_checkpoint_is_refused(tmp_path):
    checkpoint.save(tmp_path, 3, {}, {"step": 3, "format": FORMAT + 1})
    with pytest.raises(sf.InputError, match=r"newer scorefield .format 2"):
        checkpoint.newest(tmp_path)


def test_an_old_run_is_written_in_the_new_format(tmp_path):
    shutil.copytree(OLD / "digits", tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    before = folder.read_config()
    folder.write_config(before)
    assert tomllib.loads(folder.config.read_text())["format"] == FORMAT
    assert folder.read_config() == before


def test_stored_samples_of_any_format_are_recognised(tmp_path):
    spec, what = sf.DataSpec((2,)), {"seed": 1}
    store = StoredSamples(tmp_path / "samples", what, spec)
    store.make(0, lambda numbers: [])
    manifest = tmp_path / "samples" / "manifest.json"
    said = json.loads(manifest.read_text())
    assert (said.pop("format"), said.pop("scorefield")) == (FORMAT, sf.__version__)
    manifest.write_text(json.dumps(said))
    first = StoredSamples(tmp_path / "samples", what, spec)
    first.make(0, lambda numbers: [])
    assert first.digest == store.digest
    manifest.write_text(json.dumps({**said, "format": FORMAT + 1}))
    with pytest.raises(sf.InputError, match="newer scorefield"):
        StoredSamples(tmp_path / "samples", what, spec)


def test_old_names_are_read_and_new_ones_written(monkeypatch):
    old = {"process": {"kind": "continuous-vp", "t_min": 0.1}, "name": "x"}
    assert upgraded(old, "here") == {"process": {"kind": "vp", "t_min": 0.1}, "name": "x"}
    assert upgraded({**old, "format": 1}, "here")["process"]["kind"] == "continuous-vp"
    assert first_names(sf.process.vp().config, "process")["kind"] == "continuous-vp"
    assert first_names(sf.process.vp().config, "net")["kind"] == "vp"
    nested = {"process": {"kind": "interpolated", "discrete": {"kind": "old", "n": 1}}, "data": {"n": 2}}
    monkeypatch.setattr(formats, "RENAMED_KINDS", {"process": {"old": "new"}})
    monkeypatch.setattr(formats, "RENAMED_KEYS", {"process": {"n": "T"}})
    assert upgraded(nested, "here") == {
        "process": {"kind": "interpolated", "discrete": {"kind": "new", "T": 1}},
        "data": {"n": 2},
    }
