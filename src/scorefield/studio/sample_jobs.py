"""What the page asks of a run's samples, what that costs, and the job that draws them step by step."""

from __future__ import annotations

import hashlib
import json
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from time import perf_counter
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from scorefield.core.noise import Noise, NoiseSource
from scorefield.core.shapes import DataSpec, are_images, expand
from scorefield.generation.sampling import Sampling, Start
from scorefield.process import GaussianProcess
from scorefield.runs.opened import SampleKeywords, StepKeywords
from scorefield.runs.run import Run
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.parsing import Options
from scorefield.samplers.base import Step, as_sampler
from scorefield.samplers.grids import as_floats
from scorefield.samplers.latents import slerp
from scorefield.studio.jobs import Job
from scorefield.studio.session import Planned, Studio

__all__ = [
    "MOST",
    "Drawn",
    "Inpainted",
    "SampleRequest",
    "as_toml",
    "keywords",
    "frame_of",
    "plan_request",
    "unit_scale",
]

MOST = 64  # samples on the page


class Near(Options):
    """Samples whose x_T lie near that of one sample of the seed."""

    sample: int = Field(ge=0, lt=2**20, description="its index")
    weight: float = Field(0.2, ge=0, le=1, description="share of the way from its x_T to that of sample k")


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
    n: int = Field(16, ge=1, le=MOST)
    seed: int = Field(0, ge=0)
    block: int = Field(8, ge=1, le=MOST)
    indices: list[Annotated[int, Field(ge=0, lt=2**20)]] | None = Field(
        None, min_length=1, max_length=MOST, description="the samples of the seed that are wanted alone"
    )
    near: Near | None = None

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


class Inpainted(NamedTuple):
    """An image and what of it is filled in, as `Run.sampling` takes them.

    Attributes:
        image: uint8 (H, W) or (H, W, C).
        mask: uint8 (H, W), 255 where it is filled in, 0 where it is kept.
    """

    image: np.ndarray
    mask: np.ndarray

    def held(self, frame: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, C) with the image where it is kept."""
        image = self.image if self.image.ndim == 3 else self.image[..., None]
        return np.where(self.mask[..., None] > 0, frame, image)


_FILES = ("image.png", "mask.png")  # what a command and Python read in their place


@dataclass(frozen=True)
class Drawn:
    """What a job has drawn: values as the page has them, uint8 (n, H, W, C) or float32 (n, 2)."""

    request: SampleRequest
    run: Run
    values: np.ndarray
    labels: list[int] | None


def keywords(request: SampleRequest, studio: Studio, inpaint: Inpainted | None) -> SampleKeywords:
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
        "inpaint": inpaint,
    }
    return SampleKeywords(**{name: value for name, value in found.items() if value is not None})  # type: ignore[typeddict-item]


_FLAGS = frozenset(StepKeywords.__annotations__) - {
    "sampler",
    "steps",
    "grid",
    "settings",
    "classifier",
    "autoguidance",
}


def plan_request(studio: Studio, request: SampleRequest, inpaint: Inpainted | None = None) -> Planned:
    """What a request costs and the job that answers it. Nothing is computed on the network.

    Args:
        studio: The server's state.
        request: What is asked for.
        inpaint: The image that the samples fill in, if they do.

    Raises:
        Refusal: For a run that is not there, or that the page draws no samples of.
    """
    run = studio.catalogue.run(request.run)
    refused = studio.catalogue.card(request.run)["can"]["sample"]
    sampling = None
    if refused is None:
        try:
            sampling = run.sampling(request.labels, **keywords(request, studio, inpaint))
            if request.near is not None:
                sampling = replace(sampling, start=_start_near(sampling, request.seed, request.near))
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
        "command": None if request.near else _command(request, studio, inpaint),
        "python": _python(request, studio, inpaint),
    }
    if sampling is None or refused is not None:
        return Planned(facts, None, None)
    pace = studio.pace.get(_pace_key(request))
    facts["calls"], facts["times"] = sampling.calls, as_floats(sampling.grid)
    facts["caution"] = sampling.caution()
    facts["seconds"] = None if pace is None else sampling.calls * len(request.blocks) * pace
    return Planned(
        facts, lambda job: _draw(studio, job, request, run, sampling, inpaint), request.model_dump()
    )


def _start_near(sampling: Sampling, seed: int, near: Near) -> Start:
    """Draws x_T of sample k as slerp(x_T of `near.sample`, x_T of k, weight) around the prior's mean: sample `near.sample`
    itself is what it is without `near`.

    Raises:
        InputError: For a run that does not start from Gaussian noise.
    """
    process = sampling.model.process
    if sampling.start is not None or not isinstance(process, GaussianProcess):
        raise InputError(
            "the samples of this run do not start from Gaussian noise: its latents have no neighbours"
        )
    mean = process.prior_mean

    def start(shape: Sequence[int], noise: Noise) -> Tensor:
        own = process.prior((1, *shape[1:]), NoiseSource(seed, [near.sample]).at(0))
        others = process.prior(shape, noise)
        return mean + slerp((own - mean).expand_as(others), others - mean, near.weight)

    return start


def _draw(
    studio: Studio,
    job: Job,
    request: SampleRequest,
    run: Run,
    sampling: Sampling,
    inpaint: Inpainted | None,
) -> dict[str, Any]:
    """The job: every step is kept as frames; the last one is what `Run.sample` returns. What is known of an image stands
    in its x̂0 too.
    """
    how: dict[str, Any] = {
        "n": request.count,
        "seed": request.seed,
        "blocks": request.blocks,
        "size": request.block,
    }
    rows = _rows(request)
    spec, calls = sampling.spec, _calls_by_step(sampling)
    with studio.jobs.device:
        x_T = sampling.first_states(**how)[rows]
        job.frames.keep(
            0, *[frame_of(unit_scale(sampling.model.process, x_T, float(sampling.grid[0])), spec)] * 2
        )
        steps = sampling.together(**how)
    paces: list[float] = []
    last: Step | None = None
    for i in range(1, sampling.steps + 1):
        job.check()
        with studio.jobs.device:
            before = perf_counter()
            last = next(steps)
            x, x0 = last.x[rows], last.x0[rows]
            estimate = frame_of(x0, spec) if inpaint is None else inpaint.held(frame_of(x0, spec))
            job.frames.keep(i, frame_of(unit_scale(sampling.model.process, x, last.s), spec), estimate)
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
    job.details = Drawn(request, run, values, labels)
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
    return [0, *accumulate(each)]


def unit_scale(process: object, x: Tensor, t: float) -> Tensor:
    """x_t / √(α_t² + σ_t²), which has the scale of data at every level: x_t itself where noise preserves the variance."""
    if not isinstance(process, GaussianProcess) or t == 0:
        return x
    level = process.level(t)
    return x / expand((level.alpha**2 + level.sigma**2).sqrt(), x)


def frame_of(x: Tensor, spec: DataSpec) -> np.ndarray:
    """uint8 (n, H, W, C) of images, float32 (n, *) of anything else."""
    if are_images(spec.shape):
        return spec.to_uint8(x).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return x.to(torch.float32).cpu().numpy()


def _pace_key(request: SampleRequest) -> tuple[object, ...]:
    return request.run, request.block, request.guidance is not None, request.classifier


# The same in a terminal and in Python


def _asked(request: SampleRequest, studio: Studio, inpaint: Inpainted | None) -> dict[str, Any]:
    """The keywords of `Run.sample` that the request gives, by name, with paths in the place of runs and images."""
    how: dict[str, Any] = dict(keywords(request, studio, inpaint))
    if inpaint is not None:
        how["inpaint"] = _FILES
    if "classifier" in how:
        how["classifier"] = str(how["classifier"].path)
    return how


def _command(request: SampleRequest, studio: Studio, inpaint: Inpainted | None) -> str:
    path = studio.catalogue.path(request.run)
    how = _asked(request, studio, inpaint)
    words = ["scorefield", "sample", str(path), "-n", str(request.count)]
    for name, value in how.items():
        if name == "settings":
            words += [word for key, item in value.items() for word in ("--set", f"{key}={as_toml(item)}")]
        elif name == "inpaint":
            words += ["--inpaint", *_FILES]
        else:
            words += [f"--{name}", str(value)]
    if request.labels is not None:
        words += ["--label", ",".join(map(str, _names(request, studio)))]
    words += ["--seed", str(request.seed), "--block", str(request.block), "--out", "samples.npz"]
    return shlex.join(words)


def _python(request: SampleRequest, studio: Studio, inpaint: Inpainted | None) -> str:
    path = studio.catalogue.path(request.run)
    if request.near is not None:
        return _python_near(request, request.near, studio, inpaint)
    given: dict[str, Any] = {"n": request.count, "seed": request.seed}
    given |= {} if request.labels is None else {"labels": request.labels}
    given |= {**_asked(request, studio, inpaint), "block": request.block}
    return f"import scorefield as sf\n\nsamples = sf.Run({str(path)!r}).sample({_keyword_text(given)})"


def _python_near(request: SampleRequest, near: Near, studio: Studio, inpaint: Inpainted | None) -> str:
    given = {} if request.labels is None else {"labels": request.labels}
    arguments = _keyword_text(given | _asked(request, studio, inpaint))
    return f"""import dataclasses

import scorefield as sf

run = sf.Run({str(studio.catalogue.path(request.run))!r})
sampling = run.sampling({arguments})
process = sampling.model.process


def near(shape, noise):
    own = process.prior((1, *shape[1:]), sf.NoiseSource({request.seed}, [{near.sample}]).at(0))
    others = process.prior(shape, noise)
    mean = process.prior_mean
    return mean + sf.latents.slerp((own - mean).expand_as(others), others - mean, {near.weight!r})


sampling = dataclasses.replace(sampling, start=near)
blocks = sampling.blocks({request.count}, {request.seed}, size={request.block}, blocks={request.blocks})
images = [run.data_spec.to_uint8(block.x) for block in blocks]"""


def _keyword_text(given: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def _names(request: SampleRequest, studio: Studio) -> list[object]:
    """The labels as the command takes them: by name, since a class may be called by the number of another one."""
    run = studio.catalogue.run(request.run if request.classifier is None else request.classifier)
    classes = run.data_spec.classes
    return [classes[label] if 0 <= label < len(classes) else label for label in request.labels or ()]


def as_toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
