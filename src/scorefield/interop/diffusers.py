"""diffusers' folders of a UNet2DModel and its DDPM or DDIM scheduler: written and read without diffusers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.generation.sampling_options import SamplingOptions
from scorefield.interop.diffusers_names import from_diffusers, modern_names, to_diffusers
from scorefield.interop.diffusers_scheduler import (
    SchedulerConfig,
    lacking,
    read_scheduler,
    scheduler_config,
    usage,
)
from scorefield.interop.diffusers_unet import (
    Structure,
    UNetConfig,
    attention_order,
    network,
    read_structure,
    structure_of,
)
from scorefield.interop.state_dicts import read_weights
from scorefield.models.denoiser import Denoiser
from scorefield.nets import DDPMUNet, UNet
from scorefield.runtime.atomic import atomic_folder, make_folder, write_new
from scorefield.runtime.bounds import LEVELS
from scorefield.runtime.checks import brief, unwritable
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.parsing import Options, build, parse
from scorefield.runtime.reading import as_path, read_json
from scorefield.runtime.registry import NETS
from scorefield.runtime.weights import check_tensors, misfit, open_tensors
from scorefield.store.outputs import is_free

__all__ = ["Folder", "export", "load", "read_folder"]

VERSION = "0.42.0"  # of diffusers, whose files these are
_INDEX = "model_index.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
IMAGE_BINS = 256
_SCHEDULER = "scheduler_config.json"
# What unet_ema/config.json says of the averaging itself.
_AVERAGING = (
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
)


class Left(Options):
    """What an export leaves in the weights' file because diffusers' configuration has no place for it."""

    net: dict[str, object]
    classes: tuple[str, ...] = ()
    bins: int | None = None
    sampling: SamplingOptions = SamplingOptions()


# To diffusers


def export(model: Denoiser, folder: str | Path, sampling: SamplingOptions | None = None) -> list[str]:
    """Write a folder that diffusers loads, atomically: `DDPMPipeline` or `DDIMPipeline`; a conditional model
    as `UNet2DModel` and scheduler.

    Args:
        model: A denoiser of images.
        folder: New or empty.
        sampling: How the model is sampled, which the scheduler follows. Default: the options' defaults.
    Returns:
        What a reader of the folder should know.
    Raises:
        IncompatibleModel: Naming everything that diffusers cannot express exactly.
        InputError: Where the folder is not free or cannot be written.
    """
    path, sampling = as_path(folder, "a folder of diffusers"), sampling or SamplingOptions()
    net, structure, data = _expressible(model)
    scheduler = scheduler_config(model, sampling)
    notes = usage(model, sampling)
    files = {
        "unet/config.json": structure.config(data.shape[1:]),
        "scheduler/scheduler_config.json": scheduler,
    }
    if structure.rows:
        notes = [
            "diffusers' pipelines take no labels: load the model as UNet2DModel (class_labels=…) and scheduler",
            *notes[1:],
        ]
    else:
        kind = str(scheduler["_class_name"])
        components = {"scheduler": ["diffusers", kind], "unet": ["diffusers", "UNet2DModel"]}
        files[_INDEX] = {"_class_name": kind.replace("Scheduler", "Pipeline"), **components}
    tensors = to_diffusers(net.state_dict(), structure, attention_order(net))
    left = Left(net=dict(net.config), classes=data.classes, bins=data.bins, sampling=sampling)
    _write(path, files, tensors, left)
    return notes


def _expressible(model: Denoiser) -> tuple[UNet | DDPMUNet, Structure, DataSpec]:
    """The network, its structure and the data of this model; IncompatibleModel where diffusers lacks anything of it."""
    if not isinstance(model, Denoiser):
        raise IncompatibleModel(
            f"diffusers' pipelines sample denoisers of images, and this is a {type(model).__name__}"
        )
    reasons, data = lacking(model), model.data
    if data is None or len(data.shape) != 3:
        reasons.append("data that is not images (C, H, W)")
    elif tuple(data.range) != (-1.0, 1.0):
        reasons.append(f"data in the range {list(data.range)} (only [-1, 1])")
    try:
        structure = structure_of(model.net)
    except IncompatibleModel as error:
        raise IncompatibleModel("; nor ".join([str(error), *reasons])) from None
    if reasons or data is None or not isinstance(model.net, UNet | DDPMUNet):
        raise IncompatibleModel(f"diffusers cannot express {'; nor '.join(reasons)}")
    return model.net, structure, data


def _write(
    path: Path, files: Mapping[str, Mapping[str, object]], tensors: Mapping[str, Tensor], left: Left
) -> None:
    if not is_free(path):
        raise InputError(f"{path} exists and is not an empty folder: choose another output folder")
    metadata = {"format": "pt", "scorefield": left.model_dump_json(exclude_none=True)}
    weights = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        with atomic_folder(path, last=_INDEX) as partial:
            for name, values in files.items():
                make_folder((partial / name).parent)
                write_new(
                    partial / name,
                    json.dumps({**values, "_diffusers_version": VERSION}, indent=2) + "\n",
                )
            save_file(weights, partial / "unet" / WEIGHTS[0], metadata)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from None


# From diffusers


@dataclass(frozen=True)
class Folder:
    """A model read from a folder of diffusers.

    Attributes:
        model: Ready to sample.
        sampling: A recipe's [sampling] table.
        notes: What a reader should know.
        weights: Name of the file of weights.
        sha256: Of that file.
    """

    model: Denoiser
    sampling: Mapping[str, object]
    notes: tuple[str, ...]
    weights: str = ""
    sha256: str = ""


def load(state_dict: Mapping[str, Tensor], flags: Mapping[str, object]) -> Denoiser:
    """The model of a UNet2DModel's state dict, ready to sample.

    Args:
        state_dict: Tensors by name.
        flags: {"unet": its config, "scheduler": that of its DDPMScheduler or DDIMScheduler}, as in their
            JSON files.

    Raises:
        InputError: For what this library cannot express, and for weights that are not this configuration's.
    """
    return _read(_section(flags, "unet"), _section(flags, "scheduler"), state_dict, None).model


def _section(flags: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = flags.get(name, {})
    if not isinstance(section, Mapping):
        raise InputError(f"flags[{name!r}] must be a table, as in diffusers' JSON files; got {section!r}")
    return section


def read_folder(path: Path) -> Folder:
    """A model that diffusers saved.

    Args:
        path: The folder, with unet/ and scheduler/ in it, or with the files of both, as old ones have them.

    Raises:
        InputError: For missing and broken files, for what this library's networks and processes cannot
            express, and for weights that do not fit or would run code.
    """
    if not path.is_dir():
        raise InputError(
            f"there is no folder {path}: give the folder that diffusers saved, with unet/ and scheduler/ in it"
        )
    _check_pipeline(path)
    unet, scheduler, notes = _folders(path)
    config, schedule = _json(unet / "config.json"), _json(scheduler / _SCHEDULER)
    file = next((unet / name for name in WEIGHTS if (unet / name).is_file()), None)
    if file is None:
        there = ", ".join(sorted(entry.name for entry in unet.iterdir()))
        raise InputError(f"{unet} has neither {' nor '.join(WEIGHTS)}; there is {there}")
    weights = read_weights(file)
    try:
        found = _read(config, schedule, weights.tensors, _left(file))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return replace(
        found, weights=file.name, sha256=weights.sha256, notes=(*notes, *weights.notes, *found.notes)
    )


def _folders(path: Path) -> tuple[Path, Path, list[str]]:
    """Where the network and the scheduler are, and what to know of that. A checkpoint of diffusers' training has
    averaged weights beside those of its step, and its scheduler in the folder around it.
    """
    unet = next((path / name for name in ("unet_ema", "unet") if (path / name).is_dir()), path)
    places = [path / "scheduler", path, *([path.parent / "scheduler"] if unet != path else [])]
    scheduler = next((place for place in places if (place / _SCHEDULER).exists()), places[0])
    notes = ["took the averaged (EMA) weights, unet_ema"] if unet.name == "unet_ema" else []
    if scheduler == path.parent / "scheduler":
        notes.append(f"took the scheduler of the folder around it, {scheduler}")
    return unet, scheduler, notes


def _read(
    config: Mapping[str, object],
    schedule: Mapping[str, object],
    tensors: Mapping[str, Tensor],
    left: Left | None,
) -> Folder:
    _check_classes(config, schedule)
    described = {key: value for key, value in config.items() if key not in _AVERAGING}
    unet = parse(UNetConfig, described, "unet", LEVELS)
    structure = read_structure(unet)
    known = {name: value for name, value in schedule.items() if name in SchedulerConfig.model_fields}
    scheduler = read_scheduler(
        str(schedule["_class_name"]), parse(SchedulerConfig, known, "scheduler", LEVELS)
    )
    _check_channels(structure, scheduler.variance)
    with torch.device("meta"):
        net, own = _own_network(left, structure) or (network(structure), None)
    net = _filled(net, structure, modern_names(tensors))
    data = DataSpec(
        (structure.in_channels, *_size(unet)),
        (-1.0, 1.0),
        _classes(net, own),
        own.bins if own else IMAGE_BINS,
    )
    model = Denoiser(net, scheduler.process, scheduler.parametrization, scheduler.variance, data=data).eval()
    sampling = _own_sampling(own, model, schedule) or scheduler.sampling
    unknown = [name for name in schedule if name not in known and not name.startswith("_")]
    notes = (
        [
            f"the scheduler's {', '.join(unknown)}: ignored, since neither DDPMScheduler nor DDIMScheduler has "
            "them"
        ]
        if unknown
        else []
    )
    return Folder(model, sampling, (*notes, *scheduler.notes))


def _filled(net: UNet | DDPMUNet, structure: Structure, tensors: Mapping[str, Tensor]) -> UNet | DDPMUNet:
    """The network, so far on the meta device, with these weights. InputError unless names and shapes are
    exactly its own.
    """
    order = attention_order(net)
    if (problem := misfit(to_diffusers(net.state_dict(), structure, order), tensors)) is not None:
        raise InputError(f"the weights are not those of unet/config.json: {problem}")
    check_tensors(tensors, meta=True)
    renamed = from_diffusers(tensors, structure, order, net.state_dict())
    net.to_empty(device=next(iter(tensors.values())).device)
    net.load_state_dict(renamed, strict=True)
    return net


def _own_network(left: Left | None, structure: Structure) -> tuple[UNet | DDPMUNet, Left] | None:
    """The network that was exported, if it is the one of this configuration: it also says what several
    networks share.
    """
    if left is None:
        return None
    try:
        net = build(NETS.only(["unet", "ddpm-unet"]), left.net, "net")
        return (net, left) if structure_of(net) == structure else None
    except (InputError, IncompatibleModel, TypeError):
        return None


def _own_sampling(
    own: Left | None, model: Denoiser, schedule: Mapping[str, object]
) -> dict[str, object] | None:
    """How the exported run sampled, if the scheduler still says so."""
    if own is None or scheduler_config(model, own.sampling) != {
        k: v for k, v in schedule.items() if k != "_diffusers_version"
    }:
        return None
    return own.sampling.model_dump(exclude_none=True)


def _classes(net: UNet | DDPMUNet, own: Left | None) -> tuple[str, ...]:
    """The names of the labels, numbers where none were left; the data of an unconditional model may have some
    too.
    """
    numbers = tuple(str(label) for label in range(net.config.get("num_classes", 0)))
    return own.classes if own is not None and (not numbers or len(own.classes) == len(numbers)) else numbers


def _size(unet: UNetConfig) -> tuple[int, int]:
    if unet.sample_size is None:
        raise InputError("unet/config.json has no sample_size, the pixels of a side: add it")
    return (unet.sample_size, unet.sample_size) if isinstance(unet.sample_size, int) else unet.sample_size


def _left(file: Path) -> Left | None:
    """What an export left in this file; None where there is nothing, or nothing that can be read."""
    if file.suffix != ".safetensors":
        return None
    try:
        with open_tensors(file, "weights of diffusers") as opened:
            text = opened.metadata.get("scorefield")
        return None if text is None else parse(Left, json.loads(text))
    except (ValueError, TypeError, RecursionError):  # InputError is a ValueError
        return None


def _json(path: Path) -> dict[str, object]:
    values = read_json(path, "a table of options, which diffusers' save_pretrained writes")
    if not isinstance(values, dict):
        raise InputError(
            f"{path} must hold a table of options, as diffusers' save_pretrained writes it; got {brief(values)}"
        )
    return values


def _check_pipeline(path: Path) -> None:
    """InputError where model_index.json lists more than a network and its scheduler, such as the decoder of a
    latent model.
    """
    if not (path / _INDEX).is_file():
        return
    other = [
        name
        for name in _json(path / _INDEX)
        if not name.startswith("_") and name not in ("unet", "scheduler")
    ]
    if other:
        raise InputError(
            f"{path} is a pipeline with {', '.join(other)}, and only a unet and its scheduler can be imported"
        )


def _check_classes(config: Mapping[str, object], schedule: Mapping[str, object]) -> None:
    for what, name, known in (
        ("unet", config.get("_class_name"), ("UNet2DModel",)),
        ("scheduler", schedule.get("_class_name"), SCHEDULERS),
    ):
        if name not in known:
            raise InputError(
                f"the {what} is a {name} by its configuration, and only {' and '.join(known)} can be imported"
            )


def _check_channels(structure: Structure, variance: str | None) -> None:
    needed = structure.in_channels * (1 if variance is None else 2)
    if structure.out_channels != needed:
        why = "without a learned variance" if variance is None else "with variance_type learned_range"
        raise InputError(
            f"the network gives {structure.out_channels} channels (out_channels) of {structure.in_channels}, and a model {why} "
            f"gives {needed}"
        )
