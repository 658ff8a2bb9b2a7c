"""The Field panel: scores, densities, samples and paths in the plane, of exact models and of those learned on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.runs.settings import settings_of_kind, summary_of
from scorefield.runtime.checks import one_of
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.parsing import Options, parse
from scorefield.runtime.registry import GRIDS, SAMPLERS, TOYS
from scorefield.samplers.grids import full, staircase
from scorefield.studio.answers import Refusal, answer, read_object
from scorefield.studio.jobs import Job
from scorefield.studio.plane_learning import (
    LEVELS,
    METHODS,
    OBJECTIVE_STEPS,
    STEPS,
    Learned,
    PlaneModel,
    difference,
    exact_model,
    learn,
    learn_scores,
    plane_process,
)
from scorefield.studio.plane_presets import PRESETS
from scorefield.studio.plane_python import as_python
from scorefield.studio.plane_sources import DRAWN_WIDTH, MIXTURES, PlaneSource, SourceRequest, open_source
from scorefield.studio.plane_walks import (
    EXACT,
    EXACT_DATA,
    Pane,
    PaneRequest,
    Walk,
    drop,
    expected,
    facts,
    log_density,
    probe,
    score,
    walk,
)
from scorefield.studio.sample_panel import as_control, pixels
from scorefield.studio.session import Planned, Studio

__all__ = ["plan_training", "plan_walk", "routes"]

_MOST = 1000  # points that are walked
_SHOWN = 1200  # of the source, on the page
_DROPPED = 64
_SIDE = 128  # points along a side of a lattice
_TIMES = 16  # of one request
_TRAININGS = 4  # whose models are kept
_PACE = 0.05  # seconds between two events of a walk


class TrainingRequest(Options):
    """What is trained: a model of all noise levels, or scores without levels by each objective."""

    source: SourceRequest
    trains: Literal["levels", "objectives"] = "levels"


class WalkRequest(Options):
    """Points that are walked in each pane from the same noise."""

    source: SourceRequest
    training: str | None = Field(None, description="the job that has learned the panes' models")
    panes: tuple[PaneRequest, ...] = Field(min_length=1, max_length=4)
    n: int = Field(400, ge=1, le=_MOST)
    seed: int = Field(0, ge=0)


class FieldRequest(Options):
    """A field at a time, and points of it."""

    source: SourceRequest
    training: str | None = None
    pane: PaneRequest = PaneRequest()
    t: float = Field(0.0, ge=0, le=LEVELS)
    times: tuple[float, ...] = Field((), max_length=_TIMES, description="of a lattice of scores or densities")
    side: int = Field(21, ge=2, le=_SIDE)
    x: tuple[tuple[float, float], ...] = Field((), max_length=_DROPPED)
    seed: int = Field(0, ge=0)


def plan_training(studio: Studio, values: Mapping[str, Any]) -> Planned:
    """The job that trains small models on a source.

    Args:
        studio: The server's state.
        values: A TrainingRequest, as the page sent it.

    Raises:
        InputError: For a request that cannot be read, and for objectives on a source that is no mixture.
    """
    request = parse(TrainingRequest, values)
    source = open_source(request.source)
    if request.trains == "objectives":
        source.exact()
    steps = STEPS if request.trains == "levels" else OBJECTIVE_STEPS
    return Planned(
        {"steps": steps}, lambda job: _train(studio, job, request, source, steps), request.model_dump()
    )


def _train(
    studio: Studio, job: Job, request: TrainingRequest, source: PlaneSource, steps: int
) -> dict[str, Any]:
    learned = studio.recall("field", job.id, lambda: Learned(source, {}), _TRAININGS)
    start = perf_counter()
    training = (learn if request.trains == "levels" else learn_scores)(source, learned, steps, job.check)
    found: dict[str, Any] = {}
    for progress in training:
        found = {
            "i": progress.step,
            "of": steps,
            "losses": dict(progress.losses),
            "differences": {
                name: {str(t): value for t, value in by_level.items()}
                for name, by_level in progress.differences.items()
            },
            "ms": round(1000 * (perf_counter() - start)),
        }
        job.report("step", **found)
    return {"differences": found["differences"], "losses": found["losses"]}


def plan_walk(studio: Studio, values: Mapping[str, Any]) -> Planned:
    """The job that walks points in every pane from the same noise.

    Args:
        studio: The server's state.
        values: A WalkRequest, as the page sent it.

    Raises:
        InputError: For a request that cannot be read, and for panes that do not fit together.
        IncompatibleModel: For a sampler or guidance that does not go with a model.
    """
    request = parse(WalkRequest, values)
    source = open_source(request.source)
    panes = [_pane(studio, pane, source, request.training) for pane in request.panes]
    return Planned({}, lambda job: _walk(job, request, panes), request.model_dump())


def _walk(job: Job, request: WalkRequest, panes: Sequence[Pane]) -> dict[str, Any]:
    walks: list[Walk] = []
    found = []
    for k, pane in enumerate(panes):
        told = start = perf_counter()

        def report(i: int, step: object, k: int = k, pane: Pane = pane, start: float = start) -> None:
            nonlocal told
            job.check()
            if perf_counter() - told >= _PACE:
                told = perf_counter()
                job.report("step", pane=k, i=i, of=len(pane.times) - 1, ms=round(1000 * (told - start)))

        noise = NoiseSource(request.seed)
        walks.append(walk(pane, pane.start(request.n, noise), noise, report))
        found.append({"times": walks[-1].times, **facts(pane, walks[-1])})
    job.details = walks
    return {"panes": found, "expected": expected(panes[0])}


def _code(studio: Studio, values: Mapping[str, Any]) -> dict[str, str]:
    """Lines of Python that walk what a WalkRequest asks for."""
    request = parse(WalkRequest, values)
    source = open_source(request.source)
    panes = [_pane(studio, pane, source, request.training) for pane in request.panes]
    return {"python": as_python(request.source, panes, request.n, request.seed)}


def _pane(studio: Studio, request: PaneRequest, source: PlaneSource, training: str | None) -> Pane:
    return Pane.of(request, source, _model(studio, request.model, source, training))


def _model(studio: Studio, name: str, source: PlaneSource, training: str | None) -> PlaneModel:
    """A model by its name.

    Raises:
        InputError: For an exact model that is not known, and for one that was not learned yet, or on other points.
    """
    one_of("the model", name, (EXACT, EXACT_DATA, "learned", *METHODS))
    if name == EXACT:
        return exact_model(source)
    if name == EXACT_DATA:
        return source.exact()
    learned = studio.recall("field", training, _no_training, _TRAININGS)
    if learned.source is not source:
        raise InputError("this model was trained on other points: train it again")
    if name not in learned.models:
        raise InputError("this model is not there yet: wait for the first steps of its training")
    return learned.models[name]


def _no_training() -> Learned:
    raise InputError("there is no learned model yet: train one first")


def offers() -> dict[str, Any]:
    """What the panel's controls are made of."""
    source = open_source(SourceRequest(kind="mixture", name="two-clusters"))
    return {
        "toys": [
            {"name": name, "exact": open_source(SourceRequest(name=name)).mixture is not None}
            for name in TOYS
        ],
        "mixtures": [{"name": name, "components": len(made.weights)} for name, made in MIXTURES.items()],
        "drawn_width": DRAWN_WIDTH,
        "levels": LEVELS,
        "process": str(plane_process()),
        "methods": [{"name": name, "loss": loss} for name, loss in METHODS.items()],
        "samplers": [
            {
                "name": name,
                "summary": summary_of(SAMPLERS[name]),
                "settings": [as_control(one) for one in settings_of_kind("sampling.sampler", SAMPLERS[name])],
                "refused": {kind: _refused(name, kind, source) for kind in (EXACT, EXACT_DATA)},
            }
            for name in SAMPLERS
        ],
        "grids": [
            {"name": name, "summary": summary_of(made)}
            for name, made in {
                "full": full,
                **{word: GRIDS[word] for word in GRIDS},
                "staircase": staircase,
            }.items()
        ],
        "defaults": {"pane": PaneRequest().model_dump(), "n": WalkRequest.model_fields["n"].default},
        "largest": {"n": _MOST, "dropped": _DROPPED},
        "presets": [
            {
                "id": preset.id,
                "title": preset.title,
                "text": preset.text,
                "source": preset.source.model_dump(),
                "panes": [pane.model_dump() for pane in preset.panes],
                "trains": preset.trains,
                "n": preset.n,
                "t": preset.t,
            }
            for preset in PRESETS
        ],
    }


def _refused(sampler: str, model: str, source: PlaneSource) -> str | None:
    """The library's sentence where a sampler does not go with a kind of model, or None."""
    request = PaneRequest(
        model=model, sampler=sampler, settings={"step": 0.01} if sampler == "langevin" else {}
    )
    made = exact_model(source) if model == EXACT else source.exact()
    try:
        Pane.of(request, source, made)
    except ScorefieldError as error:
        return str(error)
    return None


def _source_facts(request: SourceRequest) -> dict[str, Any]:
    source = open_source(request)
    mixture = source.mixture
    return {
        "exact": mixture is not None,
        "reach": source.reach,
        "components": None if mixture is None else len(mixture.weights),
    }


def _over_the_square(
    what: Callable[[Pane, Tensor, float], Tensor], pane: Pane, asked: FieldRequest
) -> np.ndarray:
    """What a field is on a lattice over the square at each time, float32 (times, side, side, *)."""
    if not asked.times or any(not 0 <= t <= LEVELS for t in asked.times):
        raise InputError(f"give 1 to {_TIMES} times from 0 to {LEVELS}")
    lattice = _lattice(pane.source.reach, asked.side)
    found = torch.stack([what(pane, lattice, t) for t in asked.times]).float()
    return found.reshape(len(asked.times), asked.side, asked.side, *found.shape[2:]).numpy()


def _lattice(reach: float, side: int) -> Tensor:
    """The middles of side × side squares, row by row from the lowest one, (side², 2)."""
    middles = (2 * torch.arange(side) + 1 - side) / side * reach
    return torch.stack([middles.repeat(side), middles.repeat_interleave(side)], dim=1)


# Routes


def routes(studio: Studio) -> list[Route]:
    """The panel's own routes; its jobs are of the kinds "field-training" and "field-walk"."""
    studio.kinds["field-training"] = plan_training
    studio.kinds["field-walk"] = plan_walk

    async def field(request: Request) -> Response:
        return answer(await studio.aside(offers))

    async def source(request: Request) -> Response:
        values = await read_object(request)
        return answer(await studio.aside(lambda: _source_facts(parse(SourceRequest, values))))

    async def points(request: Request) -> Response:
        values = await read_object(request)
        found = await studio.aside(lambda: open_source(parse(SourceRequest, values)).points[:_SHOWN])
        return pixels(found.numpy())

    async def scores(request: Request) -> Response:
        asked, pane = await opened(request)
        return pixels(await studio.aside(_over_the_square, score, pane, asked))

    async def density(request: Request) -> Response:
        asked, pane = await opened(request)
        return pixels(await studio.aside(_over_the_square, log_density, pane, asked))

    async def probed(request: Request) -> Response:
        asked, pane = await opened(request)
        return answer(await studio.aside(probe, pane, _given(asked)[:1], asked.t))

    async def dropped(request: Request) -> Response:
        asked, pane = await opened(request)
        made = await studio.aside(drop, pane, _given(asked), asked.t, NoiseSource(asked.seed))
        return answer(
            {
                "times": made.times,
                "x": [x.tolist() for x in made.x],
                "x0": [x0.tolist() for x0 in made.x0],
                "refused": made.refused,
            }
        )

    async def differs(request: Request) -> Response:
        asked, pane = await opened(request)
        t = max(1, round(asked.t))
        value = await studio.aside(difference, pane.plain, pane.source, t)
        return answer({"t": t, "difference": value})

    async def code(request: Request) -> Response:
        values = await read_object(request)
        return answer(await studio.aside(_code, studio, values))

    async def opened(request: Request) -> tuple[FieldRequest, Pane]:
        asked = parse(FieldRequest, await read_object(request))

        def made() -> Pane:
            return _pane(studio, asked.pane, open_source(asked.source), asked.training)

        return asked, await studio.aside(made)

    async def states(request: Request) -> Response:
        job, k = studio.jobs.find(request.path_params["job"]), request.path_params["pane"]
        what = request.query_params.get("what", "x")
        if what not in ("x", "x0"):
            raise InputError("what is x or x0")
        if job.kind != "field-walk" or not job.details or not 0 <= k < len(job.details):
            raise Refusal(404, "this job has no such walk")
        found: list[Tensor] = getattr(job.details[k], what)
        return pixels(torch.stack(found).numpy())

    return [
        Route("/api/field", field),
        Route("/api/field/source", source, methods=["POST"]),
        Route("/api/field/points", points, methods=["POST"]),
        Route("/api/field/score", scores, methods=["POST"]),
        Route("/api/field/density", density, methods=["POST"]),
        Route("/api/field/probe", probed, methods=["POST"]),
        Route("/api/field/drop", dropped, methods=["POST"]),
        Route("/api/field/difference", differs, methods=["POST"]),
        Route("/api/field/python", code, methods=["POST"]),
        Route("/api/jobs/{job}/walk/{pane:int}", states),
    ]


def _given(asked: FieldRequest) -> Tensor:
    """The points of a request, (n, 2). InputError where there is none."""
    if not asked.x:
        raise InputError("give at least one point")
    return torch.tensor(asked.x, dtype=torch.float32)
