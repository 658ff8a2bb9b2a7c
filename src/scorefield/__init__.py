"""scorefield: score-based generative modelling, every method in one place and every equation tested.

The public names are imported when they are first used, so that `import scorefield` costs little on top of
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "data": "scorefield.data",
    "grids": "scorefield.samplers.grids",
    "guidance": "scorefield.models.guidance",
    "latents": "scorefield.samplers.latents",
    "likelihood": "scorefield.evaluation.likelihood",
    "nets": "scorefield.nets",
    "noise": "scorefield.core.noise",
    "objectives": "scorefield.objectives",
    "oracle": "scorefield.oracle",
    "process": "scorefield.process",
    "samplers": "scorefield.samplers",
    "interop": "scorefield.interop",
}
_NAMES = {
    "CategoricalDenoiser": "scorefield.models.categorical_denoiser",
    "DataSpec": "scorefield.core.shapes",
    "Denoiser": "scorefield.models.denoiser",
    "IncompatibleModel": "scorefield.runtime.errors",
    "InputError": "scorefield.runtime.errors",
    "Level": "scorefield.core.prediction",
    "NoisyClassifier": "scorefield.models.noisy_classifier",
    "Prediction": "scorefield.core.prediction",
    "ScoreModel": "scorefield.models.score_model",
    "ScorefieldError": "scorefield.runtime.errors",
    "Step": "scorefield.samplers.base",
    "load": "scorefield.runs.build",
    "sample": "scorefield.samplers.base",
    "train": "scorefield.training",
    "trajectory": "scorefield.samplers.base",
}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'scorefield' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
