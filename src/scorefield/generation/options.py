"""How a model is sampled, as options: sampler, grid, start and clipping, from their names to objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from pydantic import Field

from scorefield.core.noise import Noise
from scorefield.generation.blocks import given
from scorefield.models.categorical_denoiser import CategoricalDenoiser
from scorefield.models.denoiser import Denoiser
from scorefield.models.guidance import ClassifierFree, ClassifierGuidance, ClipX0
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.models.score_model import ScoreModel
from scorefield.process import ContinuousProcess, Process
from scorefield.runtime.checks import did_you_mean
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.parsing import Options, build, whole_number
from scorefield.runtime.registry import CATEGORICAL_SAMPLERS, GRIDS, SAMPLERS
from scorefield.samplers import Sampler, between_levels
from scorefield.samplers.grids import full, sections, staircase, steps
from scorefield.samplers.ode import LARGEST_RATIO

__all__ = [
    "Sampling",
    "SamplingOptions",
    "build_grid",
    "build_sampling",
    "caution",
]

_EVEN = ("uniform", "trailing")  # in as many steps as there are levels, all of them


class SamplingOptions(Options):
    """How this model is sampled unless the command says otherwise.

    steps: network calls, every level if None; updates of a score without levels, 1,000 if None.
    clip: x̂0 to the data's range.   start: "prior", or "uniform" over the data's range (NCSN).
    grid "staircase" (annealed Langevin): `repeats` updates at each of `levels` evenly spaced levels, all of
    them if None; or as many levels as make `steps` updates.   Langevin without a `step` has NCSN's, 0.4
    (σ/α)² of the first level.
    guidance: the scale, of a classifier where one is given (1 if None), otherwise of classifier-free guidance
    (1 is the conditional model; None does without).   guidance_at: where ancestral sampling takes a
    classifier's gradient, see ClassifierGuidance.
    """

    sampler: dict[str, Any] = {"kind": "ddim"}
    grid: str = "uniform"
    steps: int | None = Field(None, ge=1)
    repeats: int = Field(1, ge=1)
    levels: int | None = Field(None, ge=1)
    start: Literal["prior", "uniform"] = "prior"
    clip: bool = True
    guidance: float | None = None
    guidance_at: Literal["x_t", "mean"] = "x_t"


class Wrap(Protocol):
    """The model and its labels, one an example or None -> what is sampled: labels bound, clipped, guided."""

    def __call__(self, model: Any, labels: list[int] | None = None) -> Any: ...


class Sampling(NamedTuple):
    """What SamplingOptions describe: the arguments of `sample_blocks`.   start: None for the prior."""

    sampler: Sampler
    grid: torch.Tensor
    wrap: Wrap
    start: Callable[[Sequence[int], Noise], torch.Tensor] | None


def build_sampling(
    options: SamplingOptions,
    model: Denoiser | ScoreModel | NoisyClassifier | CategoricalDenoiser,
    classifier: NoisyClassifier | None = None,
) -> Sampling:
    """Sampler, grid, clipping, guidance and start for this model.

    classifier: guides it, by labels of its own where the model is unconditional.
    IncompatibleModel for a model that is a classifier, which makes nothing, and for guidance that does not
    fit the model.
    """
    if isinstance(model, NoisyClassifier):
        raise IncompatibleModel(
            "this is a classifier: it tells classes apart and makes no samples; sample a run of the same process with it as guide "
            "(--classifier RUN --guidance S)"
        )
    if isinstance(model, CategoricalDenoiser):
        return _of_categories(options, model, classifier)
    sampler: Sampler = build(SAMPLERS, _with_step(options.sampler, model), "sampling.sampler")
    grid = (
        steps(options.steps or 1000) if isinstance(model, ScoreModel) else build_grid(options, model.process)
    )
    start = _uniform_start(model) if options.start == "uniform" or isinstance(model, ScoreModel) else None
    if getattr(sampler, "between_levels", False) and isinstance(model, Denoiser):
        return Sampling(sampler, grid, _wrap_between_levels(options, model, classifier), start)
    return Sampling(sampler, grid, _wrap(options, model, classifier), start)


def caution(sampling: Sampling, model: Any, guided_by_classifier: bool) -> str | None:
    """A sentence where a classifier's gradient will be multiplied by a very large σ²/α, as an ε̂-shifting
    sampler does at its start.
    """
    if not guided_by_classifier or getattr(sampling.sampler, "guidance", None) != "eps":
        return None
    level = model.process.level(float(sampling.grid[0]))
    ratio = float(level.ratio)
    if ratio <= LARGEST_RATIO:
        return None
    return (
        f"this sampler shifts ε̂ by the classifier's gradient from σ/α = {ratio:,.0f} on, where an error of that gradient becomes an "
        f"error of x̂0 some {ratio:,.0f} times larger: if the samples are noise, use --sampler ancestral, or --grid leading"
    )


def _of_categories(
    options: SamplingOptions, model: CategoricalDenoiser, classifier: NoisyClassifier | None
) -> Sampling:
    """Samplers of their own. A category is in the data's range, so there is nothing to clip."""
    if classifier is not None or options.guidance is not None:
        raise IncompatibleModel("guidance moves a score, and a model of categories has none: leave it out")
    if options.start != "prior":
        raise IncompatibleModel('categories start from the noise of their process: use start="prior"')
    sampler: Sampler = build(CATEGORICAL_SAMPLERS, options.sampler, "sampling.sampler")
    return Sampling(
        sampler, build_grid(options, model.process), lambda model, labels=None: given(model, labels), None
    )


def _wrap(options: SamplingOptions, model: Denoiser | ScoreModel, classifier: NoisyClassifier | None) -> Wrap:
    clipped = ClipX0 if options.clip and not isinstance(model, ScoreModel) else _itself
    scale = options.guidance
    if classifier is not None:
        wrap = _by_classifier(
            clipped, model, classifier, 1.0 if scale is None else scale, options.guidance_at
        )
    elif scale is not None:
        wrap = _classifier_free(clipped, model, scale)
    else:
        return lambda model, labels=None: clipped(given(model, labels))
    wrap(model, [0])  # pieces that do not fit are refused before anything is sampled
    return wrap


def _wrap_between_levels(
    options: SamplingOptions, model: Denoiser, classifier: NoisyClassifier | None
) -> Wrap:
    """`_wrap` for samplers that ask for times between the levels of a table."""
    wrap = _wrap(options, between_levels(model), None if classifier is None else between_levels(classifier))
    return lambda model, labels=None: wrap(between_levels(model), labels)


def _classifier_free(clipped: Callable[[Any], Any], model: Denoiser | ScoreModel, scale: float) -> Wrap:
    _need_levels(model)
    return lambda model, labels=None: clipped(ClassifierFree(model, _asked(labels), scale))


def _by_classifier(
    clipped: Callable[[Any], Any],
    model: Denoiser | ScoreModel,
    classifier: NoisyClassifier,
    scale: float,
    at: str,
) -> Wrap:
    _check_classifier(_need_levels(model), classifier)

    def wrap(model: Any, labels: list[int] | None = None) -> Any:
        inner = clipped(given(model, labels if model.num_classes else None))
        return ClassifierGuidance(inner, classifier, _asked(labels), scale, at)

    return wrap


def _need_levels(model: Denoiser | ScoreModel) -> Denoiser:
    if isinstance(model, ScoreModel):
        raise IncompatibleModel(
            "guidance is for models with noise levels, and this one is a score without them: leave it out"
        )
    return model


def _asked(labels: list[int] | None) -> list[int]:
    if labels is None:
        raise InputError("guidance is towards a class: say which, by labels")
    return labels


def _itself(model: Any) -> Any:
    return model


def _check_classifier(model: Denoiser, classifier: NoisyClassifier) -> None:
    """IncompatibleModel where the classifier is for other examples, or has other classes than a conditional
    model.
    """
    if not isinstance(classifier, NoisyClassifier):
        raise IncompatibleModel(
            f"a {type(classifier).__name__} cannot guide: --classifier takes the run of a classifier"
        )
    mine, its = model.data, classifier.data
    if mine is None or its is None:
        return
    for what, of_model, of_classifier in (
        ("examples of shape", mine.shape, its.shape),
        ("values in the range", mine.range, its.range),
        ("the classes", mine.classes if model.num_classes else its.classes, its.classes),
    ):
        if tuple(of_model) != tuple(of_classifier):
            raise IncompatibleModel(
                f"the classifier was trained on {what} {_brief(of_classifier)}, and the model on {_brief(of_model)}: train a "
                "classifier on the model's own data"
            )


def _brief(values: Sequence[Any]) -> str:
    return f"({', '.join(map(str, values[:10]))}{', …' if len(values) > 10 else ''})"


def build_grid(options: SamplingOptions, process: Process) -> torch.Tensor:
    """The grid by its name, "full", "staircase", or the published respacing written as counts: "10,15,20"."""
    name = options.grid
    if name == "staircase":
        count = options.levels if options.steps is None else _stairs(options.steps, options.repeats)
        return staircase(
            process, options.repeats, None if count is None else GRIDS["uniform"](process, count)
        )
    if name == "full" or (options.steps is None and name in _EVEN):
        return full(process)
    if options.steps is None and name in GRIDS:
        raise InputError(
            f"grid {name!r} needs a number of steps: give --steps, or steps beside it in [sampling]"
        )
    if name in GRIDS and options.steps is not None:
        return GRIDS[name](process, options.steps)
    counts = [whole_number(count) for count in name.split(",")]
    if None not in counts:
        return sections(process, [count for count in counts if count is not None])
    known = ["full", "staircase", *GRIDS]
    raise InputError(
        f"grid must be one of {', '.join(known)}, or counts of sections such as 10,15,20; got {name!r}{did_you_mean(name, known)}"
    )


def _with_step(sampler: Mapping[str, Any], model: Denoiser | ScoreModel) -> Mapping[str, Any]:
    """The table of a Langevin sampler without a step, with the ratio of NCSN's settings, 4e-5 at σ = 0.01.
    [NCSN §5]
    """
    if sampler.get("kind") != "langevin" or "step" in sampler or isinstance(model, ScoreModel):
        return sampler
    process = model.process
    first = process.level(process.t_min if isinstance(process, ContinuousProcess) else 1)
    return {**sampler, "step": 0.4 * float(first.ratio) ** 2}


def _stairs(updates: int, repeats: int) -> int:
    """How many levels make so many updates."""
    if updates % repeats:
        raise InputError(
            f"this staircase has {repeats} updates a level, so its steps must be a multiple of {repeats}; got {updates}"
        )
    return updates // repeats


def _uniform_start(model: Denoiser | ScoreModel) -> Callable[[Sequence[int], Noise], torch.Tensor]:
    low, high = model.data.range if model.data is not None else (-1.0, 1.0)
    return lambda shape, noise: low + (high - low) * noise.uniform(shape)
