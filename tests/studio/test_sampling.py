"""The Sample panel's server: frames and numbers are the library's, commands give the same bytes."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

import numpy as np
import torch
from studio_page import Page
from support import call

import scorefield as sf


def frame(page: Page, job: str, i: int, what: str = "x") -> np.ndarray:
    answer = page.client.get(f"/api/jobs/{job}/frame/{i}?what={what}")
    assert answer.status_code == 200, answer.text
    shape = tuple(int(size) for size in answer.headers["X-Shape"].split(","))
    kind = np.uint8 if len(shape) == 4 else np.dtype("<f4")
    return np.frombuffer(answer.content, kind).reshape(shape)


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


def test_one_sample_of_a_seed_is_that_of_the_whole_set(page: Page) -> None:
    request = {"run": page.run("digits"), "steps": 3, "n": 12, "block": 4}
    whole, some = page.start(request, page="a"), page.start({**request, "indices": [9, 2]}, page="b")
    page.events(whole["id"]), page.events(some["id"])
    assert np.array_equal(frame(page, some["id"], 3)[1], frame(page, whole["id"], 3)[2])
    close = frame(page, some["id"], 3)[0].astype(int) - frame(page, whole["id"], 3)[9]
    assert np.abs(close).max() <= 1  # its block is shorter, so the last place of a value may differ
    assert torch.get_num_threads() == page.get("/api/state")["threads"]
