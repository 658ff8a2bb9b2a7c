"""A recipe becomes a run: its data are opened, its model is built, and a trainer stands at the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from scorefield.core.shapes import DataSpec, are_images
from scorefield.data import Dataset, Stream
from scorefield.data.base import microbatch
from scorefield.data.sources.parse import knows_size
from scorefield.generation.sampling import Condition, build_sampling
from scorefield.models.network_model import ModelBase
from scorefield.runs.build import (
    build_model,
    build_objective,
    build_process,
    describe,
    expected_data,
    load,
    meta_model,
    open_training_data,
    open_weights,
)
from scorefield.runs.recipe import Recipe, with_overrides
from scorefield.runs.time_limit import TimeLimit
from scorefield.runtime.atomic import make_folder, make_numbered, remove_empty
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.own_code import allowing, is_own
from scorefield.runtime.precision import pick_device
from scorefield.runtime.progress import SILENT, Reporter, check_reporter
from scorefield.runtime.reading import as_path
from scorefield.runtime.weights import misfit
from scorefield.store.picture_grid import picture_grid
from scorefield.store.run_folder import RunFolder
from scorefield.store.writers import save_images
from scorefield.training import Trainer, train
from scorefield.training.launch import join_training

__all__ = ["next_run", "open_training", "save_preview"]

_PREVIEWED = 40  # samples of a preview
_MEASURED = 4096  # examples, for the standard deviation of the data


def open_training(
    recipe: Recipe,
    folder: str | Path,
    *,
    device: str | None = None,
    resume: bool = False,
    init: str | Path | None = None,
    limit: TimeLimit | None = None,
    progress: Reporter = SILENT,
) -> Trainer:
    """The data, the model and the run, ready for the first step: iterate over the trainer, then close it.

    Args:
        recipe: As `read_recipe` gives it; for a run that is resumed, as `read_run` gives it.
        folder: The run's folder.
        device: "cpu", "cuda" or "mps". Default: the fastest one found.
        resume: Go on from the newest checkpoint of the folder.
        init: A run whose averaged weights the model starts from.
        limit: The time that a new run may take, from which its number of steps follows. Default: the recipe's own number.
        progress: Receives progress reports. Default: none are made.

    Raises:
        InputError: Where the folder is taken, the data cannot be used, nothing could be sampled, or hardly any step fits
            into the time.
        IncompatibleModel: For parts of the recipe that do not fit together.
    """
    if limit is not None and resume:
        raise InputError("a resumed run keeps its number of steps: remove limit")
    check_reporter(progress)
    place = as_path(folder, "a run")
    processes = join_training(device)
    timed = None if limit is None else {"minutes": limit.minutes, "at_most": limit.at_most}
    facts = {
        "resume": resume,
        "init": init is not None,
        "limit": timed,
        **recipe.model_dump(exclude={"data": {"source"}}),
    }
    processes.check_same(lambda: facts, "comparing recipes")
    if not resume:
        processes.on_first(RunFolder(place).check_free)
        recipe = processes.on_all(recipe.sized, "opening the data")
        processes.on_all(lambda: _check_first(recipe, device, init), "checking the recipe")
    # What one process alone cannot read or make, none goes on without.
    examples, heldout = processes.on_all(lambda: open_training_data(recipe.data), "opening the data")
    progress.say(f"{recipe.name}: {_amount(examples, heldout)} of {examples.source}")
    for text in examples.reading:
        progress.say(text)
    kind = processes.device.type
    if variant := recipe.variant(kind, examples.spec):
        progress.say(f"for these images on {kind}: {variant} (change with --set NAME=VALUE)")
    asked, recipe = recipe.model.conditional, recipe.on(kind, examples.spec).suited_to(examples.spec)
    if note := _conditioning(recipe, asked == "auto", examples.spec):
        progress.say(note)
    if recipe.model.sigma_data == "data":
        std = processes.on_all(lambda: _std(examples), "reading the data")
        recipe = with_overrides(recipe, {"model.sigma_data": std})
        progress.say(f"standard deviation of the data: {std:.4g} (model.sigma_data)")
    if recipe.leaves_out:
        progress.say(f"note: {recipe.leaves_out}")
    torch.manual_seed(recipe.training.seed)
    model = processes.on_all(lambda: _new_model(recipe, examples, init), "making the model")
    objective, options = build_objective(recipe, model), recipe.training.model_dump()
    if limit is not None:
        options["steps"] = limit.steps(objective, examples, recipe.training, device, processes, progress)
    trainer = train(
        objective,
        examples,
        run=place,
        resume=resume,
        device=device,
        describe=describe(recipe),
        heldout=heldout,
        progress=SILENT,  # whoever iterates over the trainer reports
        **options,
    )
    for warning in trainer.warnings:
        progress.say(f"note: {warning}")
    precision = "bf16" if model.autocast_dtype is not None else "fp32"
    parameters = sum(p.numel() for p in model.parameters())
    progress.say(f"run {place}: {parameters:,} parameters, {precision} on {trainer.accelerator.device}")
    return trainer


def _std(examples: Dataset | Stream) -> float:
    """The standard deviation of all values of some training examples in random order, the same for every process."""
    count = _MEASURED if examples.examples is None else min(_MEASURED, examples.examples)
    x0 = microbatch(examples.order(count, seed=0).take(0), examples.spec).x0
    std = float(x0.double().std())
    if not std > 0:
        raise InputError("model.sigma_data cannot be estimated: all values of the data are the same")
    return std


def _new_model(recipe: Recipe, examples: Dataset | Stream, init: str | Path | None) -> ModelBase:
    """The model of a recipe at the first step. InputError where it could not be sampled later."""
    _check_call(recipe, examples.spec)
    model = build_model(recipe, examples.spec)
    if not recipe.is_classifier:
        with allowing(recipe.allowed):
            build_sampling(recipe.sampling, model)
    if init is not None:
        _start_from(init, model, recipe.allowed)
    return model


def save_preview(trainer: Trainer, recipe: Recipe) -> None:
    """Write samples of the averaged weights as samples/step-….png of the run; nothing of what is no image.

    Every process calls it where weights are sharded.
    """
    first, spec = trainer.accelerator.is_main_process, trainer.data.spec
    if trainer.folder is None or not are_images(spec.shape) or not (first or trainer.options.shard):
        return
    model = trainer.ema_model()  # which every process takes part in where weights are sharded
    if not first:
        return
    with allowing(recipe.allowed):
        sampling = build_sampling(recipe.sampling, model)
    unseen = [label for label, count in enumerate(trainer.data.counts) if not count]
    labels = [label for label in range(model.num_classes) if label not in unseen] or None
    if model.arrays:  # those of the first training examples, under their labels
        shown = trainer.data.some(_PREVIEWED)
        arrays = model.conditioning(shown.x0, shown.arrays)
        conditions = {name: Condition(array, "") for name, array in arrays.items()}
        sampling = replace(sampling, conditions=conditions)
        labels = shown.y.tolist() if labels is not None and shown.y is not None else None
    sampling = replace(sampling, labels=labels)
    (block,) = sampling.blocks(_PREVIEWED, recipe.training.seed)
    make_folder(trainer.folder.samples)
    target = trainer.folder.samples / f"step-{trainer.step:08d}.png"
    images = spec.to_uint8(block.x)
    save_images(target, images, block.labels, classes=spec.classes)
    picture = picture_grid(images, None, block.labels, spec.classes)
    trainer.show("samples", np.asarray(picture.convert("RGB")))


@contextmanager
def next_run(name: str, device: str | None = None) -> Iterator[Path]:
    """The first of runs/NAME-1, runs/NAME-2, … that is free, which is made, and goes where the block fails and leaves
    it empty. Trainings that start at once get one each; the processes of one training get the same.
    """

    parent = Path("runs")
    is_new = not parent.exists()

    def claim() -> Path:
        try:
            return make_numbered(parent / name)
        except OSError as error:
            raise unwritable(parent, error, "give the run's folder (--run)") from None

    processes = join_training(device)
    folder = processes.on_first(claim)
    try:
        yield folder
    except BaseException:
        if processes.first:
            remove_empty(folder)
            if is_new:
                remove_empty(parent)
        raise


def _conditioning(recipe: Recipe, chosen_here: bool, data: DataSpec) -> str:
    """A sentence on what becomes of the classes of the data, where that is not what the recipe plainly says."""
    conditional, dropout = bool(recipe.model.conditional), recipe.training.label_dropout
    if chosen_here and conditional:
        guided = (
            f", and {dropout:.0%} of the labels are dropped for classifier-free guidance" if dropout else ""
        )
        return (
            f"the model is class-conditional, as the data have {data.num_classes} classes{guided} (for an "
            "unconditional model: --set model.conditional=false)"
        )
    if chosen_here:
        return "the model is unconditional, as the data have no classes"
    takes_classes = conditional or recipe.net.get("num_classes") or recipe.is_classifier
    if data.num_classes < 2 or takes_classes:
        return ""
    return f"note: the {data.num_classes} classes of the data are not used; --set model.conditional=true trains on them"


def _check_first(recipe: Recipe, device: str | None, init: str | Path | None) -> None:
    """Refuse what the recipe alone shows to be wrong: reading the data may take minutes."""
    kind = pick_device(device).type
    if init is not None:
        open_weights(RunFolder(as_path(init, "a run")).require())
    known, spec = knows_size(recipe.data), expected_data(recipe)
    recipe = recipe.on(kind, spec)
    options = recipe.training
    if options.batch_size % options.accumulation:
        raise InputError(
            f"training.batch_size {options.batch_size} cannot be split into training.accumulation = "
            f"{options.accumulation} microbatches"
        )
    build_process(recipe)
    if is_own(recipe.net.get("kind")):
        return
    count = recipe.net.get("num_classes")
    if spec.classes and recipe.data.classes is None and isinstance(count, int):
        spec = replace(spec, classes=tuple(map(str, range(count))))
    try:
        suited = recipe.suited_to(spec)
        model = meta_model(suited, spec)
    except ScorefieldError:
        if known:
            raise
        return  # what an example is decides
    build_objective(suited, model)
    if not recipe.is_classifier:
        with allowing(recipe.allowed):
            build_sampling(recipe.sampling, model)
    if known:
        _check_call(suited, spec)


def _check_call(recipe: Recipe, spec: DataSpec) -> None:
    """InputError where the recipe's network takes no examples of this size. Nothing is computed."""
    if is_own(recipe.net.get("kind")):
        return
    model = meta_model(recipe, spec)
    if not model.missing - {"low_res"}:
        with torch.no_grad():
            model.network_inputs(1).call(model.net, "meta")


def _start_from(run: str | Path, model: ModelBase, allow: Sequence[str]) -> None:
    weights = load(run, allow=allow).state_dict()
    if (problem := misfit(model.state_dict(), weights)) is not None:
        raise InputError(f"the weights of {run} (init) belong to another network: {problem}")
    model.load_state_dict(weights)


def _amount(examples: Dataset | Stream, heldout: Dataset | None) -> str:
    if isinstance(examples, Stream):
        return f"a stream of examples, a share of {examples.holdout:g} held out,"
    return f"{len(examples):,} training and {len(heldout or ()):,} held-out examples"
