"""What `--set` accepts can be looked up: every name, with its type, default and description."""

import json
from importlib.resources import files

import pytest
from support import call

import scorefield as sf
from scorefield.runs.build import recipe_names
from scorefield.runs.recipe import Recipe, read_recipe, with_overrides
from scorefield.runs.settings import sections, settings_of

# What a kind needs so that one of its options can be set alone.
NEEDED = {
    "geometric": {"sigma_max": 1.0, "sigma_min": 0.1, "L": 3},
    "ve": {"sigma_min": 0.1, "sigma_max": 1.0},
}


@pytest.mark.parametrize("section", sections())
def test_every_name_is_described(section):
    lines = settings_of(section)
    assert sections()[section]
    for setting in lines:
        assert setting.name.startswith(section.rpartition(".")[0])
        assert setting.description, setting.name
        assert "\n" not in setting.description
        assert "kind=" in setting.name or setting.type


def test_tables_list_exactly_their_fields():
    for section in ("data", "model", "training", "sampling"):
        fields = Recipe.model_fields[section].annotation.model_fields
        assert [setting.name for setting in settings_of(section)] == [f"{section}.{name}" for name in fields]


def test_defaults_of_tables_can_be_set():
    recipe = read_recipe("digits")
    for section in ("data", "model", "training", "sampling"):
        for name, _, default, _ in settings_of(section):
            if default:
                table, _, option = name.partition(".")
                changed = getattr(with_overrides(recipe, [f"{name}={default}"]), table)
                assert getattr(changed, option) == type(changed).model_fields[option].default


def test_names_and_defaults_are_those_of_the_code():
    unet = {setting.name: setting for setting in settings_of("net.unet")}
    assert unet["net.channels"].default == "128"
    assert unet["net.channel_mult"].type == "list of number"
    assert unet["net.in_channels"].default == "from the data"
    cosine = {setting.name: setting for setting in settings_of("process.cosine")}
    assert list(cosine) == ["process.T", "process.s", "process.max_beta"]
    assert cosine["process.s"].default == "0.008"
    assert "objective.model" not in {setting.name for setting in settings_of("objective.hybrid")}
    assert settings_of("process.geometric")[0].default == "required"
    assert settings_of("training")[0] == (
        "training.steps",
        "integer",
        "10000",
        "total number of optimizer steps",
    )


def test_an_unknown_section_is_explained():
    for section, near in [("trainin", "training"), ("net.unett", "net.unet"), ("", "")]:
        with pytest.raises(sf.InputError, match=f"section must be one of.*{near}"):
            settings_of(section)


def test_the_command_prints_them(capsys):
    status, out, _ = call(capsys, "options")
    assert status == 0
    assert all(
        section in out for section in ("training", "net.unet", "process.cosine", "sampling.sampler.ddim")
    )
    assert "on [t_min, T] where" in out  # which is no markup
    status, out, _ = call(capsys, "options", "sampling.sampler.ddim")
    assert status == 0
    assert "sampling.sampler.eta" in out
    status, out, _ = call(capsys, "options", "training", "--json")
    assert json.loads(out)["options"][0]["name"] == "training.steps"
    status, _, err = call(capsys, "options", "traning")
    assert status == 1
    assert "did you mean 'training'" in err


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_printed_as_it_is(capsys, name):
    status, out, _ = call(capsys, "recipes", name)
    assert status == 0
    assert out == (files("scorefield") / "recipes" / f"{name}.toml").read_text()


def test_an_unknown_recipe_is_explained(capsys):
    status, _, err = call(capsys, "recipes", "digts")
    assert status == 1
    assert "did you mean 'digits'" in err
