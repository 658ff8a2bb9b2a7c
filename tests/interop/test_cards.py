"""The published checkpoints' cards against the reference list: flags, defaults, and networks built without
allocating.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from scorefield.interop import ddpm, guided_diffusion, improved_diffusion
from scorefield.interop.cards import card, card_names, cards, cards_of, names_sha256
from scorefield.interop.fit import Original, shapes_of
from scorefield.runs.build import build_net, build_process, expected_data, read_recipe
from scorefield.runtime.errors import InputError

REFERENCE = json.loads((Path(__file__).parents[1] / "golden" / "checkpoints.json").read_text())
DESCRIBE: dict[str, Any] = {
    "guided-diffusion": guided_diffusion.describe,
    "improved-diffusion": improved_diffusion.describe,
    "ddpm": ddpm.describe,
}
# What the flags of two cards say here and their READMEs leave to other places: see the note in cards.json.
ADDED = {
    "64x64_classifier.pt": {"noise_schedule": "cosine"},
    "upsample_cond_500K.pt": {"large_size": 256, "small_size": 64},
}


def opened(flags: dict) -> dict:
    """ermongroup's flags stand in sections."""
    return {
        name: value
        for key, flag in flags.items()
        for name, value in (flag.items() if isinstance(flag, dict) else [(key, flag)])
    }


CARDS = [f"{entry.origin}: {entry.names[0]}" for entry in cards()]
RECIPES = {
    "imagenet64-adm": "64x64_diffusion",
    "imagenet128-adm": "128x128_diffusion",
    "imagenet256-adm": "256x256_diffusion",
    "imagenet512-adm": "512x512_diffusion",
    "lsun256-adm": "lsun_bedroom",
    "imagenet64-256-upsampler": "64_256_upsampler",
    "imagenet128-512-upsampler": "128_512_upsampler",
}


@cache
def described(name: str) -> Original:
    """What the flags of a card, "origin: name", describe; its network is on the meta device."""
    entry = card(*name.split(": "))
    describe = guided_diffusion.describe_classifier if entry.is_classifier else DESCRIBE[entry.origin]
    return describe(entry.flags, {})


def test_the_cards_are_the_reference_list() -> None:
    assert len(cards()) == len(REFERENCE["checkpoints"]) == 23
    for entry, (title, expected) in zip(cards(), REFERENCE["checkpoints"].items(), strict=True):
        origin, files = title.split(": ")
        assert (entry.origin, ", ".join(entry.files)) == (origin.split()[0], files)
        assert entry.flags == {**opened(expected["flags"]), **ADDED.get(files, {})}  # type: ignore[dict-item]
        numbers = (expected["parameters"], expected["tensors"], expected["names_sha256"])
        assert (entry.parameters, entry.tensors, entry.names_sha256) == numbers


@pytest.mark.parametrize("name", CARDS)
def test_a_card_s_network_has_its_parameters_tensors_and_names(name: str) -> None:
    entry, state = card(*name.split(": ")), described(name).model.net.state_dict()
    assert all(value.is_meta for value in state.values())
    assert sum(value.numel() for value in state.values()) == entry.parameters
    assert len(state) == entry.tensors
    assert names_sha256(shapes_of(state)) == entry.names_sha256


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("guided-diffusion", guided_diffusion.Flags),
        ("improved-diffusion", improved_diffusion.Flags),
        ("guided-diffusion classifier", guided_diffusion.ClassifierFlags),
    ],
)
def test_defaults_are_those_of_the_scripts(name: str, table) -> None:
    expected = REFERENCE["defaults"][name]
    own = table()
    assert {flag: getattr(own, flag) for flag in expected} == {
        flag: getattr(table(**{flag: v}), flag) for flag, v in expected.items()
    }
    further = set(table.model_fields) - set(expected)
    assert further <= {"large_size", "small_size", "diffusion_steps", "noise_schedule"}


def test_the_models_are_what_the_papers_say() -> None:
    """Variance head, noise input, schedule, classes and attention order: what the count of parameters does
    not show.
    """
    model = described("guided-diffusion: 64x64_diffusion").model
    assert (model.parametrization, model.variance, model.noise_input) == ("eps", "range", "index")
    assert model.process.config == {"kind": "cosine", "T": 1000}
    assert (model.data.shape, model.data.num_classes, model.num_classes) == ((3, 64, 64), 1000, 1000)
    assert model.net.config["attention_order"] == "new"
    lsun = described("guided-diffusion: lsun_bedroom").model
    assert lsun.num_classes == lsun.data.num_classes == 0
    assert lsun.net.config["attention_order"] == "legacy"
    iddpm = described("improved-diffusion: cifar10_uncond_50M_500K").model
    assert (iddpm.noise_input, iddpm.process.T, iddpm.process.config["kind"]) == ("scaled", 4000, "cosine")
    upsampler = described("improved-diffusion: upsample_cond_500K").model
    assert upsampler.process.config == {"kind": "linear", "T": 4000, "start": 0.1 / 4000, "end": 20 / 4000}
    assert upsampler.net.config["low_res"] is True
    assert upsampler.data.shape == (3, 256, 256)
    assert described("guided-diffusion: 64x64_classifier").model.process.config["kind"] == "cosine"


@pytest.mark.parametrize(
    ("name", "sampling", "objective"),
    [
        ("guided-diffusion: 256x256_diffusion", "learned", {"kind": "hybrid", "vlb_scale": 0.001}),
        (
            "improved-diffusion: imagenet64_cond_270M_250K",
            "learned",
            {"kind": "hybrid", "vlb_scale": 1 / 4000},
        ),
        ("improved-diffusion: cifar10_uncond_50M_500K", "learned", {"kind": "hybrid", "vlb_scale": 0.001}),
        ("improved-diffusion: cifar10_uncond_vlb_50M_500K", "learned", {"kind": "vlb"}),
        ("ddpm: church", "lower", {"kind": "simple"}),
        ("ddpm: cifar10", "upper", {"kind": "simple"}),
    ],
)
def test_sampling_and_loss_follow_the_flags(name: str, sampling: str, objective: dict) -> None:
    # [Improved DDPM §3.4]
    original = described(name)
    assert original.sampling == {
        "sampler": {"kind": "ancestral", "variance": sampling},
        "grid": "full",
        "clip": True,
    }
    assert original.objective.items() >= objective.items()


def test_cards_are_found_by_file_and_by_weights() -> None:
    assert card("ddpm", "cifar10.yml") is card("ddpm", "cifar10")
    assert {"lsun_bedroom", "lsun_cat", "lsun_horse"} <= set(card_names("guided-diffusion"))
    state = described("guided-diffusion: lsun_bedroom").model.net.state_dict()
    assert cards_of("guided-diffusion", shapes_of(state)) == [
        "256x256_diffusion_uncond",
        "lsun_bedroom",
        "lsun_cat",
        "lsun_horse",
    ]
    with pytest.raises(InputError, match=r"did you mean '64x64_diffusion'.*128_512_upsampler"):
        card("guided-diffusion", "64x64_difusion.pt")
    with pytest.raises(InputError, match="none of this origin, give flags"):
        card("ncsn", "cifar10")


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_of_adm_are_the_published_networks(name: str) -> None:
    """Every option of the network, the process, and what the network's output means."""
    recipe, original = read_recipe(name), described(f"guided-diffusion: {RECIPES[name]}").model
    process = build_process(recipe)
    with torch.device("meta"):
        net = build_net(recipe, expected_data(recipe), process)
    sizes = ("channel_mult", "attention")
    assert {k: v for k, v in net.config.items() if k not in sizes} == {
        k: v for k, v in original.net.config.items() if k not in sizes
    }
    assert all(list(net.config[size]) == list(original.net.config[size]) for size in sizes)
    assert sum(p.numel() for p in net.parameters()) == card("guided-diffusion", RECIPES[name]).parameters
    assert process.config == original.process.config
    assert recipe.model.model_dump().items() >= original.config.items()
    assert recipe.data.size == original.data.shape[-1]
