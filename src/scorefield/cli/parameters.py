"""Options that several commands share."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any, cast, get_type_hints

import typer

from scorefield.process.transitions import Variance as VarianceKind
from scorefield.runs.opened import StepKeywords
from scorefield.runtime.registry import GRIDS, SAMPLERS

__all__ = [
    "Allow",
    "Compile",
    "Device",
    "Grid",
    "Json",
    "RunFolder",
    "SamplingFlags",
    "Seed",
    "Steps",
    "ends_on_sigterm",
    "with_sampling_flags",
]

_TERMINATED = 75

RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a trained run.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed. Sample i does not depend on -n.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps. Default: the fastest available.")]


def _importable(modules: list[str] | None) -> list[str] | None:
    """The modules of --allow, which may lie in the current folder."""
    if modules and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return modules


Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="MODULE",
        callback=_importable,
        help="Python module of your own that the run may import; the current folder is searched too. Repeat the "
        "option for several.",
    ),
]
SamplerName = Annotated[
    str | None, typer.Option("--sampler", help=f"{', '.join(SAMPLERS)}. Default: as in the run.")
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Number of steps of the grid. Default: as in the run.")
]
Grid = Annotated[
    str | None,
    typer.Option(
        help=f"full, {', '.join(GRIDS)}, fitted (to the run, kept in it), staircase (annealed Langevin), or counts such as 10,15,20. Default: as in "
        "the run."
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network with torch.compile: takes minutes; worth it for many samples on a GPU.",
    ),
]
Eta = Annotated[float | None, typer.Option(help="DDIM's η, 0 (deterministic) to 1 (ancestral).")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A=C",
        help="Override a value of the run's [sampling] table, e.g. repeats=10 (see `scorefield options sampling`).",
    ),
]
Variance = Annotated[
    str | None, typer.Option(help="Variance of ancestral sampling: lower, upper or learned.")
]
Classifier = Annotated[str | None, typer.Option(metavar="RUN", help="Classifier guidance with this run.")]
Autoguidance = Annotated[
    str | None,
    typer.Option(
        metavar="RUN", help="Autoguidance with this run of a weaker model; --guidance is its scale."
    ),
]


@dataclass(frozen=True)
class SamplingFlags:
    """How a run is sampled, as `sample` and `evaluate` take it."""

    sampler: SamplerName = None
    steps: Steps = None
    grid: Grid = None
    eta: Eta = None
    variance: Variance = None
    settings: Settings = None
    classifier: Classifier = None
    autoguidance: Autoguidance = None

    def keywords(self) -> StepKeywords:
        """The keywords of `Run.sample`."""
        return {
            "sampler": self.sampler,
            "steps": self.steps,
            "grid": self.grid,
            "eta": self.eta,
            "variance": cast(VarianceKind | None, self.variance),  # which is checked where it is used
            "settings": self.settings,
            "classifier": self.classifier,
            "autoguidance": self.autoguidance,
        }


def with_sampling_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `SamplingFlags` in place of its parameter `flags`."""
    hints = get_type_hints(SamplingFlags, include_extras=True)
    names = [field.name for field in fields(SamplingFlags)]
    parameters = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name != "flags":
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hints[name])
            for name in names
        ]

    @wraps(command)
    def run(**given: Any) -> None:
        command(flags=SamplingFlags(**{name: given.pop(name) for name in names}), **given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the work between two files, with exit status 75."""

    def terminate(number: int, frame: object) -> None:
        raise SystemExit(_TERMINATED)

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
