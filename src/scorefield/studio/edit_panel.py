"""The Edit panel: part of an image filled in, an image through its latent and back, walks between images or seeds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scorefield.runs.run import Run
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.parsing import Options, parse
from scorefield.runtime.progress import Bar
from scorefield.studio.answers import answer, read_object
from scorefield.studio.edited_images import EditedImage, EditedImages, as_png, drawn, held_out, sent
from scorefield.studio.jobs import Job
from scorefield.studio.sample_jobs import Inpainted, SampleRequest, frame_of, plan_request, unit_scale
from scorefield.studio.sample_panel import pixels
from scorefield.studio.session import Planned, Studio

__all__ = ["EncodeRequest", "FillRequest", "WalkRequest", "routes"]

_MOST_FRAMES = 64  # of a walk
_STEPS = 1000


class FillRequest(SampleRequest):
    """Samples that fill in part of an image."""

    image: str
    mask: list[int] = Field(
        description="lengths of stretches of pixels, row by row: kept, filled in, kept, and so on"
    )


class EncodeRequest(Options):
    """An image to its latent and back."""

    run: int
    image: str
    label: int | None = None
    steps: int | None = Field(None, ge=1, le=_STEPS)


class WalkRequest(Options):
    """Images on the way from one end to the other; an end is the id of an image, or a seed."""

    run: int
    a: int | str
    b: int | str
    frames: int = Field(16, ge=2, le=_MOST_FRAMES)
    label: int | None = None
    steps: int | None = Field(None, ge=1, le=_STEPS)


def mask_from(lengths: list[int], height: int, width: int) -> np.ndarray:
    """uint8 (height, width) of stretches of 0 (kept) and 255 (filled in) in turn.

    Raises:
        InputError: Where the lengths do not add up to the image.
    """
    if any(length < 0 for length in lengths) or sum(lengths) != height * width:
        raise InputError(f"the mask's stretches must add up to the image's {height * width:,} pixels")
    values = np.zeros(len(lengths), np.uint8)
    values[1::2] = 255
    return np.repeat(values, lengths).reshape(height, width)


# What is planned and done


def plan_fill(images: EditedImages, studio: Studio, values: Mapping[str, Any]) -> Planned:
    """Samples on `Run.sampling(inpaint=(image, mask))`, planned and drawn as those of the Sample panel."""
    request = parse(FillRequest, values)
    image = images.for_run(request.image, request.run)
    mask = mask_from(request.mask, *image.pixels.shape[:2])
    return plan_request(studio, request, Inpainted(image.given, mask))


def plan_encode(images: EditedImages, studio: Studio, values: Mapping[str, Any]) -> Planned:
    """`Run.encode` and `Run.decode` of one image."""
    request = parse(EncodeRequest, values)
    run, image = studio.catalogue.run(request.run), images.for_run(request.image, request.run)
    given = _given(label=request.label, steps=request.steps)
    command = ["scorefield", "encode", str(run.path), "image.png", "--out", "latents.npz"]
    lines = [
        f"run = sf.Run({str(run.path)!r})",
        f"latents = run.encode('image.png'{_arguments(_plural(given))}, check=1)",
        "images = run.decode(latents).images",
    ]
    pace = ("encode", request.run)
    facts = _facts(
        run, request.steps, 3, command + _flags(studio, request.run, given), lines, studio.pace.get(pace)
    )
    return _planned(facts, lambda job: _encode(studio, job, run, image, given, pace), request)


def plan_walk(images: EditedImages, studio: Studio, values: Mapping[str, Any]) -> Planned:
    """`Run.interpolate` between two images or seeds."""
    request = parse(WalkRequest, values)
    run = studio.catalogue.run(request.run)
    ends = [
        end if isinstance(end, int) else images.for_run(end, request.run) for end in (request.a, request.b)
    ]
    named = [end if isinstance(end, int) else f"{name}.png" for name, end in zip("ab", ends, strict=True)]
    given = _given(label=request.label, steps=request.steps)
    command = ["scorefield", "interpolate", str(run.path), *map(str, named)]
    command += ["--frames", str(request.frames), "--out", "walk.gif"]
    lines = [
        f"run = sf.Run({str(run.path)!r})",
        f"walk = run.interpolate({named[0]!r}, {named[1]!r}, {request.frames}{_arguments(given)})",
    ]
    encoded = sum(isinstance(end, EditedImage) for end in ends)
    pace = ("walk", request.run, request.frames, encoded)
    words = command + _flags(studio, request.run, given)
    facts = _facts(run, request.steps, encoded + 1, words, lines, studio.pace.get(pace))
    return _planned(facts, lambda job: _walk(studio, job, run, ends, request.frames, given, pace), request)


def _facts(
    run: Run, steps: int | None, walks: int, command: list[str], lines: list[str], pace: float | None
) -> dict[str, Any]:
    """What the page shows before it starts. walks: how often the grid is walked. pace: seconds of a call, once known."""
    refused, calls = None, None
    try:
        run.check_latents()
        calls = walks * run.sampling(sampler="ddim", steps=steps, eta=0.0).calls
    except ScorefieldError as error:
        refused = str(error)
    return {
        "calls": calls,
        "blocks": 1,
        "seconds": None if calls is None or pace is None else calls * pace,
        "refused": refused,
        "caution": None,
        "command": shlex.join(command),
        "python": "import scorefield as sf\n\n" + "\n".join(lines),
    }


def _planned(facts: dict[str, Any], work: Callable[[Job], dict[str, Any]], request: Options) -> Planned:
    return Planned(facts, None if facts["refused"] else work, request.model_dump())


def _given(**values: int | None) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}


def _plural(given: Mapping[str, int]) -> dict[str, int]:
    """`Run.encode` calls labels what `Run.interpolate` calls label."""
    return {"labels" if name == "label" else name: value for name, value in given.items()}


def _arguments(given: Mapping[str, object]) -> str:
    return "".join(f", {name}={value!r}" for name, value in given.items())


def _flags(studio: Studio, number: int, given: Mapping[str, int]) -> list[str]:
    classes = studio.catalogue.run(number).data_spec.classes
    words = {
        name: classes[value] if name == "label" and 0 <= value < len(classes) else str(value)
        for name, value in given.items()
    }
    return [word for name, value in words.items() for word in (f"--{name}", value)]


def _encode(
    studio: Studio,
    job: Job,
    run: Run,
    image: EditedImage,
    given: Mapping[str, int],
    pace: tuple[object, ...],
) -> dict[str, Any]:
    """Frames: the image, its latent, and the image that it is decoded to."""
    with studio.jobs.device:
        progress = _Events(job)
        latents = run.encode(
            image.given[None], given.get("label"), steps=given.get("steps"), progress=progress, check=1
        )
        job.check()
        back = run.decode(latents, progress=progress)
        studio.pace[pace] = progress.pace
        process = run.model(precision="fp32").process
        noise = unit_scale(process, latents.latents, latents.grid[0])
    found = [image.pixels[None], frame_of(noise, run.data_spec), _channels(back.images)]
    for i, picture in enumerate(found):
        job.frames.keep(i, picture, picture)
    wrong = np.abs(found[2].astype(np.int16) - found[0].astype(np.int16))
    return {
        "calls": progress.steps,
        "mse": latents.reconstruction_mse,
        "largest": int(wrong.max()),
        "changed": float((wrong > 0).mean()),
        "steps": latents.steps,
    }


def _walk(
    studio: Studio,
    job: Job,
    run: Run,
    ends: list[int | EditedImage],
    frames: int,
    given: Mapping[str, int],
    pace: tuple[object, ...],
) -> dict[str, Any]:
    """Frame i of the job is frame i of the walk."""
    a, b = (end if isinstance(end, int) else end.given for end in ends)
    with studio.jobs.device:
        progress = _Events(job)
        walk = run.interpolate(a, b, frames, given.get("label"), steps=given.get("steps"), progress=progress)
        studio.pace[pace] = progress.pace
    for i, picture in enumerate(_channels(walk.images)):
        job.frames.keep(i, picture[None], picture[None])
    return {"calls": progress.steps, "cosine": walk.cosine, "steps": walk.steps, "label": walk.label}


def _channels(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) or (N, H, W, C) as (N, H, W, C)."""
    return images if images.ndim == 4 else images[..., None]


class _Events:
    """The progress of a call as events of a job, which it ends where the job is cancelled."""

    def __init__(self, job: Job) -> None:
        self._job, self._what, self._total = job, "", 0
        self._start = perf_counter()
        self.steps = 0

    @property
    def pace(self) -> float:
        """Seconds of a step, and so of a network call: the flow of DDIM makes one a step."""
        return (perf_counter() - self._start) / max(self.steps, 1)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Bar]:
        """A phase, such as encoding."""
        self._what, self._total = what, self.steps + total
        yield self

    def say(self, text: str) -> None:
        """A sentence, which the page does not show."""

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Not called by steps."""

    def advance(self) -> None:
        """A step was made."""
        self._job.check()
        self.steps += 1
        self._job.report("step", i=self.steps, of=self._total, calls=self.steps, what=self._what)


# Routes


def routes(studio: Studio) -> list[Route]:
    """The panel's own routes; its jobs are of the kinds "fill", "encode" and "walk"."""
    images = EditedImages()
    plans = {
        "fill": partial(plan_fill, images),
        "encode": partial(plan_encode, images),
        "walk": partial(plan_walk, images),
    }
    studio.kinds.update(plans)

    def kept(image: EditedImage, count: int | None = None) -> Response:
        classes = studio.catalogue.run(image.run).data_spec.classes
        name = None if image.label is None or image.label >= len(classes) else classes[image.label]
        return answer(
            {
                "id": images.keep(image),
                "run": image.run,
                "shape": image.pixels.shape,
                "name": image.name,
                "label": image.label,
                "label_name": name,
                "notes": image.notes,
                "count": count,
            }
        )

    async def send(request: Request) -> Response:
        content = await request.body()
        return kept(await studio.aside(sent, studio, _whole(request, "run"), content))

    async def choose(request: Request) -> Response:
        index = _whole(request, "index")
        return kept(*await studio.aside(held_out, studio, _whole(request, "run"), index))

    async def take(request: Request) -> Response:
        job = studio.jobs.find(request.path_params["job"])
        return kept(drawn(job, request.path_params["k"]))

    async def raw(request: Request) -> Response:
        return pixels(images.find(request.path_params["image"]).pixels[None])

    async def file(request: Request) -> Response:
        return Response(as_png(images.find(request.path_params["image"]).pixels), media_type="image/png")

    async def mask(request: Request) -> Response:
        values = await read_object(request)
        asked = parse(_Mask, values)
        size = images.find(request.path_params["image"]).pixels.shape[:2]
        return Response(as_png(mask_from(asked.mask, *size)), media_type="image/png")

    async def plan(request: Request) -> Response:
        values = await read_object(request)
        kind, asked = values.get("kind"), values.get("request")
        if kind not in plans or not isinstance(asked, dict):
            raise InputError(f"a plan has a kind, one of {', '.join(plans)}, and a request")
        return answer((await studio.aside(plans[kind], studio, asked)).facts)

    return [
        Route("/api/edit/images", send, methods=["POST"]),
        Route("/api/edit/held-out", choose, methods=["POST"]),
        Route("/api/edit/jobs/{job}/sample/{k:int}", take, methods=["POST"]),
        Route("/api/edit/images/{image}/pixels", raw),
        Route("/api/edit/images/{image}/image.png", file),
        Route("/api/edit/images/{image}/mask.png", mask, methods=["POST"]),
        Route("/api/edit/plan", plan, methods=["POST"]),
    ]


class _Mask(Options):
    mask: list[int]


def _whole(request: Request, name: str) -> int:
    """A whole number of the address."""
    text = request.query_params.get(name, "")
    if not text.isdecimal():
        raise InputError(f"{name} is a whole number from 0 on")
    return int(text[:9])
