"""What a user may choose by a word: one table for each concept, from the word to the code that it stands for.

An entry is "module:name", so that listing the words imports nothing and looking one up imports its module only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from scorefield.runtime import bounds
from scorefield.runtime.checks import one_of

__all__ = [
    "PARAMETRIZATIONS",
    "NOISE_INPUTS",
    "WEIGHTINGS",
    "SOURCES",
    "TOYS",
    "LIKELIHOODS",
    "SAMPLE_METRICS",
    "FEATURES",
    "ORIGINS",
    "METRICS",
    "CATEGORICAL_SAMPLERS",
    "GRIDS",
    "KAPPAS",
    "NETS",
    "OBJECTIVES",
    "PROCESSES",
    "SAMPLERS",
    "TIMES",
    "Registry",
    "kind_of",
]


class Registry:
    """The words for one concept: iterate over it for the words, index it for what a word stands for.

    Args:
        what: The name of the concept in messages.
        entries: Word -> "module:name" of what it stands for.
        base: "module:name" of the class that code of the user's own must inherit from.
        largest: The largest integer in a description of one.
    """

    def __init__(
        self,
        what: str,
        entries: Mapping[str, str],
        base: str = "builtins:object",
        largest: int = bounds.LEVELS,
    ) -> None:
        self.what, self.entries, self._base, self.largest = what, dict(entries), base, largest
        self._found: dict[str, Any] = {}

    @property
    def base(self) -> type:
        """The class that code of the user's own must inherit from."""
        found: type = _import(self._base)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and word in self.entries

    def __getitem__(self, word: str) -> Any:
        """What the word stands for. InputError, naming all words, for another one."""
        return self.find(word)

    def find(self, word: object, what: str | None = None) -> Any:
        """What the word stands for.

        Args:
            what: What a message calls the choice. Default: the name of the concept.
        Raises:
            InputError: Naming all words, for another one.
        """
        name = one_of(what or self.what, word, self.entries)
        if name not in self._found:
            self._found[name] = _import(self.entries[name])
        return self._found[name]

    def only(self, words: Iterable[str]) -> Registry:
        """The same concept with these words alone."""
        return Registry(self.what, {word: self.entries[word] for word in words}, self._base, self.largest)

    def __repr__(self) -> str:
        return f"Registry({self.what}: {', '.join(self)})"


def _import(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


PROCESSES = Registry(
    "process",
    {
        "linear": "scorefield.process.discrete:linear",
        "cosine": "scorefield.process.discrete:cosine",
        "geometric": "scorefield.process.discrete:geometric",
        "betas": "scorefield.process.discrete:from_betas",
        "sigmas": "scorefield.process.discrete:from_sigmas",
        "flow": "scorefield.process.continuous:flow",
        "vp": "scorefield.process.continuous:vp",
        "sub-vp": "scorefield.process.continuous:sub_vp",
        "ve": "scorefield.process.continuous:ve",
        "edm": "scorefield.process.continuous:edm",
        "zero-terminal-snr": "scorefield.process.discrete:zero_terminal_snr",
        "interpolated": "scorefield.process.continuous:Interpolated",
        "uniform-categorical": "scorefield.process.categorical:uniform_categories",
        "absorbing": "scorefield.process.categorical:absorbed_categories",
    },
    base="scorefield.process.base:Process",
)

KAPPAS = Registry(
    "schedule",
    {
        "cosine": "scorefield.process.schedules:cosine_kappas",
        "linear": "scorefield.process.schedules:linear_kappas",
    },
)

NETS = Registry(
    "net",
    {
        "mlp": "scorefield.nets.mlp:MLP",
        "unet": "scorefield.nets.unet_adm:UNet",
        "classifier": "scorefield.nets.classifier:Classifier",
        "ddpm-unet": "scorefield.nets.unet_ddpm:DDPMUNet",
        "refinenet": "scorefield.nets.refinenet:RefineNet",
        "transformer": "scorefield.nets.transformer:Transformer",
    },
    base="torch.nn:Module",
    largest=bounds.SIZE,
)

OBJECTIVES = Registry(
    "objective",
    {
        "simple": "scorefield.objectives.denoising:Simple",
        "hybrid": "scorefield.objectives.vlb:Hybrid",
        "vlb": "scorefield.objectives.vlb:VLB",
        "ncsn": "scorefield.objectives.scores:NCSN",
        "score-matching": "scorefield.objectives.scores:ScoreMatching",
        "classifier": "scorefield.objectives.classify:Classify",
        "categorical-vlb": "scorefield.objectives.categorical_vlb:CategoricalVLB",
    },
    base="scorefield.objectives.base:Objective",
)

TIMES = Registry(
    "times",
    {
        "uniform": "scorefield.objectives.times:UniformTimes",
        "importance": "scorefield.objectives.times:ImportanceTimes",
        "list": "scorefield.objectives.times:ListedTimes",
        "logit-normal": "scorefield.objectives.times:LogitNormalTimes",
        "shifted": "scorefield.objectives.times:ShiftedTimes",
    },
)

SAMPLERS = Registry(
    "sampler",
    {
        "ancestral": "scorefield.samplers.ancestral:Ancestral",
        "ddim": "scorefield.samplers.ddim:DDIM",
        "euler": "scorefield.samplers.ode:Euler",
        "heun": "scorefield.samplers.ode:Heun",
        "dpm-solver": "scorefield.samplers.dpm_solver:DPMSolver2M",
        "dpm-solver-2s": "scorefield.samplers.dpm_solver:DPMSolver2S",
        "dpm-solver-3m": "scorefield.samplers.dpm_solver:DPMSolver3M",
        "unipc": "scorefield.samplers.unipc:UniPC",
        "adaptive": "scorefield.samplers.adaptive:Adaptive",
        "langevin": "scorefield.samplers.langevin:Langevin",
    },
)

CATEGORICAL_SAMPLERS = Registry(  # of the same papers, so under the same names
    "sampler of categories",
    {
        "ancestral": "scorefield.samplers.categories:CategoricalAncestral",
        "ddim": "scorefield.samplers.categories:CategoricalDDIM",
    },
)

GRIDS = Registry(  # in a number of steps; "full", "staircase" and counts of sections have other arguments
    "grid",
    {
        "uniform": "scorefield.samplers.grids:uniform",
        "trailing": "scorefield.samplers.grids:trailing",
        "quadratic": "scorefield.samplers.grids:quadratic",
        "linspace": "scorefield.samplers.grids:linspace",
        "leading": "scorefield.samplers.grids:leading",
        "ddim_quadratic": "scorefield.samplers.grids:ddim_quadratic",
        "log_snr": "scorefield.samplers.grids:log_snr",
        "karras": "scorefield.samplers.grids:karras",
        "shifted": "scorefield.samplers.grids:shifted",
    },
)

PARAMETRIZATIONS = Registry(
    "parametrization",
    {
        "eps": "scorefield.models.parametrization:eps",
        "x0": "scorefield.models.parametrization:x0",
        "v": "scorefield.models.parametrization:v",
        "score": "scorefield.models.parametrization:score",
        "mean": "scorefield.models.parametrization:mean",
        "edm": "scorefield.models.parametrization:edm",
        "flow": "scorefield.models.parametrization:flow",
    },
)

NOISE_INPUTS = Registry(
    "noise_input",
    {
        "index": "scorefield.models.parametrization:index",
        "scaled": "scorefield.models.parametrization:scaled",
        "rank": "scorefield.models.parametrization:rank",
        "log_sigma": "scorefield.models.parametrization:log_sigma",
    },
)

WEIGHTINGS = Registry(
    "weighting",
    {
        "eps": "scorefield.objectives.weighting:eps",
        "x0": "scorefield.objectives.weighting:x0",
        "v": "scorefield.objectives.weighting:v",
        "network": "scorefield.objectives.weighting:network",
        "min-snr": "scorefield.objectives.weighting:min_snr",
        "edm": "scorefield.objectives.weighting:edm",
    },
)

SOURCES = Registry(  # by what a user writes: a word, PREFIX:NAME, FOLDER, or FILE.SUFFIX
    "source",
    {
        "digits": "scorefield.data.sources.digits:SOURCE",
        "portraits": "scorefield.data.sources.portraits:SOURCE",
        "toy:NAME": "scorefield.data.sources.toys:SOURCE",
        "FOLDER": "scorefield.data.sources.folder:SOURCE",
        "FILE.npz": "scorefield.data.sources.npz:SOURCE",
        "hf:NAME": "scorefield.data.sources.hub:SOURCE",
    },
)

TOYS = Registry(
    "toy",
    {
        "mixture": "scorefield.data.sources.toys:mixture",
        "moons": "scorefield.data.sources.toys:moons",
        "spiral": "scorefield.data.sources.toys:spiral",
        "checkerboard": "scorefield.data.sources.toys:checkerboard",
        "swiss-roll": "scorefield.data.sources.toys:swiss_roll",
    },
)

LIKELIHOODS = Registry(
    "metric",
    {
        "bpd": "scorefield.evaluation.evaluator:bpd",
        "ode": "scorefield.evaluation.evaluator:ode",
    },
)

SAMPLE_METRICS = Registry(
    "metric",
    {
        "fd": "scorefield.evaluation.metrics:FD",
        "kid": "scorefield.evaluation.metrics:KID",
        "is": "scorefield.evaluation.metrics:IS",
        "pr": "scorefield.evaluation.metrics:PR",
        "copies": "scorefield.evaluation.metrics:COPIES",
        "palette": "scorefield.evaluation.metrics:PALETTE",
    },
)

FEATURES = Registry(
    "features",
    {
        "classifier": "scorefield.evaluation.catalogue:classifier",
        "imagenet": "scorefield.evaluation.catalogue:imagenet",
        "inception:FILE": "scorefield.evaluation.catalogue:inception",
    },
)

ORIGINS = Registry(
    "origin",
    {
        "guided-diffusion": "scorefield.interop.importing:GUIDED_DIFFUSION",
        "improved-diffusion": "scorefield.interop.importing:IMPROVED_DIFFUSION",
        "ddpm": "scorefield.interop.importing:DDPM",
        "ncsn": "scorefield.interop.importing:NCSN",
        "diffusers": "scorefield.interop.importing:DIFFUSERS",
    },
)

METRICS = (*LIKELIHOODS, *SAMPLE_METRICS)

_DESCRIBED = (PROCESSES, NETS, OBJECTIVES, TIMES, SAMPLERS, CATEGORICAL_SAMPLERS)


@cache
def _kinds() -> Mapping[str, str]:
    return {path: word for table in _DESCRIBED for word, path in table.entries.items()}


def kind_of(path: str) -> str:
    """The word that stands for the code at "module:name", otherwise the path itself."""
    return _kinds().get(path, path)
