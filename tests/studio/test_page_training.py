"""The panels Training and Run in a browser, found by role and label."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from studio_browser import WAIT, Visits, served
from support import TINY

import scorefield as sf
from scorefield.store.lock import holder_pid

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=WAIT)


def test_curves_grow_with_the_file_and_its_last_values_are_shown(
    visits: Visits, root: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(root / "digits", tmp_path / "runs" / "grows"))
    with served([run.parent], read_only=True) as address:
        reader = Visits(visits.browser, address)
        page = reader.open("#/training?runs=0", viewport={"width": 360, "height": 740})
        loss = page.get_by_role("figure").filter(has=page.get_by_role("heading", name="Loss"))
        expect(loss.locator("path").first).to_be_attached()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({**last, "step": last["step"] + 1, "loss": 0.0625, "skipped": 1}) + "\n")
        expect(loss).to_contain_text("0.0625")
        expect(loss.get_by_text("skipped", exact=False)).to_have_count(1)
        loss.get_by_role("img", name="Loss").press("ArrowRight")
        page.get_by_role("radio", name="linear").check(force=True)
        assert "axes=linear" in page.url
        expect(page.get_by_role("checkbox", name="grows")).to_be_checked()
        assert page.get_by_text("Start a training").count() == 0, "--read-only starts nothing"
        reader.close()


def test_a_plan_stands_before_start_and_a_refusal_beside_it(visits: Visits) -> None:
    page = visits.open("#/training")
    page.get_by_text("Start a training", exact=True).click()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    page.get_by_label("Recipe", exact=True).select_option("toy-moons")
    page.get_by_label("Settings, one a line").fill("training.lr=fast")
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_role("form", name="Start a training").get_by_text("training.lr")).to_be_visible()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()


def test_a_page_without_runs_leads_to_the_training_of_the_demo(visits: Visits, tmp_path: Path) -> None:
    with served([tmp_path]) as address:
        reader = Visits(visits.browser, address)
        page = reader.open()
        page.get_by_role("button", name="Train the demo").click()
        expect(page.get_by_role("button", name="Plan", exact=True)).to_be_focused()
        assert page.get_by_label("Recipe", exact=True).input_value() == "portraits"
        reader.close()


def test_a_training_is_started_watched_stopped_and_resumed(visits: Visits, tmp_path: Path) -> None:
    patience = 6 * WAIT  # a process starts, and it loads torch
    settings = (*TINY, "training.precision=fp32", "training.sample_every=4", "sampling.steps=2")
    with served([tmp_path]) as address:
        reader = Visits(visits.browser, address)
        page = reader.open("#/training?recipe=digits")
        page.get_by_label("Training steps").fill("100000")
        page.get_by_label("Settings, one a line").fill("\n".join(settings))
        page.get_by_role("button", name="Plan", exact=True).click()
        start = page.get_by_role("button", name="Start", exact=True)
        expect(start).to_be_enabled(timeout=patience)
        start.click()
        stop = page.get_by_role("button", name="Stop digits-1")
        try:
            expect(stop).to_be_visible(timeout=patience)
            expect(page.get_by_role("slider", name="Preview")).not_to_have_attribute(
                "max", "1", timeout=patience
            )
            stop.click()
            expect(page.get_by_text("stopped,", exact=False)).to_be_visible(timeout=patience)
            page.get_by_text("Compare two steps").click()
            page.get_by_role("slider", name="Wipe between the two").fill("25")
            front, back = (page.locator(".wipe img").nth(k) for k in (1, 0))
            expect(front).to_have_css("clip-path", "inset(0px 75% 0px 0px)")
            sizes = [one.evaluate("(image) => [image.naturalWidth, image.src]") for one in (front, back)]
            assert sizes[0][0] == sizes[1][0] > 0
            assert sizes[0][1] != sizes[1][1], "two steps"
            page.get_by_role("button", name="Resume digits-1").click()
            expect(page.get_by_text("starting,", exact=False)).to_be_visible()
            expect(stop).to_be_visible(timeout=patience)
        finally:
            for lock in tmp_path.glob("*/.lock"):
                if (pid := holder_pid(lock)) is not None:
                    os.kill(pid, signal.SIGTERM)
        expect(page.get_by_text("stopped,", exact=False)).to_be_visible(timeout=patience)
        reader.close()


def test_an_evaluation_says_what_it_was_made_with(visits: Visits, root: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(root / "digits", tmp_path / "runs" / "measured"))
    (run / "evaluation").mkdir()
    sampling = {"samples": 500, "sampler": "DDIM", "steps": 20, "seed": 0}
    stamp = {"sampling": sampling, "weights": {"step": 1500}}
    line = {
        "time": "2026-01-02T03:04:05+00:00",
        "figures": {"frechet": {"value": 43.26, "heldout": 0.5, "stamp": stamp}},
    }
    (run / "evaluation" / "results.jsonl").write_text(json.dumps(line) + "\n")
    with served([run.parent]) as address:
        reader = Visits(visits.browser, address)
        page = reader.open("#/run?run=0")
        expect(page.get_by_text("2026-01-02 03:04: DDIM, 20 steps, 500 samples")).to_be_visible()
        expect(page.get_by_role("row", name="frechet 43.26 0.5")).to_be_visible()
        expect(page.get_by_text("samples 500, sampler DDIM, steps 20, seed 0")).to_be_visible()
        reader.close()


def test_a_run_says_what_it_is_as_the_library_does(visits: Visits, root: Path) -> None:
    page = visits.open("#/run?run=1")
    run = sf.Run(root / "digits")
    expect(page.get_by_role("heading", name="digits", exact=True)).to_be_visible()
    expect(page.get_by_text(run.weights_sha256[:12], exact=True)).to_be_visible()
    expect(page.get_by_role("img", name="ln σ/α by t").locator("path")).to_be_attached()
    page.get_by_label("Run", exact=True).select_option(label="moons")
    expect(page.get_by_role("heading", name="moons", exact=True)).to_be_visible()
    assert "run=2" in page.url
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
