"""The Compare panel: the same seeds under settings along two axes, with what each costs and how far it is from the image
of many steps.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scorefield.core.shapes import DataSpec, are_images
from scorefield.generation.sampling import Sampling
from scorefield.plots import draw_images
from scorefield.runs.settings import settings_of_kind
from scorefield.runtime.bounds import LEVELS
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.parsing import Options, parse
from scorefield.runtime.registry import SAMPLERS
from scorefield.studio.answers import Refusal, answer, read_object
from scorefield.studio.jobs import Job
from scorefield.studio.sample_jobs import SampleRequest, frame_of, keywords, plan_request
from scorefield.studio.session import Planned, Studio

__all__ = ["Axis", "CompareRequest", "distance", "plan_compare", "routes"]

_CELLS, _SAMPLES, _VALUES = 64, 16, 16
_FREE = ("indices", "n", "seed", "block")  # alike in all cells
_WITHIN = ("settings", "options")  # tables, whose entries are axes such as settings.eta


class Axis(Options):
    """What differs along rows or columns.

    Attributes:
        name: A field of a `SampleRequest`, or an entry of its tables such as "settings.eta".
        values: One for each row or column; null is the run's own.
    """

    name: str
    values: list[Any] = Field(min_length=1, max_length=_VALUES)


class CompareRequest(Options):
    """A table of sample requests.

    Attributes:
        base: What all cells have in common, a `SampleRequest`.
        rows: The first axis.
        columns: The second axis. Default: one column.
        reference: Steps of the image of the same x_T that cells are compared with. Default: none is made.
    """

    base: dict[str, Any]
    rows: Axis
    columns: Axis | None = None
    reference: int | None = Field(None, ge=1, le=LEVELS)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows.values), 1 if self.columns is None else len(self.columns.values)


@dataclass
class _Cell:
    """One cell.

    Attributes:
        row: Its row.
        column: Its column.
        request: What is sampled.
        facts: What it costs, as the Sample panel says it.
        result: What came of it.
    """

    row: int
    column: int
    request: SampleRequest
    facts: Mapping[str, Any]
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Compared:
    """The table of a job, which fills as cells come."""

    asked: CompareRequest
    cells: list[_Cell]


def plan_compare(studio: Studio, values: Mapping[str, Any]) -> Planned:
    """The cells of a table with what each costs, and the job that fills it. Nothing is computed on the network.

    Args:
        studio: The server's state.
        values: A `CompareRequest`, as the page sent it.

    Raises:
        InputError: For axes that no request has, and for too many cells.
        Refusal: For a run that is not there.
    """
    asked = parse(CompareRequest, values)
    rows, columns = asked.shape
    if rows * columns > _CELLS:
        raise InputError(f"a comparison has at most {_CELLS} cells, got {rows} × {columns}")
    cells = []
    for row in range(rows):
        for column in range(columns):
            request = _request(asked, row, column)
            cells.append(_Cell(row, column, request, plan_request(studio, request).facts))
    first = cells[0].request.run
    seconds = [cell.facts["seconds"] for cell in cells if cell.facts["refused"] is None]
    facts = {
        "cells": [{"row": cell.row, "column": cell.column, **cell.facts} for cell in cells],
        "rows": [_said(studio, first, asked.rows, value) for value in asked.rows.values],
        "columns": [""]
        if asked.columns is None
        else [_said(studio, first, asked.columns, v) for v in asked.columns.values],
        "calls": sum(cell.facts["calls"] or 0 for cell in cells),
        "seconds": None if None in seconds else sum(seconds),
        "refused": None if seconds else cells[0].facts["refused"],
    }
    compared = _Compared(asked, cells)
    if facts["refused"] is not None:
        return Planned(facts, None, None)
    return Planned(facts, lambda job: _fill(studio, job, compared), asked.model_dump())


def _request(asked: CompareRequest, row: int, column: int) -> SampleRequest:
    """The request of a cell: the base with the values of its row and column."""
    base = json.loads(json.dumps(asked.base, default=str))
    was = base.get("sampler")
    for axis, number in ((asked.rows, row), (asked.columns, column)):
        if axis is None:
            continue
        table, _, name = axis.name.rpartition(".")
        known = axis.name in SampleRequest.model_fields and axis.name not in (*_FREE, *_WITHIN)
        if not known and table not in _WITHIN:
            fields = [one for one in SampleRequest.model_fields if one not in (*_FREE, *_WITHIN)]
            raise InputError(
                f"an axis is one of {', '.join(fields)}, settings.NAME of a sampler or options.NAME; got {axis.name!r}"
            )
        value = axis.values[number]
        value = [value] if axis.name == "labels" and isinstance(value, int) else value
        if not table:
            base[name] = value
        elif isinstance(within := base.setdefault(table, {}), dict):
            base[table] = {**within, name: value} if value is not None else within
    base["settings"] = _settings_of(base.get("sampler"), was, base.get("settings", {}))
    request = parse(SampleRequest, base)
    if request.indices is not None or request.n > _SAMPLES:
        raise InputError(f"a cell has samples 0 … n − 1 of its seed, and n is at most {_SAMPLES}")
    return request


def _settings_of(sampler: object, was: object, settings: object) -> object:
    """The settings that a cell's sampler declares, where it is another one than the base's."""
    if sampler == was or sampler not in SAMPLERS or not isinstance(settings, dict):
        return settings
    declared = {
        one.name.removeprefix("sampler.") for one in settings_of_kind("sampler", SAMPLERS[str(sampler)])
    }
    return {name: value for name, value in settings.items() if name in declared}


def _said(studio: Studio, run: int, axis: Axis, value: Any) -> str:
    """The head of a row or column. run: whose classes have names."""
    name = axis.name.rpartition(".")[2]
    if value is None:
        return f"{name}: the run's own"
    if axis.name in ("run", "classifier") and isinstance(value, int):
        return studio.catalogue.path(value).name
    if axis.name == "labels" and isinstance(value, int):
        classes = studio.catalogue.run(run).data_spec.classes
        return f"class {classes[value] if 0 <= value < len(classes) else value}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _fill(studio: Studio, job: Job, compared: _Compared) -> dict[str, Any]:
    """The job: cell after cell, each one a frame; the images of many steps come before the first cell that needs them."""
    job.frames.whole, job.details = True, compared
    references: dict[str, tuple[int, np.ndarray] | None] = {}
    calls = 0
    for cell in compared.cells:
        job.check()
        request, place = cell.request, cell.row * compared.asked.shape[1] + cell.column
        said: dict[str, Any] = {"row": cell.row, "column": cell.column, "i": place}
        try:
            if cell.facts["refused"] is not None:
                raise InputError(cell.facts["refused"])
            reference = _reference(studio, job, compared, request, references)
            run = studio.catalogue.run(request.run)
            sampling = run.sampling(request.labels, **keywords(request, studio, None))
            before = perf_counter()
            values = _drawn(studio, job, request, sampling, said)
            cell.result = {
                "calls": sampling.calls,
                "ms": round(1000 * (perf_counter() - before), 1),
                "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
                "distance": None if reference is None else distance(values, reference[1], sampling.spec),
                "reference_frame": None if reference is None else reference[0],
                "refused": None,
            }
            job.frames.keep(place, values, values)
            calls += sampling.calls
        except ScorefieldError as error:
            cell.result = {"refused": str(error)}
        job.report("cell", **said, **cell.result)
    return {"calls": calls}


def _drawn(
    studio: Studio, job: Job, request: SampleRequest, sampling: Sampling, said: Mapping[str, Any]
) -> np.ndarray:
    """The samples of a cell, as `Run.sample` makes them."""
    steps = sampling.together(request.n, request.seed, None, request.block)
    for i in range(1, sampling.steps + 1):
        job.check()
        with studio.jobs.device:
            last = next(steps)
        if i == sampling.steps:
            return frame_of(last.x, sampling.spec)
        job.report("progress", row=said["row"], column=said["column"], i=i, steps=sampling.steps)
    raise InputError("a grid has at least one step")


def _reference(
    studio: Studio,
    job: Job,
    compared: _Compared,
    request: SampleRequest,
    known: dict[str, tuple[int, np.ndarray] | None],
) -> tuple[int, np.ndarray] | None:
    """The frame and the samples of many steps of DDIM with η = 0 from the same x_T; None where there are none."""
    steps = compared.asked.reference
    if steps is None:
        return None
    alike = request.model_dump(include={"run", "labels", "guidance", "classifier", "n", "seed", "block"})
    alike["options"] = {name: value for name, value in request.options.items() if name == "clip"}
    key = json.dumps(alike)
    if key not in known:
        run = studio.catalogue.run(request.run)
        process = run.sampling().model.process
        most = int(process.T) if process is not None and process.is_discrete else steps
        many = {**alike, "sampler": "ddim", "grid": "uniform", "steps": min(steps, most)}
        try:
            asked = parse(SampleRequest, many)
            sampling = run.sampling(asked.labels, **keywords(asked, studio, None))
            place = len(compared.cells) + len(known)
            values = _drawn(studio, job, asked, sampling, {"row": None, "column": None})
            job.frames.keep(place, values, values)
            known[key] = place, values
        except ScorefieldError:  # a model without a flow from noise to data
            known[key] = None
    return known[key]


def distance(a: np.ndarray, b: np.ndarray, spec: DataSpec) -> float:
    """√(mean (a − b)²) in units of the data, its mean over samples.

    Args:
        a: Samples as frames have them, uint8 (n, H, W, C) or float32 (n, *).
        b: Others of the same seeds.
        spec: What one sample is.
    """
    low, high = spec.range
    scale = (high - low) / 255 if are_images(spec.shape) else 1.0
    squares = np.square(scale * (a.astype(np.float64) - b.astype(np.float64)))
    return float(np.sqrt(squares.reshape(len(a), -1).mean(axis=1)).mean())


# What is saved


def _of(job: Job) -> _Compared:
    if not isinstance(job.details, _Compared):
        raise Refusal(404, "this job has no table of samples")
    return job.details


def picture(studio: Studio, job: Job) -> bytes:
    """The table as PNG: a row of cells a line, with the values of the axes. InputError before it is filled."""
    compared = _of(job)
    if not job.ended or any("refused" not in cell.result for cell in compared.cells):
        raise InputError("the table is not filled yet")
    first = next((cell for cell in compared.cells if cell.result["refused"] is None), None)
    if first is None or not are_images(studio.catalogue.run(first.request.run).data_spec.shape):
        raise InputError("only tables of images are saved as a picture")
    across, n = compared.asked.shape[1], first.request.n
    blank = np.full_like(job.frames.at(first.row * across + first.column, "x"), 255)
    plan = plan_compare(studio, compared.asked.model_dump()).facts
    rows: dict[str, np.ndarray] = {}
    for k, name in enumerate(plan["rows"]):
        parts = [
            blank if cell.result["refused"] is not None else job.frames.at(k * across + cell.column, "x")
            for cell in compared.cells
            if cell.row == k
        ]
        if any(part.shape != blank.shape for part in parts):
            raise InputError("the images of these runs differ in size: compare runs of one size in a picture")
        pictures = np.concatenate(parts)
        rows[name if name not in rows else f"{name} ({k + 1})"] = (
            pictures.squeeze(-1) if pictures.shape[-1] == 1 else pictures
        )
    heads = [head for name in plan["columns"] for head in (name, *[""] * (n - 1))]
    figure, file = draw_images(rows, columns=across * n, heads=heads), io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def table(job: Job) -> str:
    """The table as CSV: a line a cell."""
    compared = _of(job)
    file = io.StringIO()
    names = ["calls", "ms", "distance", "sha256", "refused"]
    columns = [] if compared.asked.columns is None else [compared.asked.columns.name]
    writer = csv.writer(file)
    writer.writerow([compared.asked.rows.name, *columns, *names, "command"])
    for cell in compared.cells:
        values = [compared.asked.rows.values[cell.row]]
        values += [] if compared.asked.columns is None else [compared.asked.columns.values[cell.column]]
        found = [cell.result.get(name) for name in names]
        writer.writerow([*map(_text, values), *found, cell.facts["command"]])
    return file.getvalue()


def _text(value: object) -> str:
    """A value as a spreadsheet reads it, never as a formula."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if text[:1] in ("=", "+", "@") else text


def routes(studio: Studio) -> list[Route]:
    """The panel's routes; its jobs are of the kind "compare"."""
    studio.kinds["compare"] = plan_compare

    async def plan(request: Request) -> Response:
        values = await read_object(request)
        return answer((await studio.aside(plan_compare, studio, values)).facts)

    async def saved(request: Request) -> Response:
        job = studio.jobs.find(request.path_params["job"])
        return Response(await studio.aside(picture, studio, job), media_type="image/png")

    async def listed(request: Request) -> Response:
        job = studio.jobs.find(request.path_params["job"])
        return Response(table(job), media_type="text/csv; charset=utf-8")

    return [
        Route("/api/compare/plan", plan, methods=["POST"]),
        Route("/api/jobs/{job}/compare.png", saved),
        Route("/api/jobs/{job}/compare.csv", listed),
    ]
