"""A checkpoint becomes an ordinary run: it describes itself, holds the same weights, and is written whole or
not at all.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import Golden, fork, relative_error

import scorefield as sf
from scorefield.interop import cards, ddpm, guided_diffusion, importing, improved_diffusion, ncsn
from scorefield.interop.cards import Card, names_sha256
from scorefield.interop.fit import shapes_of
from scorefield.interop.importing import import_run
from scorefield.planning.facts import info_facts
from scorefield.runs.build import build_objective, build_sampling, read_run
from scorefield.runtime.errors import InputError
from scorefield.store.run_folder import RunFolder

UNET = {
    "image_size": 16,
    "num_channels": 32,
    "channel_mult": "1,2,1",
    "num_res_blocks": 1,
    "attention_resolutions": "8,4",
}
UNET |= {
    "num_heads": 2,
    "class_cond": True,
    "learn_sigma": True,
    "diffusion_steps": 40,
    "noise_schedule": "cosine",
}
NCSN = {"image_size": 8, "channels": 1, "ngf": 8, "num_classes": 10, "sigma_begin": 1, "sigma_end": 0.01}
DDPM = {
    "image_size": 8,
    "ch": 32,
    "ch_mult": "2,1",
    "num_res_blocks": 1,
    "attn_resolutions": "4",
    "var_type": "fixedsmall",
}
CASES: dict[str, Any] = {
    "guided-diffusion": ("C01_unet_guided_0", UNET),
    "ncsn": ("C11_cond_refinenet_dilated", NCSN),
    "ddpm": ("C12_unet_ddim", DDPM),
}


def golden_file(folder: Path, case: str) -> tuple[Path, dict]:
    """The case's weights as a file, and the weights."""
    golden = Golden(case)
    state = {name.removeprefix("state_dict."): golden[name] for name in golden.names("state_dict.")}
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors", state


@pytest.mark.parametrize("origin", CASES)
def test_an_imported_run_is_an_ordinary_one(tmp_path, origin) -> None:
    case, flags = CASES[origin]
    path, state = golden_file(tmp_path, case)
    import_run(origin, path, tmp_path / "run", flags=flags)
    recipe, spec = read_run(tmp_path / "run")
    model = sf.load(tmp_path / "run")
    assert {f"net.{name}": value for name, value in state.items()}.keys() == load_file(
        tmp_path / "run" / "model.safetensors"
    ).keys()
    assert all(torch.equal(value, model.net.state_dict()[name]) for name, value in state.items())  # type: ignore[attr-defined]
    assert spec == model.data
    sampling = build_sampling(recipe.sampling, model)
    assert (
        sampling.sampler.calls(sampling.grid.tolist())
        == {"guided-diffusion": 40, "ncsn": 1000, "ddpm": 1000}[origin]
    )
    assert build_objective(recipe, model).config["kind"] == recipe.objective["kind"]
    assert recipe.trained_on.source == f"the {origin} checkpoint model.safetensors"
    golden = Golden(case)
    x, t = golden["in.x"].double(), golden["in.y"] if origin == "ncsn" else golden["in.t"]
    labels = [golden["in.y"]] if origin == "guided-diffusion" else []
    output = model.double().net(x, t, *labels)
    assert relative_error(output, golden["out64.output"]) < 1e-9


def test_improved_diffusion_s_run(tmp_path) -> None:
    """Its noise input and T are not guided-diffusion's, whose network it shares."""
    flags = {
        "image_size": 32,
        "num_channels": 32,
        "num_res_blocks": 1,
        "diffusion_steps": 40,
        "sigma_small": True,
    }
    shapes = shapes_of(improved_diffusion.describe(flags, {}).model.net.state_dict())  # type: ignore[attr-defined]
    state = {name: torch.full(shape, 0.01) for name, shape in shapes.items()}
    save_file(state, tmp_path / "model.safetensors")
    import_run("improved-diffusion", tmp_path / "model.safetensors", tmp_path / "run", flags=flags)
    model = sf.load(tmp_path / "run")
    assert (model.noise_input, model.process.T, model.variance) == ("scaled", 40, None)
    assert read_run(tmp_path / "run")[0].sampling.sampler == {"kind": "ancestral", "variance": "lower"}


def test_sampling_of_the_originals() -> None:
    """NCSN: uniform start, 100 updates a level, not clipped; DDPM: "fixedsmall" is the lower variance, and
    its steps clip.
    """
    of_ncsn, of_ddpm = ncsn.describe(NCSN, {}).sampling, ddpm.describe(DDPM, {}).sampling
    assert (of_ncsn["start"], of_ncsn["repeats"], of_ncsn["clip"]) == ("uniform", 100, False)
    assert of_ddpm == {"sampler": {"kind": "ancestral", "variance": "lower"}, "grid": "full", "clip": True}


def test_a_classifier_s_run(tmp_path) -> None:
    flags = {
        "image_size": 64,
        "classifier_width": 64,
        "classifier_depth": 1,
        "classifier_attention_resolutions": "8",
    }
    shapes = shapes_of(guided_diffusion.describe_classifier(flags, {}).model.net.state_dict())  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "c.pt")
    import_run("guided-diffusion", tmp_path / "c.pt", tmp_path / "run", flags=flags, classifier=True)
    model = sf.load(tmp_path / "run")
    assert isinstance(model, sf.NoisyClassifier)
    assert all(torch.equal(value, model.net.state_dict()[name]) for name, value in state.items())  # type: ignore[attr-defined]
    assert read_run(tmp_path / "run")[0].objective == {"kind": "classifier"}
    assert model(torch.zeros(1, 3, 64, 64), 7).shape == (1, 1000)
    facts = info_facts(str(tmp_path / "run"))
    assert facts["imported_from"].startswith("the guided-diffusion checkpoint c.pt, sha256:")
    assert "trained_on" not in facts
    with pytest.raises(InputError, match="a model of images in the flags"):
        import_run("guided-diffusion", tmp_path / "c.pt", tmp_path / "x", flags={"image_size": 64})
    with pytest.raises(InputError, match="ncsn has no classifiers"):
        import_run("ncsn", tmp_path / "c.pt", tmp_path / "x", flags=NCSN, classifier=True)


@pytest.fixture
def small_cards(monkeypatch) -> dict:
    """Two published checkpoints of the golden network's size; they differ in what no file tells."""
    state = guided_diffusion.describe(UNET, {"label_emb.weight": (10, 128)}).model.net.state_dict()  # type: ignore[attr-defined]
    digest = names_sha256(shapes_of(state))
    flags = {"first": UNET, "second": UNET | {"use_new_attention_order": True, "noise_schedule": "linear"}}
    known = tuple(
        Card("guided-diffusion", (f"{name}.pt",), value, 0, len(state), digest)
        for name, value in flags.items()
    )
    monkeypatch.setattr(cards, "cards", lambda: known)
    return flags


def test_a_card_gives_the_flags(tmp_path, small_cards) -> None:
    path, _ = golden_file(tmp_path, "C01_unet_guided_0")
    imported = import_run("guided-diffusion", path, tmp_path / "a", card="second.pt")
    assert imported.name == read_run(tmp_path / "a")[0].name == "second"
    assert sf.load(tmp_path / "a").net.config["attention_order"] == "new"  # type: ignore[attr-defined]
    changed = import_run(
        "guided-diffusion", path, tmp_path / "b", card="second", flags={"timestep_respacing": "4,4"}
    )
    assert changed.sampling["grid"] == "4,4"
    assert sf.load(tmp_path / "b").net.config["attention_order"] == "new"  # type: ignore[attr-defined]


def test_what_no_file_tells_is_said(tmp_path, small_cards) -> None:
    path, _ = golden_file(tmp_path, "C01_unet_guided_0")
    with pytest.raises(
        InputError, match="give card or flags; its parameter names and shapes match the card first or second"
    ):
        import_run("guided-diffusion", path, tmp_path / "a")
    assert import_run("guided-diffusion", path, tmp_path / "a", flags=small_cards["first"]).notes == ()
    other = small_cards["first"] | {"use_new_attention_order": True}
    notes = import_run("guided-diffusion", path, tmp_path / "b", flags=other).notes
    assert (
        notes[0]
        == "the card first has the same names and shapes and differs in attention_order, which cannot be read from the file"
    )
    assert "the card second" in notes[1]
    assert "process" in notes[1]


def test_a_wrong_card_is_explained_with_the_right_one(tmp_path, small_cards, monkeypatch) -> None:
    path, _ = golden_file(tmp_path, "C01_unet_guided_0")
    known = cards.cards()
    wrong = Card("guided-diffusion", ("wrong.pt",), UNET | {"num_res_blocks": 2}, 0, 0, "")
    monkeypatch.setattr(cards, "cards", lambda: (*known, wrong))
    with pytest.raises(
        InputError,
        match=r"num_res_blocks is 1 in the file but 2 in the flags; its parameter names .* first or second",
    ):
        import_run("guided-diffusion", path, tmp_path / "a", card="wrong")
    with pytest.raises(InputError, match="no card has these parameter names and shapes"):
        import_run("ddpm", golden_file(tmp_path, "C12_unet_ddim")[0], tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "fault", [InputError("no space left on device"), RuntimeError("of torch"), KeyboardInterrupt("by hand")]
)
@pytest.mark.parametrize("there", [False, True])
def test_a_run_is_written_whole_or_not_at_all(tmp_path, monkeypatch, fault, there) -> None:
    path, _ = golden_file(tmp_path, "C12_unet_ddim")
    run = tmp_path / "run"
    if there:
        run.mkdir()
    before = set(tmp_path.rglob("*"))

    def half(target: Path, tensors: dict) -> None:
        target.write_bytes(b"half")
        raise fault

    monkeypatch.setattr(importing, "save_weights", half)
    with pytest.raises(type(fault), match=str(fault)):
        import_run("ddpm", path, run, flags=DDPM)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("there", [False, True])
def test_an_import_that_was_killed_is_no_run_and_is_made_again(tmp_path, monkeypatch, there) -> None:
    path, _ = golden_file(tmp_path, "C12_unet_ddim")
    run = tmp_path / "run"
    if there:
        run.mkdir()
    before = set(os.listdir(tmp_path))
    pid = fork()
    if pid == 0:
        monkeypatch.setattr(RunFolder, "write_config", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        import_run("ddpm", path, run, flags=DDPM)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    left = [file for file in tmp_path.rglob("*") if ".partial" in str(file)]
    assert left
    assert not (run / "config.toml").exists()
    import_run("ddpm", path, run, flags=DDPM)
    assert sorted(os.listdir(run)) == ["config.toml", "model.safetensors"]
    assert set(os.listdir(tmp_path)) == before | {"run"}


def test_the_run_must_be_free_before_anything_is_read(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("")
    with pytest.raises(InputError, match="already holds a run"):
        import_run("ddpm", tmp_path / "no such file", tmp_path / "run", flags=DDPM)
    with pytest.raises(InputError, match="got 'guided-difusion', did you mean"):
        import_run("guided-difusion", tmp_path / "no such file", tmp_path / "other")
