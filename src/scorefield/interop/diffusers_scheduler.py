"""Conversion between diffusers' DDPMScheduler or DDIMScheduler and a process, parametrization and sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from pydantic import Field

from scorefield.generation.sampling_options import SamplingOptions
from scorefield.interop.ddpm import SCHEDULES
from scorefield.models.denoiser import Denoiser
from scorefield.process import DiscreteProcess, GaussianProcess, cosine, cosine_betas, from_betas
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options, parse

__all__ = ["Scheduler", "SchedulerConfig", "lacking", "read_scheduler", "scheduler_config", "usage"]

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SPACINGS = {
    "uniform": "trailing",
    "linspace": "linspace",
    "leading": "leading",
    "trailing": "trailing",
    "full": "trailing",
}
VARIANCES = {
    "fixed_small": "lower",
    "fixed_small_log": "lower",
    "fixed_large": "upper",
    "fixed_large_log": "upper",
    "learned_range": "learned",
}


class _Cosine(Options):
    """A cosine process's description of itself."""

    kind: Literal["cosine"]
    T: int
    s: float = 0.008
    max_beta: float = 0.999


def _cosine(spec: Mapping[str, object]) -> dict[str, object]:
    said = parse(_Cosine, spec)
    if {"s", "max_beta"} & said.model_fields_set:
        return {"trained_betas": cosine_betas(said.T, said.s, said.max_beta).tolist()}
    return {"beta_schedule": "squaredcos_cap_v2"}


# A process's own description -> the scheduler's; its tables are float32.
BETAS: dict[str, Callable[[Mapping[str, object]], dict[str, object]]] = {
    "linear": lambda spec: {"beta_schedule": "linear", "beta_start": spec["start"], "beta_end": spec["end"]},
    "cosine": _cosine,
    "betas": lambda spec: {"trained_betas": spec["betas"]},
}
# The scheduler's name for a table of β's -> the process from (beta_start, beta_end, T).
TABLES: dict[str, Callable[[float, float, int], DiscreteProcess]] = {
    "linear": SCHEDULES["linear"],
    "scaled_linear": SCHEDULES["quad"],
    "sigmoid": SCHEDULES["sigmoid"],
    "squaredcos_cap_v2": lambda start, end, T: cosine(T),
}
DDIM_STEPS, DDPM_STEPS = 50, 1000  # of the pipelines, where none are given


# To diffusers


def lacking(model: Denoiser) -> list[str]:
    """What the schedulers cannot express of this model."""
    spec, T = model.process.config, model.process.T
    same = model.noise_input == "index" or (model.noise_input == "scaled" and T == 1000)
    needs = {
        f"the parametrization {model.parametrization!r} (only {', '.join(PREDICTIONS)})": model.parametrization
        in PREDICTIONS,
        f"the process {spec.get('kind')!r} (only those given by β's: {', '.join(BETAS)})": spec.get("kind")
        in BETAS,
        f'the noise input {model.noise_input!r} (only t − 1: "index", or "scaled" at T = 1,000)': same,
        'a variance head that gives ln Σ directly (only "range")': model.variance != "direct",
    }
    return [name for name, expressed in needs.items() if not expressed]


def scheduler_config(model: Denoiser, sampling: SamplingOptions) -> dict[str, object]:
    """scheduler/scheduler_config.json of a model that lacks nothing: DDPMScheduler for ancestral sampling,
    otherwise DDIMScheduler.
    """
    spec = model.process.config
    common = {
        "num_train_timesteps": model.process.T,
        **BETAS[spec["kind"]](spec),
        "prediction_type": PREDICTIONS[model.parametrization],
        "clip_sample": sampling.clip,
        "clip_sample_range": 1.0,
        "timestep_spacing": SPACINGS.get(sampling.grid, "trailing"),
    }
    if model.variance is not None:
        return {"_class_name": "DDPMScheduler", **common, "variance_type": "learned_range"}
    if sampling.sampler.get("kind") == "ancestral":
        variance = "fixed_small" if sampling.sampler.get("variance", "lower") == "lower" else "fixed_large"
        return {"_class_name": "DDPMScheduler", **common, "variance_type": variance}
    return {"_class_name": "DDIMScheduler", **common, "set_alpha_to_one": True}


def usage(model: Denoiser, sampling: SamplingOptions) -> list[str]:
    """What a scheduler's file cannot hold of a way of sampling, as notes."""
    kind, T = sampling.sampler.get("kind"), model.process.T
    config = scheduler_config(model, sampling)
    ddim = config["_class_name"] == "DDIMScheduler"
    steps = T if sampling.grid == "full" or sampling.steps is None else sampling.steps
    arguments = [f"num_inference_steps={steps}"]
    if ddim and sampling.sampler.get("eta"):
        arguments.append(f"eta={sampling.sampler['eta']}")
    if ddim and sampling.clip:
        arguments.append("use_clipped_model_output=True")
    notes = [f"to sample as this run does, call pipeline({', '.join(arguments)})"]
    if sampling.sampler.get("last") == "sample":
        notes.append("this run draws p(x_0 | x_1) in its last step, and diffusers takes the mean there")
    if model.variance is not None:
        notes.append("it has a variance head, which DDPMPipeline uses and DDIMPipeline cannot take")
    if kind not in ("ancestral", "ddim", "euler"):
        notes.append(
            f"the run's sampler is {kind}, which diffusers has no exact counterpart of: DDIMScheduler was written"
        )
    if sampling.grid not in SPACINGS:
        notes.append(
            f"the run's grid is {sampling.grid}, which diffusers does not have: trailing was written"
        )
    if ddim and T % steps:
        notes.append(
            f"DDIMScheduler steps by ⌊T/steps⌋, so only numbers of steps that divide {T:,} are exact there"
        )
    if (
        config.get("variance_type", "fixed_small") != "fixed_small"
        and config["timestep_spacing"] == "trailing"
        and steps < T
    ):
        notes.append(
            f"DDPMScheduler adds noise on the last step, to data, unless it takes all {T:,} steps (or leading ones)"
        )
    if sampling.guidance is not None:
        notes.append("guidance is not part of these pipelines")
    return notes


# From diffusers


class SchedulerConfig(Options):
    """scheduler/scheduler_config.json of a DDPMScheduler or DDIMScheduler; what is left out has their
    default.
    """

    num_train_timesteps: int = Field(1000, ge=1)
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = "linear"
    trained_betas: list[float] | None = None
    variance_type: Literal[
        "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned_range"
    ] = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    thresholding: bool = False
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    rescale_betas_zero_snr: Literal[False] = False
    dynamic_thresholding_ratio: float = 0.995  # of thresholding
    sample_max_value: float = 1.0  # of thresholding


class Scheduler(NamedTuple):
    """What a scheduler says.

    Attributes:
        process: Of a Denoiser.
        parametrization: Of a Denoiser.
        variance: Of a Denoiser.
        sampling: A recipe's [sampling] table.
        notes: What that table leaves out.
    """

    process: GaussianProcess
    parametrization: str
    variance: str | None
    sampling: dict[str, object]
    notes: list[str]


def read_scheduler(kind: str, c: SchedulerConfig) -> Scheduler:
    """What a scheduler of this class, "DDPMScheduler" or "DDIMScheduler", says. InputError for β's that are
    no process.

    Its tables are float32 and these float64. Where x̂0 is clipped, ε̂ follows it here, which diffusers' DDIM
    does only with use_clipped_model_output.
    """
    T, ancestral = c.num_train_timesteps, kind == "DDPMScheduler"
    process = (
        TABLES[c.beta_schedule](c.beta_start, c.beta_end, T)
        if c.trained_betas is None
        else from_betas(torch.tensor(c.trained_betas).double())
    )
    if process.T != T:
        raise InputError(f"trained_betas has {process.T} entries, and num_train_timesteps is {T}")
    grid = next(name for name, spacing in SPACINGS.items() if spacing == c.timestep_spacing)
    sampler = (
        {"kind": "ancestral", "variance": VARIANCES[c.variance_type]}
        if ancestral
        else {"kind": "ddim", "eta": 0.0}
    )
    count = DDPM_STEPS if ancestral else DDIM_STEPS
    steps = {"steps": min(count, T)} if count < T or not ancestral else {}  # none: every level
    clip = c.clip_sample and c.clip_sample_range == 1 and not c.thresholding
    left_out = {
        "thresholding": c.thresholding,
        f"clip_sample_range {c.clip_sample_range:g}": c.clip_sample and c.clip_sample_range != 1,
        f"steps_offset {c.steps_offset}": c.steps_offset and c.timestep_spacing == "leading",
        "set_alpha_to_one false": not ancestral and not c.set_alpha_to_one,
    }
    return Scheduler(
        process,
        next(ours for ours, theirs in PREDICTIONS.items() if theirs == c.prediction_type),
        "range" if ancestral and c.variance_type == "learned_range" else None,
        {"sampler": sampler, "grid": grid, **steps, "clip": clip},
        [
            f"the scheduler's {name} is not carried over: it changes how samples are drawn, not the model"
            for name, on in left_out.items()
            if on
        ],
    )
