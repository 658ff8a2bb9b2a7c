"""What the recipe `images` chooses for the device and for the size of the images, and that a run has it as plain values."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import call

import scorefield as sf
from scorefield.data import open_source
from scorefield.data.images.own_size import usable_side
from scorefield.planning import make_plan
from scorefield.planning.facts import cost
from scorefield.runs.build import meta_model, read_recipe, recipe_names, with_overrides
from scorefield.runs.recipe import Recipe


def spec(side: int, classes: int = 0) -> sf.DataSpec:
    return sf.DataSpec((3, side, side), classes=tuple(map(str, range(classes))), bins=256)


def parameters(recipe: Recipe, data: sf.DataSpec) -> int:
    return sum(p.numel() for p in meta_model(recipe, data).parameters())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("side", [8, 12, 28, 32, 40, 56, 64, 128])
def test_every_size_has_a_network_that_takes_it(side: int, device: str) -> None:
    """Also sizes that can be halved twice only, below 32 pixels; about 3 million parameters on a CPU. Nothing is computed."""
    data = spec(side, classes=3)
    chosen = read_recipe("images").on(device, data)
    assert not chosen.variants
    model = meta_model(chosen, data)
    with torch.no_grad():
        model.network_inputs(1).call(model.net, "meta")
    count = sum(p.numel() for p in model.parameters())
    assert 2e6 < count < 4e6 if device == "cpu" else 6e6 < count < 9e6


def test_the_larger_the_images_the_fewer_operations_a_pixel() -> None:
    recipe = read_recipe("images")
    costs = [cost(meta_model(recipe.on("cpu", spec(side)), spec(side))).training for side in (16, 32, 64)]
    assert costs[0] > costs[1] / 4 > costs[2] / 16


def test_what_is_set_by_hand_is_kept() -> None:
    recipe = with_overrides(read_recipe("images"), ["net.channels=64", "training.batch_size=8"])
    there = recipe.on("cpu", spec(16))
    assert there.net["channels"] == 64
    assert there.training.batch_size == 8
    assert there.net["channel_mult"] == [1, 2, 4]  # which was not set
    assert there.training.lr == read_recipe("images").on("cpu", spec(16)).training.lr
    net = {"kind": "unet", "channels": 32, "blocks": 1}
    assert with_overrides(read_recipe("images"), {"net": net}).on("cpu", spec(16)).net == net
    again = with_overrides(recipe, ["net.blocks=3"])  # the earlier settings stay
    assert again.on("cpu", spec(16)).net["channels"] == 64
    with pytest.raises(sf.InputError, match=r"no option training\.batch"):
        with_overrides(recipe, {"variants": [{"training": {"batch": 8}}]}).on("cpu", spec(16))
    with pytest.raises(sf.InputError, match=r"no option variants\.0\.up; there are device, up_to"):
        with_overrides(recipe, {"variants": [{"up": 8}]})
    with pytest.raises(sf.InputError, match=r"option variants\.0\.up_to: input should be greater"):
        with_overrides(recipe, {"variants": [{"up_to": 0}]})
    with pytest.raises(sf.InputError, match="variants"):
        with_overrides(recipe, ["variants=5"])
    with pytest.raises(sf.InputError, match="variants"):
        with_overrides(recipe, ["variants.net.channels=5"])


def test_recipes_without_variants_stay_as_they_are() -> None:
    for name in set(recipe_names()) - {"images"}:
        recipe = read_recipe(name)
        if not recipe.variants:
            assert recipe.on("cpu", spec(16)) == recipe.on("cuda", spec(64)) == recipe


def test_the_plan_is_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorefield.planning.estimate.step_memory", lambda *_: 10**8)  # which takes seconds
    recipe, data = read_recipe("images"), spec(32)
    for device in ("cpu", "cuda"):
        found = make_plan("images", device=device, flops=1e12)
        chosen = recipe.on(device, data)
        assert found.parameters == parameters(chosen, data)
        assert found.batch == chosen.training.batch_size
        assert found.steps == chosen.training.steps


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(16, 16)] * 3, 16),
        ([(8, 8)], 8),
        ([(64, 64)] * 2, 64),
        ([(28, 28)], 28),
        ([(30, 30)], 28),
        ([(33, 33)], 32),
        ([(63, 63)], 56),
        ([(7, 7)], 32),
        ([(65, 65)], 32),
        ([(16, 16), (16, 16), (17, 17)], 32),
        ([(16, 12)] * 3, 32),
        ([(12, 16)], 32),
        ([], 32),
    ],
)
def test_the_own_size_of_images(sizes: list[tuple[int, int]], side: int) -> None:
    assert usable_side(sizes) == side


def test_sizes_are_read_only_as_far_as_they_are_needed() -> None:
    sizes = iter([(16, 16), (400, 300), (16, 16)])
    assert usable_side(sizes) == 32
    assert list(sizes) == [(16, 16)]


def folder(path: Path, side: int, classes: tuple[str, ...] = ("cats", "dogs"), count: int = 6) -> Path:
    rng = np.random.default_rng(side)
    for name in classes or (".",):
        (path / name).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(image).save(path / name / f"{i}.png")
    return path


def test_a_wrong_size_is_named_by_its_option() -> None:
    for size, said in {"0": "greater than or equal to 1, got 0", "big": "a valid integer.*got 'big'"}.items():
        with pytest.raises(sf.InputError, match=f"option data.size: input should be {said}"):
            with_overrides(read_recipe("images"), [f"data.size={size}"])


def test_auto_asks_each_kind_of_data(tmp_path: Path) -> None:
    def side(source: object) -> int:
        return open_source(str(source), size="auto").spec.shape[-1]

    assert side(folder(tmp_path / "a", 16)) == 16
    (tmp_path / "a" / "cats" / "broken.png").write_bytes(b"x")
    assert side(tmp_path / "a") == 16
    Image.new("RGB", (50, 40)).save(tmp_path / "a" / "cats" / "wide.png")
    with pytest.raises(sf.InputError, match="are smaller than 32×32"):
        side(tmp_path / "a")
    for name, shape in (("b", (5, 24, 24)), ("c", (5, 24, 24, 3)), ("d", (5, 40, 36)), ("e", (5, 90, 90, 3))):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros(shape, np.uint8))
    assert [side(tmp_path / f"{name}.npz") for name in "bcde"] == [24, 24, 32, 32]
    np.savez(tmp_path / "f.npz", np.zeros((5, 16, 16), np.uint8))
    assert side(tmp_path / "f.npz") == 16
    np.savez(tmp_path / "g.npz", images=np.zeros(5, np.uint8))
    with pytest.raises(sf.InputError, match="must be"):
        side(tmp_path / "g.npz")
    with pytest.raises(sf.InputError, match="no such file"):
        side(tmp_path / "none.npz")
    assert side("digits") == 8
    assert side("toy:moons") == 2


def test_the_choice_is_said_and_written_as_plain_values(capsys, tmp_path: Path) -> None:
    data, run = folder(tmp_path / "data", 16), tmp_path / "run"
    words = ["--steps", 1, "--device", "cpu", "--set", "training.batch_size=4"]
    status, _, err = call(capsys, "train", "images", "--data", data, "--run", run, *words)
    assert status == 0, err
    assert "for these images on cpu: net.channels = 32, net.channel_mult = [1, 2, 4]" in err
    assert "batch_size" not in err  # which was set by hand
    config = tomllib.loads((run / "config.toml").read_text())
    assert "auto" not in str({**config, "training": {**config["training"], "precision": ""}})
    assert "variants" not in config
    assert config["data"]["size"] == 16
    assert config["trained_on"]["shape"] == [3, 16, 16]
    chosen = read_recipe("images").on("cpu", spec(16, 2))
    assert {name: config["net"][name] for name in chosen.net} == chosen.net
    asked = {**chosen.training.model_dump(), "steps": 1, "batch_size": 4}
    assert config["training"] == asked
    assert sf.Run(run).model("cpu").null_label == 2
    out = tmp_path / "x.npz"
    sampling = ["sample", run, "-n", 1, "--steps", 2, "--device", "cpu", "--out", out]
    assert call(capsys, *sampling, "--label", "dogs", "--guidance", 2)[0] == 0
    assert np.load(out)["labels"].tolist() == [1]
    # As a recipe it is the same anywhere, on this data and on others.
    again = read_recipe(str(run / "config.toml"))
    assert again.on("cuda", spec(64)) == again


def test_images_of_64_pixels_without_classes(capsys, tmp_path: Path) -> None:
    data, run = folder(tmp_path / "data", 64, classes=()), tmp_path / "run"
    words = ["--steps", 1, "--device", "cpu", "--set", "training.batch_size=2"]
    status, _, err = call(capsys, "train", "images", "--data", data, "--run", run, *words)
    assert status == 0, err
    assert "the model is unconditional" in err
    assert sf.Run(run).data_spec.shape == (3, 64, 64)
    assert sf.Run(run).recipe.net["channel_mult"] == [1, 1, 2, 4]
    assert sf.Run(run).recipe.training.label_dropout == 0
    asked = {"data.source": str(data), "data.size": 32}  # the user's own size wins
    assert with_overrides(read_recipe("images"), asked).sized().data.size == 32
