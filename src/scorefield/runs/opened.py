"""A run that is opened: what it is, its model, and how it is sampled."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset
from scorefield.data.arrays import numeric_tensor
from scorefield.data.user_images import UserImages, images_of, low_res_images, mask_of
from scorefield.generation.labels import ClassNames, class_labels, labels_of_images
from scorefield.generation.samples import Samples
from scorefield.generation.sampling import Condition, Guide, Sampling, Weak, build_sampling
from scorefield.generation.sampling_options import FITTED, SamplingOptions
from scorefield.models.denoiser import Denoiser
from scorefield.models.network_model import ModelBase
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.process import Process
from scorefield.process.transitions import Variance
from scorefield.runs.build import (
    M,
    check_given,
    load_model,
    of_kind,
    open_weights,
    read_run,
)
from scorefield.runs.fitted_grids import fitted_grid
from scorefield.runs.recipe import Recipe, with_overrides
from scorefield.runtime.array_files import array_headers, read_arrays
from scorefield.runtime.checks import brief, flag, is_list
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.own_code import allowed_modules, allowing
from scorefield.runtime.parsing import whole_number
from scorefield.runtime.precision import autocast_dtype, pick_device
from scorefield.runtime.progress import SILENT, Reporter, check_reporter
from scorefield.runtime.reading import as_path
from scorefield.runtime.weights import SHOWN, WeightsFile
from scorefield.samplers import Inpaint, Sampler
from scorefield.samplers.base import Grid
from scorefield.store.run_folder import RunFolder

_BEGINNING = 100  # steps, after which no recipe makes anything yet

__all__ = ["OpenedRun", "SampleKeywords", "SamplingKeywords", "StepKeywords", "note", "values_of"]


class StepKeywords(TypedDict, total=False):
    """How steps are made, as `Run.sample` explains it."""

    sampler: str | Sampler | None
    steps: int | None
    grid: str | Grid | None
    eta: float | None
    variance: Variance | None
    settings: Mapping[str, object] | Sequence[str] | None
    classifier: str | Path | OpenedRun | None
    autoguidance: str | Path | OpenedRun | None


class SamplingKeywords(StepKeywords, total=False):
    """How a run is sampled, as `Run.sample` explains it."""

    device: str | torch.device | None
    precision: str | None
    compiled: bool


class SampleKeywords(SamplingKeywords, total=False):
    """How samples are made, as `Run.sample` explains it."""

    guidance: float | None
    low_res: UserImages | Samples | None
    conditions: Mapping[str, np.ndarray | Tensor] | str | Path | None
    inpaint: tuple[UserImages, UserImages] | None


class _Changes(TypedDict, total=False):
    """What changes the run's own sampling options."""

    steps: int | None
    eta: float | None
    variance: Variance | None
    settings: Mapping[str, object] | Sequence[str] | None
    guidance: float | None


class OpenedRun:
    """What a run is, its model, and how it is sampled: the part of `Run` that makes nothing.

    Nothing is read before it is asked for, and everything is read once.
    """

    def __init__(
        self,
        path: str | Path,
        allow: Sequence[str] = (),
        *,
        net: torch.nn.Module | None = None,
        process: Process | None = None,
    ) -> None:
        """
        Args:
            path: The run's folder.
            allow: Modules of your own that the run's description may import, such as ["my_package"].
            net: The network, where it is one of your own that the run cannot name; copied. Default: as the run says.
            process: The process, likewise.
        """
        check_given(path, net, process)
        self.path = as_path(path, "a run")
        self.allow = allowed_modules(allow)
        self._net, self._process = net, process
        self._models: dict[tuple[torch.device, torch.dtype | None, bool], ModelBase] = {}
        self._fitted: list[str] = []  # what was done to images of the user's, to be said

    # What it is

    @property
    def folder(self) -> RunFolder:
        """Its files."""
        return RunFolder(self.path)

    @cached_property
    def _described(self) -> tuple[Recipe, DataSpec]:
        return read_run(self.path, self.allow)

    @property
    def recipe(self) -> Recipe:
        """What it was made of: config.toml.

        Raises:
            InputError: Where there is no run.
        """
        return self._described[0]

    @property
    def data_spec(self) -> DataSpec:
        """What one example is: shape, range, classes, bins."""
        return self._described[1]

    @property
    def _unseen(self) -> frozenset[int]:
        """The classes without a training example."""
        seen = self.recipe.trained_on
        return frozenset() if seen is None else seen.unseen

    @cached_property
    def step(self) -> int | None:
        """Training steps of the newest checkpoint; None where there is none."""
        names = [path.name for path in self.folder.checkpoints.glob("step-*") if path.is_dir()]
        numbers = [whole_number(name.removeprefix("step-")) for name in names]
        return max((number for number in numbers if number is not None), default=None)

    @cached_property
    def _weights(self) -> WeightsFile:
        self._described  # noqa: B018  (what is no run is said to be none)
        return open_weights(self.folder)

    @property
    def weights_sha256(self) -> str:
        """64 digits over model.safetensors, the averaged (EMA) weights. `model` has the weights of this hash."""
        return self._weights.sha256

    def __repr__(self) -> str:
        try:
            recipe, spec = self._described
        except (InputError, OSError):
            return f"Run({str(self.path)!r}: no run)"
        shape = "×".join(map(str, spec.shape))
        classes = f", {spec.num_classes} classes" if spec.classes else ""
        steps = "no checkpoint" if self.step is None else f"step {self.step:,} of {recipe.training.steps:,}"
        return f"Run({str(self.path)!r}: {recipe.name}, {shape}{classes}, {steps})"

    # Its model

    @overload
    def model(
        self,
        device: str | torch.device | None = None,
        precision: str | None = None,
        compiled: bool = False,
        kind: None = None,
    ) -> ModelBase: ...

    @overload
    def model(
        self,
        device: str | torch.device | None = None,
        precision: str | None = None,
        compiled: bool = False,
        *,
        kind: type[M],
    ) -> M: ...

    def model(
        self,
        device: str | torch.device | None = None,
        precision: str | None = None,
        compiled: bool = False,
        kind: type[M] | None = None,
    ) -> M | ModelBase:
        """The model with its averaged (EMA) weights, in evaluation mode; a new one at every call.

        Args:
            device: "cpu", "cuda" or "mps". Default: the fastest one found.
            precision: "fp32", "bf16" or "auto". Default: the run's own, which "auto" leaves to the device.
            compiled: Whether torch.compile compiles the network at its first call.
            kind: Class that the model must have, such as `sf.Denoiser`, which type checkers then know. Default: any.

        Raises:
            InputError: Where there is no run or no weights, or this machine has no such device.
            IncompatibleModel: If the run holds another kind of model.
        """
        return of_kind(self._load(*self._key(device, precision, compiled)), kind, self.folder)

    def _key(
        self, device: str | torch.device | None, precision: str | None, compiled: bool
    ) -> tuple[torch.device, torch.dtype | None, bool]:
        place, compiled = pick_device(device), flag("compiled", compiled)
        return place, autocast_dtype(precision or self.recipe.training.precision, place), compiled

    def _load(self, device: torch.device, dtype: torch.dtype | None, compiled: bool) -> ModelBase:
        recipe, spec = self._described
        net = copy.deepcopy(self._net)
        model = load_model(recipe, spec, self._weights, net, self._process).to(device)
        model.autocast_dtype = dtype
        model.keep_weights()
        if compiled:
            model.compile_network()
        return model

    def _model(
        self,
        device: str | torch.device | None = None,
        precision: str | None = None,
        compiled: bool = False,
    ) -> ModelBase:
        """`model`, kept for the next call that asks for the same."""
        key = self._key(device, precision, compiled)
        if key not in self._models:
            self._models = {key: self._load(*key)}
        return self._models[key]

    def sampling(
        self,
        labels: ClassNames | None = None,
        *,
        low_res: UserImages | Samples | None = None,
        conditions: Mapping[str, np.ndarray | Tensor] | str | Path | None = None,
        classifier: str | Path | OpenedRun | None = None,
        autoguidance: str | Path | OpenedRun | None = None,
        inpaint: tuple[UserImages, UserImages] | None = None,
        sampler: str | Sampler | None = None,
        grid: str | Grid | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
        compiled: bool = False,
        progress: Reporter = SILENT,
        **changes: Unpack[_Changes],
    ) -> Sampling:
        """How `Run.sample` makes samples with these options, as objects: model, sampler, grid, labels, guidance.

        Args:
            labels: Classes by number or name, cycled over the samples, as of `Run.sample`.
            low_res: Low-resolution inputs of a super-resolution run, as of `Run.sample`.
            conditions: Further inputs of the network by name, as of `Run.sample`.
            classifier: Run of a classifier that guides.
            autoguidance: Run of a weaker model that guides.
            inpaint: (image, mask), as of `Run.sample`.
            sampler: A name or an object. Default: the run's own.
            grid: A name, counts or times. Default: the run's own.
            device: "cpu", "cuda" or "mps". Default: the fastest one found.
            precision: "fp32", "bf16" or "auto". Default: the run's own.
            compiled: Whether torch.compile compiles the network first.
            progress: Receives the cost of fitting a grid, before it is fitted.
            **changes: steps, eta, variance, settings, guidance, as of `Run.sample`.

        Raises:
            InputError: As of `Run.sample`.
            IncompatibleModel: As of `Run.sample`.
        """
        check_reporter(progress)
        small = self._low_res(low_res)
        model = self._model(device, precision, compiled)
        guide = self._guide(classifier, model.device)
        weak = self._weak(autoguidance, device, precision, compiled)
        options = self._options(sampler, grid, guide is not None or weak is not None, **changes)
        fitted = options.grid == FITTED and (grid is None or isinstance(grid, str))
        with allowing(self.allow):
            sampling = build_sampling(
                options.model_copy(update={"grid": "uniform"}) if fitted else options,
                model,
                guide,
                weak=weak,
                sampler=None if sampler is None or isinstance(sampler, str) else sampler,
                grid=None if grid is None or isinstance(grid, str) else grid,
            )
        solver = sampling.sampler
        if inpaint is not None:
            if not is_list(inpaint) or len(inpaint) != 2:
                raise InputError("inpaint takes two: the image and the mask of the region to inpaint")
            sampling = replace(sampling, sampler=self._inpainting(sampling, *inpaint))
        judge = None if guide is None else guide.model
        own = labels is None and small is not None
        chosen = (
            labels_of_images(small, model, judge) if own else class_labels(model, labels, judge, self._unseen)
        )
        given = self._conditions(model, conditions)
        if small is not None:
            given["low_res"] = Condition(values_of(small), small.fingerprint())
        sampling = replace(sampling, labels=chosen, weights=self.weights_sha256[:SHOWN], conditions=given)
        if fitted:
            times = fitted_grid(replace(sampling, sampler=solver), options.steps, self.folder, progress)
            sampling = replace(sampling, grid=times)
        return sampling

    def _conditions(
        self, model: ModelBase, conditions: Mapping[str, np.ndarray | Tensor] | str | Path | None
    ) -> dict[str, Condition]:
        """Further inputs of the network; of a file those that it takes."""
        if conditions is None:
            return {}
        if isinstance(conditions, str | Path):
            path, takes = as_path(conditions, "an archive of arrays"), model.arrays
            names = [name for name in array_headers(path, str(path)) if name in takes]
            if not names:
                known = ", ".join(sorted(takes)) or "none"
                raise InputError(
                    f"{path} holds no array that this run's network takes: it takes {known}",
                    command="--given",
                )
            conditions = read_arrays(path, str(path), names, (), "")
        if not isinstance(conditions, Mapping):
            raise InputError(
                "conditions are arrays by name, such as {'mask': array}, or the path of an .npz of them; "
                f"got {brief(conditions)}"
            )
        for name, array in conditions.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray | Tensor):
                raise InputError(
                    f"conditions are arrays or tensors by name; got {brief(array)} under {name!r}"
                )
        tensors = {name: numeric_tensor(name, array, "conditions") for name, array in conditions.items()}
        return {name: Condition.of(name, tensor) for name, tensor in tensors.items()}

    def _options(
        self,
        sampler: str | Sampler | None,
        grid: str | Grid | None,
        by_other: bool,
        *,
        steps: int | None = None,
        eta: float | None = None,
        variance: str | None = None,
        settings: Mapping[str, object] | Sequence[str] | None = None,
        guidance: float | None = None,
    ) -> SamplingOptions:
        """The run's own options with what is asked for in their place."""
        own = sampler if sampler is None or isinstance(sampler, str) else type(sampler).__name__.lower()
        if own is not sampler and (eta is not None or variance is not None):
            raise InputError("the sampler is an object with its own settings: remove eta and variance")
        if grid is not None and not isinstance(grid, str) and steps is not None:
            raise InputError("the grid is given as times, which fix the number of steps: remove steps")
        options = self.recipe.sampling.changed(
            sampler=own,
            steps=steps,
            grid=grid if isinstance(grid, str) else None,
            eta=eta,
            variance=variance,
            guidance=guidance,
            by_other=by_other,
        )
        changed = self.recipe.model_copy(update={"sampling": options})
        return with_overrides(changed, settings or [], within="sampling").sampling

    def _guide(self, classifier: str | Path | OpenedRun | None, device: torch.device) -> Guide | None:
        if classifier is None:
            return None
        run = classifier if isinstance(classifier, OpenedRun) else OpenedRun(classifier, self.allow)
        if not run.recipe.is_classifier:
            raise InputError(
                f"classifier takes the run of a classifier, but {run.path} is a run of {run.recipe.name}, a "
                "generative model",
                command="--classifier RUN",
            )
        model = run._model(device)
        if not isinstance(model, NoisyClassifier):
            raise IncompatibleModel(f"{run.path} holds a {type(model).__name__}, which cannot guide")
        return Guide(model, str(run.path), run.weights_sha256[:SHOWN])

    def _weak(
        self,
        autoguidance: str | Path | OpenedRun | None,
        device: str | torch.device | None,
        precision: str | None,
        compiled: bool,
    ) -> Weak | None:
        if autoguidance is None:
            return None
        run = autoguidance if isinstance(autoguidance, OpenedRun) else OpenedRun(autoguidance, self.allow)
        model = run._model(device, precision or self.recipe.training.precision, compiled)
        if not isinstance(model, Denoiser):
            raise IncompatibleModel(
                f"autoguidance takes the run of a weaker model with levels of Gaussian noise, but {run.path} holds a "
                f"{type(model).__name__}",
                command="--autoguidance RUN",
            )
        return Weak(model, str(run.path), run.weights_sha256[:SHOWN])

    def _low_res(self, images: UserImages | Samples | None) -> Dataset | None:
        """What a super-resolution run upsamples; None for any other run."""
        side = self.recipe.model.low_res
        if side is None and images is not None:
            raise InputError(
                f"{self.path} is not a super-resolution run: remove low_res", command="--low-res"
            )
        if side is None:
            return None
        if images is None:
            raise InputError(
                f"{self.path} upsamples images of {side}×{side} pixels: give low_res, an .npz, an image file or a "
                "folder",
                command="--low-res FILE",
            )
        return low_res_images(*_with_labels(images, side, self.data_spec))

    def _inpainting(self, sampling: Sampling, image: UserImages, mask: UserImages) -> Sampler:
        """The same sampler, which holds what the mask leaves of the image."""
        if not isinstance(sampling.model, Denoiser):
            raise IncompatibleModel(
                f"inpainting needs levels of Gaussian noise, which a {type(sampling.model).__name__} does not have",
                command="--inpaint",
            )
        known = self._one_image(image, "inpainting takes one image")
        return Inpaint(sampling.sampler, known, mask_of(_batched(mask, self.data_spec, 2), self.data_spec))

    def _say_fitted(self, progress: Reporter) -> None:
        """Say, once, what was done to images of the user's."""
        while self._fitted:
            progress.say(self._fitted.pop(0))

    def _one_image(self, image: UserImages, why: str) -> Tensor:
        """x_0 of one picture, (C, H, W) in the data's range."""
        data = images_of(_batched(image, self.data_spec, 3), self.data_spec)
        if len(data) != 1:
            raise InputError(f"{why}, and {data.source} holds {len(data)} images")
        self._fitted += [f"{data.source}: {text}" for text in data.notes]
        return values_of(data)[0]


def _with_labels(
    images: UserImages | Samples, side: int, spec: DataSpec
) -> tuple[UserImages, int, DataSpec, np.ndarray | None]:
    """The arguments of `low_res_images`."""
    if isinstance(images, Samples):
        return images.images, side, spec, images.classes
    return images, side, spec, None


def _batched(image: UserImages, spec: DataSpec, most: int) -> UserImages:
    """One image given as an array (H, W[, C]), as a batch of one.

    Args:
        image: The image, or images in another form, which are returned as they are.
        spec: What one example is.
        most: The number of axes of one image, at the most.
    """
    axes = 2 if most == 2 or spec.shape[0] == 1 else 3
    if isinstance(image, np.ndarray) and image.ndim == axes:
        return (image[None] * np.uint8(255)) if image.dtype == bool else image[None]
    return image


def values_of(data: Dataset) -> Tensor:
    """All examples, (N, *) in the data's range."""
    return data.batch(torch.arange(len(data)))[0]


def hardly_begun(run: OpenedRun) -> str | None:
    """A sentence where the weights of a run are of the beginning of its training; otherwise None."""
    step, planned = run.step, run.recipe.training.steps
    if step is None or (step >= _BEGINNING and step >= planned / 10):
        return None
    return f"the weights are of step {step:,} of {planned:,}: after so few steps samples look like noise"


def note(text: str | None, progress: Reporter) -> None:
    """What the user should know before samples are made."""
    if text is not None:
        progress.say(f"note: {text}")
