"""The Sample panel's server: frames and numbers are the library's, commands give the same bytes."""

from __future__ import annotations

import hashlib
import io
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from studio_page import Page, frame
from support import TinyRun, call

import scorefield as sf
from scorefield.evaluation import nearest_distances
from scorefield.evaluation.copies import nearest
from scorefield.runs.evaluating import run_data
from scorefield.runtime.registry import GRIDS, SAMPLERS
from scorefield.studio.session import Studio


def test_frames_are_the_steps_of_the_library(page: Page, root: Path) -> None:
    request = {
        "run": page.run("digits"),
        "sampler": "ddim",
        "settings": {"eta": 0.5},
        "steps": 5,
        "n": 3,
        "seed": 4,
    }
    job = page.start(request)["id"]
    *_, done = page.events(job)
    run = sf.Run(root / "digits")
    steps = run.trajectory(3, 4, steps=5, sampler="ddim", eta=0.5, block=8)
    for i, step in enumerate(steps, start=1):
        for what, x in (("x", step.x), ("x0", step.x0)):
            assert np.array_equal(
                frame(page, job, i, what), run.data_spec.to_uint8(x).permute(0, 2, 3, 1).numpy()
            )
    images = run.sample(3, 4, steps=5, sampler="ddim", eta=0.5, block=8).images
    assert np.array_equal(frame(page, job, 5)[..., 0], images)
    assert done["sha256"] == hashlib.sha256(images.tobytes()).hexdigest()


def test_the_copied_command_and_python_give_the_same_bytes(capsys, monkeypatch, tmp_path, page: Page) -> None:
    request = {
        "run": page.run("digits"), "sampler": "ancestral", "settings": {"variance": "upper"}, "steps": 4, "n": 11,
        "labels": [3, 5], "guidance": 2.0, "options": {"clip": False}, "block": 4,
    }  # fmt: skip
    planned = page.start(request)
    *_, done = page.events(planned["id"])
    monkeypatch.chdir(tmp_path)
    status, _, err = call(capsys, *shlex.split(planned["command"])[1:])
    assert status == 0, err
    images = np.load(tmp_path / "samples.npz")["images"]
    assert hashlib.sha256(images.tobytes()).hexdigest() == done["sha256"]
    names: dict[str, sf.Samples] = {}
    exec(planned["python"], names)  # a line that the page offers to copy
    assert np.array_equal(names["samples"].images, images)
    assert names["samples"].labels.tolist() == done["labels"] == [3, 5] * 5 + [3]


def test_neighbours_of_a_latent_are_those_of_the_copied_python(page: Page) -> None:
    request = {
        "run": page.run("digits"), "sampler": "ddim", "settings": {"eta": 1.0}, "steps": 3, "n": 5, "seed": 3,
        "labels": [2], "block": 4,
    }  # fmt: skip
    near = {**request, "near": {"sample": 3, "weight": 0.1}}
    plain, planned = page.start(request, page="a"), page.start(near, page="b")
    page.events(plain["id"]), page.events(planned["id"])
    names: dict[str, list[torch.Tensor]] = {}
    exec(planned["python"], names)  # lines that the page offers to copy
    images = torch.cat(names["images"]).permute(0, 2, 3, 1).numpy()
    made, before = frame(page, planned["id"], 3), frame(page, plain["id"], 3)
    assert planned["command"] is None
    assert np.array_equal(made, images)
    assert np.array_equal(made[3], before[3]), "the sample itself"
    first, own = frame(page, planned["id"], 0).astype(int), latents(page, plain["id"])[3]
    away = np.abs(first - own).mean(axis=(1, 2, 3))
    assert 0 < away[[0, 1, 2, 4]].max() < np.abs(latents(page, plain["id"])[0] - own).mean()
    uniform = {"run": page.run("digits"), "options": {"start": "uniform"}, "near": {"sample": 0}}
    assert "do not start from Gaussian noise" in page.post("/api/plan", uniform)["refused"]


def latents(page: Page, job: str) -> np.ndarray:
    """x_T of a job, as the page shows it."""
    return frame(page, job, 0).astype(int)


def test_one_sample_of_a_seed_is_that_of_the_whole_set(page: Page) -> None:
    request = {"run": page.run("digits"), "steps": 3, "n": 12, "block": 4}
    whole, some = page.start(request, page="a"), page.start({**request, "indices": [9, 2]}, page="b")
    page.events(whole["id"]), page.events(some["id"])
    assert np.array_equal(frame(page, some["id"], 3)[1], frame(page, whole["id"], 3)[2])
    close = frame(page, some["id"], 3)[0].astype(int) - frame(page, whole["id"], 3)[9]
    assert np.abs(close).max() <= 1  # its block is shorter, so the last place of a value may differ
    assert torch.get_num_threads() == page.get("/api/state")["threads"]


def test_points_are_float32(page: Page, root: Path) -> None:
    request = {"run": page.run("moons"), "sampler": "ddim", "steps": 3, "n": 5, "seed": 1}
    job = page.start(request)["id"]
    *_, done = page.events(job)
    points = sf.Run(root / "moons").sample(5, 1, sampler="ddim", steps=3, block=8).samples
    assert np.array_equal(frame(page, job, 3), points)
    assert done["sha256"] == hashlib.sha256(points.tobytes()).hexdigest()
    start = frame(page, job, 0)
    assert np.array_equal(start, frame(page, job, 0, "x0"))
    assert not np.array_equal(start, points)


def test_controls_are_what_the_library_declares(page: Page, root: Path) -> None:
    found = page.get(f"/api/runs/{page.run('digits')}/sampling")
    assert [one["name"] for one in found["samplers"]] == list(SAMPLERS)
    assert {"full", "staircase", *GRIDS} == {one["name"] for one in found["grids"]}
    settings = {one["name"]: {each["name"]: each for each in one["settings"]} for one in found["samplers"]}
    assert settings["ancestral"]["variance"]["choices"] == ["lower", "upper", "learned"]
    assert settings["ddim"]["eta"]["default"] == "0.0"
    assert found["labels"]["classes"] == [str(k) for k in range(10)]
    assert found["guidance"]["classifiers"] == [page.run("classifier")]
    own = sf.Run(root / "digits").sampling()
    assert (found["defaults"]["steps"], found["levels"]) == (own.steps, 1000)
    request = {
        name: found["defaults"][name]
        for name in ("sampler", "settings", "options", "grid", "steps", "n", "seed")
    }
    planned = page.post("/api/plan", {"run": page.run("digits"), **request})
    assert (planned["refused"], planned["calls"], planned["times"]) == (None, own.calls, own.grid.tolist())


def test_refusals_are_the_library_s_sentences(page: Page, root: Path) -> None:
    run = sf.Run(root / "digits")
    with pytest.raises(sf.ScorefieldError) as said:
        run.sampling(sampler="ddim", eta=2.0).check()
    wrong = {"run": page.run("digits"), "sampler": "ddim", "settings": {"eta": 2.0}}
    planned = page.post("/api/plan", wrong)
    assert planned["refused"] == str(said.value)
    answer = page.post("/api/jobs", {"page": "p", "kind": "sample", "request": wrong}, 400)
    assert answer["error"] == str(said.value)
    assert "guides" in page.get(f"/api/runs/{page.run('classifier')}/sampling", 400)["error"]
    assert "upsamples" in page.post("/api/plan", {"run": page.run("upsampler")})["refused"]
    assert (
        "there is no class 10"
        in page.post("/api/plan", {"run": page.run("digits"), "labels": [10]})["refused"]
    )


def test_the_estimate_is_what_was_measured(page: Page) -> None:
    request = {"run": page.run("digits"), "steps": 4, "n": 16}
    assert page.post("/api/plan", request)["seconds"] is None
    steps = [event for event in page.events(page.start(request)["id"]) if event["event"] == "step"]
    planned = page.post("/api/plan", request)
    assert (planned["blocks"], planned["calls"]) == (2, 4)
    measured = sorted(event["ms"] for event in steps[1:])[1] / 1000
    assert planned["seconds"] == pytest.approx(4 * measured, rel=0.01, abs=1e-3)
    assert [event["calls"] for event in steps] == [1, 2, 3, 4]


def test_calls_by_step_are_those_of_the_sampler(page: Page) -> None:
    request = {"run": page.run("digits"), "sampler": "dpm-solver-2s", "steps": 3, "n": 1}
    planned = page.start(request)
    events = page.events(planned["id"])
    calls = [event["calls"] for event in events if event["event"] == "step"]
    assert calls[-1] == events[-1]["calls"] == planned["calls"]
    assert calls == sorted(set(calls))


def test_one_sample_in_detail(page: Page, root: Path) -> None:
    request = {"run": page.run("digits"), "steps": 2, "n": 3, "seed": 5, "classifier": page.run("classifier")}
    job = page.start(request)["id"]
    page.events(job)
    found = page.get(f"/api/jobs/{job}/sample/2")
    assert (found["index"], found["seed"], found["label_name"]) == (2, 5, "2")
    assert [one["copy"] for one in found["nearest"]] == [False] * 5
    train, _ = run_data(sf.Run(root / "digits"))
    sample = torch.from_numpy(frame(page, job, 2)[2:3].copy()).permute(0, 3, 1, 2)
    levels = (sample.double() * 16 / 255).round().long()  # of 17
    distance = nearest_distances(train.spec.from_bins(levels), train.batch(torch.arange(len(train)))[0])
    assert found["nearest"][0]["distance"] == float(distance)
    assert sum(one["p"] for one in found["probabilities"]) == pytest.approx(1, abs=1e-5)
    j = found["nearest"][0]["index"]
    answer = page.client.get(f"/api/jobs/{job}/sample/2/nearest/{j}")
    image = np.frombuffer(answer.content, np.uint8).reshape(8, 8)
    assert np.array_equal(image, train.spec.to_uint8(train.batch(torch.tensor([j]))[0])[0, 0].numpy())
    page.get(f"/api/jobs/{job}/sample/3", 404)


def test_a_copy_of_a_training_image_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3000, 1, 4, 4), generator=generator, dtype=torch.uint8)
    distances, numbers = nearest(images[[2900, 7]], images, 3)
    assert distances[:, 0].tolist() == [0, 0]
    assert numbers[:, 0].tolist() == [2900, 7]
    assert torch.equal(distances[:, 1:], distances[:, 1:].sort(dim=1).values)
    everything = (images[7].double() - images.double()).flatten(1).norm(dim=1).sort()
    assert torch.allclose(distances[1], everything.values[:3])
    assert torch.equal(numbers[1], everything.indices[:3])


def test_a_saved_picture_carries_its_settings(page: Page) -> None:
    request = {
        "run": page.run("digits"),
        "sampler": "ddim",
        "settings": {"eta": 0.5},
        "steps": 3,
        "n": 4,
        "seed": 9,
        "labels": [1, 2],
    }
    job = page.start(request)["id"]
    page.events(job)
    saved = page.client.get(f"/api/jobs/{job}/picture.png")
    assert saved.headers["content-type"] == "image/png"
    found = page.client.post("/api/settings", content=saved.content).json()
    assert found == {"request": request, "note": None}
    assert page.post("/api/plan", found["request"])["command"] == page.post("/api/plan", request)["command"]
    one = page.client.get(f"/api/jobs/{job}/picture.png?sample=2")
    again = page.client.post("/api/settings", content=one.content).json()["request"]
    assert again == {**request, "indices": [2]}
    plain = io.BytesIO()
    Image.open(io.BytesIO(saved.content)).save(plain, format="PNG")
    assert "carries no settings" in page.client.post("/api/settings", content=plain.getvalue()).text


def test_the_state_names_what_there_is(page: Page, root: Path) -> None:
    state = page.get("/api/state")
    cards = {card["name"]: card for card in state["runs"]}
    assert set(cards) == {"digits", "classifier", "moons", "upsampler"}
    assert (cards["digits"]["shape"], cards["digits"]["kind"], cards["digits"]["state"]) == (
        [8, 8, 1],
        "images",
        "done",
    )
    assert (cards["moons"]["shape"], cards["moons"]["can"]["field"]) == ([2], None)
    assert cards["moons"]["can"]["edit"]
    assert cards["digits"]["can"]["edit"] is None
    assert cards["digits"]["step"] == cards["digits"]["steps"] == 2
    assert (state["root"], state["can_write"]) == (str(root), True)
    assert {"digits", "portraits", "toy:moons"} <= {one["name"] for one in state["data"]}


def test_a_broken_run_says_so(tmp_path: Path, tiny_run: TinyRun) -> None:
    tiny_run.copy(tmp_path / "b" / "run", "toy-moons")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.toml").write_text("= nothing")
    studio = Studio([tmp_path])
    cards = Page(studio).get("/api/runs")
    assert [(card["name"], card["state"]) for card in cards] == [("a", "unreadable"), ("run", "done")]
    assert "not valid TOML" in cards[0]["problem"]
    (tmp_path / "a" / "config.toml").unlink()
    later = Page(studio).get("/api/runs")
    assert [(card["id"], card["name"]) for card in later] == [(1, "run")], "numbers stay"
    studio.close()
