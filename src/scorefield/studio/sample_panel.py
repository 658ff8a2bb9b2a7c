"""The Sample panel: what a run's samples can be asked for, what that costs, and the job that draws them."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from torch import Tensor

from scorefield.core.shapes import DataSpec, are_images, expand
from scorefield.data import Dataset
from scorefield.evaluation.copies import copied, nearest
from scorefield.evaluation.statistics import COPIED_WITHIN
from scorefield.generation.sampling import Sampling
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.process import GaussianProcess
from scorefield.runs.evaluating import run_data
from scorefield.runs.opened import SampleKeywords, StepKeywords
from scorefield.runs.run import Run
from scorefield.runs.settings import Setting, settings_of, settings_of_kind, summary_of
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.parsing import Options, parse
from scorefield.runtime.reading import reading
from scorefield.runtime.registry import CATEGORICAL_SAMPLERS, GRIDS, SAMPLERS
from scorefield.samplers.base import Step, as_sampler
from scorefield.samplers.grids import as_floats, full, staircase
from scorefield.store.outputs import MARK
from scorefield.store.picture_grid import picture_grid
from scorefield.studio.answers import Refusal, answer, read_object
from scorefield.studio.jobs import Job
from scorefield.studio.session import Planned, Studio

__all__ = ["SampleRequest", "plan_sample", "routes"]

_MOST = 64  # samples on the page
_STEPS = 1000  # on the page, of a process without a number of levels
_NEIGHBOURS = 5  # training images that are shown beside a sample
_SEARCHED = 2**29  # bytes of training images, as uint8, that are searched for neighbours
_CHUNK = "scorefield"  # the text of a picture that holds its settings
_OWN_CONTROLS = ("sampler", "grid", "steps", "guidance")  # of [sampling], beside which the rest are `options`
_WHOLE_GRIDS: Mapping[str, Callable[..., Any]] = {"full": full, "staircase": staircase}


class SampleRequest(Options):
    """What the page asks for; what it leaves out is the run's own."""

    run: int
    sampler: str | None = None
    settings: dict[str, Any] = Field({}, description="of the sampler, such as eta")
    options: dict[str, Any] = Field({}, description="of the [sampling] table, such as clip")
    grid: str | None = None
    steps: int | None = Field(None, ge=1)
    labels: list[int] | None = None
    guidance: float | None = None
    classifier: int | None = Field(None, description="the run of a classifier")
    n: int = Field(16, ge=1, le=_MOST)
    seed: int = Field(0, ge=0)
    block: int = Field(8, ge=1, le=_MOST)
    indices: list[int] | None = Field(None, description="the samples of the seed that are wanted alone")

    @property
    def count(self) -> int:
        """How many samples the seed has in the command that makes these."""
        return self.n if self.indices is None else max(self.indices) + 1

    @property
    def numbers(self) -> list[int]:
        """Which samples of the seed are wanted."""
        return list(range(self.n)) if self.indices is None else self.indices

    @property
    def blocks(self) -> list[int]:
        """The blocks that hold them."""
        return sorted({number // self.block for number in self.numbers})


@dataclass(frozen=True)
class _Drawn:
    """What a job has drawn: values as the page has them, uint8 (n, H, W, C) or float32 (n, 2)."""

    request: SampleRequest
    run: Run
    values: np.ndarray
    labels: list[int] | None


def read_request(values: Mapping[str, Any]) -> SampleRequest:
    """A request of the page.

    Raises:
        InputError: For a field that is unknown or out of range.
    """
    request = parse(SampleRequest, values)
    if request.indices is not None:
        wrong = [number for number in request.indices if not 0 <= number < 2**20]
        if not 1 <= len(request.indices) <= _MOST or wrong:
            raise InputError(f"indices are 1 to {_MOST} numbers of samples from 0 on")
    return request


def keywords(request: SampleRequest, studio: Studio) -> SampleKeywords:
    """The keywords of `Run.sample` for a request, but for n, seed, labels and block."""
    given: dict[str, Any] = {name: value for name, value in request.settings.items() if name in _FLAGS}
    others = {f"sampler.{name}": value for name, value in request.settings.items() if name not in _FLAGS}
    others |= request.options
    classifier = None if request.classifier is None else studio.catalogue.run(request.classifier)
    found = {
        "sampler": request.sampler,
        "steps": None if request.grid == "full" else request.steps,
        "grid": request.grid,
        **given,
        "settings": others or None,
        "guidance": request.guidance,
        "classifier": classifier,
    }
    return SampleKeywords(**{name: value for name, value in found.items() if value is not None})  # type: ignore[typeddict-item]


_FLAGS = frozenset(StepKeywords.__annotations__) - {"sampler", "steps", "grid", "settings", "classifier"}


def plan_sample(studio: Studio, values: Mapping[str, Any]) -> Planned:
    """What a request costs and the job that answers it. Nothing is computed on the network.

    Args:
        studio: The server's state.
        values: The request, as the page sent it.

    Raises:
        InputError: For a request that cannot be read.
        Refusal: For a run that is not there, or that the page draws no samples of.
    """
    request = read_request(values)
    run = studio.catalogue.run(request.run)
    refused = studio.catalogue.card(request.run)["can"]["sample"]
    sampling = None
    if refused is None:
        try:
            sampling = run.sampling(request.labels, **keywords(request, studio))
            sampling.check()
        except ScorefieldError as error:
            refused = str(error)
    facts = {
        "calls": None,
        "blocks": len(request.blocks),
        "seconds": None,
        "times": [],
        "refused": refused,
        "caution": None,
        "command": _command(request, studio),
        "python": _python(request, studio),
    }
    if sampling is None or refused is not None:
        return Planned(facts, None, None)
    pace = studio.pace.get(_pace_key(request))
    facts["calls"], facts["times"] = sampling.calls, as_floats(sampling.grid)
    facts["caution"] = sampling.caution()
    facts["seconds"] = None if pace is None else sampling.calls * len(request.blocks) * pace
    return Planned(facts, lambda job: _draw(studio, job, request, run, sampling), request.model_dump())


def _draw(studio: Studio, job: Job, request: SampleRequest, run: Run, sampling: Sampling) -> dict[str, Any]:
    """The job: every step is kept as frames; the last one is what `Run.sample` returns."""
    how = {"n": request.count, "seed": request.seed, "blocks": request.blocks, "size": request.block}
    rows = _rows(request)
    spec, calls = sampling.spec, _calls_by_step(sampling)
    with studio.jobs.device:
        x_T = sampling.first_states(**how)[rows]
        job.frames.keep(0, *[_pixels(_unit(sampling, x_T, float(sampling.grid[0])), spec)] * 2)
        steps = sampling.together(**how)
    paces: list[float] = []
    last: Step | None = None
    for i in range(1, sampling.steps + 1):
        job.check()
        with studio.jobs.device:
            before = perf_counter()
            last = next(steps)
            x, x0 = last.x[rows], last.x0[rows]
            job.frames.keep(i, _pixels(_unit(sampling, x, last.s), spec), _pixels(x0, spec))
            seconds = perf_counter() - before
        made = calls[i] - calls[i - 1]
        if i > 1 and made:  # the first one also pays for what is prepared once
            paces.append(seconds / (made * len(request.blocks)))
        job.report("step", i=i, t=last.t, s=last.s, calls=calls[i], ms=round(1000 * seconds, 1))
        studio.jobs.thin()
    if paces:
        studio.pace[_pace_key(request)] = statistics.median(paces)
    values = job.frames.at(job.frames.last, "x")
    numbers = request.numbers
    labels = None if sampling.labels is None else [sampling.labels[i % len(sampling.labels)] for i in numbers]
    job.details = _Drawn(request, run, values, labels)
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    return {"calls": sampling.calls, "sha256": digest, "labels": labels}


def _rows(request: SampleRequest) -> Tensor:
    """Where the wanted samples are among those of their blocks."""
    held = [
        number
        for k in request.blocks
        for number in range(k * request.block, min(request.count, (k + 1) * request.block))
    ]
    place = {number: row for row, number in enumerate(held)}
    return torch.tensor([place[number] for number in request.numbers])


def _calls_by_step(sampling: Sampling) -> list[int]:
    """Network calls made after each step, from 0 on; they end at `sampling.calls`."""
    sampler, process = as_sampler(sampling.sampler), sampling.model.process
    try:
        each = [sampler.calls_on(process, pair) for pair in pairwise(as_floats(sampling.grid))]
    except InputError:  # of a sampler that takes whole grids only
        each = []
    if sum(each) != sampling.calls:
        return [sampling.calls * i // sampling.steps for i in range(sampling.steps + 1)]
    return [0, *(sum(each[:i]) for i in range(1, len(each) + 1))]


def _unit(sampling: Sampling, x: Tensor, t: float) -> Tensor:
    """x_t / √(α_t² + σ_t²), which has the scale of data at every level: x_t itself where noise preserves the variance."""
    process = sampling.model.process
    if not isinstance(process, GaussianProcess) or t == 0:
        return x
    level = process.level(t)
    return x / expand((level.alpha**2 + level.sigma**2).sqrt(), x)


def _pixels(x: Tensor, spec: DataSpec) -> np.ndarray:
    """uint8 (n, H, W, C) of images, float32 (n, *) of anything else."""
    if are_images(spec.shape):
        return spec.to_uint8(x).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return x.to(torch.float32).cpu().numpy()


def _pace_key(request: SampleRequest) -> tuple[object, ...]:
    return request.run, request.block, request.guidance is not None, request.classifier


# The same in a terminal and in Python


def _asked(request: SampleRequest, studio: Studio) -> dict[str, Any]:
    """The keywords of `Run.sample` that the request gives, by name, with paths in the place of runs."""
    how: dict[str, Any] = dict(keywords(request, studio))
    if "classifier" in how:
        how["classifier"] = str(how["classifier"].path)
    return how


def _command(request: SampleRequest, studio: Studio) -> str:
    path = studio.catalogue.path(request.run)
    how = _asked(request, studio)
    words = ["scorefield", "sample", str(path), "-n", str(request.count)]
    for name, value in how.items():
        if name == "settings":
            words += [word for key, item in value.items() for word in ("--set", f"{key}={_toml(item)}")]
        else:
            words += [f"--{name}", str(value)]
    if request.labels is not None:
        words += ["--label", ",".join(map(str, _names(request, studio)))]
    words += ["--seed", str(request.seed), "--block", str(request.block), "--out", "samples.npz"]
    return shlex.join(words)


def _python(request: SampleRequest, studio: Studio) -> str:
    path = studio.catalogue.path(request.run)
    given: dict[str, Any] = {"n": request.count, "seed": request.seed}
    given |= {} if request.labels is None else {"labels": request.labels}
    given |= {**_asked(request, studio), "block": request.block}
    arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return f"import scorefield as sf\n\nsamples = sf.Run({str(path)!r}).sample({arguments})"


def _names(request: SampleRequest, studio: Studio) -> list[object]:
    """The labels as the command takes them: by name, since a class may be called by the number of another one."""
    run = studio.catalogue.run(request.run if request.classifier is None else request.classifier)
    classes = run.data_spec.classes
    return [classes[label] if 0 <= label < len(classes) else label for label in request.labels or ()]


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


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
    steps = own.steps
    spec = own.spec
    conditional = bool(own.model.num_classes)
    guided = _refused(run, guidance=1.0)
    return {
        "samplers": [
            {
                "name": name,
                "summary": summary_of(registry[name]),
                "refused": _refused(run, sampler=name, steps=None if name == "langevin" else steps),
                "settings": [_control(one) for one in settings_of_kind("sampling.sampler", registry[name])],
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
            _control(one)
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
            "steps": steps,
            "labels": None,
            "guidance": options.guidance,
            "classifier": None,
            "n": SampleRequest.model_fields["n"].default,
            "seed": 0,
            "block": SampleRequest.model_fields["block"].default,
        },
        "levels": levels,
        "largest": {"n": _MOST, "steps": levels or max(_STEPS, steps), "block": _MOST},
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


def _control(setting: Setting) -> dict[str, Any]:
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


def _neighbours(studio: Studio, drawn: _Drawn, k: int, train: _Training) -> list[dict[str, Any]]:
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


def _probabilities(studio: Studio, drawn: _Drawn, k: int) -> list[dict[str, Any]] | None:
    """p(class) of the sample at the classifier's smallest level, the likeliest first."""
    if drawn.request.classifier is None:
        return None
    run = studio.catalogue.run(drawn.request.classifier)
    spec = run.data_spec
    x = _values(torch.from_numpy(drawn.values[k : k + 1]).permute(0, 3, 1, 2), spec)
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


def _drawn(job: Job, k: int = 0) -> _Drawn:
    if job.kind != "sample" or not isinstance(job.details, _Drawn):
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
    settings = drawn.request.model_dump(exclude={"run", "classifier"}, exclude_defaults=True)
    if k is not None:
        settings["indices"] = [drawn.request.numbers[k]]
    about = {"run": drawn.run.path.name, "weights": drawn.run.weights_sha256, "request": settings}
    said.add_text(_CHUNK, json.dumps(about))
    picture_grid(images, None, labels, spec.classes).save(file, format="PNG", pnginfo=said)
    return file.getvalue()


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
    found = read_request({**request, "run": number})
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
