"""A run that is named without its parent folder."""

import pytest

import scorefield as sf


def test_a_run_named_without_runs_is_pointed_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "images-1").mkdir(parents=True)
    (tmp_path / "runs" / "images-1" / "config.toml").touch()
    with pytest.raises(sf.InputError, match=r"images-1 is not a run.*did you mean runs/images-1\?"):
        sf.Run("images-1").model()
    with pytest.raises(sf.InputError, match=r"no config\.toml$"):
        sf.Run("other").model()
