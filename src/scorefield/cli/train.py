"""scorefield train"""

from __future__ import annotations

import json
import math
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scorefield.cli.console import Progress, is_first_process, print_json, progress, say
from scorefield.cli.parameters import Device, Json

if TYPE_CHECKING:
    import torch

    from scorefield.data import Dataset, Stream
    from scorefield.runs.build import Recipe
    from scorefield.training import Trainer

# SIGUSR1 is what Slurm's --signal is usually set to: time is about to be up.
_NAMES = {"SIGINT": 130, "SIGTERM": 75, "SIGUSR1": 75}
_EXIT = {getattr(signal, name): status for name, status in _NAMES.items() if hasattr(signal, name)}
_LATE = 1  # a vote to stop that is no signal: --minutes are over


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe's name or .toml file; see `scorefield recipes`.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, toy:NAME, a folder of images (subfolders are classes), an .npz file, or hf:NAME."
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The run's folder; runs/RECIPE-N if not given.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps in all.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Stop after so many minutes of training, if its steps are not done by then."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of the weights, the order of the data, the noise and the dropout."),
    ] = None,
    device: Device = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one value of the recipe.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of --run.")
    ] = False,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="RUN", help="Start from this run's averaged weights.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A broken image is an error instead of being skipped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model and write a run: a folder that describes itself. Ctrl-C saves and says how to go on."""
    from scorefield.runs.build import read_recipe, read_run, with_overrides
    from scorefield.runtime.errors import InputError

    if minutes is not None and not 0 < minutes < math.inf:
        raise InputError(f"--minutes must be positive, got {minutes}")
    if resume and run is None:
        raise InputError("--resume needs --run, the folder of the run to go on with")
    if resume and init is not None:
        raise InputError("--resume goes on with a run's own weights: leave --init out")
    known = read_run(run)[0] if resume and run is not None else read_recipe(recipe)
    if resume and known.name not in (recipe, Path(recipe).stem):
        raise InputError(f"{run} is a run of {known.name}, not of {recipe}")
    changes = list(settings or [])
    if resume and any(not change.startswith("training.") for change in changes):
        raise InputError(
            "a resumed run keeps its model, data and sampling: --set changes only training.* there"
        )
    changes += [
        f"{key}={value}"
        for key, value in (("training.steps", steps), ("training.seed", seed))
        if value is not None
    ]
    changes += [f"data.source={json.dumps(data, ensure_ascii=False)}"] if data is not None else []
    changes += ["data.strict=true"] if strict else []
    chosen = with_overrides(known, changes)
    folder = run or _next_run(chosen.name)
    with _before_the_first_step():
        trainer = _open(chosen, folder, device, resume, init)
    summary = _run(trainer, chosen, folder, minutes, device)
    if as_json:
        print_json(summary)


def _open(recipe: Recipe, folder: Path, device: str | None, resume: bool, init: Path | None) -> Trainer:
    """The data, the model and the run, ready for the first step."""
    import torch

    from scorefield.runs.build import (
        build_model,
        build_objective,
        build_sampling,
        describe,
        open_training_data,
    )
    from scorefield.training import RunFolder, train

    if not resume and is_first_process():
        RunFolder(folder).check_free()
    examples, heldout = open_training_data(recipe.data)
    for name in examples.skipped[:5]:
        say(f"skipped {name}")
    if examples.skipped:
        say(f"skipped {len(examples.skipped)} broken images; --strict makes them an error")
    say(f"{recipe.name}: {_amount(examples, heldout)} of {examples.source}")
    torch.manual_seed(recipe.training.seed)
    model = build_model(recipe, examples.spec)
    if not recipe.is_classifier:
        build_sampling(
            recipe.sampling, model
        )  # a run that could not be sampled is refused before it is trained
    if init is not None:
        _start_from(init, model)
    options, parameters = recipe.training.model_dump(), sum(p.numel() for p in model.parameters())
    trainer = train(
        build_objective(recipe, model),
        examples,
        run=folder,
        resume=resume,
        device=device,
        describe=describe(recipe),
        **options,
    )
    for warning in trainer.warnings:
        say(f"note: {warning}")
    precision = "bf16" if model.autocast_dtype is not None else "fp32"
    say(f"run {folder}: {parameters:,} parameters, {precision} on {trainer.accelerator.device}")
    return trainer


def _run(
    trainer: Trainer, recipe: Recipe, folder: Path, minutes: float | None, device: str | None
) -> dict[str, Any]:
    """Train to the end or until something stops it, and say which."""
    with _signals() as received, progress("training", recipe.training.steps) as bar:
        stopped = _loop(trainer, recipe, minutes, received, bar)
        trainer.close()
    go_on = [
        "scorefield",
        "train",
        recipe.name,
        "--run",
        str(folder),
        "--resume",
        *(["--device", device] if device else []),
    ]
    return _finish(trainer, recipe, folder, stopped, shlex.join(go_on))


def _loop(trainer: Trainer, recipe: Recipe, minutes: float | None, received: list[int], bar: Progress) -> int:
    """Train to the end (0), or until any process is told to stop by a signal (its number) or by its clock
    (_LATE).
    """
    from scorefield.runtime.errors import ScorefieldError

    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    rate, every = 0.0, 0 if recipe.is_classifier else recipe.training.sample_every
    for step in trainer:
        rate = step.examples_per_second if rate == 0 else 0.95 * rate + 0.05 * step.examples_per_second
        bar.update(step.step, f"loss {step.loss:.4f}  {rate:,.0f} examples/s")
        late = deadline is not None and time.monotonic() >= deadline
        if stop := trainer.agree(received[0] if received else _LATE * late):
            trainer.save()
            return stop
        if every and step.step % every == 0:
            try:
                _preview(trainer, recipe)
            except ScorefieldError as error:
                say(f"no preview at step {step.step}: {error}")
    return 0


def _start_from(run: Path, model: torch.nn.Module) -> None:
    from scorefield.runs.build import load
    from scorefield.runtime.errors import InputError

    try:
        model.load_state_dict(load(run).state_dict())
    except RuntimeError as error:
        raise InputError(f"--init {run} holds another network: {str(error).splitlines()[0]}") from None


def _preview(trainer: Trainer, recipe: Recipe) -> None:
    from scorefield.runs.build import build_sampling
    from scorefield.store.writers import save_images

    first = trainer.accelerator.is_main_process
    if trainer.folder is None or len(trainer.data.spec.shape) != 3 or not (first or trainer.options.shard):
        return
    model = trainer.ema_model()  # which every process takes part in where weights lie in pieces
    if not first:
        return
    labels = list(range(getattr(model, "num_classes", 0))) or None
    sampling = build_sampling(recipe.sampling, model)
    sampling = replace(sampling, labels=labels)
    if recipe.model.low_res is not None:
        sampling = replace(sampling, **_to_be_enlarged(trainer, recipe.model.low_res, labels is not None))
    (block,) = sampling.blocks(40, recipe.training.seed)
    trainer.folder.samples.mkdir(exist_ok=True)
    columns = len(labels) if labels is not None and len(labels) <= 20 else 10
    save_images(
        trainer.folder.samples / f"step-{trainer.step:08d}.png",
        trainer.data.spec.to_uint8(block.x),
        columns=columns,
    )


def _to_be_enlarged(trainer: Trainer, side: int, conditional: bool) -> dict[str, Any]:
    """The first training images, reduced, and their labels."""
    from scorefield.data import reduced
    from scorefield.generation.sampling import LowRes

    first = trainer.data.some(40)
    return {
        "low_res": LowRes(reduced(first.x0, side), ""),
        "labels": first.y.tolist() if conditional and first.y is not None else None,
    }


def _amount(examples: Dataset | Stream, heldout: Dataset | None) -> str:
    from scorefield.data import Stream

    if isinstance(examples, Stream):
        return f"a stream of examples, a share of {examples.holdout:g} held out,"
    return f"{len(examples):,} training and {len(heldout or ()):,} held-out examples"


def _finish(trainer: Trainer, recipe: Recipe, folder: Path, stopped: int, go_on: str) -> dict[str, Any]:
    if trainer.data.unreadable and not trainer.data.in_memory:
        say(f"pictures were met that cannot be used; they are named in {folder / 'broken-files.txt'}")
    if stopped > _LATE:
        say(f"stopped at step {trainer.step:,} and saved; go on with: {go_on}")
        raise typer.Exit(_EXIT[signal.Signals(stopped)])
    if trainer.step >= recipe.training.steps:
        what = (
            "see its accuracy with: scorefield evaluate"
            if recipe.is_classifier
            else "sample it with: scorefield sample"
        )
        say(f"done: {trainer.step:,} steps; {what} {folder}")
    else:
        say(f"time is up at step {trainer.step:,}; go on with: {go_on}")
    return {"run": str(folder), "step": trainer.step}


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT, SIGTERM and SIGUSR1 are noted, so that the step in hand is finished and saved; a second one
    acts at once.
    """
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.signal(number, note) for number in _EXIT}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _before_the_first_step() -> Iterator[None]:
    """SIGTERM and SIGUSR1 while data are opened, which may take long, end with their status: there is nothing
    to save yet.
    """

    def leave(number: int, frame: Any) -> None:
        say(f"stopped before the first step by {signal.Signals(number).name}")
        raise SystemExit(_EXIT[signal.Signals(number)])

    previous = {number: signal.signal(number, leave) for number in _EXIT if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _next_run(name: str) -> Path:
    taken = {path.name for path in Path("runs").glob(f"{name}-*")}
    number = 1
    while f"{name}-{number}" in taken:
        number += 1
    return Path("runs") / f"{name}-{number}"
