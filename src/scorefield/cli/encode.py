"""scorefield encode and scorefield decode"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scorefield.cli.console import print_json, progress, say
from scorefield.cli.labels import class_labels, labels_of
from scorefield.cli.parameters import Device, Grid, Json, Run, Steps, sampling_options

if TYPE_CHECKING:
    from torch import Tensor

    from scorefield.core.shapes import DataSpec
    from scorefield.data import Dataset
    from scorefield.models.denoiser import Denoiser
    from scorefield.runs.build import Recipe

__all__ = ["decode", "decoded", "encode", "encoded", "flow_grid", "load_flow"]

_AT_ONCE = 64


def encode(
    run: Run,
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES", help="An .npz with `images`, a picture, or a folder of them, of the run's size."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE.npz", help="Where the latents go, with what decoding needs.")
    ],
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Class by number or name; repeat it or use commas, in turn over the images. The images' own if not given."
        ),
    ] = None,
    steps: Steps = None,
    grid: Grid = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Turn images into latents x_T by DDIM with η = 0 upwards: the noise that the run decodes to these
    images.

    More --steps reconstruct better. Neither clipping nor guidance has a part in it, and the network runs in
    fp32.
    """
    import torch

    from scorefield.data.user_images import images_of
    from scorefield.store.latent_file import Latents, check_latents_target

    check_latents_target(out)
    recipe, spec, model = load_flow(run, device)
    data = images_of(images, spec)
    labels = _labels(model, label, data)
    times = flow_grid(recipe, model, steps, grid)
    x0 = data.batch(torch.arange(len(data)))[0]
    latents = encoded(model, x0, labels, times)
    first = slice(0, _AT_ONCE)
    back = decoded(
        model, latents[first], None if labels is None else labels[first], times, "decoding the first again"
    )
    low, high = spec.range
    error = float(((back - x0[first]) / (high - low)).square().mean())
    Latents(latents, labels, times.tolist(), _weights(run)).save(out)
    which = "" if len(data) <= _AT_ONCE else f" of the first {_AT_ONCE}"
    say(
        f"wrote {out}: {len(data)} latents; decoding{which} is off by {error:.1e} (mean squared error of a pixel in [0, 1])"
    )
    if as_json:
        facts = {"out": str(out), "n": len(data), "steps": len(times) - 1, "labels": labels, "weights": "ema"}
        print_json({**facts, "reconstruction_mse": error, "reconstructed": len(back)})


def decode(
    run: Run,
    file: Annotated[
        Path, typer.Argument(metavar="FILE.npz", help="Latents that `scorefield encode` made with this run.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="FILE.png (a grid), FILE.npz (arrays) or a new or empty folder (one PNG each)."),
    ],
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Turn latents back into images, down the grid and with the labels that they were encoded with."""
    import torch

    from scorefield.runtime.errors import InputError
    from scorefield.store.latent_file import Latents

    _check_out(out)
    _, spec, model = load_flow(run, device)
    found = Latents.read(file, spec.shape, _weights(run))
    if (found.labels is None) == bool(model.num_classes):
        have, needs = ("no", "needs") if found.labels is None else ("", "takes none")
        raise InputError(f"{file}: this file has {have} labels, and the run {needs}: encode the images again")
    try:
        images = decoded(model, found.latents, found.labels, torch.tensor(found.grid), "decoding")
    except InputError as error:  # of its grid, which the model cannot walk
        raise InputError(f"{file}: {error}") from None
    _save(out, spec.to_uint8(images), found.labels)
    say(f"wrote {out}: {len(images)} images from {file}, {len(found.grid) - 1} steps")
    if as_json:
        print_json(
            {
                "out": str(out),
                "n": len(images),
                "steps": len(found.grid) - 1,
                "labels": found.labels,
                "weights": "ema",
            }
        )


def _check_out(out: Path) -> None:
    from scorefield.runtime.errors import InputError
    from scorefield.store.writers import check_target

    check_target(out)
    if not out.suffix and out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not an empty folder: choose another one for the images")


def _save(out: Path, images: Tensor, labels: list[int] | None) -> None:
    """Write uint8 images (N, C, H, W) as what the name of `out` says."""
    from PIL import Image

    from scorefield.store.writers import channels_last, save_images

    if out.suffix:
        save_images(out, images, labels)
        return
    out.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(channels_last(images)):
        Image.fromarray(image).save(out / f"{i:06d}.png")


def load_flow(run: str, device: str | None) -> tuple[Recipe, DataSpec, Denoiser]:
    """A run of images with noise levels, its model in fp32 on the device. IncompatibleModel for any other
    run.
    """
    from scorefield.core.shapes import are_images
    from scorefield.models.denoiser import Denoiser
    from scorefield.runs.build import load, read_run
    from scorefield.runtime.errors import IncompatibleModel
    from scorefield.runtime.precision import pick_device

    recipe, spec = read_run(run)
    model: Any = load(run)
    reasons = (
        (recipe.is_classifier, "is a classifier, which makes no images"),
        (recipe.model.low_res is not None, "enlarges images, and what it makes depends on the small ones"),
        (recipe.process is None, "is a score without noise levels, which has no flow from data to noise"),
        (not isinstance(model, Denoiser), "is a model of categories, which has no flow from data to noise"),
        (
            not are_images(spec.shape),
            f"makes examples of shape {tuple(spec.shape)}; from Python sf.latents.encode takes them",
        ),
    )
    for applies, reason in reasons:
        if applies:
            raise IncompatibleModel(f"latents are of runs of images with noise levels, and {run} {reason}")
    return recipe, spec, model.to(pick_device(device))


def flow_grid(recipe: Recipe, model: Denoiser, steps: int | None, grid: str | None) -> Tensor:
    """The grid of these options, or the run's own: the one that DDIM would sample on."""
    from scorefield.runs.build import build_grid

    options = sampling_options(recipe, sampler="ddim", steps=steps, grid=grid, eta=None, variance=None)
    return build_grid(options, model.process)


def encoded(model: Denoiser, x0: Tensor, labels: list[int] | None, grid: Tensor) -> Tensor:
    """Latents on the CPU, a few images at a time."""
    from scorefield.samplers import latents

    return _in_parts("encoding", lambda bound, part: latents.encode(bound, part, grid), model, x0, labels)


def decoded(model: Denoiser, x_T: Tensor, labels: list[int] | None, grid: Tensor, what: str) -> Tensor:
    """Images on the CPU, a few latents at a time."""
    from scorefield.samplers import latents

    return _in_parts(what, lambda bound, part: latents.decode(bound, part, grid), model, x_T, labels)


def _in_parts(
    what: str, walk: Callable[[Any, Tensor], Tensor], model: Denoiser, x: Tensor, labels: list[int] | None
) -> Tensor:
    import torch

    from scorefield.generation.blocks import given

    parts = []
    with progress(what, len(x)) as bar:
        for indices in torch.arange(len(x)).split(_AT_ONCE):
            bound = given(model, None if labels is None else [labels[i] for i in indices.tolist()])
            parts.append(walk(bound, x[indices].to(model.device)).cpu())
            bar.update(int(indices[-1]) + 1)
    return torch.cat(parts)


def _labels(model: Denoiser, label: list[str] | None, data: Dataset) -> list[int] | None:
    """One for each image: --label in turn, or the images' own; None for an unconditional run."""
    chosen = class_labels(model, label) if label else labels_of(data, model)
    return None if chosen is None else [chosen[i % len(chosen)] for i in range(len(data))]


def _weights(run: str) -> str:
    from scorefield.runtime.weights import file_sha256
    from scorefield.training import RunFolder

    return file_sha256(RunFolder(Path(run)).weights)
