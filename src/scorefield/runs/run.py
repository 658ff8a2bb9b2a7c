"""A trained run as an object: what it is, and all that can be made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.core.shapes import are_images
from scorefield.data.user_images import UserImages, images_of
from scorefield.generation import ddim_latents
from scorefield.generation.job import SampleJob
from scorefield.generation.labels import ClassNames, class_labels, labels_of_images
from scorefield.generation.samples import Samples
from scorefield.generation.sampling import Sampling
from scorefield.generation.sampling_options import build_grid
from scorefield.models.denoiser import Denoiser
from scorefield.process import CategoricalProcess
from scorefield.process.transitions import Variance
from scorefield.runs.build import (
    build_process,
)
from scorefield.runs.opened import OpenedRun, SampleKeywords, hardly_begun, note, values_of
from scorefield.runtime.atomic import make_folder, remove_empty
from scorefield.runtime.checks import brief, positive_int
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.free_memory import needs_memory
from scorefield.runtime.precision import pick_device
from scorefield.runtime.progress import SILENT, Reporter, check_reporter
from scorefield.runtime.reading import as_path
from scorefield.samplers import Sampler
from scorefield.samplers.base import Grid, Step
from scorefield.samplers.grids import as_grid
from scorefield.samplers.latents import spherical_walk
from scorefield.store.block_store import BLOCK
from scorefield.store.latent_file import Latents, check_weights
from scorefield.store.outputs import is_folder_name
from scorefield.store.writers import check_animation, check_target

if TYPE_CHECKING:
    from scorefield.evaluation import Evaluation
    from scorefield.runs.evaluating import EvaluateKeywords

__all__ = ["Run", "SavedSamples"]

_LARGEST_BLOCK = 2**16
_MOST_SAMPLES = 10**12


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
    sampling: Sampling = field(repr=False)  # its model prints as every layer
    seconds: float
    kept: int


class Run(OpenedRun):
    """A trained run: its description, its model, and what the commands make of it, with the same bytes.

    Nothing is read before it is asked for, and everything is read once. The weights are those of one moment: a
    training that goes on meanwhile changes nothing here.

        run = sf.Run("runs/digits-1")
        run.sample(n=8, labels=[3, 5], steps=20).images
    """

    # Its weights

    def average(self, length: float, run: str | Path, step: int | None = None) -> Run:
        """Make a run with another average of the weights, as `scorefield ema` does.  [Karras et al. 2024a Sec. 3.2]

        Args:
            length: Relative width σ_rel of the average, from 0.001 to 0.2886.
            run: The folder to make.
            step: The step of the average. Default: the last step of which averages are stored.

        Returns:
            The new run.

        Raises:
            InputError: For a run that was trained without `training.ema_profiles`, a length or step out of range, and a
                folder that is not free.
        """
        from scorefield.runs.averaging import average_run

        return Run(average_run(self, length, run, step).run, self.allow, net=self._net, process=self._process)

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
        classifier: str | Path | OpenedRun | None = None,
        autoguidance: str | Path | OpenedRun | None = None,
        low_res: UserImages | Samples | None = None,
        conditions: Mapping[str, np.ndarray | Tensor] | str | Path | None = None,
        inpaint: tuple[UserImages, UserImages] | None = None,
        block: int | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
        compiled: bool = False,
        progress: Reporter = SILENT,
    ) -> Samples:
        """Samples in memory, with the bytes that `scorefield sample RUN --out FILE.npz` writes.

        Args:
            n: Number of samples. Default: 64, or one for each image of `low_res`.
            seed: Sample i of a seed does not depend on n.
            labels: Classes by number or name, cycled over the samples. Default: every class that has
                training examples, in turn, or those of `low_res`.
            sampler: A name, or an object such as `sf.samplers.Heun()`. Default: the run's own.
            steps: Steps of the grid. Default: the run's own number.
            grid: A name, counts such as "10,15,20", or times from T down. Default: the run's own.
            eta: DDIM's η, 0 (deterministic) to 1 (ancestral).
            variance: Variance of ancestral sampling: "lower", "upper" or "learned".
            settings: Further values of the run's [sampling] table, such as {"clip": True, "sampler.step": 0.01}.
            guidance: Scale of the guidance: by `classifier` (0 is none, default 1), by the weaker model of `autoguidance`
                (1 is none), otherwise classifier-free (1 is the conditional model). An interval of noise levels, a
                schedule over t and rescaling are `settings`, such as {"guidance_low": 0.2, "guidance_high": 5}.
            classifier: Run of a classifier that guides.
            autoguidance: Run of a weaker model that guides: of fewer parameters, of fewer training steps, or both.
            low_res: Low-resolution inputs of a super-resolution run, uint8 (M, h, w[, C]) or a file or folder of
                them; sample i upsamples image i mod M.
            conditions: Further inputs of the network by name, (M, *) each, cycled over the samples, or an .npz of them.
            inpaint: (image, mask): the image is filled in where the mask is white (255), and kept where it is black.
            block: Samples computed at once, from 1 to 65,536. Values depend on it in the last place, and below 32 on the
                number of threads too. Default: 64.
            device: "cpu", "cuda" or "mps". Default: the fastest one found.
            precision: "fp32", "bf16" or "auto". Default: the run's own.
            compiled: Whether torch.compile compiles the network first; worth it for many samples on a GPU.
            progress: Receives progress reports. Default: none are made.

        Returns:
            `Samples`: `.images` uint8 (N, H, W[, C]) or, of a run of points, `.samples` float32 (N, *); `.labels`.

        Raises:
            InputError: For options that this run does not take.
            IncompatibleModel: For parts that do not fit together.
        """
        check_reporter(progress)
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
            autoguidance=autoguidance,
            inpaint=inpaint,
            device=device,
            precision=precision,
            compiled=compiled,
            progress=progress,
        )
        note(sampling.caution(), progress)
        note(hardly_begun(self), progress)
        self._say_fitted(progress)
        count, block = _count(n, sampling), _block(block)
        self._check_memory(count, "`save_samples` writes any number")
        return SampleJob(sampling, seed, count, self.path, block, progress=progress).in_memory()

    def save_samples(
        self,
        target: str | Path | None = None,
        n: int | None = None,
        seed: int = 0,
        labels: ClassNames | None = None,
        *,
        block: int | None = None,
        trajectory: str | Path | None = None,
        processes: Processes | None = None,
        progress: Reporter = SILENT,
        **how: Unpack[SampleKeywords],
    ) -> SavedSamples:
        """Samples on disk, as `scorefield sample` writes them: any number, resumable, shared by processes.

        Args:
            target: A folder (a .png or .npy each), an .npz or a .png. Default: a file in the run's samples/.
            n: How many; a larger n adds to a folder. Default: as of `Run.sample`.
            seed: As of `Run.sample`.
            labels: As of `Run.sample`.
            block: As of `Run.sample`; recorded in the folder.
            trajectory: A .gif that shows the first block being made.
            processes: Those that share the work, as `join_processes` gives them. Default: this one alone.
            progress: Receives progress reports. Default: none are made.
            **how: The options of `Run.sample`.

        Raises:
            InputError: Where the target holds other samples or cannot be written, and as of `Run.sample`.
            IncompatibleModel: As of `Run.sample`.
        """
        check_reporter(progress)
        processes = processes or Processes(device=pick_device(None))
        animation = None if trajectory is None else as_path(trajectory, "trajectory, a file to write,")
        named = None if target is None else as_path(target, "target, a file to write,")
        how.setdefault("device", processes.device)

        def prepare() -> tuple[Sampling, int, int]:
            if named is not None:
                check_target(named, self.data_spec.shape)
            if animation is not None:
                check_animation(animation, self.data_spec.shape)
            made = self.sampling(labels, progress=progress, **how)
            return made, _count(n, made), _block(block)

        # What one process alone cannot open, none goes on without.
        sampling, count, size = processes.on_all(prepare, "opening the run")
        where = self._target(f"seed-{seed}-n-{count}") if named is None else named
        if not is_folder_name(where):
            self._check_memory(count, "a folder takes any number")
        note(sampling.caution(), progress)
        note(hardly_begun(self), progress)
        self._say_fitted(progress)
        facts = [str(sampling.sampler), f"{sampling.calls} network calls", f"seed {seed}", sampling.precision]
        facts += [sampling.guidance] if sampling.guidance else []
        facts += [f"{processes.world} processes"] if processes.world > 1 else []
        progress.say(f"{self.path}: EMA weights, {', '.join(facts)}")
        start = perf_counter()
        job = SampleJob(sampling, seed, count, where, size, animation, progress)
        try:
            job.run(processes)
        except BaseException:
            if named is None:
                remove_empty(where.parent)
            raise
        return SavedSamples(where, count, seed, sampling, perf_counter() - start, job.kept)

    def trajectory(
        self,
        n: int | None = None,
        seed: int = 0,
        labels: ClassNames | None = None,
        *,
        block: int | None = None,
        **how: Unpack[SampleKeywords],
    ) -> Iterator[Step]:
        """The steps by which `Run.sample` makes its first block, one after another, as `sf.trajectory` yields
        them.

        Args:
            n: How many samples, at most `block`. Default: as of `Run.sample`.
            seed: Sample i of a seed does not depend on n.
            labels: Classes by number or name, as of `Run.sample`.
            block: Samples computed at once, as of `Run.sample`.
            **how: The options of `Run.sample`.

        Yields:
            `Step`: x and x̂0 (n, *) after each step, on the device.

        Raises:
            InputError: As of `Run.sample`.
            IncompatibleModel: As of `Run.sample`.
        """
        sampling = self.sampling(labels, **how)
        return sampling.trajectory(_count(n, sampling), seed, _block(block))

    def _check_memory(self, count: int, otherwise: str) -> None:
        """Check that samples fit into memory.

        Args:
            count: How many.
            otherwise: How more of them can be made, for the message.

        Raises:
            InputError: Where they do not fit.
        """
        size = 1 if are_images(self.data_spec.shape) else 4  # bytes
        needs_memory(count * self.data_spec.dimensions * size, f"n = {count:,} samples at once ({otherwise})")

    def _target(self, name: str) -> Path:
        """A file of this name among the run's own samples."""
        folder = make_folder(self.folder.samples)
        return folder / (name + (".png" if are_images(self.data_spec.shape) else ".npz"))

    # Latents

    def encode(
        self,
        images: UserImages | Samples,
        labels: ClassNames | None = None,
        *,
        steps: int | None = None,
        grid: str | Grid | None = None,
        check: int = 0,
        device: str | torch.device | None = None,
        progress: Reporter = SILENT,
    ) -> Latents:
        """Latents x_T of images, by DDIM with η = 0 upwards in fp32, as `scorefield encode` writes them.

        Args:
            images: uint8 (N, H, W[, C]), `Samples`, or an .npz, picture or folder; those of another
                size are fitted as in training.
            labels: Classes by number or name, cycled over the images. Default: the images' own.
            steps: Steps of the grid; more reconstruct better. Default: the run's own number.
            grid: A name, counts such as "10,15,20", or times from T down. Default: the run's own.
            check: Decode this many of the latents again, and say how well: `Latents.reconstruction_mse`.
            device: Default: the fastest one found.
            progress: Receives progress reports. Default: none are made.

        Raises:
            InputError: For images of another size, unknown labels, a grid that does not fit.
            IncompatibleModel: For a run without such a flow.
        """
        check_reporter(progress)
        positive_int("check, the number of latents to decode,", check, at_least=0)
        model = self._flow_model(device)
        pictures, own = (images.images, images.classes) if isinstance(images, Samples) else (images, None)
        data = images_of(pictures, self.data_spec, own)
        for text in data.notes:
            progress.say(text)
        chosen = labels_of_images(data, model) if labels is None else class_labels(model, labels)
        each = None if chosen is None else [chosen[i % len(chosen)] for i in range(len(data))]
        times = self._flow_grid(model, steps, grid)
        x0 = values_of(data)
        x_T = ddim_latents.encode(model, x0, each, times, progress)
        error = None
        if check:
            some = None if each is None else each[:check]
            back = ddim_latents.decode(
                model, x_T[:check], some, times, progress, "checking the reconstruction"
            )
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
            latents: What `Run.encode` made, or the .npz it was saved to.
            device: Default: the fastest one found.
            progress: Receives progress reports. Default: none are made.

        Raises:
            InputError: For latents of other weights, of another shape, or without the labels that are needed.
            IncompatibleModel: For a run without such a flow.
        """
        check_reporter(progress)
        if not isinstance(latents, Latents | str | Path):
            raise InputError(
                f"latents must be the result of `encode` or the path of its file; got {brief(latents)}"
            )
        found = latents if isinstance(latents, Latents) else self.latents(latents)
        check_weights(found.weights, self.weights_sha256, found.source)
        model = self._flow_model(device)
        if (found.labels is None) == bool(model.num_classes):
            have, needs = ("no labels", "needs them") if found.labels is None else ("labels", "takes none")
            raise InputError(
                f"{found.source}: the file holds {have}, but the run {needs}: encode the images again"
            )
        try:
            images = ddim_latents.decode(
                model, found.latents, found.labels, torch.tensor(found.grid), progress
            )
        except InputError as error:  # of its grid, which the model cannot walk
            raise InputError(f"{found.source}: {error}") from None
        return Samples(self.data_spec.to_uint8(images), self.data_spec, found.labels)

    def latents(self, path: str | Path) -> Latents:
        """Latents that `Run.encode` made with this run and saved.

        Args:
            path: The .npz.

        Raises:
            InputError: For latents of other weights or of another shape, and for what is no such file.
            IncompatibleModel: For a run without such a flow.
        """
        self.check_latents()
        return Latents.read(as_path(path, "a file of latents"), self.data_spec.shape, self.weights_sha256)

    def interpolate(
        self,
        a: int | UserImages,
        b: int | UserImages,
        frames: int = 10,
        label: int | str | None = None,
        *,
        steps: int | None = None,
        grid: str | Grid | None = None,
        device: str | torch.device | None = None,
        progress: Reporter = SILENT,
    ) -> ddim_latents.Interpolation:
        """A walk from one image to another through their latents, along the sphere that noise lies on.

        Args:
            a: A seed, whose sample 0 is meant, or one image: uint8 (H, W[, C]) or a file.
            b: The other end, likewise.
            frames: How many, both ends included, at least 2.
            label: The class of the whole walk. Default: between seeds that of their sample 0, the first class; a
                class-conditional run needs one between images.
            steps: Steps of the grid. Default: the run's own number.
            grid: A name, counts such as "10,15,20", or times from T down. Default: the run's own.
            device: Default: the fastest one found.
            progress: Receives progress reports. Default: none are made.

        Raises:
            InputError: For an end that is no image that fits, and for a missing or unknown label.
            IncompatibleModel: For a run without such a flow.
        """
        check_reporter(progress)
        if not isinstance(frames, int) or frames < 2:
            raise InputError(f"an interpolation has at least two frames; got frames = {frames!r}")
        model = self._flow_model(device)
        chosen = class_labels(model, label)
        if chosen is not None and label is None and all(isinstance(end, int) for end in (a, b)):
            chosen = chosen[:1]
        elif chosen is not None and (label is None or len(chosen) != 1):
            raise InputError(
                "this run is class-conditional: give the class of all frames as label", command="--label"
            )
        times = self._flow_grid(model, steps, grid)
        start, end = (self._latent(model, what, chosen, times, progress) for what in (a, b))
        x_T = spherical_walk(start, end, frames, model.process.prior_mean)
        each = None if chosen is None else chosen * frames
        images = self.data_spec.to_uint8(ddim_latents.decode(model, x_T, each, times, progress))
        cosine = float(torch.cosine_similarity(start.flatten(), end.flatten(), dim=0))
        return ddim_latents.Interpolation(
            images, len(times) - 1, None if chosen is None else chosen[0], cosine
        )

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
        x0 = self._one_image(what, "an end of the interpolation is one image")
        self._say_fitted(progress)
        return ddim_latents.encode(model, x0[None], label, grid, progress)[0]

    def _flow_model(self, device: str | torch.device | None) -> Denoiser:
        """The model in fp32. IncompatibleModel unless this is a run of images with noise levels."""
        self.check_latents()
        model = self._model(device, "fp32")
        if not isinstance(model, Denoiser):
            raise self._without_flow(f"holds a {type(model).__name__}")
        return model

    def check_latents(self) -> None:
        """Check that images of this run have latents: `encode`, `decode` and `interpolate` take it. No weights are read.

        Raises:
            IncompatibleModel: For a run without a flow between images and noise.
        """
        recipe, spec = self._described
        if recipe.is_classifier:
            raise self._without_flow("is a classifier, which generates no images")
        if recipe.model.low_res is not None:
            raise self._without_flow(
                "is a super-resolution run, whose samples depend on the low-resolution images"
            )
        if recipe.process is None:
            raise self._without_flow("is a score without noise levels, which has no map from data to noise")
        if isinstance(self._process or build_process(recipe), CategoricalProcess):
            raise self._without_flow("is a categorical model, which has no map from data to noise")
        if not are_images(spec.shape):
            raise self._without_flow(
                f"generates examples of shape {tuple(spec.shape)}; use sf.latents.encode from Python"
            )

    def _without_flow(self, reason: str) -> IncompatibleModel:
        return IncompatibleModel(f"latents need a run of images with noise levels, but {self.path} {reason}")

    def _flow_grid(self, model: Denoiser, steps: int | None, grid: str | Grid | None) -> Tensor:
        """The grid that DDIM would sample on."""
        if grid is not None and not isinstance(grid, str):
            if steps is not None:
                raise InputError("the grid is given as times, which fix the number of steps: remove steps")
            return torch.as_tensor(as_grid(model.process, grid))
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
        """Figures of this run, each with the stamp of what it was measured with, as `scorefield evaluate`
        has them.

        Samples are judged beside held-out images. They are stored in RUN/evaluation as they are made, and
        reused by other metrics and larger n; deleting that folder is always safe. Figures are added to
        results.jsonl there.

        Args:
            metrics: "fd", "kid", "is", "pr", "copies", "palette", "bpd", "ode": one or several. Default: fd;
                fd and pr at several scales.
            guidance: A scale as of `Run.sample`, or several: one evaluation each, of sets with the same seeds.
            **options: n, sets, seed, split, data, samples, features, extractor, reference, terms,
                bound_steps, variance, sampler, steps, grid, eta, settings, classifier, autoguidance, device, precision,
                compiled, processes and progress, as follows.
            n: Images per set (default: size of the held-out split), and images for bpd and ode (default:
                all). Of a classifier's run, examples of each part (default: 2,000).
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
            sampler: As of `Run.sample`.
            steps: As of `Run.sample`.
            grid: As of `Run.sample`.
            eta: As of `Run.sample`.
            settings: As of `Run.sample`.
            classifier: As of `Run.sample`.
            autoguidance: As of `Run.sample`.
            device: As of `Run.sample`.
            precision: As of `Run.sample`.
            compiled: As of `Run.sample`.
            processes: Those that share the sampling. Default: this one alone. Others than the first get no
                figures.
            progress: Receives progress reports. Default: none are made.

        Returns:
            An `Evaluation`; a list of them for several scales; of a classifier's run the `AccuracyReport`, with its
            accuracy and cross-entropy at each noise level.

        Raises:
            InputError: For what cannot be measured, before anything is sampled where that can be known.
            IncompatibleModel: As of `Run.sample`.
        """
        from scorefield.runs.evaluating import evaluate_run  # which sampling alone need not load

        return evaluate_run(self, metrics, guidance, options)


def _block(block: int | None) -> int:
    """How many samples are computed at once. InputError for what is no such number."""
    size = BLOCK if block is None else positive_int("block, the samples computed at once,", block)
    if size > _LARGEST_BLOCK:
        raise InputError(f"block, the samples computed at once, is at most {_LARGEST_BLOCK:,}; got {size:,}")
    return size


def _count(n: int | None, sampling: Sampling) -> int:
    """How many samples are made. InputError for what is no such number."""
    if n is None:
        small = sampling.conditions.get("low_res")
        return 64 if small is None else len(small.values)
    return positive_int("n, the number of samples,", n, at_most=_MOST_SAMPLES)
