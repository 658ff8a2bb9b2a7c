"""Options that several commands share, and how they change what a run says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from scorefield.config import Recipe, SamplingOptions

__all__ = ["Device", "Eta", "Grid", "Json", "Run", "SamplerName", "Seed", "Settings", "Steps", "Variance", "sampling_options"]

Run = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a trained run.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(min=0, help="Sample i of a seed is the same image however many are asked for.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; the fastest one found if not given.")]
SamplerName = Annotated[
    str | None, typer.Option("--sampler", help="ancestral, ddim, euler, heun or langevin; the run's own if not given.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the grid; the run's own number if not given.")]
Grid = Annotated[
    str | None,
    typer.Option(help="full, uniform, quadratic, linspace, leading, staircase (annealed Langevin), or counts such as 10,15,20."),
]
Eta = Annotated[float | None, typer.Option(help="DDIM's η, 0 (deterministic) to 1 (ancestral).")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A=C", help="Change one value of the run's [sampling] table, such as repeats=10."),
]
Variance = Annotated[str | None, typer.Option(help="Of ancestral sampling: lower, upper or learned.")]


def sampling_options(
    recipe: Recipe,
    sampler: str | None,
    steps: int | None,
    grid: str | None,
    eta: float | None,
    variance: str | None,
    settings: list[str] | None = None,
) -> SamplingOptions:
    """The run's own sampling with what the command line says in its place."""
    from scorefield.config import with_overrides

    own = recipe.sampling
    if sampler is None and (eta is not None) != (variance is not None):
        sampler = "ddim" if eta is not None else "ancestral"  # η and the variance say which sampler is meant
    table: dict[str, Any] = dict(own.sampler) if sampler in (None, own.sampler["kind"]) else {"kind": sampler}
    table |= {name: value for name, value in (("eta", eta), ("variance", variance)) if value is not None}
    if grid is not None and steps is not None and (grid == "full" or "," in grid or grid.isdecimal()):
        raise typer.BadParameter(f"--grid {grid} says how many steps there are: leave --steps out")
    changes = {"sampler": table, "steps": steps or (None if grid == "full" else own.steps), "grid": grid or own.grid}
    if steps is not None and grid is None and own.grid == "full":
        changes["grid"] = "uniform"
    was, now = own.sampler["kind"], table["kind"]
    if now == "langevin" != was:
        changes |= {"grid": grid or "staircase", "steps": steps}
    elif was == "langevin" != now:
        changes |= {"grid": grid or "uniform", "start": "prior"}
    changed = recipe.model_copy(update={"sampling": own.model_copy(update=changes)})
    return with_overrides(changed, [f"sampling.{setting}" for setting in settings or []]).sampling
