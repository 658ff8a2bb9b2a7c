"""How a model is sampled: `Sampling` holds everything that decides its samples, and says what that is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.shapes import DataSpec
from scorefield.generation.sample_blocks import block_indices, bound, first_state, given, sample_blocks, walk
from scorefield.generation.sampling_options import SamplingOptions, build_grid, check_grid
from scorefield.models.base import AnyModel, ClassifierModel, GaussianModel, Model
from scorefield.models.foreign import as_model
from scorefield.models.guidance import Autoguidance, ClassifierFree, ClassifierGuidance, ClipX0
from scorefield.models.guidance_scale import Scale, scheduled
from scorefield.models.wrappers import Given
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.parsing import build
from scorefield.runtime.registry import CATEGORICAL_SAMPLERS, SAMPLERS
from scorefield.runtime.weights import sha256
from scorefield.samplers import Sampler, between_levels
from scorefield.samplers.base import Grid, Step, as_sampler
from scorefield.samplers.fitting import fit, reference_count
from scorefield.samplers.grids import as_floats, steps
from scorefield.samplers.ode import LARGEST_RATIO
from scorefield.store.block_store import BLOCK, Block
from scorefield.store.formats import first_names

__all__ = ["Condition", "Guide", "Sampling", "Start", "Weak", "Wrap", "build_sampling"]

Start = Callable[[Sequence[int], Noise], Tensor]
# What the objects of a Sampling say themselves. Every other option decides samples by its value.
_IN_OBJECTS = {"sampler", "grid", "steps", "repeats", "levels"}
# Left out where they are None, so that folders named by a hash of all keys are found again.
_NEWER = {"guidance_low", "guidance_high", "guidance_schedule", "guidance_rescale"}


class Wrap(Protocol):
    """The model and its labels, one per sample or None -> what is sampled: labels bound, clipped, guided."""

    def __call__(self, model: Model, labels: list[int] | None = None) -> Model: ...


_REFERENCE_SEED = 2**64  # of the samples that a grid is fitted to: none that people draw


def _bound(model: Model, labels: list[int] | None = None) -> Model:
    return given(model, labels)


@dataclass(frozen=True)
class Guide:
    """A classifier that guides.

    Attributes:
        model: The classifier.
        name: What people call it, such as its run.
        sha256: Of its weights.
    """

    model: ClassifierModel
    name: str
    sha256: str


@dataclass(frozen=True)
class Weak:
    """A weaker model that guides, by autoguidance.

    Attributes:
        model: The weaker model.
        name: What people call it, such as its run.
        sha256: Of its weights.
    """

    model: GaussianModel
    name: str
    sha256: str


@dataclass(frozen=True)
class Condition:
    """A further input of the network: one row per sample (M, *), cycled over them, and a hash of the rows."""

    values: Tensor
    fingerprint: str

    @classmethod
    def of(cls, name: str, values: Tensor) -> Condition:
        """With a hash of the values and their name."""
        return cls(values, sha256({name: values})[:16])


@dataclass(frozen=True)
class Sampling:
    """Everything that decides samples but their seed.

    Attributes:
        model: In evaluation mode, on its device.
        sampler: How a step is made.
        grid: Times from the start down, (S + 1,).
        options: Of these options it was built. Those that the other attributes do not say, such as `clip`, are
            read from here.
        wrap: What is sampled, given the model and the labels of a block.
        start: Draws the first state. Default: the process's prior.
        guide: The classifier that guides, if one does.
        weak: The weaker model that guides, if one does.
        weights: A hash of the model's weights; nothing where stored samples need not be told apart by it.
        labels: Cycled over the samples, sample i gets labels[i mod len]. Default: none.
        conditions: Further inputs of the network by name, cycled likewise; of a super-resolution model `low_res`.
    """

    model: Model
    sampler: Sampler
    grid: Tensor
    options: SamplingOptions = field(default_factory=SamplingOptions)
    wrap: Wrap = _bound
    start: Start | None = None
    guide: Guide | None = None
    weak: Weak | None = None
    weights: str | None = None
    labels: Sequence[int] | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    @property
    def spec(self) -> DataSpec:
        """What one sample is. InputError where the model does not say."""
        if self.model.data is None:
            raise InputError(
                "the shape of an example is not known: build the model with data=sf.DataSpec(shape)"
            )
        return self.model.data

    @property
    def steps(self) -> int:
        """Steps of the grid."""
        return len(self.grid) - 1

    @property
    def calls(self) -> int:
        """Network calls that a block takes."""
        return as_sampler(self.sampler).calls_on(self.model.process, self.grid)

    @property
    def precision(self) -> str:
        """What the network runs in, "fp32" or "bf16"."""
        return "fp32" if self.model.autocast_dtype is None else "bf16"

    @property
    def guidance(self) -> str | None:
        """How samples are guided, in words; None where they are not."""
        options = self.options
        if self.guide is None and options.guidance is None:
            return None
        scale = f"scale {1.0 if options.guidance is None else options.guidance:g}"
        how = [scale] if options.guidance_schedule is None else [f"{scale}, {options.guidance_schedule} in t"]
        if options.guidance_interval is not None:
            low, high = options.guidance_interval
            how.append(f"for σ/α in ({low:g}, {high:g}]")
        if options.guidance_rescale:
            how.append(f"rescaled by {options.guidance_rescale:g}")
        if self.guide is not None:
            by = f"classifier guidance by {self.guide.name} (sha256 {self.guide.sha256})"
            how.append(f"gradient at {options.guidance_at}")
        elif self.weak is not None:
            by = f"autoguidance by {self.weak.name} (sha256 {self.weak.sha256})"
        else:
            by = "classifier-free guidance"
        return ", ".join([by, *how])

    def identity(self, seed: int) -> dict[str, object]:
        """Everything that decides the samples of a seed, for the manifest of a store: the only list of it.

        Every field of `SamplingOptions` is in it, by its value or by the object that is built of it. Stored
        samples are found again by this dict, so a key that is renamed loses those that were made before; a
        key that is None counts as absent.
        """
        model, labels = self.model, self.labels
        process = None if model.process is None else model.process.config
        described = {"model": model.config, "net": model.net_config, "process": process}
        made_of = [
            None if config is None else first_names(config, name) for name, config in described.items()
        ]
        prints = {name: condition.fingerprint for name, condition in self.conditions.items()}
        rare = {
            "compiled": model.is_compiled,
            "low_res": prints.pop("low_res", None),
            "conditions": prints,
            "autoguidance": None if self.weak is None else self.weak.sha256,
        }
        return {
            "model": _digest(made_of),
            "weights": self.weights,
            "sampler": _name(self.sampler),
            "grid": as_floats(self.grid),
            "seed": seed,
            "labels": None if labels is None else f"{len(labels)} in turn, {_digest(list(labels))}",
            "precision": self.precision,
            "classifier": None if self.guide is None else self.guide.sha256,
            **{name: value for name, value in rare.items() if value},
            **self.options.model_dump(
                exclude=_IN_OBJECTS | {name for name in _NEWER if getattr(self.options, name) is None}
            ),
        }

    def blocks(
        self,
        n: int,
        seed: int,
        *,
        size: int = BLOCK,
        blocks: Iterable[int] | None = None,
        on_step: Callable[[int, Step], None] | None = None,
    ) -> Iterator[Block]:
        """Samples 0 … n−1 of a seed, `size` at once; see `sample_blocks`."""
        return sample_blocks(
            self.model,
            self.sampler,
            self.grid,
            n,
            seed,
            labels=self.labels,
            wrap=self.wrap,
            start=self.start,
            conditions=self._arrays,
            size=size,
            on_step=on_step,
            blocks=blocks,
        )

    def trajectory(self, n: int, seed: int, size: int = BLOCK) -> Iterator[Step]:
        """The steps of samples 0 … n−1 of a seed, at most `size` of them. Bad pieces raise here, not later."""
        if not 1 <= n <= size:
            raise InputError(f"a trajectory has at most one block of {size} samples, got n = {n}")
        return self.together(n, seed, [0], size)

    def together(
        self, n: int, seed: int, blocks: Iterable[int] | None = None, size: int = BLOCK
    ) -> Iterator[Step]:
        """The steps of samples 0 … n−1 of a seed, of all blocks side by side: each is computed as `blocks` computes it, so
        the last x has the same bytes. Bad pieces raise here, not later.

        Args:
            n: How many samples the seed has.
            seed: Of all draws.
            blocks: Which blocks. Default: all.
            size: Samples of a block.

        Yields:
            `Step`: x and x̂0 of the samples of these blocks, in their order.
        """
        numbers = list(range(-(-n // size)) if blocks is None else blocks)
        walks = [self._walk(block_indices(self.model, k, n, size), seed) for k in numbers]
        return self._joined(walks, [min(size, n - k * size) for k in numbers])

    @staticmethod
    def _joined(walks: Sequence[Iterator[Step]], counts: Sequence[int]) -> Iterator[Step]:
        """One step after another, of the first samples of every walk: a block may be padded."""
        for found in zip(*walks, strict=True):
            x = torch.cat([step.x[:count] for step, count in zip(found, counts, strict=True)])
            x0 = torch.cat([step.x0[:count] for step, count in zip(found, counts, strict=True)])
            yield Step(found[0].t, found[0].s, x, x0)

    def first_states(
        self, n: int, seed: int, blocks: Iterable[int] | None = None, size: int = BLOCK
    ) -> Tensor:
        """x_T of the samples that `together` walks with these arguments, (B, *)."""
        numbers = range(-(-n // size)) if blocks is None else blocks
        parts = [
            first_state(self.model, block_indices(self.model, k, n, size), seed, self.start)[: n - k * size]
            for k in numbers
        ]
        return torch.cat(parts)

    def _walk(self, indices: range, seed: int) -> Iterator[Step]:
        return walk(
            self.model,
            self.sampler,
            self.grid,
            indices,
            seed,
            labels=self.labels,
            wrap=self.wrap,
            start=self.start,
            conditions=self._arrays,
        )

    @property
    def _arrays(self) -> dict[str, Tensor]:
        return {name: condition.values for name, condition in self.conditions.items()}

    def fitted_grid(self, n: int) -> Tensor:
        """n steps fitted to what is sampled, labels and guidance included; see `sf.grids.fitted`."""
        indices = range(reference_count(self.spec.shape, n))
        sampled = bound(self.model, indices, labels=self.labels, wrap=self.wrap, conditions=self._arrays)
        x_T = first_state(self.model, indices, _REFERENCE_SEED, self.start)
        return fit(sampled, n, x_T, sampler=self.sampler)

    def check(self) -> None:
        """InputError or IncompatibleModel where the parts do not fit together. Nothing is computed."""
        self._walk(range(1), 0)

    def caution(self) -> str | None:
        """A sentence where a classifier's gradient will be multiplied by a very large σ²/α, as an ε̂-shifting
        sampler does at its start; otherwise None.
        """
        if self.guide is None or as_sampler(self.sampler).guidance != "eps":
            return None
        if not isinstance(self.model, GaussianModel):
            return None
        level = self.model.process.level(self.grid)
        ratio = float(level.ratio[level.alpha > 0].max())  # at α = 0 no gradient is added
        if ratio <= LARGEST_RATIO:
            return None
        return (
            f"this sampler adds the classifier's gradient to ε̂, and at the first level, σ/α = {ratio:,.0f}, an "
            f"error of the gradient becomes an error of x̂0 that is {ratio:,.0f} times larger: if the samples are "
            "noise, use the sampler ancestral or the grid leading"
        )


def build_sampling(
    options: SamplingOptions,
    model: AnyModel,
    guide: Guide | None = None,
    *,
    weak: Weak | None = None,
    sampler: Sampler | None = None,
    grid: Grid | None = None,
) -> Sampling:
    """How a model is sampled with these options: sampler, grid, clipping, guidance and start as objects.

    Args:
        options: What to build.
        model: What is sampled.
        guide: A classifier that guides, by labels of its own where the model is unconditional.
        weak: A weaker model that guides.
        sampler: An object in place of the one that `options.sampler` describes.
        grid: Times in place of those that `options.grid` and `options.steps` name.

    Raises:
        IncompatibleModel: For a model that is a classifier, and for guidance that does not fit the model.
        InputError: For options that have no meaning for this model.
    """
    model = as_model(model)
    if model.family == "classifier":
        raise IncompatibleModel(
            "this is a classifier and cannot be sampled: use it to guide a run with the same process",
            command="--classifier RUN --guidance S",
        )
    if sampler is None:
        kinds = CATEGORICAL_SAMPLERS if model.family == "categorical" else SAMPLERS
        sampler = build(kinds, _with_step(options, model), "sampling.sampler")
    if grid is not None:
        times = torch.as_tensor(as_floats(grid))
    elif model.process is None:
        check_grid(options.grid)
        times = steps(options.steps or 1000)
    else:
        times = build_grid(options, model.process)
    if model.family == "categorical":
        _check_categories(options, guide is not None or weak is not None)
        return Sampling(model, sampler, times, options)
    start = _uniform_start(model) if options.start == "uniform" or model.process is None else None
    between = as_sampler(sampler).between_levels and model.process is not None
    _check_guidance(options, guide, weak)
    wrap = (_wrap_between_levels if between else _wrap)(
        options, model, None if guide is None else guide.model, None if weak is None else weak.model
    )
    return Sampling(model, sampler, times, options, wrap, start, guide, weak)


def _check_guidance(options: SamplingOptions, guide: Guide | None, weak: Weak | None) -> None:
    """InputError for options of guidance that contradict each other, or that nothing would use."""
    if guide is not None and weak is not None:
        raise InputError(
            "a classifier and a weaker model both guide: remove one of them",
            command="--classifier, --autoguidance",
        )
    if weak is not None and options.guidance is None:
        raise InputError(
            "autoguidance needs its scale, where 1 is the model without guidance: give guidance, such as 2",
            command="--guidance S",
        )
    if guide is not None and options.guidance_rescale:
        raise InputError(
            "guidance_rescale is for guidance without a classifier, whose gradient the sampler places: remove it"
        )
    low, high = options.guidance_interval or (0.0, math.inf)
    if not low < high:
        raise InputError(f"guidance_low must be below guidance_high, got {low:g} and {high:g}")


def _check_categories(options: SamplingOptions, guided: bool) -> None:
    """A category is in the data's range, so there is nothing to clip."""
    if guided or options.guidance is not None:
        raise IncompatibleModel(
            "guidance needs a score, which a categorical model does not have: remove guidance"
        )
    if options.start != "prior":
        raise IncompatibleModel('a categorical model starts from the prior of its process: use start="prior"')


def _wrap(
    options: SamplingOptions,
    model: Model,
    classifier: ClassifierModel | None,
    weak: GaussianModel | None,
) -> Wrap:
    if classifier is not None:
        wrap = _by_classifier(options, _with_levels(model), classifier)
    elif weak is not None and options.guidance is not None:
        return _by_weaker(options, _with_levels(model), weak, options.guidance)
    elif options.guidance is not None:
        _with_levels(model)
        wrap = _classifier_free(options, options.guidance)
    else:
        return lambda model, labels=None: _clipped(options, given(model, labels))
    if classifier is not None or model.num_classes or not model.nulls:
        wrap(model, [0])  # pieces that do not fit are refused before anything is sampled
    return wrap


def _clipped(options: SamplingOptions, model: Model) -> Model:
    """With x̂0 clipped where the options ask for it; a score has no x̂0."""
    return ClipX0(model) if options.clip and isinstance(model, GaussianModel) else model


def _wrap_between_levels(
    options: SamplingOptions,
    model: Model,
    classifier: ClassifierModel | None,
    weak: GaussianModel | None,
) -> Wrap:
    """`_wrap` for samplers that ask for times between the levels of a table."""
    judge = None if classifier is None else between_levels(classifier)
    wrap = _wrap(options, between_levels(model), judge, None if weak is None else between_levels(weak))
    return lambda model, labels=None: wrap(between_levels(model), labels)


def _classifier_free(options: SamplingOptions, scale: float) -> Wrap:
    """Towards labels; of a network without labels towards the further arrays that are bound to the model."""

    def wrap(model: Model, labels: list[int] | None = None) -> Model:
        y = _asked(labels) if model.num_classes or not model.nulls else None
        gaussian = _with_levels(model)
        at, within = _scale(options, gaussian, scale, 1.0), options.guidance_interval
        return _clipped(options, ClassifierFree(gaussian, y, at, within, options.guidance_rescale or 0.0))

    return wrap


def _scale(options: SamplingOptions, model: GaussianModel, scale: float, unguided: float) -> Scale:
    """The scale as a function of t where the options name a schedule, otherwise the number."""
    if options.guidance_schedule is None:
        return scale
    return scheduled(options.guidance_schedule, scale, unguided, float(model.process.T))


def _by_weaker(options: SamplingOptions, model: GaussianModel, weak: GaussianModel, scale: float) -> Wrap:
    if weak.num_classes and not model.num_classes:
        raise IncompatibleModel(
            "the weaker model is conditional, and the model takes no labels: guide with an unconditional one",
            command="--autoguidance RUN",
        )
    _check_alike(model, weak, "the weaker model", bool(weak.num_classes))

    def wrap(model: Model, labels: list[int] | None = None) -> Model:
        gaussian = _with_levels(model)
        bound = {
            name: rows
            for layer in model.layers()
            if isinstance(layer, Given)
            for name, rows in layer.bound.items()
        }
        its = weak.given(**{name: rows for name, rows in bound.items() if name in weak.arrays})
        at, within = _scale(options, gaussian, scale, 1.0), options.guidance_interval
        guided = Autoguidance(gaussian, its, at, within, options.guidance_rescale or 0.0)
        return _clipped(options, given(guided, labels))

    wrap(
        model, [0] if model.num_classes else None
    )  # models that do not fit are refused before anything is sampled
    return wrap


def _by_classifier(options: SamplingOptions, model: GaussianModel, classifier: ClassifierModel) -> Wrap:
    _check_classifier(model, classifier)
    scale = 1.0 if options.guidance is None else options.guidance

    def wrap(model: Model, labels: list[int] | None = None) -> Model:
        inner = _clipped(options, given(model, labels if model.num_classes else None))
        gaussian = _with_levels(inner)
        at, within = _scale(options, gaussian, scale, 0.0), options.guidance_interval
        return ClassifierGuidance(gaussian, classifier, _asked(labels), at, options.guidance_at, within)

    return wrap


def _with_levels(model: Model) -> GaussianModel:
    if not isinstance(model, GaussianModel):
        raise IncompatibleModel(
            "guidance needs a model with noise levels, and this score has none: remove guidance"
        )
    return model


def _asked(labels: list[int] | None) -> list[int]:
    if labels is None:
        raise InputError("guidance needs labels: give the classes to guide towards", command="--label")
    return labels


def _check_classifier(model: GaussianModel, classifier: ClassifierModel) -> None:
    """IncompatibleModel where the classifier is for other examples, or has other classes than a conditional
    model.
    """
    if not isinstance(classifier, ClassifierModel):
        raise IncompatibleModel(
            f"a {type(classifier).__name__} cannot guide: give a classifier, or the run of one",
            command="--classifier RUN",
        )
    _check_alike(model, classifier, "the classifier", bool(model.num_classes))


def _check_alike(model: GaussianModel, other: Model, name: str, classes: bool) -> None:
    """IncompatibleModel where another model is for other examples, or, where they count, has other classes."""
    mine, its = model.data, other.data
    if mine is None or its is None:
        return
    for what, of_model, of_other in (
        ("examples of shape", mine.shape, its.shape),
        ("values in the range", mine.range, its.range),
        ("the classes", mine.classes if classes else its.classes, its.classes),
    ):
        if tuple(of_model) != tuple(of_other):
            raise IncompatibleModel(
                f"{name} was trained on {what} {_brief(of_other)}, and the model on {_brief(of_model)}: "
                f"train {name.replace('the', 'a', 1)} on the model's own data"
            )


def _brief(values: Sequence[object]) -> str:
    return f"({', '.join(map(str, values[:10]))}{', …' if len(values) > 10 else ''})"


def _with_step(options: SamplingOptions, model: Model) -> dict[str, object]:
    """The table of a Langevin sampler without a step, with the ratio of NCSN's settings, 4e-5 at σ = 0.01.
    [NCSN §5]
    """
    sampler = options.sampler
    if sampler.get("kind") != "langevin" or "step" in sampler or not isinstance(model, GaussianModel):
        return sampler
    first = model.process.level(model.process.t_min)
    return {**sampler, "step": 0.4 * float(first.ratio) ** 2}


def _uniform_start(model: Model) -> Start:
    low, high = model.data.range if model.data is not None else (-1.0, 1.0)
    return lambda shape, noise: low + (high - low) * noise.uniform(shape)


def _name(sampler: Sampler) -> str:
    """A sampler with its settings, as its repr says them."""
    if type(sampler).__repr__ is object.__repr__:
        raise InputError(
            f"{type(sampler).__name__} does not show its settings, which identify stored samples: make it a "
            "dataclass, or give it a __repr__ that shows them"
        )
    return str(sampler)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
