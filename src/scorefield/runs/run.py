"""A trained run as an object: what it is, and all that can be made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Literal, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.core.shapes import DataSpec, are_images
from scorefield.data import Dataset
from scorefield.data.arrays import numeric_tensor
from scorefield.data.loading.epoch_order import permutation
from scorefield.data.user_images import UserImages, images_of, low_res_images, mask_of
from scorefield.evaluation import (
    AccuracyReport,
    Evaluation,
    EvaluationOptions,
    EvaluationTarget,
    evaluate_each,
    noisy_accuracy,
)
from scorefield.evaluation.extractors import Extractor
from scorefield.generation import flow
from scorefield.generation.job import SampleJob
from scorefield.generation.labels import ClassNames, class_labels, labels_of_images
from scorefield.generation.options import SamplingOptions, build_grid
from scorefield.generation.samples import Samples
from scorefield.generation.sampling import Condition, Guide, Sampling, build_sampling
from scorefield.models.denoiser import Denoiser
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.process import CategoricalProcess
from scorefield.process.transitions import Variance
from scorefield.runs.build import (
    M,
    Model,
    build_model,
    build_process,
    fill_weights,
    of_kind,
    open_data,
    read_run,
)
from scorefield.runs.recipe import Recipe, with_overrides
from scorefield.runtime.atomic import array_headers, read_arrays
from scorefield.runtime.checks import positive_int
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.own_code import allowing
from scorefield.runtime.parsing import parse
from scorefield.runtime.precision import autocast_dtype, pick_device
from scorefield.runtime.progress import SILENT, Bar, Reporter
from scorefield.runtime.registry import SAMPLE_METRICS
from scorefield.runtime.weights import SHOWN, WeightsFile
from scorefield.samplers import Inpaint, Sampler
from scorefield.samplers.base import Grid, Step
from scorefield.samplers.latents import spherical_walk
from scorefield.store.block_store import BLOCK
from scorefield.store.latent_file import Latents, check_weights
from scorefield.store.run_folder import RunFolder
from scorefield.store.writers import check_animation, check_target

__all__ = ["Run", "EvaluateKeywords", "SampleKeywords", "SamplingKeywords", "SavedSamples", "StepKeywords"]

_EXAMPLES = 2000  # of a classifier's evaluation: a standard error of at most 1.1 %


class StepKeywords(TypedDict, total=False):
    """How steps are made, as `Run.sample` explains it."""

    sampler: str | Sampler | None
    steps: int | None
    grid: str | Grid | None
    eta: float | None
    variance: Variance | None
    settings: Mapping[str, object] | Sequence[str] | None
    classifier: str | Path | Run | None


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


class EvaluateKeywords(SamplingKeywords, total=False):
    """How a run is evaluated, as `Run.evaluate` explains it."""

    n: int | None
    sets: int
    seed: int
    split: Literal["heldout", "train"]
    data: str | None
    samples: str | Path | None
    features: str | None
    extractor: Extractor | None
    reference: str | Path | None
    terms: int | None
    bound_steps: int | None
    processes: Processes | None
    progress: Reporter


class _Changes(TypedDict, total=False):
    """What changes the run's own sampling options."""

    steps: int | None
    eta: float | None
    variance: Variance | None
    settings: Mapping[str, object] | Sequence[str] | None
    guidance: float | None


@dataclass(frozen=True)
class SavedSamples:
    """What `Run.save_samples` did.

    Attributes:
        target: The file or folder.
        n: How many samples it holds.
        seed: Their seed.
        sampling: How they were made.
        seconds: What it took.
        kept: Blocks of this process that were there already.
    """

    target: Path
    n: int
    seed: int
    sampling: Sampling
    seconds: float
    kept: int


class Run:
    """A trained run: what it is, its model, and all that the commands make of it, with the same bytes.

    Nothing is read before it is asked for, and everything is read once. The weights are those of one moment: a
    training that goes on meanwhile changes nothing here.

        run = sf.Run("runs/digits-1")
        run.sample(n=8, labels=[3, 5], steps=20).images
    """

    def __init__(self, path: str | Path, allow: Sequence[str] = ()) -> None:
        """
        Args:
            path: The run's folder.
            allow: Modules of your own that the run's description may import, such as ["my_package"].
        """
        self.path = Path(path)
        self.allow = tuple(allow)
        self._models: dict[tuple[torch.device, torch.dtype | None, bool], Model] = {}

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
        """What it was made of: config.toml. InputError where there is no run."""
        return self._described[0]

    @property
    def data_spec(self) -> DataSpec:
        """What one example is: shape, range, classes, bins."""
        return self._described[1]

    @cached_property
    def step(self) -> int | None:
        """Training steps of the newest checkpoint; None where there is none."""
        names = [path.name for path in self.folder.checkpoints.glob("step-*") if path.is_dir()]
        return max((int(name.removeprefix("step-")) for name in names), default=None)

    @cached_property
    def _weights(self) -> WeightsFile:
        self._described  # noqa: B018  (what is no run is said to be none)
        try:
            return WeightsFile(self.folder.weights)
        except FileNotFoundError:
            raise InputError(
                f"{self.path} has no model.safetensors yet: train it until its first checkpoint"
            ) from None

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
    ) -> Model: ...

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
    ) -> M | Model:
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
        place = device if isinstance(device, torch.device) else pick_device(device)
        return place, autocast_dtype(precision or self.recipe.training.precision, place), compiled

    def _load(self, device: torch.device, dtype: torch.dtype | None, compiled: bool) -> Model:
        recipe, spec = self._described
        weights = self._weights
        model = fill_weights(build_model(recipe, spec), weights.load, self.folder).to(device)
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
    ) -> Model:
        """`model`, kept for the next call that asks for the same."""
        key = self._key(device, precision, compiled)
        if key not in self._models:
            self._models = {key: self._load(*key)}
        return self._models[key]

    # Samples

    def sample(
        self,
        n: int | None = None,
        seed: int = 0,
        labels: ClassNames | None = None,
        *,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        grid: str | Grid | None = None,
        eta: float | None = None,
        variance: Variance | None = None,
        settings: Mapping[str, object] | Sequence[str] | None = None,
        guidance: float | None = None,
        classifier: str | Path | Run | None = None,
        low_res: UserImages | Samples | None = None,
        conditions: Mapping[str, np.ndarray | Tensor] | str | Path | None = None,
        inpaint: tuple[UserImages, UserImages] | None = None,
        block: int = BLOCK,
        device: str | torch.device | None = None,
        precision: str | None = None,
        compiled: bool = False,
        progress: Reporter = SILENT,
    ) -> Samples:
        """Samples in memory, of the bytes that `scorefield sample RUN --out FILE.npz` writes.

        Args:
            n: How many. Default: 64, or one for each image of `low_res`.
            seed: Sample i of a seed does not depend on n.
            labels: Classes by number or name, cycled over the samples. Default: every class in turn, or those of
                `low_res`.
            sampler: A name, or an object such as `sf.samplers.Heun()`. Default: the run's own.
            steps: Steps of the grid. Default: the run's own number.
            grid: A name, counts such as "10,15,20", or times from T down. Default: the run's own.
            eta: DDIM's η, 0 (deterministic) to 1 (ancestral).
            variance: Of ancestral sampling, "lower", "upper" or "learned".
            settings: Further values of the run's [sampling] table, such as {"clip": True, "sampler.step": 0.01}.
            guidance: Scale of the guidance: by `classifier` (0 is none, default 1), otherwise classifier-free (1 is
                the conditional model).
            classifier: Run of a classifier that guides.
            low_res: Low-resolution inputs of a super-resolution run, uint8 (M, h, w[, C]) or a file or folder of
                them; sample i upsamples image i mod M.
            conditions: Further inputs of the network by name, (M, *) each, cycled over the samples, or an .npz of them.
            inpaint: (image, mask): the image is filled in where the mask is white (255), and kept where it is black.
            block: Samples computed at once, at least 32. Bytes depend on it in the last place.
            device: "cpu", "cuda" or "mps". Default: the fastest one found.
            precision: "fp32", "bf16" or "auto". Default: the run's own.
            compiled: Whether torch.compile compiles the network first; worth it for many samples on a GPU.
            progress: Reports what is done. Default: nobody.

        Returns:
            `Samples`: `.images` uint8 (N, H, W[, C]) or, of a run of points, `.samples` float32 (N, *); `.labels`.

        Raises:
            InputError: For what this run cannot be asked for.
            IncompatibleModel: For parts that do not fit together.
        """
        sampling = self.sampling(
            labels,
            low_res=low_res,
            conditions=conditions,
            sampler=sampler,
            steps=steps,
            grid=grid,
            eta=eta,
            variance=variance,
            settings=settings,
            guidance=guidance,
            classifier=classifier,
            inpaint=inpaint,
            device=device,
            precision=precision,
            compiled=compiled,
        )
        _note(sampling.caution(), progress)
        count = _count(n, sampling)
        return SampleJob(sampling, seed, count, self.path, block, progress=progress).in_memory()

    def save_samples(
        self,
        target: str | Path | None = None,
        n: int | None = None,
        seed: int = 0,
        labels: ClassNames | None = None,
        *,
        block: int = BLOCK,
        trajectory: str | Path | None = None,
        processes: Processes | None = None,
        progress: Reporter = SILENT,
        **how: Unpack[SampleKeywords],
    ) -> SavedSamples:
        """Samples on disk, as `scorefield sample` writes them: any number, resumable, shared by processes.

        Args:
            target: A folder (a .png or .npy each), an .npz or a .png. Default: a file in the run's samples/.
            n: How many; a larger n adds to a folder. Default: as of `sample`.
            seed: As of `sample`.
            labels: As of `sample`.
            block: As of `sample`; recorded in the folder.
            trajectory: A .gif that shows the first block being made.
            processes: Those that share the work, as `join_processes` gives them. Default: this one alone.
            progress: Reports what is done. Default: nobody.
            **how: The options of `sample`.

        Raises:
            InputError: Where the target holds other samples or cannot be written, and as of `sample`.
            IncompatibleModel: As of `sample`.
        """
        processes = processes or Processes(device=pick_device(None))
        if target is not None:
            check_target(Path(target), self.data_spec.shape)
        animation = None if trajectory is None else Path(trajectory)
        if animation is not None:
            check_animation(animation, self.data_spec.shape)
        how.setdefault("device", processes.device)
        sampling = self.sampling(labels, **how)
        count = _count(n, sampling)
        where = self._target(f"seed-{seed}-n-{count}") if target is None else Path(target)
        _note(sampling.caution(), progress)
        facts = [str(sampling.sampler), f"{sampling.calls} network calls", f"seed {seed}", sampling.precision]
        facts += [sampling.guidance] if sampling.guidance else []
        facts += [f"{processes.world} processes"] if processes.world > 1 else []
        progress.say(f"{self.path}: EMA weights, {', '.join(facts)}")
        start = perf_counter()
        job = SampleJob(sampling, seed, count, where, block, animation, progress)
        job.run(processes)
        return SavedSamples(where, count, seed, sampling, perf_counter() - start, job.kept)

    def trajectory(
        self,
        n: int | None = None,
        seed: int = 0,
        labels: ClassNames | None = None,
        *,
        block: int = BLOCK,
        **how: Unpack[SampleKeywords],
    ) -> Iterator[Step]:
        """The steps by which `sample` makes its first block, one after another, as `sf.trajectory` yields them.

        Args:
            n: How many samples, at most `block`. Default: as of `sample`.
            seed, labels, block: As of `sample`.
            **how: The options of `sample`.

        Yields:
            `Step`: x and x̂0 (n, *) after each step, on the device.

        Raises:
            InputError: As of `sample`.
            IncompatibleModel: As of `sample`.
        """
        sampling = self.sampling(labels, **how)
        return sampling.trajectory(_count(n, sampling), seed, block)

    def sampling(
        self,
        labels: ClassNames | None = None,
        *,
        low_res: UserImages | Samples | None = None,
        conditions: Mapping[str, np.ndarray | Tensor] | str | Path | None = None,
        classifier: str | Path | Run | None = None,
        inpaint: tuple[UserImages, UserImages] | None = None,
        sampler: str | Sampler | None = None,
        grid: str | Grid | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
        compiled: bool = False,
        **changes: Unpack[_Changes],
    ) -> Sampling:
        """How `sample` makes samples with these options, as objects: model, sampler, grid, labels, guidance.

        Args:
            labels, low_res, conditions, classifier, inpaint, sampler, grid, device, precision, compiled: As of `sample`.
            **changes: steps, eta, variance, settings, guidance, as of `sample`.

        Raises:
            InputError: As of `sample`.
            IncompatibleModel: As of `sample`.
        """
        small = self._low_res(low_res)
        model = self._model(device, precision, compiled)
        guide = self._guide(classifier, model.device)
        options = self._options(sampler, grid, guide is not None, **changes)
        with allowing(self.allow):
            sampling = build_sampling(
                options,
                model,
                guide,
                sampler=None if sampler is None or isinstance(sampler, str) else sampler,
                grid=None if grid is None or isinstance(grid, str) else grid,
            )
        if inpaint is not None:
            sampling = replace(sampling, sampler=self._inpainting(sampling, *inpaint))
        judge = None if guide is None else guide.model
        own = labels is None and small is not None
        chosen = labels_of_images(small, model, judge) if own else class_labels(model, labels, judge)
        given = self._conditions(model, conditions)
        if small is not None:
            given["low_res"] = Condition(_values(small), small.fingerprint())
        return replace(sampling, labels=chosen, weights=self.weights_sha256[:SHOWN], conditions=given)

    def _conditions(
        self, model: Model, conditions: Mapping[str, np.ndarray | Tensor] | str | Path | None
    ) -> dict[str, Condition]:
        """Further inputs of the network; of a file those that it takes."""
        if conditions is None:
            return {}
        if isinstance(conditions, str | Path):
            path, takes = Path(conditions), model.arrays
            names = [name for name in array_headers(path, str(path)) if name in takes]
            if not names:
                known = ", ".join(sorted(takes)) or "none"
                raise InputError(
                    f"{path} (--given) holds no array that this run's network takes; it takes {known}"
                )
            conditions = read_arrays(path, str(path), names, (), "")
        tensors = {name: numeric_tensor(name, array, "conditions") for name, array in conditions.items()}
        return {name: Condition.of(name, tensor) for name, tensor in tensors.items()}

    def _options(
        self,
        sampler: str | Sampler | None,
        grid: str | Grid | None,
        by_classifier: bool,
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
            raise InputError(
                "the sampler is given as an object, with its own settings: leave eta and variance out"
            )
        if grid is not None and not isinstance(grid, str) and steps is not None:
            raise InputError(
                "the grid is given as times, which say how many steps there are: leave steps out"
            )
        options = self.recipe.sampling.changed(
            sampler=own,
            steps=steps,
            grid=grid if isinstance(grid, str) else None,
            eta=eta,
            variance=variance,
            guidance=guidance,
            by_classifier=by_classifier,
        )
        changed = self.recipe.model_copy(update={"sampling": options})
        return with_overrides(changed, settings or [], within="sampling").sampling

    def _guide(self, classifier: str | Path | Run | None, device: torch.device) -> Guide | None:
        if classifier is None:
            return None
        run = classifier if isinstance(classifier, Run) else Run(classifier, self.allow)
        if not run.recipe.is_classifier:
            raise InputError(
                f"classifier (--classifier) takes the run of a classifier, and {run.path} is a run of {run.recipe.name}, "
                "which makes samples"
            )
        model = run._model(device)
        if not isinstance(model, NoisyClassifier):
            raise IncompatibleModel(f"{run.path} holds a {type(model).__name__}, which cannot guide")
        return Guide(model, str(run.path), run.weights_sha256[:SHOWN])

    def _low_res(self, images: UserImages | Samples | None) -> Dataset | None:
        """What a super-resolution run upsamples; None for any other run."""
        side = self.recipe.model.low_res
        if side is None and images is not None:
            raise InputError(f"{self.path} is not a super-resolution run: remove low_res (--low-res)")
        if side is None:
            return None
        if images is None:
            raise InputError(
                f"{self.path} upsamples images of {side}×{side} pixels: give them by low_res (--low-res), an .npz, a picture or "
                "a folder"
            )
        return low_res_images(*_with_labels(images, side, self.data_spec))

    def _inpainting(self, sampling: Sampling, image: UserImages, mask: UserImages) -> Sampler:
        """The same sampler, which holds what the mask leaves of the image."""
        if not isinstance(sampling.model, Denoiser):
            raise IncompatibleModel(
                f"inpainting (--inpaint) holds values at levels of Gaussian noise, and a {type(sampling.model).__name__} has "
                "none"
            )
        known = self._one_image(image, "inpainting (--inpaint) fills in one picture")
        return Inpaint(sampling.sampler, known, mask_of(_batched(mask, self.data_spec, 2), self.data_spec))

    def _one_image(self, image: UserImages, why: str) -> Tensor:
        """x_0 of one picture, (C, H, W) in the data's range."""
        data = images_of(_batched(image, self.data_spec, 3), self.data_spec)
        if len(data) != 1:
            raise InputError(f"{why}, and {data.source} holds {len(data)} images")
        return _values(data)[0]

    def _target(self, name: str) -> Path:
        """A file of this name among the run's own samples."""
        folder = self.folder.samples
        folder.mkdir(exist_ok=True)
        return folder / (name + (".png" if are_images(self.data_spec.shape) else ".npz"))

    # Latents

    def encode(
        self,
        images: UserImages | Samples,
        labels: ClassNames | None = None,
        *,
        steps: int | None = None,
        grid: str | None = None,
        check: int = 0,
        device: str | torch.device | None = None,
        progress: Reporter = SILENT,
    ) -> Latents:
        """Latents x_T of images, by DDIM with η = 0 upwards in fp32, as `scorefield encode` writes them.

        Args:
            images: uint8 (N, H, W[, C]), `Samples`, or an .npz, picture or folder, of the run's size.
            labels: Classes by number or name, cycled over the images. Default: the images' own.
            steps: Steps of the grid; more reconstruct better. Default: the run's own number.
            grid: A name, or counts such as "10,15,20". Default: the run's own.
            check: Decode this many of the latents again, and say how well: `Latents.reconstruction_mse`.
            device: Default: the fastest one found.
            progress: Reports what is done. Default: nobody.

        Raises:
            InputError: For images of another size, unknown labels, a grid that does not fit.
            IncompatibleModel: For a run without such a flow.
        """
        model = self._flow_model(device)
        pictures, own = (images.images, images.labels) if isinstance(images, Samples) else (images, None)
        data = images_of(pictures, self.data_spec, own)
        chosen = labels_of_images(data, model) if labels is None else class_labels(model, labels)
        each = None if chosen is None else [chosen[i % len(chosen)] for i in range(len(data))]
        times = self._flow_grid(model, steps, grid)
        x0 = _values(data)
        x_T = flow.encode(model, x0, each, times, progress)
        error = None
        if check:
            some = None if each is None else each[:check]
            back = flow.decode(model, x_T[:check], some, times, progress, "decoding the first again")
            low, high = self.data_spec.range
            error = float(((back - x0[:check]) / (high - low)).square().mean())
        return Latents(x_T, each, times.tolist(), self.weights_sha256, error)

    def decode(
        self,
        latents: Latents | str | Path,
        *,
        device: str | torch.device | None = None,
        progress: Reporter = SILENT,
    ) -> Samples:
        """Images of latents, down the grid and with the labels that they were encoded with.

        Args:
            latents: What `encode` made, or the .npz it was saved to.
            device: Default: the fastest one found.
            progress: Reports what is done. Default: nobody.

        Raises:
            InputError: For latents of other weights, of another shape, or without the labels that are needed.
            IncompatibleModel: For a run without such a flow.
        """
        found = latents if isinstance(latents, Latents) else self.latents(latents)
        check_weights(found.weights, self.weights_sha256, found.source)
        model = self._flow_model(device)
        if (found.labels is None) == bool(model.num_classes):
            have, needs = ("no labels", "needs them") if found.labels is None else ("labels", "takes none")
            raise InputError(
                f"{found.source}: there are {have} here, and the run {needs}: encode the images again"
            )
        try:
            images = flow.decode(model, found.latents, found.labels, torch.tensor(found.grid), progress)
        except InputError as error:  # of its grid, which the model cannot walk
            raise InputError(f"{found.source}: {error}") from None
        return Samples(self.data_spec.to_uint8(images), self.data_spec, found.labels)

    def latents(self, path: str | Path) -> Latents:
        """Latents that `encode` made with this run and saved.

        Raises:
            InputError: For latents of other weights or of another shape, and for what is no such file.
            IncompatibleModel: For a run without such a flow.
        """
        self._check_flow()
        return Latents.read(Path(path), self.data_spec.shape, self.weights_sha256)

    def interpolate(
        self,
        a: int | UserImages,
        b: int | UserImages,
        frames: int = 10,
        label: int | str | None = None,
        *,
        steps: int | None = None,
        grid: str | None = None,
        device: str | torch.device | None = None,
        progress: Reporter = SILENT,
    ) -> flow.Interpolation:
        """A walk from one image to another through their latents, along the sphere that noise lies on.

        Args:
            a: A seed, whose sample 0 is meant, or one image: uint8 (H, W[, C]) or a file.
            b: The other end, likewise.
            frames: How many, both ends included, at least 2.
            label: The class of the whole walk; a class-conditional run needs one.
            steps: Steps of the grid. Default: the run's own number.
            grid: A name, or counts such as "10,15,20". Default: the run's own.
            device: Default: the fastest one found.
            progress: Reports what is done. Default: nobody.

        Raises:
            InputError: For an end that is no image of the run's size, and for a missing or unknown label.
            IncompatibleModel: For a run without such a flow.
        """
        if frames < 2:
            raise InputError(f"a walk has at least two frames, its ends; got frames = {frames}")
        model = self._flow_model(device)
        chosen = class_labels(model, label)
        if chosen is not None and (label is None or len(chosen) != 1):
            raise InputError(
                "this run is class-conditional: name the one class of the walk by label (--label)"
            )
        times = self._flow_grid(model, steps, grid)
        start, end = (self._latent(model, what, chosen, times, progress) for what in (a, b))
        x_T = spherical_walk(start, end, frames, model.process.prior_mean)
        each = None if chosen is None else chosen * frames
        images = self.data_spec.to_uint8(flow.decode(model, x_T, each, times, progress))
        cosine = float(torch.cosine_similarity(start.flatten(), end.flatten(), dim=0))
        return flow.Interpolation(images, len(times) - 1, None if chosen is None else chosen[0], cosine)

    def _latent(
        self,
        model: Denoiser,
        what: int | UserImages,
        label: list[int] | None,
        grid: Tensor,
        progress: Reporter,
    ) -> Tensor:
        """x_T of one end: of sample 0 of a seed, or of an image."""
        if isinstance(what, int):
            return model.process.prior((1, *self.data_spec.shape), NoiseSource(what).at(0))[0]
        x0 = self._one_image(what, "an end of the walk is one image")
        return flow.encode(model, x0[None], label, grid, progress)[0]

    def _flow_model(self, device: str | torch.device | None) -> Denoiser:
        """The model in fp32. IncompatibleModel unless this is a run of images with noise levels."""
        self._check_flow()
        model = self._model(device, "fp32")
        if not isinstance(model, Denoiser):
            raise self._without_flow(f"holds a {type(model).__name__}")
        return model

    def _check_flow(self) -> None:
        recipe, spec = self._described
        if recipe.is_classifier:
            raise self._without_flow("is a classifier, which makes no images")
        if recipe.model.low_res is not None:
            raise self._without_flow("upsamples images, and what it makes depends on the small ones")
        if recipe.process is None:
            raise self._without_flow("is a score without noise levels, which has no flow from data to noise")
        if isinstance(build_process(recipe), CategoricalProcess):
            raise self._without_flow("is a model of categories, which has no flow from data to noise")
        if not are_images(spec.shape):
            raise self._without_flow(
                f"makes examples of shape {tuple(spec.shape)}; from Python sf.latents.encode takes them"
            )

    def _without_flow(self, reason: str) -> IncompatibleModel:
        return IncompatibleModel(f"latents are of runs of images with noise levels, and {self.path} {reason}")

    def _flow_grid(self, model: Denoiser, steps: int | None, grid: str | None) -> Tensor:
        """The grid that DDIM would sample on."""
        return build_grid(self.recipe.sampling.changed(sampler="ddim", steps=steps, grid=grid), model.process)

    # Evaluation

    @overload
    def evaluate(
        self,
        metrics: str | Sequence[str] | None = None,
        guidance: float | None = None,
        **options: Unpack[EvaluateKeywords],
    ) -> Evaluation: ...

    @overload
    def evaluate(
        self,
        metrics: str | Sequence[str] | None = None,
        *,
        guidance: Sequence[float],
        **options: Unpack[EvaluateKeywords],
    ) -> list[Evaluation]: ...

    @overload
    def evaluate(
        self,
        metrics: str | Sequence[str] | None = None,
        guidance: float | Sequence[float] | None = None,
        **options: Unpack[EvaluateKeywords],
    ) -> Evaluation | list[Evaluation]: ...

    def evaluate(
        self,
        metrics: str | Sequence[str] | None = None,
        guidance: float | Sequence[float] | None = None,
        **options: Unpack[EvaluateKeywords],
    ) -> Evaluation | list[Evaluation]:
        """Figures of this run, each with the stamp of what it was measured with, as `scorefield evaluate` has them.

        Samples are judged beside held-out images. They are stored in RUN/evaluation as they are made, and reused by
        other metrics and larger n; deleting that folder is always safe. Figures are added to results.jsonl there.

        Args:
            metrics: "fd", "kid", "is", "pr", "bpd", "ode": one or several. Default: fd; fd and pr at several scales.
            guidance: A scale as of `sample`, or several: one evaluation each, of sets with the same seeds.
            n: Images per set (default: size of the held-out split), and images for bpd and ode (default: all). Of a
                classifier's run, examples of each part (default: 2,000).
            sets: Generated sets, for the mean and the spread. Default: 3.
            seed: Of the first set; the next ones are of seed + 1, … Default: 0.
            split: "heldout" or "train", the images of bpd and ode.
            data: Where the data is now. Default: as in training.
            samples: Judge these images, a folder or an .npz, instead of sampling the run.
            features: Feature extractor for fd, kid and pr: "classifier", "imagenet" or "inception:FILE".
            extractor: An extractor of your own, in place of `features`.
            reference: File of reference statistics, used if it is there and written if it is not.
            terms: Estimate the bound from this many random terms per image.
            bound_steps: Steps of the bound. Default: every level.
            variance: Of the bound, and of ancestral sampling.
            sampler, steps, grid, eta, settings, classifier, device, precision, compiled: As of `sample`.
            processes: Those that share the sampling. Default: this one alone. Others than the first get no figures.
            progress: Reports what is done. Default: nobody.

        Returns:
            `Evaluation`; a list of them for several scales; `AccuracyReport` of a classifier's run: its accuracy and
            cross-entropy at each noise level.

        Raises:
            InputError: For what cannot be measured, before anything is sampled where that can be known.
            IncompatibleModel: As of `sample`.
        """
        names = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else metrics
        if self.recipe.is_classifier:
            return self._accuracy(names, guidance, options)
        if self.recipe.model.low_res is not None:
            raise InputError(
                f"{self.path} is a super-resolution run, which has no metrics yet: look at samples of "
                "`scorefield sample --low-res`"
            )
        several = guidance is not None and not isinstance(guidance, int | float)
        scales = list(guidance) if isinstance(guidance, Sequence) else [guidance]
        wanted = {name: options[name] for name in _WANTED if name in options}  # type: ignore[literal-required]
        asked = parse(
            EvaluationOptions, {"metrics": names or (("fd", "pr") if len(scales) > 1 else ("fd",)), **wanted}
        )
        _check_scales(scales, asked)
        processes, progress = options.get("processes") or Processes(), options.get("progress", SILENT)
        targets = self._targets(scales, options, processes, progress)
        found = evaluate_each(targets, asked, processes, progress, options.get("extractor"))
        results = [Evaluation((), ()) for _ in scales] if found is None else found
        return results if several else results[0]

    def _targets(
        self,
        scales: Sequence[float | None],
        options: EvaluateKeywords,
        processes: Processes,
        progress: Reporter,
    ) -> list[EvaluationTarget]:
        """The run and its data, with each way to sample it."""
        how = {name: options[name] for name in _HOW if name in options}  # type: ignore[literal-required]
        how.setdefault("device", processes.device if options.get("processes") else None)
        ways = [self.sampling(guidance=scale, **how) for scale in scales]
        _note(ways[0].caution(), progress)
        train, heldout = self._data(options.get("data"), progress)
        decay = None if self.step is None else self.recipe.training.ema
        weights = {
            "average": "EMA",
            "decay": decay,
            "step": self.step,
            "sha256": self.weights_sha256[:SHOWN],
        }
        return [EvaluationTarget(way, train, heldout, weights, self.path / "evaluation") for way in ways]

    def _data(self, source: str | None, progress: Reporter) -> tuple[Dataset, Dataset]:
        """(training, held-out) examples of this run, or of another source."""
        options = self.recipe.data
        train, heldout = open_data(
            options if source is None else options.model_copy(update={"source": source})
        )
        trained_on = self.recipe.trained_on
        if trained_on is None:
            return train, heldout
        arrays = [name for name in trained_on.arrays if name in train.array_names]
        found = train.fingerprint(arrays) if train.first_of is None else train.first_of
        if found != trained_on.fingerprint:
            progress.say(f"note: {train.source} is not what this run was trained on (fingerprint {found})")
        return train, heldout

    def _accuracy(
        self, metrics: Sequence[str] | None, guidance: object, options: EvaluateKeywords
    ) -> AccuracyReport:
        """The figures of a classifier on n examples of each part, which hold all classes in about their shares."""
        if metrics is not None or guidance is not None or options.get("samples") or options.get("classifier"):
            raise InputError(
                "a classifier is judged by its accuracy: metrics, samples, guidance and classifier are for what makes samples"
            )
        progress, seed = options.get("progress", SILENT), options.get("seed", 0)
        train, heldout = self._data(options.get("data"), progress)
        model = self._model(options.get("device"), options.get("precision"))
        if not isinstance(model, NoisyClassifier):
            raise IncompatibleModel(f"{self.path} holds a {type(model).__name__}, not a classifier")
        parts = {}
        for name, part in (("held-out", heldout), ("training", train)):
            if not len(part):
                continue
            first = permutation(len(part), seed=0)[: options.get("n") or _EXAMPLES]
            chosen = part.subset(torch.from_numpy(first))
            with progress.progress(f"{name} examples", 1) as bar:
                parts[name] = noisy_accuracy(model, chosen, noise=NoiseSource(seed), progress=_told(bar))
        return AccuracyReport((), (), parts)


def _check_scales(scales: Sequence[float | None], options: EvaluationOptions) -> None:
    """InputError for scales that are no finite numbers, and where several would give the same figures."""
    numbers = [scale for scale in scales if scale is not None]
    if not scales or not all(map(math.isfinite, numbers)) or len(set(numbers)) < len(numbers):
        raise InputError(f"guidance takes finite numbers, each once; got {numbers}")
    if len(scales) < 2:
        return
    if options.samples is not None:
        raise InputError(
            "the images of samples (--samples) are not sampled again: give one scale of guidance at most, or leave samples out"
        )
    unguided = [name for name in options.metrics if name not in SAMPLE_METRICS]
    if unguided:
        raise InputError(f"{' and '.join(unguided)} ignore guidance: ask for them without guidance")


def _with_labels(
    images: UserImages | Samples, side: int, spec: DataSpec
) -> tuple[UserImages, int, DataSpec, np.ndarray | None]:
    """The arguments of `low_res_images`."""
    if isinstance(images, Samples):
        return images.images, side, spec, images.labels
    return images, side, spec, None


def _batched(image: UserImages, spec: DataSpec, most: int) -> UserImages:
    """One image given as an array (H, W[, C]), as a batch of one.   most: its number of axes, at the most."""
    axes = 2 if most == 2 or spec.shape[0] == 1 else 3
    if isinstance(image, np.ndarray) and image.ndim == axes:
        return (image[None] * np.uint8(255)) if image.dtype == bool else image[None]
    return image


def _values(data: Dataset) -> Tensor:
    """All examples, (N, *) in the data's range."""
    return data.batch(torch.arange(len(data)))[0]


def _count(n: int | None, sampling: Sampling) -> int:
    if n is None:
        small = sampling.conditions.get("low_res")
        return 64 if small is None else len(small.values)
    return positive_int("n, the number of samples,", n)


def _note(text: str | None, progress: Reporter) -> None:
    """What the user should know before samples are made."""
    if text is not None:
        progress.say(f"note: {text}")


_WANTED = (
    "n",
    "sets",
    "seed",
    "split",
    "terms",
    "bound_steps",
    "variance",
    "features",
    "reference",
    "samples",
)
_HOW = (
    "sampler",
    "steps",
    "grid",
    "eta",
    "variance",
    "settings",
    "classifier",
    "device",
    "precision",
    "compiled",
)


def _told(bar: Bar) -> Callable[[int, int], None]:
    return lambda done, total: bar.update(done, total=total)
