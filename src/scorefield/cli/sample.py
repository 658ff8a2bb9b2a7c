"""scorefield sample"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scorefield.cli.console import print_json, say
from scorefield.cli.labels import class_labels, labels_of
from scorefield.cli.parameters import (
    Classifier,
    Compile,
    Device,
    Eta,
    Grid,
    Guidance,
    Json,
    Run,
    SamplerName,
    Seed,
    Settings,
    Steps,
    Variance,
    load_classifier,
    load_model,
    sampling_options,
    say_caution,
    weights_hash,
)

if TYPE_CHECKING:
    from scorefield.cli.sample_job import SampleJob
    from scorefield.core.shapes import DataSpec
    from scorefield.data import Dataset
    from scorefield.generation.sampling import LowRes, Sampling
    from scorefield.models.denoiser import Denoiser
    from scorefield.runs.build import Recipe
    from scorefield.runtime.distributed import Processes


Count = Annotated[
    int | None,
    typer.Option(
        "-n", min=1, max=10**9, help="How many; 64, or one for each image of --low-res, if not given."
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(help="Class by number or name; repeat it or use commas. All classes in turn if not given."),
]
LowResFile = Annotated[
    Path | None,
    typer.Option(
        "--low-res",
        metavar="FILE",
        help="The small images that a run of super-resolution enlarges, image i into sample i: an .npz with `images`, a picture or "
        "a folder of them. Classes are the file's own if --label is not given.",
    ),
]
Inpainted = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        metavar="IMAGE MASK",
        help="Fill in a picture of the run's size where the black and white picture MASK is white; what is black stays, in the run's own levels.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="FILE.png (a grid), FILE.npz (arrays) or a folder (one PNG each).")
]
Animation = Annotated[
    Path | None, typer.Option(metavar="FILE.gif", help="Show the denoising of the first images.")
]


def sample(
    run: Run,
    n: Count = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    variance: Variance = None,
    settings: Settings = None,
    label: Labels = None,
    classifier: Classifier = None,
    guidance: Guidance = None,
    low_res: LowResFile = None,
    inpaint: Inpainted = None,
    seed: Seed = 0,
    out: Out = None,
    trajectory: Animation = None,
    device: Device = None,
    compiled: Compile = False,
    as_json: Json = False,
) -> None:
    """Sample a run with its averaged (EMA) weights: images, or points as an .npz with `samples`.

    Samples are made in blocks of 64, whole ones for a folder and for more than 64. These are kept on the disk
    as they are made, in the folder or beside FILE in FILE.blocks: the same command goes on with what is
    missing after any interruption, and makes the same files. A larger -n adds to a folder. Several processes
    share the work: torchrun --nproc_per_node 2 -m -- scorefield sample RUN …
    """
    from scorefield.cli.sample_job import SampleJob
    from scorefield.runs.build import build_sampling, read_run
    from scorefield.runtime.distributed import join_processes

    recipe, spec = read_run(run)
    small = _small_images(run, recipe, spec, low_res)
    n = n or (64 if small is None else len(small))
    target = _checked_target(run, spec, out, trajectory, f"seed-{seed}-n-{n}")
    processes = join_processes(device)
    model = load_model(run, recipe, processes.device, compiled)
    guide = load_classifier(classifier, model.device)
    options = sampling_options(recipe, sampler, steps, grid, eta, variance, settings, classifier, guidance)
    sampling = build_sampling(options, model, guide)
    say_caution(sampling)
    if inpaint is not None:
        sampling = _inpainting(sampling, model, spec, *inpaint)
    judge = None if guide is None else guide.model
    labels = class_labels(model, label, judge) if label or small is None else labels_of(small, model, judge)
    sampling = replace(sampling, labels=labels, weights=weights_hash(run), low_res=_low_res(small))
    job = SampleJob(
        partial(sampling.blocks, seed=seed),
        sampling.identity(seed),
        spec,
        n,
        sampling.steps,
        target,
        labels,
        trajectory,
    )
    said = _facts(sampling, seed, processes.world)
    say(f"{run}: EMA weights, {', '.join(map(str, filter(None, said.values())))}")
    seconds = _run(job, processes)
    if as_json and processes.first:
        result = {
            "out": str(target),
            "n": n,
            "seed": seed,
            "sampler": said["sampler"],
            "guidance": said["guidance"] or None,
        }
        print_json({**result, "calls": sampling.calls, "weights": "ema", "seconds": round(seconds, 3)})


def _run(job: SampleJob, processes: Processes) -> float:
    """The seconds that the job took, which are also said."""
    start = time.perf_counter()
    job.run(processes)
    seconds = time.perf_counter() - start
    rate = "" if job.kept else f" ({job.n / seconds:,.1f} a second)"
    say(f"wrote {job.target}: {job.n} samples in {seconds:.1f} s{rate}")
    return seconds


def _facts(sampling: Sampling, seed: int, world: int) -> dict[str, str | None]:
    """How the samples are made, in words, in the order in which it is said."""
    facts = {
        "sampler": str(sampling.sampler),
        "calls": f"{sampling.calls} network calls",
        "seed": f"seed {seed}",
        "precision": sampling.precision,
        "guidance": sampling.guidance,
    }
    return {**facts, "processes": f"{world} processes" if world > 1 else None}


def _low_res(small: Dataset | None) -> LowRes | None:
    import torch

    from scorefield.generation.sampling import LowRes

    return None if small is None else LowRes(small.batch(torch.arange(len(small)))[0], small.fingerprint())


def _small_images(run: str, recipe: Recipe, spec: DataSpec, low_res: Path | None) -> Dataset | None:
    """The images of --low-res; None for a run that enlarges none. InputError where they are missing, or
    nothing enlarges them.
    """
    from scorefield.data.user_images import low_res_images
    from scorefield.runtime.errors import InputError

    side = recipe.model.low_res
    if side is None and low_res is not None:
        raise InputError(f"{run} is not a super-resolution run: remove --low-res")
    if side is not None and low_res is None:
        raise InputError(
            f"{run} enlarges images of {side}×{side} pixels: give them by --low-res, an .npz, a picture or a folder"
        )
    return None if side is None or low_res is None else low_res_images(low_res, side, spec)


def _inpainting(sampling: Sampling, model: Denoiser, spec: DataSpec, image: Path, mask: Path) -> Sampling:
    """The same sampling with what the mask leaves of the picture held. InputError where one does not fit the
    run.
    """
    import torch

    from scorefield.data.user_images import images_of, mask_of
    from scorefield.models.denoiser import Denoiser
    from scorefield.runtime.errors import IncompatibleModel, InputError
    from scorefield.samplers import Inpaint

    if not isinstance(model, Denoiser):
        raise IncompatibleModel(
            f"--inpaint holds values at levels of Gaussian noise, and a {type(model).__name__} has none"
        )
    data = images_of(image, spec)
    if len(data) != 1:
        raise InputError(f"--inpaint fills in one picture, and {image} holds {len(data)}")
    known = data.batch(torch.arange(1))[0][0]
    return replace(sampling, sampler=Inpaint(sampling.sampler, known, mask_of(mask, spec)))


def _checked_target(run: str, spec: DataSpec, out: Path | None, animation: Path | None, name: str) -> Path:
    """Where the samples go: `out`, or a file of this name in the run. InputError where they, or the
    animation, cannot go there.
    """
    from scorefield.core.shapes import are_images
    from scorefield.store.writers import check_animation, check_target
    from scorefield.training import RunFolder

    if out is None:
        folder = RunFolder(Path(run)).samples
        folder.mkdir(exist_ok=True)
        out = folder / (name + (".png" if are_images(spec.shape) else ".npz"))
    check_target(out, spec.shape)
    if animation is not None:
        check_animation(animation, spec.shape)
    return out
