"""What a run trained from Python says of itself."""

import tomllib

import pytest

import scorefield as sf


@pytest.mark.parametrize(("T", "expected"), [(1000, 50), (20, None)])
def test_a_long_process_is_sampled_in_50_steps(tmp_path, T, expected):
    """Unless the command is told otherwise; a short process is sampled at every level.  [DDIM Table 1]"""
    data = sf.data.toy("moons", n=64)
    model = sf.Denoiser(sf.nets.MLP(2, hidden=8, layers=1), sf.process.cosine(T), "eps", data=data.spec)
    for _ in sf.train(sf.objectives.Simple(model), data, steps=1, batch_size=8, run=tmp_path / "run"):
        pass
    said = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert said.get("sampling", {}).get("steps") == expected
