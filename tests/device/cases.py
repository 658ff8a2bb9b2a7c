"""What runs on the CPU and on the pretended device, and must give the same: every word of the registries, every command.

A case is a function of a `Place`; what it returns (tensors, numbers, arrays, texts, and lists and tables of them) is
compared. Objects that a word stands for are made from `SMALL` by the names of their arguments, so that a new word whose
arguments have known names needs nothing here.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import Golden, tiny
from torch import Tensor, nn

import scorefield as sf
import scorefield.cli
from scorefield.core.noise import NoiseSource
from scorefield.evaluation.extractors import ModuleFeatures, Pretrained
from scorefield.evaluation.metrics import MetricInputs
from scorefield.evaluation.reference import Reference
from scorefield.evaluation.statistics import compute_statistics, real
from scorefield.interop import improved_diffusion
from scorefield.interop.flags import parse_flags
from scorefield.objectives.times import LearnedTimes
from scorefield.runtime import registry
from scorefield.runtime.errors import IncompatibleModel

__all__ = ["CASES", "Case", "Place"]


@dataclass(frozen=True)
class Place:
    """Where a case runs.

    Attributes:
        device: "cpu" or the pretended device.
        folder: An empty folder of its own.
        runs: Runs that were trained on the CPU, which a case must not write into.
    """

    device: str
    folder: Path
    runs: Path

    def put(self, thing: Any) -> Any:
        """A tensor or a module on the device."""
        return thing.to(self.device)


Case = Callable[[Place], object]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


# Objects by their words

SHAPE = (1, 8, 8)
SPEC = sf.DataSpec(SHAPE, classes=("a", "b", "c"), bins=17)
POINTS = sf.DataSpec((2,), classes=("a", "b", "c"))
T = 10
COSINE = sf.process.cosine(T)
VP = sf.process.vp()
LABELS = [0, 2, 1, 2]
SMALL: dict[str, Any] = {
    # of networks
    "dim": 2,
    "hidden": 16,
    "layers": 1,
    "in_channels": 1,
    "channels_in": 1,
    "channels": 32,
    "channel_mult": (1, 2),
    "blocks": 1,
    "attention": (2,),
    "image_size": 8,
    "filters": 8,
    "depth": 1,
    "heads": 2,
    "levels": T,
    "num_classes": 3,
    "null_label": True,
    # of processes
    "T": T,
    "L": T,
    "betas": torch.linspace(1e-3, 0.5, T),
    "sigmas": torch.linspace(0.1, 3, T),
    "sigma_min": 0.1,
    "sigma_max": 5.0,
    "discrete": COSINE,
    "process": COSINE,
    "classes": 17,
    # of samplers
    "step": 0.01,
    # of guidance
    "y": torch.tensor(LABELS),
    "scale": torch.tensor([0.5, 1.0, 2.0, 3.0]),
}
OPTIONAL = {"std", "mean", "beta_min", "beta_max", "start", "end"}


def made(what: Any, **given: Any) -> Any:
    """An object of a word, from its small arguments and `given`."""
    found = dict(given)
    for name, parameter in signature(what).parameters.items():
        if name in found or name in OPTIONAL:
            continue
        if name in SMALL:
            found[name] = SMALL[name]
        elif parameter.default is Parameter.empty and parameter.kind is not Parameter.VAR_KEYWORD:
            raise AssertionError(f"tests/device/cases.py: say in SMALL what {name} of {what} may be")
    return what(**found)


def randomized(module: Any, seed: int = 0) -> Any:
    """Every weight random, so that no layer is silent because it begins at 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return module


def network(word: str, **given: Any) -> tuple[nn.Module, sf.DataSpec]:
    """A network of a word, and what one example of it is."""
    kind = registry.NETS[word]
    further = {"num_classes": 0} if word == "ddpm-unet" else {}
    return randomized(made(kind, **{**further, **given})), POINTS if "dim" in signature(
        kind
    ).parameters else SPEC


def images(count: int = 4, spec: sf.DataSpec = SPEC, seed: int = 1) -> Tensor:
    x = torch.randn((count, *spec.shape), generator=torch.Generator().manual_seed(seed))
    return x if spec.bins is None else spec.from_bins(spec.to_bins(x.clamp(-1, 1)))


def denoiser(
    process: Any = COSINE, parametrization: str = "v", word: str = "mlp", **given: Any
) -> sf.Denoiser:
    """A model of points, which is cheap; the networks of images have cases of their own."""
    outputs = (
        {"out_dim" if word == "mlp" else "out_channels": 4 if word == "mlp" else 2}
        if given.get("variance")
        else {}
    )
    small = {"channel_mult": (1,), "attention": ()} if word == "unet" else {}
    net, spec = network(word, **outputs, **small)
    given = {"noise_input": "scaled", **given}
    return sf.Denoiser(net, process, parametrization, data=spec, **given).eval()


def categorical() -> sf.CategoricalDenoiser:
    net, _ = network("unet", in_channels=17, out_channels=17, channel_mult=(1,), attention=())
    return sf.CategoricalDenoiser(
        net, sf.process.uniform_categorical(sf.process.linear_kappas(T), 17), data=SPEC
    )


def score(energy: bool = False) -> sf.ScoreModel:
    net, spec = network(
        "mlp", noise_levels=False, num_classes=0, null_label=False, **({"out_dim": 1} if energy else {})
    )
    return sf.ScoreModel(net, energy=energy, data=spec)


class Logits(nn.Module):
    """A classifier of noisy points."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.layer(torch.cat([x, c[:, None] / T], dim=1)).sin()


def judge() -> sf.NoisyClassifier:
    return sf.NoisyClassifier(randomized(Logits()), COSINE, data=POINTS).eval()


def upsampler() -> sf.Denoiser:
    return sf.Denoiser(network("unet", low_res=True)[0], COSINE, "v", data=SPEC, low_res=4).eval()


MODELS: dict[type, Callable[[], Any]] = {
    sf.ScoreModel: score,
    sf.NoisyClassifier: judge,
    sf.CategoricalDenoiser: categorical,
    sf.Denoiser: denoiser,
}


# Networks, processes, models


def forward_and_back(word: str, place: Place) -> object:
    """What a network gives, and the gradients of its weights."""
    net, spec = network(word)
    net = place.put(net)
    x, c = place.put(images(spec=spec)), place.put(torch.tensor([1, 5, 9, 3]))
    # An embedding of levels takes their numbers; labels are for networks that know classes and give no logits.
    by_number, gives_logits = (
        "levels" in signature(type(net)).parameters,
        getattr(net, "gives", ()) == ("logits",),
    )
    y = place.put(torch.tensor(LABELS)) if getattr(net, "num_classes", 0) and not gives_logits else None
    out = net(x, c if by_number else c.float(), *([] if y is None else [y]))
    (out**2).mean().backward()
    return out, [p.grad for p in net.parameters()]


def levels(word: str, place: Place) -> object:
    """A process on examples of the device, with times of the CPU and of the device."""
    process = made(registry.PROCESSES[word])
    t = torch.tensor([1, 3, T, 2]) if process.is_discrete else torch.tensor([0.1, 0.5, 1.0, 0.7]) * process.T
    noise = NoiseSource(3)
    if word in ("uniform-categorical", "absorbing"):
        x0 = place.put(SPEC.to_bins(images()))
        x_t = process.sample(x0, t, noise.uniform(x0.shape))
        s = torch.zeros_like(t)
        return x_t, process.posterior(x_t, x0, t, s).log_p, process.transition(x0, t, s).log_p
    x0 = place.put(images())
    eps = noise.normal_like(x0)
    x_t = process.sample(x0, t, eps)
    start = process.prior(x0.shape, NoiseSource(4))
    return x_t, process.sample(x0, place.put(t), eps), process.sample(x0, float(t[1]), eps), start


def prediction(parametrization: str, noise_input: str, place: Place) -> object:
    word = "refinenet" if noise_input == "rank" else "mlp"
    model = place.put(denoiser(COSINE, parametrization, word, noise_input=noise_input))
    x, t = place.put(images(spec=model.data)), torch.tensor([1, 5, T, 3])
    bound = model if word == "refinenet" else model.given(LABELS)
    found = []
    for time in (t, place.put(t), 4):
        pred = bound(x, time)
        found.append([pred.x0, pred.eps, pred.score, pred.velocity])
    return found


for word in registry.NETS:
    CASES[f"net {word}"] = partial(forward_and_back, word)
for word in registry.PROCESSES:
    CASES[f"process {word}"] = partial(levels, word)
for word in registry.PARAMETRIZATIONS:
    CASES[f"parametrization {word}"] = partial(prediction, word, "log_sigma")
for word in registry.NOISE_INPUTS:
    CASES[f"noise input {word}"] = partial(prediction, "eps", word)


@case
def variances(place: Place) -> object:
    """Heads of both kinds under ancestral sampling and in the bound."""
    found = []
    for head in ("range", "direct"):
        model = place.put(denoiser(variance=head)).given(LABELS)
        walk = partial(sf.sample, model, sf.samplers.Ancestral("learned"), sf.grids.uniform(COSINE, 3))
        found.append(walk(n=4, noise=NoiseSource(0)))
    return found


@case
def wrapped_networks(place: Place) -> object:
    """A function as network, further arrays by name, and a super-resolution model."""
    x = place.put(images())
    bare, small = (
        sf.Denoiser(lambda x, c, y=None: x * c.reshape(-1, 1, 1, 1), COSINE, data=SPEC),
        place.put(upsampler()),
    )
    low = torch.nn.functional.avg_pool2d(images(), 2)
    found = [bare(x, 4).x0]
    for array in (low, place.put(low)):
        found.append(small.given(LABELS, low_res=array)(x, torch.tensor([1, 5, T, 3])).x0)
    return found


# Losses


def loss(word: str, options: Mapping[str, Any], place: Place) -> object:
    """A loss with labels, its parts and its gradients; importance-sampled times take in the losses."""
    kind = registry.OBJECTIVES[word]
    word_of_net = (
        {"word": "unet"} if kind.trains is sf.Denoiser and "decoder" in signature(kind).parameters else {}
    )
    model = denoiser(VP) if options.get("times") in CONTINUOUS else MODELS[kind.trains](**word_of_net)
    try:
        objective = kind(model, **options)
    except IncompatibleModel:
        objective = kind(denoiser(variance="range", word="unet"), **options)
    objective = place.put(objective)
    spec = model.data
    x0, y = place.put(images(spec=spec)), place.put(torch.tensor(LABELS)) if model.num_classes else None
    found = []
    for step in range(2):
        out = objective(x0, y, NoiseSource(5, range(4), step))
        objective.zero_grad()
        out.per_example.mean().backward()
        if isinstance(objective.times, LearnedTimes):
            objective.times.update(out.t, out.unweighted)
        grads = [p.grad for p in objective.parameters()]
        found.append([out.per_example, out.t, out.parts, out.unweighted, grads])
    return found


# How times are drawn: what the words need besides, and those that need a process with continuous t.
DRAWN: dict[str, dict[str, Any]] = {"importance": {"history": 1}, "list": {"times": [1, 3, 7]}}
CONTINUOUS = ("logit-normal", "shifted")


def ways(kind: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every option of a loss that is one of a few words, one at a time."""
    hints = get_type_hints(kind.__init__)
    for name in signature(kind).parameters:
        words = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
        words = tuple(registry.TIMES) if name == "times" else words
        words = tuple(registry.WEIGHTINGS) if name == "weighting" and kind is sf.objectives.Simple else words
        for word in words:
            further = {"sigma": 0.1} if word == "denoising" and "sigma" in hints else {}
            if word in CONTINUOUS and kind is not sf.objectives.Simple:
                continue
            table = {"kind": word, **DRAWN[word]} if word in DRAWN else word
            yield f" {name}={word}", {name: table, **further}


for word in registry.OBJECTIVES:
    CASES[f"objective {word}"] = partial(loss, word, {})
    for name, options in ways(registry.OBJECTIVES[word]):
        CASES[f"objective {word}{name}"] = partial(loss, word, options)


@case
def bare_losses(place: Place) -> object:
    """Score matching as functions, of a score on the device."""
    model, x = place.put(score()), place.put(images(spec=POINTS))
    v = sf.objectives.projections("sphere", x, NoiseSource(2), 2)
    found = [
        sf.objectives.explicit_score_matching(model.score, x, -x),
        sf.objectives.explicit_sliced_score_matching(model.score, x, -x, v),
        sf.objectives.implicit_score_matching(model.score, x),
        sf.objectives.sliced_score_matching(model.score, x, v),
        sf.objectives.sliced_score_matching_vr(model.score, x, v),
    ]
    for sigma in (0.3, torch.tensor([0.1, 0.2, 0.3, 0.4]), place.put(torch.tensor([0.1, 0.2, 0.3, 0.4]))):
        eps = NoiseSource(1).normal_like(x)
        found.append(sf.objectives.denoising_score_matching(model.score, x, eps, sigma))
    return found


# Samplers


def walked(model: Any, sampler: Any, grid: Any, seed: int = 0) -> object:
    """Every step of a sampler, by `sf.trajectory` from a start on the device; and `sf.sample` from the prior."""
    return sf.sample(model, sampler, grid, n=4, noise=NoiseSource(seed))


def sampled(make: Callable[[], Any], process: Any, place: Place) -> object:
    sampler = make()
    model = place.put(denoiser(process)).given(LABELS)
    if sampler.between_levels and process.is_discrete:
        model = sf.samplers.between_levels(model)
    times = sf.grids.uniform(process, 4)
    x_T = place.put(images(spec=POINTS, seed=6))
    steps = [(step.x, step.x0) for step in sf.trajectory(model, sampler, times, x_T, NoiseSource(7))]
    return steps, walked(model, sampler, times)


def sampled_categories(make: Callable[[], Any], place: Place) -> object:
    model = place.put(categorical()).given(LABELS)
    return walked(model, make(), sf.grids.uniform(model.process, 4))


LANGEVIN = sf.samplers.Langevin(1e-3)
OPTIONS: dict[str, Callable[[], Any]] = {
    "ancestral upper": lambda: sf.samplers.Ancestral("upper"),
    "ddim η": lambda: sf.samplers.DDIM(0.5),
    "ddim ς": lambda: sf.samplers.DDIM(varsigma=lambda t, s: 0.01),
    "heun churned": lambda: sf.samplers.Heun(churn=2.0),
    "dpm-solver stochastic": lambda: sf.samplers.DPMSolver2M(stochastic=True),
    "langevin denoised": lambda: sf.samplers.Langevin(1e-3, final_denoise=True),
    "corrected": lambda: sf.samplers.PredictorCorrector(sf.samplers.DDIM(), LANGEVIN, 2),
}
for word in registry.SAMPLERS:
    OPTIONS[word] = partial(made, registry.SAMPLERS[word])
for name, make in OPTIONS.items():
    CASES[f"sampler {name}"] = partial(sampled, make, COSINE)
    CASES[f"sampler {name}, continuous"] = partial(sampled, make, VP)
for word in registry.CATEGORICAL_SAMPLERS:
    CASES[f"sampler of categories {word}"] = partial(
        sampled_categories, partial(made, registry.CATEGORICAL_SAMPLERS[word])
    )


@case
def grids(place: Place) -> object:
    """Every grid; one that lies on the device, and one in a list."""
    model = place.put(denoiser()).given(LABELS)
    times = [registry.GRIDS[word](COSINE, 3) for word in registry.GRIDS]
    times += [sf.grids.staircase(COSINE, 2, [7, 2, 0]), [10, 4, 0]]
    times += [place.put(sf.grids.uniform(COSINE, 3))]
    sampler = sf.samplers.Ancestral()
    return [
        walked(model, sf.samplers.Langevin(1e-3) if i == len(times) - 3 else sampler, t)
        for i, t in enumerate(times)
    ]


@case
def densities(place: Place) -> object:
    """A score without levels, a density by its energy, and Metropolis steps."""
    x = place.put(images(spec=POINTS))
    found = []
    for energy, metropolis in ((False, False), (True, False), (True, True)):
        sampler = sf.samplers.Langevin(0.1, metropolis=metropolis)
        model = place.put(score(energy))
        found.append(sf.sample(model, sampler, sf.grids.steps(3), x_T=x, noise=NoiseSource(1)))
    return found


@case
def oracle(place: Place) -> object:
    """The Gaussian mixture on points of the device."""
    mixture = sf.oracle.GaussianMixture([[0.0, 1.0], [2.0, -1.0]], torch.eye(2).repeat(2, 1, 1), [0.3, 0.7])
    x = place.put(images(spec=POINTS).double())
    model = mixture.denoiser(COSINE)
    walk = sf.sample(model, sf.samplers.DDIM(), sf.grids.uniform(COSINE, 3), x_T=x, noise=NoiseSource(1))
    return mixture.score(x), mixture.log_prob(x), walk, mixture.classifier(COSINE)(x, 3)


@case
def inpainting(place: Place) -> object:
    model, times = place.put(denoiser()).given(LABELS), sf.grids.uniform(COSINE, 3)
    known, mask, found = images(spec=POINTS)[0], torch.tensor([True, False]), []
    for there in (lambda x: x, place.put):
        for sampler in (sf.samplers.DDIM(0.5), sf.samplers.Ancestral()):
            found.append(walked(model, sf.samplers.Inpaint(sampler, there(known), there(mask)), times))
    return found


@case
def upsampling(place: Place) -> object:
    low = torch.nn.functional.avg_pool2d(images(), 2)
    model = place.put(upsampler()).given(LABELS, low_res=low)
    return walked(model, sf.samplers.DDIM(), sf.grids.uniform(COSINE, 3))


@case
def latents(place: Place) -> object:
    """Encoded, decoded, and interpolated between two latents."""
    model, times, x0 = (
        place.put(denoiser()).given(LABELS),
        sf.grids.uniform(COSINE, 3),
        place.put(images(spec=POINTS)),
    )
    found = []
    for sampler in (sf.samplers.DDIM(), sf.samplers.Euler(), sf.samplers.Heun()):
        x_T = sf.latents.encode(model, x0, times, sampler)
        found += [x_T, sf.latents.decode(model, x_T, times, sampler)]
    found.append(sf.latents.slerp(x_T, x0, torch.tensor([0.0, 0.3, 0.5, 1.0])))
    return found, sf.latents.interpolate(model, x_T[0], x_T[1], 4, times)


def guided(word: str, place: Place) -> object:
    """A wrapper of `sf.guidance` around a conditional model, with labels and scales of the CPU and of the device."""
    kind, found = getattr(sf.guidance, word), []
    model, classifier = place.put(denoiser()), place.put(judge())
    for there in (lambda value: value, place.put):
        own = {name: there(SMALL[name]) for name in ("y", "scale") if name in signature(kind).parameters}
        inner = model if word == "ClassifierFree" else model.given(own.get("y", LABELS))
        wrapped = made(
            kind,
            model=inner,
            **({"classifier": classifier} if "classifier" in signature(kind).parameters else {}),
            **own,
        )
        for sampler in (sf.samplers.DDIM(), sf.samplers.Ancestral()):
            found.append(walked(wrapped, sampler, sf.grids.uniform(COSINE, 3)))
    return found


for word in ("ClassifierFree", "ClassifierGuidance", "ClipX0", "DynamicThreshold"):
    CASES[f"guidance {word}"] = partial(guided, word)


@case
def guidance_at_the_mean(place: Place) -> object:
    model = sf.guidance.ClipX0(place.put(denoiser()).given(LABELS))
    wrapped = sf.guidance.ClassifierGuidance(model, place.put(judge()), LABELS, 2.0, at="mean")
    return walked(wrapped, sf.samplers.Ancestral(), sf.grids.uniform(COSINE, 3))


# Likelihoods, features and metrics


@case
def bounds(place: Place) -> object:
    """The variational bound with fixed and learned variances, by both decoders, estimated, and of categories."""
    found: list[object] = []
    x0 = place.put(images())
    for variance in (None, "range"):
        model = place.put(denoiser(word="unet", variance=variance)).given(LABELS)
        found.append(sf.likelihood.bits_per_dim(model, x0, NoiseSource(0), sf.grids.uniform(COSINE, 3)))
        found.append(sf.likelihood.bits_per_dim(model, x0, NoiseSource(0), [10, 0], decoder="density"))
        found.append(sf.likelihood.estimate_bits_per_dim(model, x0, NoiseSource(0), 2))
    model = place.put(categorical()).given(LABELS)
    levels = SPEC.to_bins(images())
    found.append(sf.likelihood.categorical_bits_per_dim(model, place.put(levels), NoiseSource(0), [10, 3, 0]))
    return found


@case
def flows(place: Place) -> object:
    """The likelihood of the flow; few digits, since the solver chooses its own steps."""
    loose, found = {"rtol": 0.1, "atol": 0.1}, []
    model = place.put(denoiser()).given(LABELS)
    x = place.put(images(spec=POINTS))
    for trace in ("exact", "hutchinson"):
        out = sf.likelihood.ode_log_prob(model, x, trace=trace, noise=NoiseSource(1), **loose)  # type: ignore[arg-type]
        found += [out.log_prob, out.prior_error]
    return found


@case
def statistics_of_sets(place: Place) -> object:
    """Metrics of a set of samples by features on the device; every word of SAMPLE_METRICS."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(64, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            features = self.layer(x.flatten(1))
            return features, self.head(features)

    class Rgb(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x.mean(dim=1))

    labels = torch.arange(40) % 3
    train, heldout = (sf.data.tensor(images(40, seed=seed), labels) for seed in (1, 2))
    found: list[object] = []
    for extractor in (
        ModuleFeatures(place.put(randomized(Net())), SPEC, "own"),
        Pretrained(randomized(Rgb()), SPEC, "own", 6),
    ):
        batches = (x0.to(place.device) for x0, _ in real(train))
        reference = Reference.of(batches, extractor, source="train", fingerprint="f")
        keep = frozenset[str]().union(
            *(registry.SAMPLE_METRICS[word].keep for word in registry.SAMPLE_METRICS)
        )
        made = [(place.put(images(40, seed=9)), place.put(labels))]
        sets = [
            compute_statistics(each, extractor, train, keep, place.device) for each in (made, real(heldout))
        ]
        judged = MetricInputs(sets[:1], sets[1], heldout, reference)
        for word in registry.SAMPLE_METRICS:
            metric = registry.SAMPLE_METRICS[word]
            found += [(figure.name, figure.value, figure.heldout) for figure in metric.measure(judged, {})]
    return found


# Training


class Doubled(sf.objectives.Simple):
    """L_simple in float64, where AdamW makes nothing of rounding."""

    config = {"kind": "custom"}  # type: ignore[assignment]

    def forward(self, x0: Tensor, y: Tensor | None, noise: Any, **arrays: Tensor) -> sf.Loss:
        return super().forward(x0.double(), y, noise, **arrays)


def trained(place: Place, seed: int = 0, **changed: Any) -> dict[str, object]:
    """What comes of a training that draws everything there is to draw."""
    kind = place.device.split(":")[0]
    examples = sf.data.tensor(images(32, sf.DataSpec((1, 4, 4))), torch.arange(32) % 3)
    net = randomized(Flattened(), seed)
    model = sf.Denoiser(net.double(), COSINE, "v", data=examples.spec)
    objective = Doubled(model, "v", {"kind": "importance", "history": 1})
    plain = {
        "batch_size": 8,
        "lr": 1e-2,
        "ema": 0.5,
        "precision": "fp32",
        "checkpoint_every": 2,
        "log_every": 1,
    }
    drawn = {
        "flip": True,
        "shift": 1,
        "label_dropout": 0.3,
        "clip": 0.5,
        "warmup": 2,
        "accumulation": 2,
        "seed": 3,
    }
    trainer = sf.train(objective, examples, device=kind, **{**plain, **drawn, **changed})  # type: ignore[arg-type]
    steps = [(step.loss, step.grad_norm, step.parts) for step in trainer]
    averages = trainer.ema_model()
    used = {tensor.device.type for tensor in [*objective.parameters(), *averages.parameters()]}
    assert used == {kind}, f"the weights are on {used}"
    return {"steps": steps, "weights": objective.state_dict(), "averages": averages.state_dict()}


class Flattened(nn.Module):
    """A network of 4×4 images with dropout, a buffer and a row for no label."""

    config = {"kind": "custom", "num_classes": 3, "null_label": True}

    def __init__(self) -> None:
        super().__init__()
        self.first, self.labels, self.last = nn.Linear(17, 16), nn.Embedding(4, 16), nn.Linear(16, 16)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor, c: Tensor, y: Tensor) -> Tensor:
        self.calls.add_(1)
        h = self.first(torch.cat([x.flatten(1), c[:, None].to(x) / T], dim=1)) + self.labels(y)
        return self.last(torch.nn.functional.dropout(h.sin(), 0.2, self.training)).reshape(x.shape)


@case
def training(place: Place) -> object:
    """Importance-sampled times, label dropout, flips, shifts, clipping and averages, in accumulated parts; resumed."""
    run = place.folder / "run"
    whole = trained(place, steps=4)
    trained(place, steps=2, run=run)
    rest = trained(place, seed=9, steps=4, run=run, resume=True)
    for name in ("weights", "averages"):
        assert same(rest[name], whole[name], exactly=True), f"resumed, it has other {name}"
    checkpoint = run / "checkpoints" / "step-00000004"
    files = {path.name: load_file(path) for path in checkpoint.glob("*.safetensors")}
    loaded = sf.Run(run, net=Flattened().double()).model(place.device.split(":")[0])
    assert loaded.device.type == place.device.split(":")[0]
    return whole, files, loaded.state_dict()


@case
def a_training_loop_of_ones_own(place: Place) -> object:
    """As in examples/plain_pytorch_loop.py, with an average of the weights."""
    objective = place.put(sf.objectives.Simple(denoiser(), weighting="v"))
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    ema = sf.training.ema.EMA(objective.model, 0.5)
    losses = []
    for step in range(2):
        x0, y = place.put(images(spec=POINTS)), place.put(torch.tensor(LABELS))
        loss = objective(x0, y, NoiseSource(0, range(4), step)).per_example.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(step + 1)
        losses.append(loss.detach())
    return losses, ema.shadow


# Commands, as a user types them


# A run that was trained on the CPU, by the words of `scorefield train`.
RUNS: dict[str, tuple[str, ...]] = {
    "digits": ("digits", "net.null_label=true", "training.label_dropout=0.2"),
    "classifier": ("digits-classifier",),
    "upsampler": ("digits-upsampler",),
    "categorical": ("digits-categorical",),
    "moons": ("toy-moons",),
}
# The learning rate is so small that AdamW, which divides gradients by themselves, makes nothing of their rounding.
OWN = (
    "training.precision=fp32",
    "training.lr=1e-9",
    "training.warmup=0",
    "sampling.steps=3",
    "data.holdout=0.3",
)


def make_runs(folder: Path) -> None:
    """The runs, a small data set, a picture and a mask; on the CPU."""
    examples = sf.data.digits()
    pixels, labels = (value[:120].numpy() for value in (examples.values, examples.labels))
    np.savez(folder / "data.npz", images=pixels.reshape(-1, 8, 8), labels=labels)
    np.savez(folder / "few.npz", images=pixels[:4].reshape(-1, 8, 8), labels=labels[:4])
    np.savez(folder / "small.npz", images=pixels[:4].reshape(-1, 8, 8)[:, ::2, ::2], labels=labels[:4])
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    for name, image in (("a", pixels[0]), ("b", pixels[1]), ("mask", mask)):
        Image.fromarray(image.reshape(8, 8).astype(np.uint8)).save(folder / f"{name}.png")
    for run, (recipe, *settings) in RUNS.items():
        settings += [*OWN, "sampling.repeats=1"] if run == "moons" else OWN
        own = run in ("moons", "categorical")  # 17 levels are those of the digits themselves
        data = [] if own else ["--data", str(folder / "data.npz")]
        command("train", recipe, "--run", folder / run, "--steps", 2, *data, *tiny(recipe, *settings))
    # Weights that two steps have hardly moved would hide what depends on them.
    for run in RUNS:
        weights = load_file(folder / run / "model.safetensors")
        generator = torch.Generator().manual_seed(1)
        random = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in weights.items()}
        save_file(random, folder / run / "model.safetensors")


def command(*words: object) -> str:
    """What a command prints. AssertionError with what it says where it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        scorefield.cli.main([str(word) for word in words])
    assert not stop.value.code, err.getvalue()
    return out.getvalue()


# Command -> its words, without --device: R/ stands for the folder of runs, O/ for an empty one.
COMMANDS: dict[str, list[str]] = {
    "recipes": ["recipes digits"],
    "options": ["options training"],
    "info": ["info R/digits --json"],
    "train": [
        "train digits --data R/data.npz --run O/run --steps 1 +digits --json",
        "train digits --data R/data.npz --run O/run --steps 2 --resume --json",
        "train digits --data R/data.npz --run O/next --init O/run --steps 1 +digits --set training.sample_every=1 --set sampling.steps=3",
        "train toy-moons --run O/moons --steps 1 +toy-moons",
    ],
    "sample": [
        "sample R/digits -n 4 --out O/plain.npz --trajectory O/plain.gif --json",
        "sample R/digits -n 4 --out O/plain.png",
        "sample R/digits -n 4 --out O/folder",
        "sample R/digits -n 4 --guidance 2 --label 1,2 --sampler ancestral --out O/free.npz",
        "sample R/digits -n 4 --guidance 2 --classifier R/classifier --out O/guided.npz",
        "sample R/digits -n 4 --inpaint R/a.png R/mask.png --out O/inpainted.npz",
        "sample R/upsampler --low-res R/small.npz --out O/enlarged.npz",
        "sample R/categorical -n 4 --grid uniform --steps 3 --out O/categories.npz",
        "sample R/moons -n 8 --out O/points.npz",
    ],
    "encode": ["encode R/digits R/few.npz --out O/latents.npz --json"],
    "decode": [
        "encode R/digits R/few.npz --out O/latents.npz",
        "decode R/digits O/latents.npz --out O/decoded.npz --json",
    ],
    "interpolate": ["interpolate R/digits R/a.png R/b.png --frames 3 --label 1 --out O/walk.gif"],
    "ema": [
        "train digits --data R/data.npz --run O/run --steps 2 +digits --set training.ema_profiles=[0.05,0.1] --set training.ema_every=1",
        "ema O/run --length 0.1 --run O/average --json",
    ],
    "evaluate": [
        "evaluate R/digits --metrics fd,kid,is,pr,bpd -n 8 --sets 1 --bound-steps 2 --json",
        "evaluate R/digits --guidance 1,2 -n 4 --sets 1 --json",
        "evaluate R/categorical --metrics bpd -n 4 --bound-steps 3 --json",
        "evaluate R/moons --metrics bpd -n 2 --bound-steps 3 --json",
        "evaluate R/classifier -n 20 --json",
    ],
    "plot": ["plot R/digits --out O/figure.png", "plot R/moons --out O/points.png"],
    "plan": ["plan toy-moons --flops 1e9 --device cpu --json"],
    "studio": [],
    "import": [],
    "export": ["export diffusers R/digits O/exported"],
}
IMPORTS: dict[str, tuple[str, str]] = {
    "guided-diffusion": (
        "C01_unet_guided_0",
        "image_size=16 num_channels=32 channel_mult=1,2,1 num_res_blocks=1 attention_resolutions=8,4 num_heads=2 "
        "class_cond=True learn_sigma=True noise_schedule=cosine",
    ),
    "improved-diffusion": (
        "",
        "image_size=32 num_channels=32 num_res_blocks=1 attention_resolutions=16",
    ),
    "ddpm": (
        "C12_unet_ddim",
        "image_size=8 model.ch=32 model.ch_mult=2,1 model.num_res_blocks=1 model.attn_resolutions=4",
    ),
    "ncsn": (
        "C11_cond_refinenet_dilated",
        "image_size=8 channels=1 ngf=8 num_classes=10 sigma_begin=1 sigma_end=0.01",
    ),
}
WITHOUT_DEVICE = ("recipes", "options", "info", "plan", "plot", "import", "export", "ema")
# What a clock, a path or a device decides.
ELSEWHERE = (
    "seconds",
    "per_second",
    "time",
    "device",
    "memory",
    "run",
    "out",
    "target",
    "file",
    "rate",
    "data_wait",
    "sha256",
    "hash",
    "reference",
    "pictures",
    "figure",
    "calls",
    "name",
)


def typed(line: str, place: Place) -> str:
    words = []
    for word in line.split():
        if word.startswith("+"):
            words += tiny(word[1:], *OWN[:3])[2:]
        elif word.startswith(("R/", "O/")):
            words.append(str((place.runs if word[0] == "R" else place.folder) / word[2:]))
        else:
            words.append(word)
    kind = place.device.split(":")[0]
    return command(*words, *([] if words[0] in WITHOUT_DEVICE else ["--device", kind]))


def commanded(name: str, place: Place) -> object:
    """What a command prints as JSON, and what it writes."""
    runs = place.folder / "runs"
    shutil.copytree(place.runs, runs)
    here = Place(place.device, place.folder / "out", runs)
    here.folder.mkdir()
    said = []
    for line in COMMANDS[name]:
        out = typed(line, here)
        said.append(plain(json.loads(out)) if "--json" in line else out.replace(str(place.folder), ""))
    return said, written(here.folder)


def plain(value: Any) -> Any:
    """Without what a clock or a path decides."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not any(part in k for part in ELSEWHERE)}
    return [plain(item) for item in value] if isinstance(value, list) else value


def written(folder: Path) -> dict[str, object]:
    """Arrays, tensors and pictures of a folder, by name."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".npz":
            found[name] = {key: value for key, value in np.load(path).items() if key != "weights"}
        elif path.suffix == ".safetensors":
            found[name] = load_file(path)
        elif path.suffix == ".png":
            found[name] = np.asarray(Image.open(path).convert("RGB"))
        elif path.is_file() and path.name != ".lock":
            found[name] = "a file"
    return found


for name in scorefield.cli.COMMANDS:
    assert name in COMMANDS, f"tests/device/cases.py: COMMANDS lacks the words of {name}"
    CASES[f"command {name}"] = partial(commanded, name)


def imported(word: str, place: Place) -> object:
    """An original checkpoint becomes a run, whose model predicts. Without a golden case its weights are random."""
    name, flags = IMPORTS[word]
    if name:
        golden = Golden(name)
        weights = {key.removeprefix("state_dict."): golden[key] for key in golden.names("state_dict.")}
    else:
        described = improved_diffusion.describe(parse_flags(flags.split()), {})
        draws = torch.Generator().manual_seed(0)
        network = described.model.net
        assert isinstance(network, torch.nn.Module)
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        weights = {key: 0.1 * torch.randn(shape, generator=draws) for key, shape in shapes.items()}
    torch.save(weights, place.folder / "weights.pt")
    command("import", word, place.folder / "weights.pt", "--run", place.folder / "run", "--flags", flags)
    return predicted(place.folder / "run", place)


def predicted(run: Path, place: Place) -> Tensor:
    """x̂0 of a run's model, with labels where it takes some."""
    model = sf.Run(run).model(place.device.split(":")[0], kind=sf.Denoiser)
    x, t = place.put(images(2, sf.DataSpec(model.data.shape))), torch.tensor([1, 3])
    return (model.given([0, 1]) if model.num_classes else model)(x, t).x0


@case
def through_diffusers(place: Place) -> object:
    """A run is exported to diffusers' format and imported from it."""
    command("export", "diffusers", place.runs / "digits", place.folder / "exported")
    command("import", "diffusers", place.folder / "exported", "--run", place.folder / "run")
    return predicted(place.folder / "run", place)


for word in registry.ORIGINS:
    if word != "diffusers":
        assert word in IMPORTS, f"tests/device/cases.py: IMPORTS lacks a small checkpoint of {word}"
        CASES[f"import {word}"] = partial(imported, word)


# Comparison


def same(a: Any, b: Any, exactly: bool = False) -> bool:
    """Whether two results are: to rounding, or to the bit."""
    return not list(differences(a, b, exactly))


def differences(a: Any, b: Any, exactly: bool = False, where: str = "") -> Iterator[str]:
    """Where two results are not the same."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            yield f"{where}: {sorted(a.keys() ^ b.keys())} are in one alone"
        for key in a.keys() & b.keys():
            yield from differences(a[key], b[key], exactly, f"{where}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            yield f"{where}: {len(a)} and {len(b)} of them"
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from differences(x, y, exactly, f"{where}[{i}]")
    elif isinstance(a, Tensor | np.ndarray) and isinstance(b, Tensor | np.ndarray):
        a, b = (value if isinstance(value, Tensor) else torch.from_numpy(value.copy()) for value in (a, b))
        yield from _unlike(a, b, exactly, where)
    elif isinstance(a, float) and isinstance(b, float):
        yield from _unlike(torch.tensor(a), torch.tensor(b), exactly, where)
    elif a != b:
        yield f"{where}: {str(a)[:200]} and {str(b)[:200]}"


def _unlike(a: Tensor, b: Tensor, exactly: bool, where: str) -> Iterator[str]:
    a, b = a.detach().cpu(), b.detach().cpu()
    if a.shape != b.shape or a.dtype != b.dtype:
        yield f"{where}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
    elif exactly and not torch.equal(a, b):
        yield f"{where}: other bits"
    elif not a.is_floating_point():
        # Grey levels: a value at the edge of two may round to either.
        share = float((a != b).double().mean()) if a.numel() else 0.0
        if share > (0.01 if a.dtype == torch.uint8 else 0):
            yield f"{where}: {share:.1%} of {a.numel()} values differ"
    elif a.numel():
        scale = max(float(a.nan_to_num().abs().max()), 1e-3)
        error = float((a - b).nan_to_num().abs().max()) / scale
        if error > TOLERANCE or not torch.equal(a.isnan(), b.isnan()):
            yield f"{where}: they differ by {error:.2g} of {scale:.2g}"


# Sums run in another order without the CPU's fused loops; a wrong device is a refusal or wrong by far more.
TOLERANCE = 2e-4
