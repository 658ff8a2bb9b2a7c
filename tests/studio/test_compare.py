"""The Compare panel's server: cells have the command's bytes, distances are measured from the same x_T."""

from __future__ import annotations

import csv
import hashlib
import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from studio_page import Page
from support import call

import scorefield as sf
from scorefield.studio.compare_panel import distance


def cells(page: Page, request: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    job = page.start(request, "compare")["id"]
    events = page.events(job)
    assert events[-1]["event"] == "done", events[-1]
    return job, [event for event in events if event["event"] == "cell"]


def frame(page: Page, job: str, i: int) -> np.ndarray:
    answer = page.client.get(f"/api/jobs/{job}/frame/{i}?what=x")
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, np.uint8).reshape(
        [int(size) for size in answer.headers["X-Shape"].split(",")]
    )


def test_cells_have_the_bytes_of_the_command(capsys, monkeypatch, tmp_path, page: Page, root: Path) -> None:
    base = {
        "run": page.run("digits"),
        "n": 3,
        "seed": 2,
        "sampler": "ddim",
        "settings": {"eta": 0.5},
        "labels": [1],
    }
    request = {
        "base": base,
        "rows": {"name": "sampler", "values": ["ddim", "heun"]},
        "columns": {"name": "steps", "values": [2, 4]},
        "reference": 10,
    }
    planned = page.post("/api/compare/plan", request)
    assert (planned["rows"], planned["columns"]) == (["sampler ddim", "sampler heun"], ["steps 2", "steps 4"])
    run = sf.Run(root / "digits")
    heun = [run.sampling(sampler="heun", steps=steps).calls for steps in (2, 4)]
    assert [cell["calls"] for cell in planned["cells"]] == [2, 4, *heun]
    job, found = cells(page, request)
    assert [cell["calls"] for cell in found] == [2, 4, *heun]
    assert [(cell["row"], cell["column"], cell["i"]) for cell in found] == [
        (0, 0, 0),
        (0, 1, 1),
        (1, 0, 2),
        (1, 1, 3),
    ]
    monkeypatch.chdir(tmp_path)
    command = planned["cells"][2]["command"]
    assert "--eta" not in command, "Heun has no η"
    assert call(capsys, *shlex.split(command)[1:])[0] == 0
    images = np.load("samples.npz")["images"]
    assert hashlib.sha256(images.tobytes()).hexdigest() == found[2]["sha256"]
    assert np.array_equal(frame(page, job, 2)[..., 0], images)
    many = run.sample(3, 2, [1], sampler="ddim", grid="uniform", steps=10, block=8).images
    place = found[0]["reference_frame"]
    assert {cell["reference_frame"] for cell in found} == {place}
    assert np.array_equal(frame(page, job, place)[..., 0], many)
    away = (2 / 255 * (images.astype(float) - many)) ** 2
    assert found[2]["distance"] == pytest.approx(np.sqrt(away.mean(axis=(1, 2))).mean())


def test_a_table_is_saved(page: Page) -> None:
    request = {
        "base": {"run": page.run("digits"), "n": 2, "steps": 2},
        "rows": {"name": "guidance", "values": [1.0, 3.0]},
        "columns": {"name": "labels", "values": [0, 7]},
    }
    job, found = cells(page, request)
    assert page.post("/api/compare/plan", request)["columns"] == ["class 0", "class 7"]
    assert [cell["distance"] for cell in found] == [None] * 4
    saved = page.client.get(f"/api/jobs/{job}/compare.png")
    assert Image.open(io.BytesIO(saved.content)).size[0] > 4 * 8
    lines = list(csv.DictReader(io.StringIO(page.client.get(f"/api/jobs/{job}/compare.csv").text)))
    assert [(line["guidance"], line["labels"]) for line in lines] == [
        ("1.0", "0"),
        ("1.0", "7"),
        ("3.0", "0"),
        ("3.0", "7"),
    ]
    assert [line["sha256"] for line in lines] == [cell["sha256"] for cell in found]
    assert all(line["command"].startswith("scorefield sample ") for line in lines)


def test_a_cell_that_is_refused_says_why(page: Page) -> None:
    request = {
        "base": {"run": page.run("digits"), "n": 1, "steps": 2},
        "rows": {"name": "settings.eta", "values": [0.0, 2.0]},
    }
    _, found = cells(page, request)
    assert found[0]["refused"] is None
    assert "at most 1" in found[1]["refused"]
    points = {
        "base": {"run": page.run("moons"), "n": 4},
        "rows": {"name": "steps", "values": [20, 40]},
        "reference": 20,
    }
    _, found = cells(page, points)
    assert [cell["distance"] is not None for cell in found] == [True, True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": {"name": "seed", "values": [1]}}, "an axis is one of"),
        ({"rows": {"name": "settings", "values": [1]}}, "an axis is one of"),
        ({"rows": {"name": "low_res", "values": ["/etc/passwd"]}}, "an axis is one of"),
        ({"rows": {"name": "steps", "values": []}}, "rows.values"),
        ({"rows": {"name": "steps", "values": [*range(1, 17)]}, "columns": {"name": "labels", "values": [*range(5)]}}, "at most 64 cells"),
        ({"base": {"run": 0, "n": 64}}, "at most 16"),
        ({"base": {"run": 0, "indices": [1]}}, "samples 0"),
        ({"base": {"run": "x"}}, "run"),
        ({"base": {}}, "run"),
        ({"reference": 0}, "reference"),
    ],
)  # fmt: skip
def test_what_is_no_table(page: Page, change: dict[str, Any], said: str) -> None:
    request = {"base": {"run": page.run("digits")}, "rows": {"name": "steps", "values": [2]}, **change}
    assert said in page.post("/api/compare/plan", request, 400)["error"]


def test_distances_are_in_units_of_the_data() -> None:
    spec = sf.DataSpec((1, 2, 2), (-1.0, 1.0))
    black, white = np.zeros((3, 2, 2, 1), np.uint8), np.full((3, 2, 2, 1), 255, np.uint8)
    assert distance(black, white, spec) == pytest.approx(2)
    assert distance(black, black, spec) == 0
    assert distance(np.zeros((1, 2)), np.array([[3.0, 4.0]]), sf.DataSpec((2,))) == pytest.approx(
        np.sqrt(12.5)
    )
