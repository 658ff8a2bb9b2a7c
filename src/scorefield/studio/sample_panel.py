"""The Sample panel: what a run's samples can be asked for, one of them by itself, and pictures that carry their settings."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from torch import Tensor

from scorefield.core.shapes import DataSpec, are_images
from scorefield.data import Dataset
from scorefield.evaluation.copies import copied, nearest
from scorefield.evaluation.statistics import COPIED_WITHIN
from scorefield.generation.sampling import Sampling
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.runs.evaluating import run_data
from scorefield.runs.opened import SampleKeywords
from scorefield.runs.run import Run
from scorefield.runs.settings import Setting, settings_of, settings_of_kind, summary_of
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.parsing import parse
from scorefield.runtime.reading import reading
from scorefield.runtime.registry import CATEGORICAL_SAMPLERS, GRIDS, SAMPLERS
from scorefield.samplers.grids import full, staircase
from scorefield.store.outputs import MARK
from scorefield.store.picture_grid import picture_grid
from scorefield.studio.answers import Refusal, answer, read_object
from scorefield.studio.jobs import Job
from scorefield.studio.sample_jobs import MOST, Drawn, SampleRequest, plan_request
from scorefield.studio.session import Planned, Studio

__all__ = ["as_control", "controls", "pixels", "plan_sample", "routes"]

_STEPS = 1000  # on the page, of a process without a number of levels
_NEIGHBOURS = 5  # training images that are shown beside a sample
_SEARCHED = 2**29  # bytes of training images, as uint8, that are searched for neighbours
_CHUNK = "scorefield"  # the text of a picture that holds its settings
_OWN_CONTROLS = ("sampler", "grid", "steps", "guidance")  # of [sampling], beside which the rest are `options`
_WHOLE_GRIDS: Mapping[str, Callable[..., Any]] = {"full": full, "staircase": staircase}


def plan_sample(studio: Studio, values: Mapping[str, Any]) -> Planned:
    """What a request costs and the job that answers it.

    Args:
        studio: The server's state.
        values: The request, as the page sent it.

    Raises:
        InputError: For a request that cannot be read.
        Refusal: As `plan_request`.
    """
    return plan_request(studio, parse(SampleRequest, values))


# What the controls are made of


def controls(studio: Studio, number: int) -> dict[str, Any]:
    """What can be asked of a run: samplers with their settings, grids, labels, guidance; each with the library's sentence
    where this run refuses it.
    """
    run, card = studio.catalogue.run(number), studio.catalogue.card(number)
    if card["can"]["sample"] is not None:
        raise InputError(card["can"]["sample"])
    own = run.sampling()
    studio.recall("prepared", (number, run.weights_sha256), lambda: _prepare(studio, own), most=10)
    recipe, options, process = run.recipe, own.options, own.model.process
    registry = CATEGORICAL_SAMPLERS if own.model.family == "categorical" else SAMPLERS
    discrete = process is not None and process.is_discrete
    levels = int(process.T) if process is not None and discrete else None
    steps = own.steps if levels is None else min(own.steps, levels)  # a staircase has several at a level
    spec = own.spec
    conditional = bool(own.model.num_classes)
    guided = _refused(run, guidance=1.0)
    return {
        "samplers": [
            {
                "name": name,
                "summary": summary_of(registry[name]),
                "refused": _refused(run, sampler=name, steps=None if name == "langevin" else steps),
                "settings": [as_control(one) for one in settings_of_kind("sampling.sampler", registry[name])],
            }
            for name in registry
        ],
        "grids": [
            {
                "name": name,
                "summary": summary_of(made),
                "refused": _refused(run, grid=name, steps=None if name == "full" else steps),
                "fixes_steps": name == "full",
            }
            for name, made in {
                "full": full,
                **{word: GRIDS[word] for word in GRIDS},
                "staircase": staircase,
            }.items()
        ],
        "options": [
            as_control(one)
            for one in settings_of("sampling")
            if one.name.removeprefix("sampling.") not in _OWN_CONTROLS
        ],
        "labels": {"classes": list(spec.classes)} if conditional else None,
        "guidance": {
            "refused": guided,
            "classifiers": _classifiers(studio, spec),
            "default": options.guidance,
        },
        "defaults": {
            "sampler": options.sampler["kind"],
            "settings": {name: value for name, value in options.sampler.items() if name != "kind"},
            "options": options.model_dump(exclude=set(_OWN_CONTROLS)),
            "grid": options.grid,
            "steps": own.steps,
            "labels": None,
            "guidance": options.guidance,
            "classifier": None,
            "n": SampleRequest.model_fields["n"].default,
            "seed": 0,
            "block": SampleRequest.model_fields["block"].default,
        },
        "levels": levels,
        "largest": {"n": MOST, "steps": levels or max(_STEPS, steps), "block": MOST},
        "recipe": recipe.name,
    }


def _prepare(studio: Studio, sampling: Sampling) -> None:
    """Let the device thread load what the first step of a run takes, before it is asked for."""
    block = SampleRequest.model_fields["block"].default
    studio.jobs.prepare(lambda: next(sampling.together(block, 0, [0], block)))


def _refused(run: Run, **how: Unpack[SampleKeywords]) -> str | None:
    """The library's sentence on these options, or None."""
    try:
        run.sampling(**how).check()
    except ScorefieldError as error:
        return str(error)
    return None


def as_control(setting: Setting) -> dict[str, Any]:
    """A setting as a form's control."""
    name = setting.name.rpartition(".")[2]
    words = setting.type.split(" | ")
    quoted = [json.loads(word) for word in words if word.startswith('"')]
    return {
        "name": name,
        "type": setting.type,
        "default": setting.default,
        "description": setting.description,
        "choices": quoted if quoted and len(quoted) == len(words) else None,
    }


def _classifiers(studio: Studio, spec: DataSpec) -> list[int]:
    """The runs of classifiers of such examples."""
    cards = studio.catalogue.cards()
    like = [card for card in cards if card["kind"] == "classifier" and card["state"] != "unreadable"]
    return [
        card["id"] for card in like if studio.catalogue.run(card["id"]).data_spec.shape == tuple(spec.shape)
    ]


# One sample


def detail(studio: Studio, job: Job, k: int) -> dict[str, Any]:
    """Sample k of a job: its seed and label, its nearest training images, p(class) where a classifier guides."""
    drawn = _drawn(job, k)
    request, spec = drawn.request, drawn.run.data_spec
    label = None if drawn.labels is None else drawn.labels[k]
    found: dict[str, Any] = {
        "index": request.numbers[k],
        "seed": request.seed,
        "label": label,
        "label_name": None if label is None else _class_name(spec.classes, label),
        "nearest": [],
        "nearest_refused": None,
        "probabilities": _probabilities(studio, drawn, k),
    }
    try:
        train = _training_images(studio, request.run, drawn.run)
    except ScorefieldError as error:
        return {**found, "nearest_refused": str(error)}
    return {**found, "nearest": _neighbours(studio, drawn, k, train)}


def _neighbours(studio: Studio, drawn: Drawn, k: int, train: _Training) -> list[dict[str, Any]]:
    query = torch.from_numpy(drawn.values[k : k + 1]).permute(0, 3, 1, 2).contiguous()
    numbers = nearest(query, train.pixels, _NEIGHBOURS)[1][0]
    distances, order = nearest(_values(query, train.spec), train.data.batch(numbers)[0], _NEIGHBOURS)
    found = []
    for distance, index in zip(distances[0].tolist(), numbers[order[0]].tolist(), strict=True):
        label = None if train.labels is None else int(train.labels[index])
        found.append(
            {
                "index": index,
                "split": "training",
                "distance": distance,
                "label_name": None if label is None else _class_name(train.spec.classes, label),
                "copy": bool(copied(query, train.pixels[index : index + 1], COPIED_WITHIN)[0]),
            }
        )
    return found


def _probabilities(studio: Studio, drawn: Drawn, k: int) -> list[dict[str, Any]] | None:
    """p(class) of the sample at the classifier's smallest level, the likeliest first."""
    if drawn.request.classifier is None:
        return None
    run = studio.catalogue.run(drawn.request.classifier)
    spec = run.data_spec
    value = torch.from_numpy(drawn.values[k : k + 1])
    x = _values(value.permute(0, 3, 1, 2), spec) if are_images(spec.shape) else value
    with studio.jobs.device, torch.no_grad():
        model = run.model(kind=NoisyClassifier)
        logits = model(x.to(model.device), model.process.t_min)
    chances = logits.softmax(dim=1)[0].tolist()
    named = [{"class": _class_name(spec.classes, label), "p": chance} for label, chance in enumerate(chances)]
    return sorted(named, key=lambda one: -one["p"])


def _values(pixels: Tensor, spec: DataSpec) -> Tensor:
    """uint8 images as the values in the data's range that they show."""
    bins = 256 if spec.bins is None else spec.bins
    levels = (pixels.to(torch.float64) * ((bins - 1) / 255)).round().to(torch.int64)
    return replace(spec, bins=bins).from_bins(levels)


def _class_name(classes: tuple[str, ...], label: int) -> str:
    return classes[label] if label < len(classes) else str(label)


@dataclass(frozen=True)
class _Training:
    """The training images of a run, uint8 (N, C, H, W)."""

    pixels: Tensor
    labels: Tensor | None
    data: Dataset

    @property
    def spec(self) -> DataSpec:
        return self.data.spec


def _training_images(studio: Studio, number: int, run: Run) -> _Training:
    """The training images of a run, kept for the next call. InputError where they cannot be searched."""
    return studio.recall("training images", (number, run.weights_sha256), lambda: _read_training_images(run))


def _read_training_images(run: Run) -> _Training:
    if not are_images(run.data_spec.shape):
        raise InputError("neighbours are shown of images")
    train: Dataset = run_data(run)[0]
    if len(train) * run.data_spec.dimensions > _SEARCHED or not train.in_memory:
        raise InputError(
            f"neighbours among {len(train):,} training images take too long: scorefield evaluate RUN with the metric "
            "copies looks for copies"
        )
    parts = [train.batch(part)[0] for part in torch.arange(len(train)).split(4096)]
    pixels = torch.cat([train.spec.to_uint8(part) for part in parts])
    return _Training(pixels, train.labels, train)


def _drawn(job: Job, k: int = 0) -> Drawn:
    if not isinstance(job.details, Drawn):
        raise Refusal(404, "this job has no samples yet")
    if not 0 <= k < len(job.details.values):
        raise Refusal(404, f"this job has samples 0 … {len(job.details.values) - 1}")
    return job.details


# Pictures that carry their settings


def picture(job: Job, k: int | None) -> bytes:
    """The grid of a job's samples, or sample k alone, as PNG with the request in a text chunk."""
    drawn = _drawn(job, k or 0)
    spec = drawn.run.data_spec
    if not are_images(spec.shape):
        raise InputError("only images are saved as a picture: scorefield sample RUN writes points to an .npz")
    chosen = slice(None) if k is None else slice(k, k + 1)
    images = torch.from_numpy(drawn.values[chosen]).permute(0, 3, 1, 2).contiguous()
    labels = None if drawn.labels is None or k is not None else drawn.labels
    said, file = PngInfo(), io.BytesIO()
    said.add_text("Comment", MARK)
    if job.kind == "sample":
        said.add_text(_CHUNK, json.dumps(_settings(drawn, k)))
    picture_grid(images, None, labels, spec.classes).save(file, format="PNG", pnginfo=said)
    return file.getvalue()


def _settings(drawn: Drawn, k: int | None) -> dict[str, Any]:
    settings = drawn.request.model_dump(exclude={"run", "classifier"}, exclude_defaults=True)
    if k is not None:
        settings["indices"] = [drawn.request.numbers[k]]
    return {"run": drawn.run.path.name, "weights": drawn.run.weights_sha256, "request": settings}


def settings_in(studio: Studio, content: bytes) -> dict[str, Any]:
    """The request that a saved picture carries, for the run of its name.

    Raises:
        InputError: For a file that is no such picture, and where there is no such run.
    """
    with reading("the picture"), Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        text = image.info.get(_CHUNK)
    if not isinstance(text, str):
        raise InputError("this picture carries no settings: drop one that this page has saved")
    with reading("the settings of the picture"):
        about = json.loads(text)
        name, weights, request = str(about["run"]), str(about["weights"]), dict(about["request"])
    number = studio.catalogue.number(name)
    if number is None:
        raise InputError(f"the picture is of the run {name}, which is not among the runs of this page")
    found = parse(SampleRequest, {**request, "run": number})
    same = studio.catalogue.run(number).weights_sha256 == weights
    note = None if same else f"the weights of {name} have changed since: the same settings give other samples"
    return {"request": found.model_dump(exclude_defaults=True), "note": note}


# Routes


def routes(studio: Studio) -> list[Route]:
    """The panel's own routes; its jobs are of the kind "sample"."""
    studio.kinds["sample"] = plan_sample

    async def sampling(request: Request) -> Response:
        return answer(await studio.aside(controls, studio, request.path_params["run"]))

    async def plan(request: Request) -> Response:
        values = await read_object(request)
        return answer((await studio.aside(plan_sample, studio, values)).facts)

    async def one(request: Request) -> Response:
        job = studio.jobs.find(request.path_params["job"])
        return answer(await studio.aside(detail, studio, job, request.path_params["k"]))

    async def neighbour(request: Request) -> Response:
        job, k, j = (request.path_params[name] for name in ("job", "k", "j"))
        drawn = _drawn(studio.jobs.find(job), k)
        train = await studio.aside(_training_images, studio, drawn.request.run, drawn.run)
        if not 0 <= j < len(train.pixels):
            raise Refusal(404, f"there are training images 0 … {len(train.pixels) - 1}")
        return pixels(train.pixels[j : j + 1].permute(0, 2, 3, 1).contiguous().numpy())

    async def saved(request: Request) -> Response:
        job, asked = studio.jobs.find(request.path_params["job"]), request.query_params.get("sample")
        if asked is not None and not asked.isdecimal():
            raise InputError("sample is the number of one sample of the job, from 0 on")
        content = await studio.aside(picture, job, None if asked is None else int(asked[:9]))
        return Response(content, media_type="image/png")

    async def settings(request: Request) -> Response:
        return answer(await studio.aside(settings_in, studio, await request.body()))

    return [
        Route("/api/runs/{run:int}/sampling", sampling),
        Route("/api/plan", plan, methods=["POST"]),
        Route("/api/settings", settings, methods=["POST"]),
        Route("/api/jobs/{job}/picture.png", saved),
        Route("/api/jobs/{job}/sample/{k:int}", one),
        Route("/api/jobs/{job}/sample/{k:int}/nearest/{j:int}", neighbour),
    ]


def pixels(array: np.ndarray) -> Response:
    """Raw values in row-major order, with their shape in a header; the address never has others."""
    shape = ",".join(map(str, array.shape))
    headers = {"X-Shape": shape, "Cache-Control": "private, max-age=86400, immutable"}
    return Response(array.tobytes(), media_type="application/octet-stream", headers=headers)
