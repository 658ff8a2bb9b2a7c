"""The Field panel's server: its numbers are the library's, its presets show what they say, and small models learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from studio_page import Page

import scorefield as sf
from scorefield.runtime.registry import SAMPLERS
from scorefield.studio.plane_learning import Learned, exact_model, learn, learn_scores, smoothed
from scorefield.studio.plane_presets import PRESETS, Preset
from scorefield.studio.plane_sources import PlaneSource, SourceRequest, open_source
from scorefield.studio.plane_walks import EXACT_DATA, Pane, describe, facts, walk
from scorefield.studio.session import Studio

CLUSTERS = {"kind": "mixture", "name": "two-clusters"}
TRIANGLE = {"kind": "drawn", "points": [[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5]]}


@pytest.fixture
def field(tmp_path) -> Iterator[Page]:
    studio = Studio([tmp_path])
    yield Page(studio)
    studio.close()


def raw(page: Page, path: str, values: object) -> np.ndarray:
    answer = page.client.post(path, json=values)
    assert answer.status_code == 200, answer.text
    shape = tuple(map(int, answer.headers["X-Shape"].split(",")))
    return np.frombuffer(answer.content, "<f4").reshape(shape)


def states(page: Page, job: str, pane: int, what: str = "x") -> np.ndarray:
    answer = page.client.get(f"/api/jobs/{job}/walk/{pane}?what={what}")
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, "<f4").reshape(tuple(map(int, answer.headers["X-Shape"].split(","))))


def exact(name: str = "two-clusters") -> tuple[PlaneSource, sf.oracle.GaussianMixture]:
    source = open_source(SourceRequest(kind="mixture", name=name))
    return source, source.exact()


# Fields


def test_score_and_density_are_the_oracles(field: Page) -> None:
    source, mixture = exact()
    asked = {"source": CLUSTERS, "times": [30, 60], "side": 4}
    scores, density = (raw(field, f"/api/field/{what}", asked) for what in ("score", "density"))
    middles = source.reach * torch.tensor([-0.75, -0.25, 0.25, 0.75])
    lattice = torch.tensor([[[x, y] for x in middles] for y in middles]).reshape(-1, 2)
    for k, t in enumerate((30, 60)):
        level = sf.process.cosine(100).level(t)
        expected = mixture.score(lattice, level=level)
        assert np.allclose(scores[k].reshape(-1, 2), expected, rtol=1e-4, atol=1e-5)
        assert np.allclose(density[k].reshape(-1), mixture.log_prob(lattice, level), rtol=1e-5)


def test_a_probe_says_what_the_library_says(field: Page) -> None:
    _, mixture = exact()
    x = torch.tensor([[0.4, -0.1]])
    asked = {"source": CLUSTERS, "t": 20, "x": x.tolist()}
    found = field.post("/api/field/probe", asked)
    model = mixture.denoiser(sf.process.cosine(100))
    assert found["x0"] == pytest.approx(model(x, 20).x0[0].tolist())
    assert found["score"] == pytest.approx(model.score(x, 20)[0].tolist(), rel=1e-5)
    assert found["log_p"] == pytest.approx(float(mixture.log_prob(x, model.process.level(20))))
    guided = field.post("/api/field/probe", {**asked, "pane": {"label": 1, "guidance": 3.0}})
    judge = mixture.classifier(model.process)
    shifted = sf.guidance.ClassifierGuidance(model, judge, 1, 3.0)(x, 20).guided(20)
    assert guided["score"] == pytest.approx(shifted.score[0].tolist(), rel=1e-5)


def test_a_toy_without_an_exact_score_refuses_it_and_estimates_its_density(field: Page) -> None:
    moons = {"kind": "toy", "name": "moons"}
    assert field.post("/api/field/source", moons)["exact"] is False
    said = field.post("/api/field/score", {"source": moons, "times": [5]}, status=400)
    assert "not known" in said["error"]
    learned = {"source": moons, "pane": {"model": "learned"}, "times": [5]}
    assert "train one first" in field.post("/api/field/score", learned, status=400)["error"]


@pytest.mark.parametrize("preset", PRESETS, ids=[preset.id for preset in PRESETS])
def test_the_copied_python_makes_the_samples_that_are_shown(
    field: Page, monkeypatch: pytest.MonkeyPatch, preset: Preset
) -> None:
    for module in ("field_panel", "plane_python"):
        for name in ("STEPS", "OBJECTIVE_STEPS"):
            monkeypatch.setattr(f"scorefield.studio.{module}.{name}", 6)
    source = preset.source.model_dump()
    panes = [{**pane.model_dump(), "steps": min(pane.steps, 100)} for pane in preset.panes]
    request: dict[str, Any] = {"source": source, "panes": panes, "n": 5, "seed": 2}
    if preset.trains:
        said = field.post("/api/field/python", request, status=400)["error"]
        assert "train one first" in said
        training = field.start({"source": source, "trains": preset.trains}, "field-training", "training")[
            "id"
        ]
        field.events(training)
        request["training"] = training
    check_python(field, request)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_copied_python_has_every_sampler(field: Page, sampler: str) -> None:
    pane = {"sampler": sampler, "grid": "staircase" if sampler == "langevin" else "trailing", "steps": 4}
    drawn = {"sampler": sampler, "settings": {"step": 0.01} if sampler == "langevin" else {}, "grid": "3,2"}
    check_python(field, {"source": TRIANGLE, "panes": [pane, drawn], "n": 3})


def check_python(field: Page, request: dict[str, Any]) -> None:
    """The lines that are copied end where the walks of the page do."""
    job = field.start(request, "field-walk")["id"]
    assert field.events(job)[-1]["event"] == "done"
    names: dict[str, torch.Tensor] = {}
    threads = torch.get_num_threads()
    try:
        exec(field.post("/api/field/python", request)["python"], names)
    finally:
        torch.set_num_threads(threads)
    for k, name in zip(range(len(request["panes"])), "abcd", strict=False):
        np.testing.assert_allclose(names[name], states(field, job, k)[-1], rtol=1e-4, atol=1e-5)


def test_points_drawn_by_hand_are_a_mixture(field: Page) -> None:
    said = field.post("/api/field/source", TRIANGLE)
    assert said["exact"]
    assert said["components"] == 3
    points = raw(field, "/api/field/points", TRIANGLE)
    nearest = np.linalg.norm(points[:, None] - np.array(TRIANGLE["points"]), axis=2).min(axis=1)
    assert nearest.std() < 0.05 < nearest.max() < 0.3
    for wrong in ([], [[0.0, 9.0]], [[0.0, 0.0]] * 501):
        field.post("/api/field/source", {"kind": "drawn", "points": wrong}, status=400)


# Walks


def test_both_panes_walk_the_librarys_steps_from_the_same_noise(field: Page) -> None:
    _, mixture = exact()
    panes = [
        {"sampler": "ddim", "settings": {"eta": 0.5}, "steps": 4},
        {"sampler": "dpm-solver", "steps": 6, "grid": "log_snr"},
    ]
    job = field.start({"source": CLUSTERS, "panes": panes, "n": 5, "seed": 3}, "field-walk")["id"]
    *_, done = field.events(job)
    process = sf.process.cosine(100)
    model, noise = mixture.denoiser(process), sf.NoiseSource(3)
    x_T = process.prior((5, 2), noise.at(0))
    walks: tuple[tuple[sf.Sampler, torch.Tensor], ...] = (
        (sf.samplers.DDIM(0.5), sf.grids.uniform(process, 4)),
        (sf.samplers.DPMSolver2M(), sf.grids.log_snr(process, 6)),
    )
    for k, (sampler, grid) in enumerate(walks):
        steps = list(sf.trajectory(model, sampler, grid, x_T, noise))
        assert np.array_equal(states(field, job, k)[0], x_T.numpy())
        assert np.allclose(states(field, job, k, "x")[1:], torch.stack([step.x for step in steps]))
        assert np.allclose(states(field, job, k, "x0")[1:], torch.stack([step.x0 for step in steps]))
        said = done["panes"][k]
        assert said["times"] == grid.tolist()
        assert said["calls"] == sampler.calls(grid)
        assert said["log_p"] == pytest.approx(float(mixture.log_prob(steps[-1].x).mean()), rel=1e-5)
    assert done["panes"][0]["from_the_flow"] is None, "η > 0 draws noise"
    flow = sf.sample(model, sf.samplers.DDIM(), sf.grids.full(process), x_T=x_T)
    off = float((steps[-1].x - flow).square().sum(dim=1).mean().sqrt())
    assert done["panes"][1]["from_the_flow"] == pytest.approx(off, rel=1e-4)


def test_a_dropped_particle_walks_from_its_time(field: Page) -> None:
    _, mixture = exact()
    asked = {"source": CLUSTERS, "t": 40, "x": [[0.5, 0.5]], "pane": {"steps": 10}}
    said = field.post("/api/field/drop", asked)
    assert said["times"] == [40, 30, 20, 10, 0]
    model = mixture.denoiser(sf.process.cosine(100))
    end = sf.sample(model, sf.samplers.DDIM(), said["times"], x_T=torch.tensor([[0.5, 0.5]]))
    assert said["x"][-1][0] == pytest.approx(end[0].tolist(), abs=1e-5)


def test_what_does_not_go_together_is_refused_in_the_librarys_words(field: Page) -> None:
    offered = field.get("/api/field")
    kinds = {one["name"]: one["refused"] for one in offered["samplers"]}
    assert list(kinds) == list(SAMPLERS)
    assert kinds["ddim"]["exact"] is None
    assert "levels" in kinds["ddim"]["exact-data"]
    assert kinds["langevin"] == {"exact": None, "exact-data": None}
    pane = {"model": "exact-data", "sampler": "ddim"}
    said = field.post(
        "/api/jobs",
        {"page": "p", "kind": "field-walk", "request": {"source": CLUSTERS, "panes": [pane]}},
        status=400,
    )
    assert said["error"] == kinds["ddim"]["exact-data"]


def test_a_walk_that_leaves_the_finite_numbers_ends_with_the_librarys_sentence(field: Page) -> None:
    pane = {"model": "exact-data", "sampler": "langevin", "settings": {"step": 50.0}, "steps": 300}
    single = {"kind": "drawn", "points": [[0.0, 0.0]]}
    job = field.start({"source": single, "panes": [pane], "n": 4}, "field-walk")["id"]
    *_, done = field.events(job)
    assert "step is too large" in done["panes"][0]["refused"]


# Presets


def preset(name: str) -> Preset:
    return next(one for one in PRESETS if one.id == name)


def walked(name: str, n: int) -> list[dict[str, Any]]:
    chosen = preset(name)
    source = open_source(chosen.source)
    found = []
    for request in chosen.panes:
        model = source.exact() if request.model == EXACT_DATA else exact_model(source)
        pane, noise = Pane.of(request, source, model), sf.NoiseSource(0)
        found.append(facts(pane, walk(pane, pane.start(n, noise), noise)))
    return found


def test_langevin_alone_does_not_find_the_weights_of_two_modes_and_annealing_does() -> None:
    plain, annealed = walked("langevin", 300)
    assert plain["steps"] == annealed["steps"] == 1000
    assert 0.42 < plain["shares"][1] < 0.58
    assert 0.73 < annealed["shares"][1] < 0.87


def test_a_step_too_large_spreads_the_points() -> None:
    small, large = walked("step", 200)
    assert small["spread"] < 1.6 < 2.2 < large["spread"]
    assert large["log_p"] < small["log_p"] - 10


def test_dpm_solver_ends_nearer_to_the_flow_than_ddim_in_five_calls() -> None:
    ddim, dpm = walked("solvers", 400)
    assert ddim["calls"] == dpm["calls"] == 5
    assert dpm["from_the_flow"] < 0.8 * ddim["from_the_flow"]


def test_guidance_at_a_large_scale_overshoots() -> None:
    _source, mixture = exact("three-classes")
    plain, large = walked("guidance", 400)
    assert plain["mean"] == pytest.approx(mixture.means[2].tolist(), abs=0.15)
    assert large["mean"][1] > plain["mean"][1] + 0.5
    assert large["spread"] < plain["spread"]
    assert large["log_p"] < plain["log_p"]


# Learning


def _not_kept() -> Learned:
    raise AssertionError("the models of a training are kept")


def test_a_small_model_learns_the_exact_score(field: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorefield.studio.field_panel.STEPS", 120)
    job = field.start({"source": CLUSTERS}, "field-training")["id"]
    *events, _done = field.events(job)
    steps = [event for event in events if event["event"] == "step"]
    assert [event["i"] for event in steps] == [10, 50, 100, 120]
    first, last = (event["differences"]["learned"] for event in (steps[0], steps[-1]))
    assert all(last[t] < 0.6 * first[t] for t in ("5", "20", "50"))
    asked = {"source": CLUSTERS, "training": job, "pane": {"model": "learned"}, "t": 50, "x": [[0.3, 0.2]]}
    model = field.studio.recall("field", job, _not_kept).models["learned"]
    assert field.post("/api/field/difference", asked)["difference"] == pytest.approx(last["50"], rel=1e-5)
    found, x = field.post("/api/field/probe", asked), torch.tensor([[0.3, 0.2]])
    with torch.no_grad():
        assert found["x0"] == pytest.approx(model(x, 50).x0[0].tolist())
    assert isinstance(model, sf.Denoiser)
    by_ode = sf.likelihood.ode_log_prob(model, x, t_min=50, trace="exact").log_prob
    assert found["log_p"] == pytest.approx(float(by_ode))
    other = {**asked, "source": TRIANGLE}
    assert "other points" in field.post("/api/field/probe", other, status=400)["error"]


def test_the_difference_is_relative_to_the_exact_score() -> None:
    source, mixture = exact()
    learned = Learned(source, {})
    (first,) = [p for p in learn(source, learned, steps=10) if p.step == 10]
    level = sf.process.cosine(100).level(20)
    x = mixture.at(level).sample(2000, sf.NoiseSource(1)).float()
    with torch.no_grad():
        off = learned.models["learned"].score(x, 20) - mixture.score(x, level=level)
    expected = (off.square().sum(1).mean() / mixture.score(x, level=level).square().sum(1).mean()).sqrt()
    assert first.differences["learned"][20] == pytest.approx(float(expected), rel=1e-4)


def test_four_objectives_come_near_the_same_field() -> None:
    source, _ = exact()
    learned = Learned(source, {})
    *_, last = learn_scores(source, learned, steps=100)
    for name, by_level in last.differences.items():
        assert by_level[0] < 0.6, name
    x = smoothed(source).sample(500, sf.NoiseSource(2)).float()
    with torch.no_grad():
        fields = torch.stack([model.score(x) for model in learned.models.values()])
    mean = fields.mean(dim=0)
    assert float((fields - mean).square().mean().sqrt() / mean.square().mean().sqrt()) < 0.4


def test_a_cancelled_training_ends(field: Page) -> None:
    job = field.start({"source": TRIANGLE}, "field-training")["id"]
    assert field.client.delete(f"/api/jobs/{job}").status_code == 200
    assert field.events(job)[-1]["event"] == "cancelled"


def test_numbers_of_points() -> None:
    _, mixture = exact()
    x = torch.tensor([[-1.2, 0.0], [1.2, 0.4], [1.2, 0.4], [1.2, 0.4]])
    found = describe(x, mixture)
    assert found["shares"] == [0.25, 0.75]
    assert found["mean"] == pytest.approx([0.6, 0.3])
    assert found["log_p"] == pytest.approx(float(mixture.log_prob(x).mean()))
