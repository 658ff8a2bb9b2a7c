"""The runs that the page may use: those found below the folders named at start, each by a number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scorefield.core.shapes import DataSpec, are_images
from scorefield.runs.recipe import Recipe
from scorefield.runs.run import Run
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.store.lock import holder_of
from scorefield.store.run_folder import RunFolder
from scorefield.studio.answers import Refusal

__all__ = ["Catalogue"]

_DEPTH = 2  # folders between a root and a run
_MOST = 1000  # runs
_OPENED = 3  # runs whose models are kept


class _Description(NamedTuple):
    """What config.toml says of a run.

    Attributes:
        recipe: What it was made of.
        spec: What one example is.
        no_latents: Why its images have no latents; None where they have.
    """

    recipe: Recipe
    spec: DataSpec
    no_latents: str | None


class Catalogue:
    """Runs by number. A number is given once and never to another run.

    Args:
        roots: Folders of runs, or runs. A run that is started is made in the first one that is not a run itself.
    """

    def __init__(self, roots: Sequence[str | Path] = ()) -> None:
        self.roots = [Path(root) for root in roots] or [Path("runs")]
        self._paths: list[Path] = []
        self._opened: OrderedDict[int, tuple[object, Run]] = OrderedDict()
        self._described: dict[int, tuple[object, _Description]] = {}
        self._lock = threading.RLock()
        self.rescan()

    @property
    def root(self) -> Path | None:
        """The folder for new runs; None where every root is a run itself."""
        return next((root for root in self.roots if not _is_run(root)), None)

    def rescan(self) -> list[int]:
        """The numbers of the runs that are there now."""
        with self._lock:
            found = list(dict.fromkeys(path for root in self.roots for path in _runs(root, _DEPTH)))[:_MOST]
            known = set(self._paths)
            self._paths += [path for path in found if path not in known]
            there = set(found)
            return [number for number, path in enumerate(self._paths) if path in there]

    def path(self, number: int) -> Path:
        """The folder of a run. Refusal where there is none of this number."""
        with self._lock:
            if 0 <= number < len(self._paths) and _is_run(self._paths[number]):
                return self._paths[number]
        raise Refusal(404, f"there is no run of number {number}")

    def number(self, name: str) -> int | None:
        """The number of the run whose folder has this name, or None."""
        return next((k for k in self.rescan() if self._paths[k].name == name), None)

    def run(self, number: int) -> Run:
        """A run with its model, as its files are now; kept for the next call."""
        path = self.path(number)
        with self._lock:
            version = _version(path)
            if number not in self._opened or self._opened[number][0] != version:
                self._opened[number] = (version, Run(path))
            self._opened.move_to_end(number)
            while len(self._opened) > _OPENED:
                self._opened.popitem(last=False)
            return self._opened[number][1]

    def cards(self) -> list[dict[str, Any]]:
        """What the page shows of every run that is there now."""
        return [self.card(number) for number in self.rescan()]

    def card(self, number: int) -> dict[str, Any]:
        """What the page shows of a run.

        Args:
            number: Its number.
        """
        path = self.path(number)
        known: dict[str, Any] = {"id": number, "name": path.name}
        try:
            recipe, spec, no_latents = self._description(number, path)
        except (InputError, OSError) as error:
            sentence = str(error)
            nothing: dict[str, Any] = {
                "recipe": None,
                "kind": "other",
                "shape": [],
                "classes": None,
                "step": None,
                "steps": None,
            }
            can = dict.fromkeys(("sample", "edit", "field"), sentence)
            return {**known, **nothing, "state": "unreadable", "problem": sentence, "can": can}
        step, steps = Run(path).step, recipe.training.steps
        return {
            **known,
            "recipe": recipe.name,
            "kind": _kind(recipe, spec),
            "shape": _shown_shape(spec),
            "classes": list(spec.classes) or None,
            "step": step,
            "steps": steps,
            "state": _state(path, step, steps),
            "problem": None,
            "can": {
                "sample": _no_samples(path, recipe, spec),
                "edit": no_latents,
                "field": _no_field(recipe, spec),
            },
        }

    def _description(self, number: int, path: Path) -> _Description:
        """What config.toml says, read again where it has changed."""
        version = RunFolder(path).config_version()
        with self._lock:
            if number not in self._described or self._described[number][0] != version:
                run = Run(path)
                described = _Description(run.recipe, run.data_spec, _without_latents(run))
                self._described[number] = (version, described)
            return self._described[number][1]


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    """A folder that is a run, or the runs below it, by name."""
    if _is_run(folder):
        yield folder
        return
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return
    for path in below if depth else []:
        yield from _runs(path, depth - 1)


def _is_run(path: Path) -> bool:
    return RunFolder(path).config.is_file()


def _version(path: Path) -> object:
    """What changes whenever the description or the weights of a run do."""
    folder = RunFolder(path)
    try:
        found = folder.weights.stat()
    except OSError:
        return folder.config_version(), None
    return folder.config_version(), (found.st_ino, found.st_mtime_ns, found.st_size)


def _kind(recipe: Recipe, spec: DataSpec) -> str:
    if recipe.is_classifier:
        return "classifier"
    if are_images(spec.shape):
        return "images"
    return "points" if spec.shape == (2,) else "other"


def _shown_shape(spec: DataSpec) -> list[int]:
    """The shape of an example as frames have it: of images (H, W, C)."""
    if are_images(spec.shape):
        channels, height, width = spec.shape
        return [height, width, channels]
    return list(spec.shape)


def _state(path: Path, step: int | None, steps: int) -> str:
    if holder_of(RunFolder(path).lock) is not None:
        return "training"
    return "stopped" if step is not None and step < steps else "done"


def _no_samples(path: Path, recipe: Recipe, spec: DataSpec) -> str | None:
    """Why the page draws no samples of a run; None where it does."""
    if recipe.is_classifier:
        return "a classifier has no samples: it guides the samples of another run"
    if recipe.model.low_res is not None:
        return (
            f"this run upsamples images of {recipe.model.low_res}×{recipe.model.low_res} pixels: use scorefield sample "
            "RUN with a file of them"
        )
    if _kind(recipe, spec) == "other":
        return f"samples of shape {spec.shape} are not drawn: use scorefield sample RUN"
    if not RunFolder(path).weights.is_file():
        return f"{path.name} has no weights yet: its training has saved no checkpoint"
    return None


def _no_field(recipe: Recipe, spec: DataSpec) -> str | None:
    if recipe.is_classifier or spec.shape != (2,):
        return "the field is drawn of models of points of the plane"
    return None


def _without_latents(run: Run) -> str | None:
    """Why images of a run cannot be edited; None where they can."""
    try:
        run.check_latents()
    except (IncompatibleModel, InputError) as error:
        return str(error)
    return None
