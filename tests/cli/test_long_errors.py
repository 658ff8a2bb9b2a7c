"""An error line stays a line that a person reads, whatever was typed."""

from support import call


def test_a_setting_of_many_characters_is_cut(capsys, tmp_path):
    status, _, err = call(capsys, "train", "toy-moons", "--run", tmp_path / "run", "--set", "x" * 5000)
    assert status
    assert err.startswith("error: ")
    assert " … " in err
    assert len(err) < 2100
