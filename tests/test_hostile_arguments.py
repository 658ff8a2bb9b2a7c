"""Every public constructor and function of the mathematical rooms against arguments that make no sense.

One argument at a time is replaced by each hostile value. What may come of it: an error of the library in one line,
or a result that works and is finite.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from fuzz.judge import is_raw
from torch import Tensor, nn

import scorefield as sf
from scorefield.core.noise import as_noise, check_noise

HOSTILE: dict[str, Any] = {
    "None": None,
    "word": "word",
    "empty word": "",
    "empty list": [],
    "dict": {},
    "object": object(),
    "class": int,
    "function": lambda *a, **k: None,
    "NaN": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "-1": -1,
    "0": 0,
    "0.5": 0.5,
    "True": True,
    "1e300": 1e300,
    "10**9": 10**9,
    "10**30": 10**30,
    "10**5000": 10**5000,
    "complex": 1j,
    "[NaN]": [math.nan],
    "[-1]": [-1],
    "[0.0]": [0.0],
    "[10**30]": [10**30],
    "words": ["a", "b"],
    "ragged": [[1], [1, 2]],
    "empty tensor": torch.empty(0),
    "empty batch": torch.empty(0, 2),
    "number tensor": torch.tensor(1.0),
    "NaN tensor": torch.full((4, 2), math.nan),
    "inf tensor": torch.full((4, 2), math.inf),
    "long tensor": torch.full((4, 2), 10**6),
    "bool tensor": torch.ones(4, 2, dtype=torch.bool),
    "half tensor": torch.ones(4, 2, dtype=torch.float16),
    "complex tensor": torch.ones(4, 2, dtype=torch.complex64),
    "scalars": torch.zeros(4),
    "cube": torch.zeros(4, 2, 2),
    "array": np.zeros((4, 2), dtype=np.float32),
    "words array": np.array(["a", "b"]),
    "bytes": b"word",
    "NumPy integer": np.int64(3),
    "sparse tensor": torch.ones(4, 2).to_sparse(),
    "meta tensor": torch.zeros(4, 2, device="meta"),
    "meta number": torch.zeros((), device="meta"),
}

P = sf.process.linear(20, 0.01, 0.6)
VE = sf.process.geometric(10.0, 0.1, 10)
SDE = sf.process.vp()
CATEGORIES = sf.process.uniform_categories(3, T=10)
SPEC = sf.DataSpec((2,), classes=("cat", "dog", "owl"))
BINS = sf.DataSpec((2,), bins=3)
MIXTURE = sf.oracle.GaussianMixture([[-1.0, 0.5], [1.5, 1.0]], 0.1 * torch.eye(2).expand(2, 2, 2))
X = torch.linspace(-1, 1, 8).reshape(4, 2)
LEVELS = torch.tensor([[0, 1], [2, 0], [1, 1], [0, 2]])
Y = torch.tensor([0, 1, 2, 0])
GRID = [20, 10, 0]
NOISE = sf.noise.NoiseSource(0)


def net(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return sf.nets.MLP(2, **{"hidden": 8, "layers": 1, "embed_dim": 4, **options})


DENOISER = sf.Denoiser(net(num_classes=3, null_label=True), P, data=SPEC).eval()
PLAIN = sf.Denoiser(net(), P, data=SPEC).eval()
LEARNED = sf.Denoiser(net(out_dim=4), P, variance="range", data=BINS).eval()
SCORE = sf.ScoreModel(net(noise_levels=False), SPEC).eval()
CATEGORICAL = sf.CategoricalDenoiser(
    sf.nets.MLP(6, out_dim=6, hidden=8, layers=1, embed_dim=4), CATEGORIES, data=BINS
).eval()
CLASSIFIER = sf.NoisyClassifier(net(out_dim=3), P, data=SPEC).eval()
EXACT = MIXTURE.denoiser(P)
IMAGES = torch.zeros(2, 1, 4, 4)
SMALL_NET: dict[str, Any] = {"channels": 32, "channel_mult": (1, 1), "blocks": 1, "attention": ()}


@dataclass
class Case:
    """A callable, arguments with which it works, and what is done with its result.

    Attributes:
        make: What is called.
        good: Keywords that it takes.
        use: Uses the result and gives something whose tensors must be finite.
        elementwise: Whether values that are not finite may pass: those of tensors in a training step, whose check
            would make the host wait for the device at every step.
        skip: Arguments that are not replaced, with the reason.
    """

    make: Callable[..., Any]
    good: Mapping[str, Any] = field(default_factory=dict)
    use: Callable[[Any], Any] = lambda found: found
    elementwise: bool = False
    skip: Mapping[str, str] = field(default_factory=dict)


def levels_of(process: Any) -> list[Any]:
    found = [process.level(process.T), process.level(process.t_min), process.prior((2, 3), NOISE.at(0))]
    return [*found, process.config]


def sampled(sampler: Any, model: Any = EXACT, grid: Any = GRID) -> Tensor:
    return sf.sample(model, sampler, grid, noise=sf.noise.NoiseSource(0), x_T=X)


def loss_of(objective: Any, x: Tensor = X, y: Tensor | None = None) -> Any:
    return objective(x, y, sf.noise.NoiseSource(0)).per_example


def called(model: Any) -> Any:
    return model(X, 5)


def walked(steps: Any) -> list[Any]:
    return [step.x for step in steps]


def network_called(images: bool, **arguments: Any) -> Callable[[Any], Any]:
    x = IMAGES if images else X
    return lambda found: found(x, torch.zeros(len(x)), **arguments)


CASES: dict[str, Case] = {
    # core
    "noise.NoiseSource": Case(
        sf.noise.NoiseSource, {"seed": 1, "samples": [0, 1], "step": 2}, lambda n: n.normal((2, 3))
    ),
    "NoiseSource.at": Case(NOISE.at, {"step": 1}, lambda n: n.normal((2, 3))),
    "NoiseSource.of": Case(NOISE.of, {"samples": [3, 4]}, lambda n: n.normal((2, 3))),
    "NoiseSource.normal": Case(NOISE.normal, {"shape": (2, 3)}),
    "NoiseSource.uniform": Case(NOISE.uniform, {"shape": (2, 3)}),
    "NoiseSource.normal_like": Case(NOISE.normal_like, {"x": X}),
    "noise.Recorded": Case(sf.noise.Recorded, {"tensors": [X]}, lambda n: n.normal((4, 2)), elementwise=True),
    "noise.as_noise": Case(as_noise, {"noise": NOISE}, lambda noise: noise.normal((2, 3))),
    "noise.check_noise": Case(check_noise, {"noise": NOISE}, lambda noise: noise.normal((2, 3))),
    "noise.fresh_seed": Case(sf.noise.fresh_seed),
    "DataSpec": Case(
        sf.DataSpec,
        {"shape": (2,), "range": (-1, 1), "classes": ("a",), "bins": 3},
        lambda spec: (spec.to_uint8(X), spec.dimensions, spec.num_classes, spec.from_bins(LEVELS)),
    ),
    "DataSpec.from_bins": Case(BINS.from_bins, {"levels": LEVELS}),
    "DataSpec.to_bins": Case(BINS.to_bins, {"x": X}),
    "DataSpec.exact_bins": Case(BINS.exact_bins, {"x": BINS.from_bins(LEVELS)}),
    "DataSpec.to_uint8": Case(SPEC.to_uint8, {"x": X}),
    # process
    "process.linear": Case(sf.process.linear, {"T": 20, "start": 0.01, "end": 0.6}, levels_of),
    "process.cosine": Case(sf.process.cosine, {"T": 20, "s": 0.01, "max_beta": 0.9}, levels_of),
    "process.geometric": Case(
        sf.process.geometric,
        {"sigma_max": 10.0, "sigma_min": 0.1, "L": 5, "mean": 0.0, "std": 1.0},
        levels_of,
    ),
    "process.from_betas": Case(sf.process.from_betas, {"betas": [0.3, 0.9, 0.95]}, levels_of),
    "process.from_sigmas": Case(
        sf.process.from_sigmas, {"sigmas": [0.1, 1.0], "mean": 0.0, "std": 1.0}, levels_of
    ),
    "process.vp": Case(sf.process.vp, {"beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-3}, levels_of),
    "process.flow": Case(sf.process.flow, {"t_min": 1e-3}, levels_of),
    "process.sub_vp": Case(sf.process.sub_vp, {"beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-3}, levels_of),
    "process.ve": Case(
        sf.process.ve,
        {"sigma_min": 0.1, "sigma_max": 10.0, "mean": 0.0, "std": 1.0, "t_min": 1e-3},
        levels_of,
    ),
    "process.edm": Case(
        sf.process.edm,
        {"sigma_min": 0.1, "sigma_max": 10.0, "rho": 7.0, "mean": 0.0, "std": 1.0},
        levels_of,
    ),
    "process.zero_terminal_snr": Case(sf.process.zero_terminal_snr, {"process": P}, levels_of),
    "process.Interpolated": Case(sf.process.Interpolated, {"discrete": P}, levels_of),
    "process.uniform_categories": Case(
        sf.process.uniform_categories, {"classes": 3, "schedule": "cosine", "T": 10}, levels_of
    ),
    "process.uniform_categories of kappas": Case(
        sf.process.uniform_categories, {"classes": 3, "kappas": [0.5, 0.1]}, levels_of
    ),
    "process.absorbed_categories": Case(
        sf.process.absorbed_categories, {"classes": 3, "schedule": "linear", "T": 10}, levels_of
    ),
    "process.uniform_categorical": Case(
        sf.process.uniform_categorical, {"kappas": [0.5, 0.1], "classes": 3}, levels_of
    ),
    "process.absorbing": Case(sf.process.absorbing, {"kappas": [0.5, 0.0], "classes": 3}, levels_of),
    "process.DiscreteProcess": Case(
        sf.process.DiscreteProcess,
        {"alphas": torch.tensor([0.9, 0.5]), "sigmas": torch.tensor([0.4, 0.8]), "mean": 0.0, "std": 1.0},
        lambda process: levels_of(process)[:-1],
    ),
    "process.linear_betas": Case(sf.process.linear_betas, {"T": 5, "start": 0.1, "end": 0.2}),
    "process.cosine_betas": Case(sf.process.cosine_betas, {"T": 5, "s": 0.01, "max_beta": 0.9}),
    "process.geometric_sigmas": Case(
        sf.process.geometric_sigmas, {"sigma_max": 10.0, "sigma_min": 0.1, "L": 5}
    ),
    "process.linear_kappas": Case(sf.process.linear_kappas, {"T": 5}),
    "process.cosine_kappas": Case(sf.process.cosine_kappas, {"T": 5, "s": 0.01}),
    "process.kappas_from_betas": Case(sf.process.kappas_from_betas, {"betas": [0.5, 0.1]}),
    **{
        f"{name}.{what}": case
        for name, process in (("linear", P), ("vp", SDE), ("geometric", VE))
        for what, case in {
            "level": Case(process.level, {"t": process.T}),
            "positive_time": Case(process.positive_time, {"t": process.T}),
            "check_states": Case(process.check_states, {"x": X}),
            "prior": Case(process.prior, {"shape": (2, 3), "noise": NOISE}),
            "sample": Case(process.sample, {"x0": X, "t": process.T, "eps": X}, elementwise=True),
            "transition": Case(process.transition, {"t": process.T, "s": process.t_min}),
            "posterior": Case(
                process.posterior,
                {"x_t": X, "x0": X, "t": process.T, "s": process.t_min},
                elementwise=True,
            ),
            "reverse": Case(
                process.reverse,
                {
                    "pred": sf.Prediction(X, process.level(process.T), X, X),
                    "t": process.T,
                    "s": process.t_min,
                    "variance": "upper",
                },
            ),
            "time": Case(process.time, {"log_ratio": torch.tensor([0.0, 1.0], dtype=torch.float64)}),
        }.items()
    },
    "categorical.level": Case(CATEGORIES.level, {"t": 3}),
    "categorical.check_states": Case(CATEGORIES.check_states, {"x": LEVELS}),
    "categorical.prior": Case(CATEGORIES.prior, {"shape": (2, 3), "noise": NOISE}),
    "categorical.sample": Case(CATEGORIES.sample, {"x0": LEVELS, "t": 3, "u": X.abs() / 2}),
    "categorical.transition": Case(CATEGORIES.transition, {"x_s": LEVELS, "t": 3, "s": 1}),
    "categorical.reverse": Case(
        CATEGORIES.reverse, {"x_t": LEVELS, "p0": CATEGORICAL(LEVELS, 3), "t": 3, "s": 1}
    ),
    "categorical.family": Case(
        CATEGORIES.family, {"x_t": LEVELS, "p0": CATEGORICAL(LEVELS, 3), "t": 3, "s": 1, "eta": 0.5}
    ),
    "categorical.prior_distribution": Case(CATEGORIES.prior_distribution, {"dimensions": 1}),
    "categorical.posterior": Case(CATEGORIES.posterior, {"x_t": LEVELS, "x0": LEVELS, "t": 3, "s": 1}),
    # nets
    "nets.MLP": Case(
        sf.nets.MLP,
        {
            "dim": 2,
            "hidden": 8,
            "layers": 1,
            "num_classes": 0,
            "null_label": False,
            "embed_dim": 4,
            "out_dim": 2,
            "noise_levels": True,
        },
        network_called(False),
    ),
    "nets.MLP of labels": Case(
        sf.nets.MLP,
        {"dim": 2, "hidden": 8, "layers": 1, "num_classes": 3, "null_label": True},
        network_called(False, y=Y),
    ),
    "nets.UNet": Case(
        sf.nets.UNet,
        {
            "in_channels": 1,
            "out_channels": 1,
            **SMALL_NET,
            "heads": 1,
            "heads_upsample": 1,
            "head_channels": None,
            "num_classes": 0,
            "null_label": False,
            "low_res": False,
            "scale_shift": True,
            "updown": False,
            "conv_resample": True,
            "attention_order": "legacy",
            "dropout": 0.0,
            "rescale_residual": False,
            "checkpoint": False,
        },
        network_called(True),
    ),
    "nets.DDPMUNet": Case(
        sf.nets.DDPMUNet,
        {
            "in_channels": 1,
            "out_channels": 1,
            **SMALL_NET,
            "conv_resample": True,
            "dropout": 0.0,
            "num_classes": 0,
        },
        network_called(True),
    ),
    "nets.Classifier": Case(
        sf.nets.Classifier,
        {
            "in_channels": 1,
            "num_classes": 3,
            "image_size": 4,
            **SMALL_NET,
            "heads": 1,
            "head_channels": None,
            "pool": "attention",
            "scale_shift": True,
            "updown": True,
            "conv_resample": True,
            "attention_order": "legacy",
            "dropout": 0.0,
            "checkpoint": False,
        },
        network_called(True),
    ),
    "nets.RefineNet": Case(
        sf.nets.RefineNet,
        {"channels_in": 1, "filters": 4, "levels": 10, "unit_input": False},
        lambda found: found(IMAGES, torch.zeros(2, dtype=torch.long)),
    ),
    "nets.Transformer": Case(
        sf.nets.Transformer,
        {
            "in_channels": 1,
            "image_size": 4,
            "out_channels": None,
            "patch": 2,
            "hidden": 8,
            "depth": 1,
            "heads": 1,
            "mlp_ratio": 4.0,
            "bottleneck": None,
            "positions": "fixed",
            "norm": "layer",
            "mlp": "gelu",
            "num_classes": 0,
            "dropout": 0.0,
        },
        network_called(True),
    ),
    "MLP.forward": Case(net(num_classes=3), {"x": X, "c": torch.zeros(4), "y": Y}, elementwise=True),
    "UNet.forward": Case(
        sf.nets.UNet(1, **SMALL_NET, heads=1), {"x": IMAGES, "c": torch.zeros(2)}, elementwise=True
    ),
    # models
    "Denoiser": Case(
        sf.Denoiser,
        {
            "net": net(),
            "process": P,
            "parametrization": "eps",
            "variance": None,
            "noise_input": "index",
            "data": SPEC,
            "sigma_data": 0.5,
            "low_res": None,
        },
        called,
    ),
    "ScoreModel": Case(
        sf.ScoreModel,
        {"net": net(noise_levels=False), "data": SPEC, "energy": False},
        lambda model: model.score(X),
    ),
    "NoisyClassifier": Case(
        sf.NoisyClassifier,
        {"net": net(out_dim=3), "process": P, "noise_input": "index", "data": SPEC},
        called,
    ),
    "CategoricalDenoiser": Case(
        sf.CategoricalDenoiser,
        {
            "net": CATEGORICAL.net,
            "process": CATEGORIES,
            "parametrization": "x0",
            "noise_input": "index",
            "data": BINS,
        },
        lambda model: model(LEVELS, 5),
    ),
    "Denoiser call": Case(DENOISER, {"x_t": X, "t": 5, "y": Y}, elementwise=True),
    "Denoiser.score": Case(PLAIN.score, {"x": X, "t": 5}, elementwise=True),
    "Denoiser.given": Case(DENOISER.given, {"y": Y}, called),
    "Denoiser.coefficients": Case(DENOISER.coefficients, {"t": torch.tensor(5)}),
    "ScoreModel.score": Case(SCORE.score, {"x": X, "t": None}, elementwise=True),
    "NoisyClassifier call": Case(CLASSIFIER, {"x_t": X, "t": 5}, elementwise=True),
    "CategoricalDenoiser call": Case(CATEGORICAL, {"x_t": LEVELS, "t": 5, "y": None}),
    "CategoricalDenoiser.categories": Case(CATEGORICAL.categories, {"x0": LEVELS}),
    "guidance.ClipX0": Case(sf.guidance.ClipX0, {"model": PLAIN, "low": -1.0, "high": 1.0}, called),
    "guidance.DynamicThreshold": Case(
        sf.guidance.DynamicThreshold, {"model": PLAIN, "quantile": 0.9, "low": -1.0, "high": 1.0}, called
    ),
    "guidance.ClassifierGuidance": Case(
        sf.guidance.ClassifierGuidance,
        {"model": PLAIN, "classifier": CLASSIFIER, "y": 1, "scale": 1.0, "at": "x_t", "interval": (0.1, 5.0)},
        lambda model: sampled(sf.samplers.DDIM(), model),
    ),
    "guidance.ClassifierFree": Case(
        sf.guidance.ClassifierFree,
        {"model": DENOISER, "y": 1, "scale": 1.0, "interval": (0.1, 5.0), "rescale": 0.5},
        called,
    ),
    "guidance.Autoguidance": Case(
        sf.guidance.Autoguidance,
        {"model": PLAIN, "weak": PLAIN, "scale": 2.0, "interval": (0.1, 5.0), "rescale": 0.5},
        called,
    ),
    # objectives
    "objectives.Simple": Case(
        sf.objectives.Simple,
        {"model": PLAIN, "weighting": "eps", "times": "uniform", "coupling": "optimal"},
        loss_of,
    ),
    "objectives.VLB": Case(
        sf.objectives.VLB,
        {"model": PLAIN, "variance": "upper", "times": None, "decoder": "density", "cdf": "exact"},
        loss_of,
    ),
    "objectives.Hybrid": Case(
        sf.objectives.Hybrid,
        {"model": LEARNED, "vlb_scale": 0.001, "weighting": "eps", "times": None, "decoder": "density"},
        loss_of,
    ),
    "objectives.NCSN": Case(
        sf.objectives.NCSN,
        {
            "model": PLAIN,
            "times": None,
            "method": "sliced",
            "projections": 1,
            "projection": "rademacher",
        },
        loss_of,
    ),
    "objectives.ScoreMatching": Case(
        sf.objectives.ScoreMatching,
        {
            "model": SCORE,
            "method": "sliced",
            "projections": 1,
            "projection": "rademacher",
            "sigma": 0.1,
        },
        loss_of,
    ),
    "objectives.Classify": Case(
        sf.objectives.Classify, {"model": CLASSIFIER}, lambda found: loss_of(found, y=Y)
    ),
    "objectives.CategoricalVLB": Case(
        sf.objectives.CategoricalVLB,
        {"model": CATEGORICAL, "auxiliary": 0.001, "times": None},
        lambda found: loss_of(found, LEVELS),
    ),
    **{
        f"{type(objective).__name__} call": Case(
            objective, {"x0": x0, "y": y, "noise": sf.noise.NoiseSource(0)}, elementwise=True
        )
        for objective, x0, y in (
            (sf.objectives.Simple(DENOISER), X, Y),
            (sf.objectives.VLB(PLAIN, decoder="density"), X, None),
            (sf.objectives.Hybrid(LEARNED), BINS.from_bins(LEVELS), None),
            (sf.objectives.NCSN(PLAIN), X, None),
            (sf.objectives.ScoreMatching(SCORE), X, None),
            (sf.objectives.Classify(CLASSIFIER), X, Y),
            (sf.objectives.CategoricalVLB(CATEGORICAL), LEVELS, None),
        )
    },
    "objectives.ListedTimes": Case(
        sf.objectives.ListedTimes,
        {"times": [2, 5], "weights": [1.0, 0.5]},
        lambda times: times.draw(P, 3, sf.noise.NoiseSource(0)),
    ),
    "objectives.ddim_weights": Case(
        sf.objectives.ddim_weights, {"process": P, "grid": GRID, "eta": 0.5, "above": 20}
    ),
    "objectives.LogitNormalTimes": Case(
        sf.objectives.LogitNormalTimes,
        {"mean": 0.0, "std": 1.0},
        lambda times: times.draw(SDE, 3, sf.noise.NoiseSource(0)),
    ),
    "objectives.ShiftedTimes": Case(
        sf.objectives.ShiftedTimes, {"shift": 3.0}, lambda times: times.draw(SDE, 3, sf.noise.NoiseSource(0))
    ),
    "objectives.UniformTimes": Case(
        sf.objectives.UniformTimes().draw, {"process": P, "batch": 3, "noise": NOISE}
    ),
    "objectives.ImportanceTimes": Case(
        sf.objectives.ImportanceTimes,
        {"T": 20, "history": 2, "uniform_prob": 0.1},
        lambda times: times.probabilities(),
    ),
    "ImportanceTimes.draw": Case(
        sf.objectives.ImportanceTimes(20).draw, {"process": P, "batch": 3, "noise": NOISE}
    ),
    "ImportanceTimes.update": Case(
        sf.objectives.ImportanceTimes(20).update, {"t": torch.tensor([1, 2]), "losses": torch.ones(2)}
    ),
    "ImportanceTimes.load_state_dict": Case(
        sf.objectives.ImportanceTimes(20).load_state_dict,
        {"state": sf.objectives.ImportanceTimes(20).state_dict()},
    ),
    **{
        f"objectives.{loss.__name__}": Case(loss, {"score": SCORE.score, "x": X, **more}, elementwise=True)
        for loss, more in (
            (sf.objectives.explicit_score_matching, {"target": X}),
            (sf.objectives.explicit_sliced_score_matching, {"target": X, "v": X}),
            (sf.objectives.implicit_score_matching, {}),
            (sf.objectives.sliced_score_matching, {"v": X}),
            (sf.objectives.sliced_score_matching_vr, {"v": X}),
            (sf.objectives.denoising_score_matching, {"eps": X, "sigma": 0.1}),
        )
    },
    "objectives.projections": Case(
        sf.objectives.projections, {"kind": "gaussian", "x": X, "noise": NOISE, "count": 2}
    ),
    "objectives.score_from_energy": Case(
        sf.objectives.score_from_energy, {"energy": lambda x: x.square().sum(1)}, lambda score: score(X)
    ),
    # samplers
    "samplers.DDIM": Case(sf.samplers.DDIM, {"eta": 0.5, "varsigma": None, "clip_x0": (-1.0, 1.0)}, sampled),
    "samplers.DDIM of varsigma": Case(sf.samplers.DDIM, {"varsigma": [0.1, 0.0]}, sampled),
    "samplers.Ancestral": Case(sf.samplers.Ancestral, {"variance": "lower", "last": "sample"}, sampled),
    "samplers.Euler": Case(sf.samplers.Euler, {}, sampled),
    "samplers.Heun": Case(
        sf.samplers.Heun,
        {"churn": 0.1, "churn_min": 0.0, "churn_max": 10.0, "churn_noise": 1.0, "largest_ratio": 40.0},
        lambda sampler: sampled(sampler, MIXTURE.denoiser(SDE), [1.0, 0.5, 0.0]),
    ),
    "samplers.DPMSolver2M": Case(sf.samplers.DPMSolver2M, {"stochastic": True}, sampled),
    "samplers.DPMSolver2S": Case(
        sf.samplers.DPMSolver2S, {}, lambda sampler: sampled(sampler, MIXTURE.denoiser(SDE), [1.0, 0.5, 0.0])
    ),
    "samplers.DPMSolver3M": Case(sf.samplers.DPMSolver3M, {}, sampled),
    "samplers.Adaptive": Case(
        sf.samplers.Adaptive,
        {"rtol": 1e-2, "atol": 1e-2},
        lambda sampler: sampled(sampler, MIXTURE.denoiser(SDE), [1.0, 0.5, 0.0]),
    ),
    "samplers.UniPC": Case(sf.samplers.UniPC, {"order": 2}, sampled),
    "samplers.Langevin": Case(
        sf.samplers.Langevin, {"step": 1e-3, "metropolis": False, "final_denoise": False}, sampled
    ),
    "samplers.PredictorCorrector": Case(
        sf.samplers.PredictorCorrector,
        {"predictor": sf.samplers.DDIM(), "langevin": sf.samplers.Langevin(1e-3), "repeats": 1},
        sampled,
    ),
    "samplers.Inpaint": Case(
        sf.samplers.Inpaint,
        {"sampler": sf.samplers.DDIM(), "known": X, "mask": torch.tensor([True, False])},
        sampled,
    ),
    "samplers.CategoricalAncestral": Case(sf.samplers.CategoricalAncestral, {}),
    "samplers.CategoricalDDIM": Case(
        sf.samplers.CategoricalDDIM,
        {"eta": 0.5},
        lambda sampler: sf.sample(CATEGORICAL, sampler, [10, 5, 0], 3, sf.noise.NoiseSource(0)),
    ),
    "samplers.between_levels": Case(sf.samplers.between_levels, {"model": PLAIN}, called),
    "samplers.sample": Case(
        sf.sample,
        {"model": PLAIN, "sampler": sf.samplers.DDIM(), "grid": GRID, "n": 4, "noise": NOISE, "x_T": X},
        lambda x: [x, torch.ones(()) / len(x)],
    ),
    "sample from the prior": Case(
        sf.sample, {"model": PLAIN, "sampler": sf.samplers.DDIM(), "grid": GRID, "n": 4, "noise": NOISE}
    ),
    "samplers.trajectory": Case(
        sf.trajectory,
        {"model": PLAIN, "sampler": sf.samplers.DDIM(), "grid": GRID, "x": X, "noise": NOISE},
        walked,
    ),
    "samplers.forward": Case(
        sf.forward,
        {"process": P, "x0": X, "grid": [0, 5, 20], "noise": NOISE, "eta": 0.5},
        walked,
    ),
    "forward of categories": Case(
        sf.forward, {"process": CATEGORIES, "x0": LEVELS, "grid": [0, 3, 5], "noise": NOISE}, walked
    ),
    **{
        f"grids.{grid.__name__}": Case(grid, {"process": P, "n": 5})
        for grid in (
            sf.grids.uniform,
            sf.grids.quadratic,
            sf.grids.linspace,
            sf.grids.leading,
            sf.grids.ddim_quadratic,
        )
    },
    "grids.shifted": Case(sf.grids.shifted, {"process": P, "n": 5, "shift": 3.0}),
    "grids.shifted of continuous time": Case(sf.grids.shifted, {"process": SDE, "n": 5, "shift": 3.0}),
    "grids.uniform of continuous time": Case(sf.grids.uniform, {"process": SDE, "n": 5}),
    "grids.fitted": Case(
        sf.grids.fitted,
        {"model": EXACT, "n": 4, "x_T": NOISE, "candidates": 8, "sampler": sf.samplers.DDIM()},
    ),
    "grids.full": Case(sf.grids.full, {"process": P}),
    "grids.sections": Case(sf.grids.sections, {"process": P, "counts": [2, 3]}),
    "grids.staircase": Case(sf.grids.staircase, {"process": P, "repeats": 2, "times": [20, 10, 0]}),
    "grids.steps": Case(sf.grids.steps, {"n": 5}),
    "grids.as_grid": Case(sf.grids.as_grid, {"process": P, "grid": GRID}),
    **{
        f"grids.{grid.__name__} of {name}": Case(
            grid,
            {
                "process": process,
                "n": 5,
                **more,
                "sigma_min": 0.5,
                "sigma_max": 5.0,
                "to_zero": True,
            },
        )
        for name, process in (("linear", P), ("vp", SDE))
        for grid, more in ((sf.grids.log_snr, {}), (sf.grids.karras, {"rho": 7.0}))
    },
    "latents.encode": Case(
        sf.latents.encode, {"model": PLAIN, "x0": X, "grid": GRID, "sampler": sf.samplers.DDIM()}
    ),
    "latents.decode": Case(
        sf.latents.decode, {"model": PLAIN, "x_T": X, "grid": GRID, "sampler": sf.samplers.DDIM()}
    ),
    "latents.interpolate": Case(
        sf.latents.interpolate,
        {"model": PLAIN, "a": X[0], "b": X[1], "frames": 3, "grid": GRID, "sampler": sf.samplers.DDIM()},
    ),
    "latents.slerp": Case(sf.latents.slerp, {"a": X, "b": X + 1, "weight": 0.5}),
    "latents.spherical_walk": Case(
        sf.latents.spherical_walk, {"a": X[0], "b": X[1], "frames": 3, "centre": 0.0}
    ),
    # oracle
    "oracle.GaussianMixture": Case(
        sf.oracle.GaussianMixture,
        {"means": [[-1.0, 0.5]], "covariances": torch.eye(2)[None], "weights": [1.0]},
        lambda mixture: [mixture.score(X), mixture.log_prob(X), mixture.sample(3, sf.noise.NoiseSource(0))],
    ),
    **{
        f"GaussianMixture.{name}": Case(
            getattr(MIXTURE, name), {"x": X, "level": P.level(5)}, elementwise=True
        )
        for name in ("log_prob", "x0", "posterior", "score")
    },
    "GaussianMixture.sample": Case(MIXTURE.sample, {"n": 3, "noise": NOISE}),
    "GaussianMixture.sample_labelled": Case(MIXTURE.sample_labelled, {"n": 3, "noise": NOISE}),
    "GaussianMixture.at": Case(MIXTURE.at, {"level": P.level(5)}, lambda mixture: mixture.score(X)),
    "GaussianMixture.denoiser": Case(MIXTURE.denoiser, {"process": P}, called),
    "GaussianMixture.classifier": Case(MIXTURE.classifier, {"process": P}, called),
    "oracle.MixtureDenoiser": Case(sf.oracle.MixtureDenoiser, {"mixture": MIXTURE, "process": P}, called),
    "oracle.MixtureClassifier": Case(sf.oracle.MixtureClassifier, {"mixture": MIXTURE, "process": P}, called),
    "MixtureDenoiser call": Case(EXACT, {"x_t": X, "t": 5}, elementwise=True),
    "MixtureDenoiser.score": Case(EXACT.score, {"x": X, "t": 5}, elementwise=True),
}


CASES |= {
    # data and evaluation
    "data.flip": Case(sf.data.flip, {"x": IMAGES, "coin": torch.rand(2)}, elementwise=True),
    "data.shift": Case(sf.data.shift, {"x": IMAGES, "offsets": torch.ones(2, 2).long()}, elementwise=True),
    "data.reduced": Case(sf.data.reduced, {"x": IMAGES, "side": 2}, elementwise=True),
    "data.dequantize": Case(
        sf.data.dequantize, {"values": LEVELS, "u": X.abs() / 2, "spec": BINS}, elementwise=True
    ),
    "likelihood.prior_term": Case(
        sf.likelihood.prior_term, {"process": P, "x0": X, "t": torch.tensor([5, 6, 7, 8])}, elementwise=True
    ),
    "likelihood.ode_log_prob": Case(
        sf.likelihood.ode_log_prob,
        {"model": EXACT, "x": X, "prior": lambda x: x.sum(1), "t_min": 19.0, "rtol": 0.1, "atol": 0.1},
        lambda found: found.calls,
    ),
    "evaluation.Moments": Case(lambda features: sf.evaluation.Moments().update(features), {"features": X}),
    "evaluation.kernel_distance": Case(
        sf.evaluation.kernel_distance, {"a": X, "b": X + 1, "subsets": 2, "subset_size": 2, "seed": 0}
    ),
    "evaluation.precision_recall": Case(
        sf.evaluation.precision_recall, {"generated": X, "reference": X + 1, "k": 1}
    ),
    "evaluation.nearest_distances": Case(
        sf.evaluation.nearest_distances, {"queries": X, "references": X + 1}, elementwise=True
    ),
    "evaluation.copying_ratio": Case(
        sf.evaluation.copying_ratio, {"samples": X[:, 0] + 2, "heldout": X[:, 1] + 2}
    ),
    "evaluation.inception_score": Case(
        sf.evaluation.inception_score, {"log_probs": torch.log_softmax(X, 1), "splits": 2}
    ),
}


def tensors(found: Any) -> Iterator[Tensor]:
    """The floating-point tensors and numbers in a result."""
    if isinstance(found, Tensor):
        if found.is_floating_point() and not found.is_meta:
            yield found.detach()
    elif isinstance(found, float):
        yield torch.tensor(found)
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from tensors(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from tensors(value)
    elif is_dataclass(found) and not isinstance(found, type):
        for one in fields(found):
            yield from tensors(getattr(found, one.name))


def outcome(case: Case, arguments: Mapping[str, Any]) -> str:
    """What is wrong with what comes of a call; nothing where nothing is."""
    try:
        found = case.use(case.make(**arguments))
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors(found))
    except sf.ScorefieldError as error:
        text = str(error)
        if len(text) >= 600 or "\n" in text:
            return f"a message of {len(text)} characters or more lines"
        return f"a raw message: {text}" if is_raw(text) else ""
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return "" if finite or case.elementwise else "a result that is not finite"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_hostile_arguments(name: str) -> None:
    case = CASES[name]
    assert not outcome(case, case.good), "it must work with good arguments"
    wrong = [
        f"{argument}={hostile}: {found}"
        for argument in case.good
        if argument not in case.skip
        for hostile, value in HOSTILE.items()
        if (found := outcome(case, {**case.good, argument: copy.copy(value)}))
    ]
    assert not wrong, f"{len(wrong)} arguments of {name} are met by no words:\n" + "\n".join(wrong)


# Protocols, base classes and containers, which check nothing themselves.
NOT_CALLED = {
    "process": {"ContinuousProcess", "CategoricalProcess", "GaussianProcess", "Process"},
    "objectives": {"Loss", "Objective"},
    "samplers": {"Sampler", "Step"},
    "nets": set[str](),
    "oracle": set[str](),
    "noise": {"Noise"},
    "grids": {"trailing"},  # another name of uniform
    "latents": set[str](),
    "guidance": set[str](),
}


@pytest.mark.parametrize("room", NOT_CALLED)
def test_every_public_name_is_tried(room: str) -> None:
    tried = {name.split()[0] for name in CASES}
    public = set(getattr(sf, room).__all__)
    assert {name for name in public - NOT_CALLED[room] if f"{room}.{name}" not in tried} == set()
