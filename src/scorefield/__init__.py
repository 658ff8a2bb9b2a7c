"""scorefield: score-based generative modelling, every method in one place and every equation tested.

A public name is imported when it is first used, so that `import scorefield` loads neither torch nor anything
else. Type checkers and editors read the same names from the block below, with their types.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scorefield import data as data
    from scorefield import evaluation as evaluation
    from scorefield import interop as interop
    from scorefield import nets as nets
    from scorefield import objectives as objectives
    from scorefield import oracle as oracle
    from scorefield import planning as planning
    from scorefield import plots as plots
    from scorefield import process as process
    from scorefield import samplers as samplers
    from scorefield import training as training
    from scorefield.core import noise as noise
    from scorefield.core.noise import NoiseSource as NoiseSource
    from scorefield.core.prediction import Level as Level
    from scorefield.core.prediction import Prediction as Prediction
    from scorefield.core.shapes import DataSpec as DataSpec
    from scorefield.data import Dataset as Dataset
    from scorefield.data import Stream as Stream
    from scorefield.evaluation import likelihood as likelihood
    from scorefield.generation.samples import Samples as Samples
    from scorefield.generation.sampling_options import SamplingOptions as SamplingOptions
    from scorefield.models import guidance as guidance
    from scorefield.models.base import Denoise as Denoise
    from scorefield.models.base import Model as Model
    from scorefield.models.base import ScoreFunction as ScoreFunction
    from scorefield.models.categorical_denoiser import CategoricalDenoiser as CategoricalDenoiser
    from scorefield.models.denoiser import Denoiser as Denoiser
    from scorefield.models.noisy_classifier import NoisyClassifier as NoisyClassifier
    from scorefield.models.score_model import ScoreModel as ScoreModel
    from scorefield.objectives import Loss as Loss
    from scorefield.objectives import Objective as Objective
    from scorefield.process import CategoricalProcess as CategoricalProcess
    from scorefield.process import GaussianProcess as GaussianProcess
    from scorefield.process import Process as Process
    from scorefield.runs.build import load as load
    from scorefield.runs.recipe import Recipe as Recipe
    from scorefield.runs.run import Run as Run
    from scorefield.runtime.errors import IncompatibleModel as IncompatibleModel
    from scorefield.runtime.errors import InputError as InputError
    from scorefield.runtime.errors import ScorefieldError as ScorefieldError
    from scorefield.samplers import grids as grids
    from scorefield.samplers import latents as latents
    from scorefield.samplers.base import Grid as Grid
    from scorefield.samplers.base import Sampler as Sampler
    from scorefield.samplers.base import Step as Step
    from scorefield.samplers.base import sample as sample
    from scorefield.samplers.base import trajectory as trajectory
    from scorefield.samplers.forward_path import forward as forward
    from scorefield.training import Diverged as Diverged
    from scorefield.training import Trainer as Trainer
    from scorefield.training import TrainingOptions as TrainingOptions
    from scorefield.training import TrainStep as TrainStep
    from scorefield.training import train as train

# Where each public name lives: a module of its own, or a name of that module. The block above says the same to
# type checkers; tests/test_public_types.py compares the two.
_MODULES = {
    "data": "scorefield.data",
    "evaluation": "scorefield.evaluation",
    "grids": "scorefield.samplers.grids",
    "guidance": "scorefield.models.guidance",
    "interop": "scorefield.interop",
    "latents": "scorefield.samplers.latents",
    "likelihood": "scorefield.evaluation.likelihood",
    "nets": "scorefield.nets",
    "noise": "scorefield.core.noise",
    "objectives": "scorefield.objectives",
    "oracle": "scorefield.oracle",
    "planning": "scorefield.planning",
    "plots": "scorefield.plots",
    "process": "scorefield.process",
    "samplers": "scorefield.samplers",
    "training": "scorefield.training",
}
_NAMES = {
    "CategoricalDenoiser": "scorefield.models.categorical_denoiser",
    "CategoricalProcess": "scorefield.process",
    "DataSpec": "scorefield.core.shapes",
    "Dataset": "scorefield.data",
    "Denoise": "scorefield.models.base",
    "Denoiser": "scorefield.models.denoiser",
    "Diverged": "scorefield.training",
    "GaussianProcess": "scorefield.process",
    "Grid": "scorefield.samplers.base",
    "IncompatibleModel": "scorefield.runtime.errors",
    "InputError": "scorefield.runtime.errors",
    "Level": "scorefield.core.prediction",
    "Loss": "scorefield.objectives",
    "Model": "scorefield.models.base",
    "NoiseSource": "scorefield.core.noise",
    "NoisyClassifier": "scorefield.models.noisy_classifier",
    "Objective": "scorefield.objectives",
    "Prediction": "scorefield.core.prediction",
    "Process": "scorefield.process",
    "Recipe": "scorefield.runs.recipe",
    "Run": "scorefield.runs.run",
    "Sampler": "scorefield.samplers.base",
    "Samples": "scorefield.generation.samples",
    "SamplingOptions": "scorefield.generation.sampling_options",
    "ScoreFunction": "scorefield.models.base",
    "ScoreModel": "scorefield.models.score_model",
    "ScorefieldError": "scorefield.runtime.errors",
    "Step": "scorefield.samplers.base",
    "Stream": "scorefield.data",
    "TrainStep": "scorefield.training",
    "Trainer": "scorefield.training",
    "TrainingOptions": "scorefield.training",
    "forward": "scorefield.samplers.forward_path",
    "load": "scorefield.runs.build",
    "sample": "scorefield.samplers.base",
    "train": "scorefield.training",
    "trajectory": "scorefield.samplers.base",
}

__all__ = ["__version__", *_MODULES, *_NAMES]

if not TYPE_CHECKING:  # a type checker that saw this function would accept any name

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return _import_module(_MODULES[name])
        if name in _NAMES:
            return getattr(_import_module(_NAMES[name]), name)
        raise AttributeError(f"module 'scorefield' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(__all__)
