"""scorefield train"""

from __future__ import annotations

import math
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from scorefield.cli import console
from scorefield.cli.console import Progress, print_json, progress, say
from scorefield.cli.parameters import Allow, Device, Json
from scorefield.data.sources.opener import ACCEPTED
from scorefield.runs.build import read_run
from scorefield.runs.open_training import next_run, open_training, save_preview
from scorefield.runs.recipe import Recipe, read_recipe, with_overrides
from scorefield.runs.time_limit import TimeLimit
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.training import Trainer

# SIGUSR1 is what Slurm's --signal is usually set to: time is about to be up.
_NAMES = {"SIGINT": 130, "SIGTERM": 75, "SIGUSR1": 75, "SIGHUP": 75}
_EXIT = {getattr(signal, name): status for name, status in _NAMES.items() if hasattr(signal, name)}
_LATE = 1  # a vote to stop: --minutes are over; what is greater is one more than the number of a signal


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe's name or .toml file; see `scorefield recipes`.")
    ],
    data: Annotated[
        str | None,
        typer.Option(help=f"{ACCEPTED}."),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The run's folder. Default: runs/RECIPE-N.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Total number of optimizer steps.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Train for about this many minutes: a short trial measures the speed and sets the number of steps "
            "(at most --steps), which is stored in the run. With --resume: stop after this many minutes, even if "
            "training is not finished."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed for weight initialisation, data order, noise and dropout."),
    ] = None,
    device: Device = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=C",
            help="Override a recipe value, e.g. training.lr=1e-3 (see `scorefield options`).",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint of --run.")
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option("--init", metavar="RUN", help="Start from the averaged (EMA) weights of this run."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on unreadable images instead of skipping them.")
    ] = False,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Train a model and write a run: a folder that all other commands read.

    Ctrl-C saves a checkpoint and prints the command that resumes. From Python: sf.train
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise InputError(f"--minutes must be positive, got {minutes}")
    changes = settings or []
    known = _resumed(recipe, run, init, changes) if resume else read_recipe(recipe)
    known = known.allowing(allow or ())
    given = {"training.steps": steps, "training.seed": seed, "data.source": data}
    given["data.strict"] = True if strict else None
    chosen = with_overrides(known, changes)
    chosen = with_overrides(chosen, {name: value for name, value in given.items() if value is not None})
    limit, seconds = None, None  # of a new run the time decides the steps; a resumed one has them
    if minutes is not None and not resume:
        asked = steps is not None or any(_names(change, "training.steps") for change in changes)
        limit = TimeLimit(minutes, chosen.training.steps if asked else None)
    elif minutes is not None:
        seconds = 60 * minutes
    with (
        _before_the_first_step(),
        nullcontext(run) if run is not None else next_run(chosen.name, device) as folder,
    ):
        trainer = open_training(
            chosen, folder, device=device, resume=resume, init=init, limit=limit, progress=console
        )
    summary = _run(trainer, chosen, folder, seconds, device)
    if as_json:
        print_json(summary)


def _names(change: str, setting: str) -> bool:
    """Whether A.B=C is about this setting."""
    return change.partition("=")[0].strip() == setting


def _resumed(recipe: str, run: Path | None, init: Path | None, settings: list[str]) -> Recipe:
    """The recipe of a run that is gone on with. InputError for what cannot be changed about it."""
    if run is None:
        raise InputError("--resume needs --run, the folder of the run to continue")
    if init is not None:
        raise InputError("--resume continues from the run's own weights: remove --init")
    known = read_run(run)[0]
    if known.name not in (recipe, Path(recipe).stem):
        raise InputError(f"{run} is a run of {known.name}, not of {recipe}")
    if any(not change.startswith("training.") for change in settings):
        raise InputError(
            "a resumed run keeps its model, data and sampling: with --resume, --set accepts training.* only"
        )
    return known


def _run(
    trainer: Trainer, recipe: Recipe, folder: Path, seconds: float | None, device: str | None
) -> dict[str, object]:
    """Train to the end or until something stops it, and say which.

    Args:
        trainer: The trainer.
        recipe: What is trained.
        folder: The run.
        seconds: After which it stops.
        device: As the user gave it.
    """
    with _signals() as received, progress("training", trainer.options.steps, seconds) as bar:
        bar.update(trainer.step)
        stopped = _loop(trainer, recipe, seconds, received, bar)
        trainer.close()
    go_on = [
        "scorefield",
        "train",
        recipe.name,
        "--run",
        str(folder),
        "--resume",
        *(["--device", device] if device else []),
        *(word for module in recipe.allowed for word in ("--allow", module)),
    ]
    return _finish(trainer, recipe, folder, stopped, shlex.join(go_on))


def _loop(trainer: Trainer, recipe: Recipe, seconds: float | None, received: list[int], bar: Progress) -> int:
    """Train to the end (0), or until a signal stops any process (_LATE and its number) or its clock does
    (_LATE).
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    rate, every = 0.0, 0 if recipe.is_classifier else recipe.training.sample_every
    for step in trainer:
        rate = step.examples_per_second if rate == 0 else 0.95 * rate + 0.05 * step.examples_per_second
        bar.update(step.step, f"loss {step.loss:.4f}  {rate:,.0f} examples/s")
        late = deadline is not None and time.monotonic() >= deadline
        if stop := trainer.agree(_LATE + received[0] if received else _LATE * late):
            trainer.stop(late=stop == _LATE)
            return stop
        if every and step.step % every == 0:
            try:
                save_preview(trainer, recipe)
            except ScorefieldError as error:
                say(f"no preview at step {step.step}: {error}")
    return 0


def _finish(trainer: Trainer, recipe: Recipe, folder: Path, stopped: int, go_on: str) -> dict[str, object]:
    if trainer.data.unreadable and not trainer.data.in_memory:
        say(f"some images could not be read; they are listed in {folder / 'broken-files.txt'}")
    if stopped > _LATE:
        say(f"stopped at step {trainer.step:,} and saved; resume with: {go_on}")
        raise typer.Exit(_EXIT[signal.Signals(stopped - _LATE)])
    if trainer.step >= trainer.options.steps:
        say(f"done: {trainer.step:,} steps; {_what_next(trainer, recipe, folder)}")
    else:
        say(f"time limit reached at step {trainer.step:,}; resume with: {go_on}")
    return {"run": str(folder), "step": trainer.step, "steps": trainer.options.steps}


def _what_next(trainer: Trainer, recipe: Recipe, folder: Path) -> str:
    """The commands that show what was trained."""
    run, spec = shlex.quote(str(folder)), trainer.data.spec
    if recipe.is_classifier:
        return f"evaluate it with: scorefield evaluate {run}"
    if spec.shape == (2,):
        return f"plot its samples and score with: scorefield plot {run}"
    model = trainer.objective.model
    guided = " --guidance 2" if model.null_label is not None and recipe.sampling.guidance is None else ""
    one = " (of one class: --label NAME)" if model.num_classes else ""
    return (
        f"sample it with: scorefield sample {run}{guided}{one}; evaluate it with: scorefield evaluate {run}"
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals of `_EXIT` are noted, so that the step in hand is finished and saved; a second one acts at
    once, but for SIGHUP, which shell and system may both send when a terminal is closed.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        hangup = signal.Signals(number).name == "SIGHUP"
        signal.signal(number, signal.SIG_IGN if hangup else previous[number])

    with _handling(_EXIT, note) as previous:
        yield received


@contextmanager
def _before_the_first_step() -> Iterator[None]:
    """The signals of `_EXIT` but SIGINT while data are opened, which may take long, end with their status:
    there is nothing to save yet.
    """

    def leave(number: int, frame: object) -> None:
        say(f"stopped before the first step by {signal.Signals(number).name}")
        raise SystemExit(_EXIT[signal.Signals(number)])

    with _handling([number for number in _EXIT if number != signal.SIGINT], leave):
        yield


@contextmanager
def _handling(numbers: Iterable[int], handler: Callable[[int, object], None]) -> Iterator[dict[int, Any]]:
    """Signals with a handler for as long as the block runs, and what handled them before. Those that the
    process was started to ignore, as by nohup or in the background of a script, stay ignored.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    taken = {number: earlier for number, earlier in before.items() if earlier is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handler)
    try:
        yield taken
    finally:
        for number, earlier in taken.items():
            signal.signal(number, earlier)
