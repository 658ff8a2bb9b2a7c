"""The Run panel's server: what it says of a run is what its files and the library say."""

from __future__ import annotations

import json
import math
from pathlib import Path

from studio_page import Page
from support import TinyRun, call

import scorefield as sf
from scorefield.studio.session import Studio


def test_a_run_is_described_as_the_library_does(page: Page, root: Path, capsys) -> None:
    found = page.get(f"/api/runs/{page.run('digits')}")
    run = sf.Run(root / "digits")
    model = run.model(kind=sf.Denoiser)
    assert sum(block["parameters"] for block in found["blocks"]) == sum(p.numel() for p in model.parameters())
    _, out, _ = call(capsys, "info", root / "digits", "--json")
    parameters = json.loads(out)["parameters"]
    assert dict(found["rows"])["parameters"] == f"{parameters:,}"
    curve = found["process"]
    level = model.process.level(int(curve["t"][7]))
    assert (curve["alpha"][7], curve["sigma"][7]) == (float(level.alpha), float(level.sigma))
    assert math.isclose(curve["log_ratio"][7], math.log(curve["sigma"][7] / curve["alpha"][7]))
    assert (curve["t"][0], curve["t"][-1]) == (1, 1000)
    seen = run.recipe.trained_on
    assert (found["data"]["fingerprint"], found["data"]["examples"]) == (seen.fingerprint, seen.examples)
    assert [one["examples"] for one in found["data"]["classes"]] == list(seen.counts)
    assert found["weights"]["sha256"] == run.weights_sha256[: len(found["weights"]["sha256"])]
    assert found["config"] == (root / "digits" / "config.toml").read_text()
    assert f"scorefield export diffusers {root / 'digits'} digits-diffusers" in [
        one["command"] for one in found["commands"]
    ]


def test_metrics_come_with_what_they_were_measured_with(tmp_path: Path, tiny_run: TinyRun) -> None:
    run = sf.Run(tiny_run.copy(tmp_path / "moons", "toy-moons"))
    evaluated = run.evaluate("bpd", n=2, bound_steps=3)
    (run.path / "broken-files.txt").write_text("a.png\tcut off\nb.png\tempty\n")
    with (run.path / "evaluation" / "results.jsonl").open("a") as file:
        file.write("half a li")
    studio = Studio([tmp_path])
    found = Page(studio).get("/api/runs/0")
    (line,) = found["evaluations"]
    (name, figure), *_ = line["figures"].items()
    assert figure["value"] == evaluated.figures[0].value
    assert (figure["stamp"]["weights"]["sha256"], name) == (
        found["weights"]["sha256"],
        evaluated.figures[0].name,
    )
    assert found["data"]["unreadable"] == {
        "count": 2,
        "files": [{"name": "a.png", "reason": "cut off"}, {"name": "b.png", "reason": "empty"}],
    }
    studio.close()


def test_every_kind_of_run_is_described(page: Page) -> None:
    for name, shape in (("classifier", [8, 8, 1]), ("moons", [2]), ("upsampler", [8, 8, 1])):
        found = page.get(f"/api/runs/{page.run(name)}")
        assert (found["shape"], found["evaluations"]) == (shape, [])
        assert found["process"]["t"]
    page.get("/api/runs/99", 404)
