"""The Training panel's server: what runs write is shown as it comes; trainings are started, stopped and resumed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from studio_page import Page
from support import TinyRun

import scorefield as sf
from scorefield.runtime.errors import InputError
from scorefield.store.lock import holder_pid
from scorefield.studio.session import Studio
from scorefield.studio.training_panel import read_start, read_tail


def line(step: int, **values: float) -> str:
    return json.dumps({"step": step, "loss": 1 / step, "skipped": 0, **values}) + "\n"


@pytest.fixture
def watched(tmp_path: Path, tiny_run: TinyRun) -> Iterator[tuple[Page, Path]]:
    """A page of one run that a test may write into, and the run."""
    path = tiny_run.copy(tmp_path / "runs" / "moons", "toy-moons")
    studio = Studio([tmp_path / "runs"])
    yield Page(studio), path
    studio.close()


def test_whole_lines_are_read_as_they_come(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_tail(file).lines == []
    file.write_text(line(50) + line(100)[:10])
    first = read_tail(file)
    assert (first.restarted, [one["step"] for one in first.lines]) == (True, [50])
    file.write_text(line(50) + line(100) + "not JSON\n[1]\n" + line(150))
    file_again = read_tail(file, first.at)
    assert (file_again.restarted, [one["step"] for one in file_again.lines]) == (False, [100, 150])
    assert file_again.before["step"] == 50
    assert read_tail(file, file_again.at).lines == []
    shorter = tmp_path / "shorter"
    shorter.write_text(line(50))
    shorter.replace(file)  # as a roll-back writes it
    rolled = read_tail(file, file_again.at)
    assert (rolled.restarted, [one["step"] for one in rolled.lines]) == (True, [50])
    for wrong in ("x", ":", "1:2:3", f"{first.at}9999"):
        assert read_tail(file, wrong).restarted


def test_marks_stand_where_steps_were_skipped(watched: tuple[Page, Path]) -> None:
    page, path = watched
    page.studio.catalogue.rescan()
    lines = [line(1), line(2, skipped=3), line(3, skipped=3), line(4, skipped=3, lr_factor=0.5)]
    (path / "metrics.jsonl").write_text("".join(lines))
    found = page.get("/api/training/0")
    assert found["columns"]["step"] == [1, 2, 3, 4]
    assert found["columns"]["lr_factor"] == [None, None, None, 0.5]
    assert found["marks"] == [
        {"step": 2, "kind": "skipped", "count": 3},
        {"step": 4, "kind": "rolled back", "lr_factor": 0.5},
    ]
    with (path / "metrics.jsonl").open("a") as file:
        file.write(line(5, skipped=3, lr_factor=0.5))
    later = page.get(f"/api/training/0?at={found['at']}")
    assert (later["restarted"], later["columns"]["step"], later["marks"]) == (False, [5], [])


def test_numbers_are_those_of_the_file(watched: tuple[Page, Path]) -> None:
    page, path = watched
    written = [json.loads(text) for text in (path / "metrics.jsonl").read_text().splitlines()]
    found = page.get("/api/training/0")
    for name in written[0]:
        assert found["columns"][name] == [one.get(name) for one in written], name
    assert found["checkpoints"] == [0, 2]
    assert (found["left"], found["said"], found["run"]["state"]) == (None, None, "done")
    (path / "metrics.jsonl").write_text("".join(line(step) for step in range(1, 10_000)))
    many = page.get("/api/training/0")
    assert len(many["columns"]["step"]) <= 4001
    assert many["columns"]["step"][-1] == 9999


def test_previews_by_step(watched: tuple[Page, Path]) -> None:
    page, path = watched
    (path / "samples").mkdir(exist_ok=True)
    for step in (100, 20):
        Image.new("L", (4, 4), step).save(path / "samples" / f"step-{step:08d}.png")
    (path / "samples" / "step-00000300.png").symlink_to("/etc/hostname")
    assert page.get("/api/training/0")["previews"] == [20, 100, 300]
    answer = page.client.get("/api/training/0/preview/100")
    assert answer.content == (path / "samples" / "step-00000100.png").read_bytes()
    page.get("/api/training/0/preview/7", 404)
    assert "symbolic link" in page.get("/api/training/0/preview/300", 400)["error"]


def test_a_read_only_page_starts_and_stops_nothing(root: Path) -> None:
    page = Page(Studio([root], read_only=True))
    assert page.get("/api/state")["can_write"] is False
    for path in ("", "/plan", "/0/stop", "/0/resume"):
        assert "read-only" in page.post(f"/api/training{path}", {"recipe": "toy-moons"}, 403)["error"]
    page.studio.close()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"recipe": "../digits.toml"}, "recipe must be one of"),
        ({"recipe": "/etc/passwd"}, "recipe must be one of"),
        ({"recipe": "digits", "settings": ["data.source=/etc"]}, "remove data.source"),
        ({"recipe": "digits", "settings": [" data = {source='/etc'}"]}, "remove data.source"),
        ({"recipe": "digits", "settings": ["training.lr=fast"]}, "training.lr"),
        ({"recipe": "digits", "settings": ["training.learning=1"]}, "training.learning"),
        ({"recipe": "digits", "settings": ["--data=/etc"]}, "--data"),
        ({"recipe": "digits", "data": 99}, "data is one of"),
        ({"recipe": "digits", "run": "/tmp/x"}, "run"),
        ({"recipe": "digits", "steps": 0}, "steps"),
        ({"recipe": "digits", "minutes": -1}, "minutes"),
    ],
)
def test_what_cannot_be_started(page: Page, request_: dict[str, Any], said: str) -> None:
    assert said in page.post("/api/training/plan", request_)["refused"]
    assert said in page.post("/api/training", request_, 400)["error"]


def test_the_words_of_a_training() -> None:
    studio = Studio(["nowhere"], data=["/my/images"])
    source = studio.data_names.index("/my/images")
    asked = {"recipe": "portraits", "data": source, "settings": ["training.lr=1e-3"], "minutes": 5, "seed": 3}
    recipe, words = read_start(studio, asked)
    assert words == [
        "portraits",
        "--set",
        "training.lr=1e-3",
        "--data",
        "/my/images",
        "--minutes",
        "5",
        "--seed",
        "3",
    ]
    assert (recipe.data.source, recipe.training.lr, recipe.training.seed) == ("/my/images", 1e-3, 3)
    studio.close()


def test_a_plan_says_memory_and_time(page: Page) -> None:
    small = ["net.hidden=16", "training.batch_size=32"]
    plan = page.post("/api/training/plan", {"recipe": "toy-moons", "settings": small, "steps": 50})
    assert (plan["refused"], plan["steps"]) == (None, 50)
    assert plan["memory"] > 0
    assert (
        plan["command"]
        == "scorefield train toy-moons --set net.hidden=16 --set training.batch_size=32 --steps 50"
    )
    assert dict(plan["rows"])["parameters"]


def until(true: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[tuple[Page, Page]]:
    """The pages of two servers on one folder, in which no training is left behind."""
    page, other = Page(Studio([tmp_path])), Page(Studio([tmp_path]))
    yield page, other
    for lock in tmp_path.glob("*/.lock"):
        if (pid := holder_pid(lock)) is not None:
            os.kill(pid, signal.SIGTERM)
    for one in (page, other):
        one.studio.close()


def test_start_stop_and_resume(tmp_path: Path, pages: tuple[Page, Page]) -> None:
    page, other = pages
    settings = [
        "net.hidden=16",
        "training.batch_size=32",
        "training.log_every=5",
        "training.checkpoint_every=100000",
    ]
    begun = page.post("/api/training", {"recipe": "toy-moons", "settings": settings, "steps": 10**6})
    assert begun["name"] == "toy-moons-1"
    until(lambda: (tmp_path / "toy-moons-1" / "metrics.jsonl").is_file())
    found = until(lambda: [one for one in page.get("/api/training")["runs"] if one["left"]])[0]
    assert (found["name"], found["state"]) == ("toy-moons-1", "training")
    seen = page.get(f"/api/training/{found['id']}")
    assert seen["left"]["seconds"] > 0
    assert "being trained already" in page.post(f"/api/training/{found['id']}/resume", {}, 400)["error"]
    (number,) = [card["id"] for card in other.get("/api/runs")]
    other.post(f"/api/training/{number}/stop", {})  # whoever started it
    until(lambda: page.get(f"/api/training/{found['id']}")["status"] is not None)
    seen = page.get(f"/api/training/{found['id']}")
    assert (seen["status"], seen["run"]["state"]) == (75, "stopped")
    assert "resume with" in " ".join(seen["said"])
    assert "not being trained" in page.post(f"/api/training/{found['id']}/stop", {}, 400)["error"]
    step = sf.Run(tmp_path / "toy-moons-1").step
    assert step == seen["checkpoints"][-1] > 0
    page.post(f"/api/training/{found['id']}/resume", {"steps": step + 5})
    assert page.get("/api/training")["runs"][0]["starting"]
    assert "being started already" in page.post(f"/api/training/{found['id']}/resume", {}, 400)["error"]
    until(lambda: page.get(f"/api/training/{found['id']}")["run"]["state"] == "done")
    assert sf.Run(tmp_path / "toy-moons-1").step == step + 5
    until(lambda: page.get(f"/api/training/{found['id']}")["status"] == 0)


def test_a_training_that_fails_says_why(tmp_path: Path) -> None:
    studio = Studio([tmp_path], data=[str(tmp_path / "none")])
    page = Page(studio)
    page.post("/api/training", {"recipe": "digits", "data": len(studio.data_names) - 1})
    failed = until(lambda: [one for one in page.get("/api/training")["starting"] if one["status"]])[0]
    assert (failed["name"], failed["status"]) == ("digits-1", 1)
    assert "no such file or folder" in failed["said"][-1]
    assert not (tmp_path / "digits-1").exists()
    studio.close()


def test_no_run_can_be_made_in_a_run(tmp_path: Path, tiny_run: TinyRun) -> None:
    studio = Studio([tiny_run.copy(tmp_path / "run", "toy-moons")])
    page = Page(studio)
    assert page.get("/api/state")["can_write"] is False
    assert "folder for new runs" in page.post("/api/training", {"recipe": "toy-moons"}, 400)["error"]
    with pytest.raises(InputError, match="recipe"):
        read_start(studio, {})
    studio.close()
