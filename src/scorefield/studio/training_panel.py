"""The Training panel: what runs write while they are trained, whoever started them; starting, stopping and resuming."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scorefield.planning import make_plan
from scorefield.runs.build import read_run
from scorefield.runs.recipe import Recipe, read_recipe, recipe_names, with_overrides
from scorefield.runtime.atomic import make_numbered, remove_empty
from scorefield.runtime.bounds import COUNT
from scorefield.runtime.checks import one_of, unwritable
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.parsing import Options, parse, whole_number
from scorefield.runtime.reading import MissingFile, open_file, read_bytes
from scorefield.store.lock import holder_pid
from scorefield.store.run_folder import RunFolder
from scorefield.studio.answers import Refusal, answer, read_object
from scorefield.studio.session import Studio

__all__ = ["StartRequest", "Tail", "read_tail", "routes"]

_LARGEST_METRICS, _LARGEST_PREVIEW = 2**32, 2**26  # bytes
_AT_ONCE = 2**26  # bytes of metrics that one answer reads
_LINES = 4000  # of metrics in one answer
_RECENT = 5  # lines whose speed says how long the rest takes
_BACK = 2**14  # bytes in which the last lines of metrics are
_ENDED_WELL = (0, 75)  # its steps are done, or it was stopped and can go on
_SAID = 2**12  # bytes of the last output of a training


class StartRequest(Options):
    """A training that the page starts."""

    recipe: str = Field(description="one of the package's recipes")
    data: int | None = Field(None, description="a declared source; default: the recipe's own")
    settings: list[str] = Field([], description="values of the recipe, a.b=c each")
    steps: int | None = Field(None, ge=1, le=COUNT)
    minutes: float | None = Field(None, gt=0)
    seed: int | None = Field(None, ge=0)


@dataclass
class _Started:
    """A training that this server started."""

    folder: Path
    process: subprocess.Popen[bytes]
    log: BufferedRandom
    stopped: bool = False  # by the page

    def starting(self, card: Mapping[str, Any]) -> bool:
        """Whether it runs, but does not train yet: it opens its data, or restores a checkpoint."""
        return self.process.poll() is None and not self.stopped and card["state"] == "stopped"

    def failed(self) -> str | None:
        """The last line of a training that has failed."""
        status = self.process.poll()
        return None if status in (None, *_ENDED_WELL) else (self.said() or [f"status {status}"])[-1]

    def said(self) -> list[str]:
        """The last lines of its output."""
        size = os.fstat(self.log.fileno()).st_size
        text = os.pread(self.log.fileno(), _SAID, max(0, size - _SAID)).decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()][-10:]


@dataclass
class _Trainings:
    """The trainings that this server started, the oldest first."""

    studio: Studio
    started: list[_Started] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, words: Sequence[str], folder: Path) -> None:
        """Run the command in a process of its own, which goes on when this server ends.

        Args:
            words: After `scorefield`.
            folder: The run that it writes.
        """
        log = tempfile.TemporaryFile()  # noqa: SIM115  (read for as long as the training is shown)
        process = subprocess.Popen(
            [sys.executable, "-m", "scorefield", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
        with self.lock:
            self.started.append(_Started(folder, process, log))

    def of(self, folder: Path) -> _Started | None:
        """The last training of a folder that was started here."""
        with self.lock:
            return next((one for one in reversed(self.started) if one.folder == folder), None)

    def without_run(self) -> list[dict[str, Any]]:
        """Those whose run is not there yet, or never came."""
        found = []
        with self.lock:
            several = list(self.started)
        for one in several:
            if RunFolder(one.folder).config.is_file():
                continue
            status = one.process.poll()
            if status is not None:
                remove_empty(one.folder)
            found.append({"name": one.folder.name, "said": one.said(), "status": status})
        return found


@dataclass(frozen=True)
class Tail:
    """New lines of metrics.jsonl.

    Attributes:
        at: Where the next ones begin.
        restarted: Whether these are all lines from the first one on, because earlier ones were dropped or none were known.
        lines: One table a line.
        before: The line before the first of them, {} where there is none.
    """

    at: str
    restarted: bool
    lines: list[dict[str, Any]]
    before: dict[str, Any] = field(default_factory=dict)


def read_tail(metrics: Path, at: str = "") -> Tail:
    """The whole lines of metrics.jsonl after a place.

    A roll-back or a resumed training writes the file anew; then all of it is read again.

    Args:
        metrics: The file.
        at: What the last call gave as `Tail.at`. Default: from the beginning.

    Raises:
        InputError: Where it is no file, or cannot be read.
    """
    known, _, place = at.partition(":")
    offset = whole_number(place) or 0
    try:
        with open_file(metrics, "the metrics of a run", _LARGEST_METRICS, follow=False) as file:
            found = os.fstat(file.fileno())
            restarted = known != str(found.st_ino) or not 0 < offset <= found.st_size
            offset = 0 if restarted else offset
            earlier = _last_tables(file, offset, 1)
            file.seek(offset)
            content = file.read(_AT_ONCE)
    except MissingFile:
        return Tail("", True, [])
    content = content[: content.rfind(b"\n") + 1]
    before = earlier[0] if earlier else {}
    return Tail(f"{found.st_ino}:{offset + len(content)}", restarted, _tables(content), before)


def _last_tables(file: BufferedReader, end: int, count: int) -> list[dict[str, Any]]:
    """The last whole lines before a place of an open file."""
    start = max(0, end - _BACK)
    file.seek(start)
    content = file.read(end - start)
    return _tables(content[: content.rfind(b"\n") + 1])[-count:]


def _tables(content: bytes) -> list[dict[str, Any]]:
    return [one for one in map(_table, content.split(b"\n")) if one is not None]


def _table(line: bytes) -> dict[str, Any] | None:
    """A line of metrics with a step; None for anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fits = isinstance(found, dict) and isinstance(found.get("step"), int)
    return {str(k): v for k, v in found.items() if isinstance(v, int | float)} if fits else None


def watched(studio: Studio, trainings: _Trainings, number: int, at: str) -> dict[str, Any]:
    """What has come of a training since the page last asked.

    Args:
        studio: The server's state.
        trainings: Those started here.
        number: Of the run.
        at: What the last answer gave as "at".
    """
    card, path = studio.catalogue.card(number), studio.catalogue.path(number)
    folder, tail = RunFolder(path), read_tail(RunFolder(path).metrics, at)
    every = -(-len(tail.lines) // _LINES) or 1
    lines = [line for k, line in enumerate(tail.lines, start=1) if k % every == 0 or k == len(tail.lines)]
    names = dict.fromkeys(name for line in lines for name in line)
    own = trainings.of(path)
    return {
        "run": card,
        "at": tail.at,
        "restarted": tail.restarted,
        "every": every,
        "columns": {name: [line.get(name) for line in lines] for name in names},
        "marks": _marks(tail.lines, tail.before),
        "previews": _steps(folder.samples, ".png"),
        "checkpoints": _steps(folder.checkpoints, ""),
        "left": _left(folder, card),
        "said": None if own is None else own.said(),
        "status": None if own is None else own.process.poll(),
    }


def _marks(lines: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where steps were skipped, and where training goes on after a roll-back.

    Args:
        lines: Of metrics.jsonl.
        last: The line before them.
    """
    found: list[dict[str, Any]] = []
    before = {"skipped": last.get("skipped", 0), "lr_factor": last.get("lr_factor", 1)}
    for line in lines:
        if line.get("skipped", 0) > before["skipped"]:
            found.append(
                {"step": line["step"], "kind": "skipped", "count": line["skipped"] - before["skipped"]}
            )
        if line.get("lr_factor", 1) < before["lr_factor"]:
            found.append({"step": line["step"], "kind": "rolled back", "lr_factor": line["lr_factor"]})
        before = {name: line.get(name, value) for name, value in before.items()}
    return found


def _steps(folder: Path, suffix: str) -> list[int]:
    """The N of step-N in a folder, ascending."""
    names = [path.name for path in folder.glob(f"step-*{suffix}")]
    numbers = [whole_number(name.removeprefix("step-").removesuffix(suffix)) for name in names]
    return sorted(number for number in numbers if number is not None)


def _left(folder: RunFolder, card: Mapping[str, Any]) -> dict[str, Any] | None:
    """Seconds that the rest of a training takes at the speed of its last lines; None where none is under way."""
    if card["state"] != "training":
        return None
    lines = _last_lines(folder.metrics)
    rates = [line["examples_per_second"] for line in lines if line.get("examples_per_second", 0) > 0]
    if not rates:
        return None
    batch = read_run(folder.path)[0].training.batch_size
    rate, step = sum(rates) / len(rates), lines[-1]["step"]
    return {
        "step": step,
        "seconds": max(0, card["steps"] - step) * batch / rate,
        "examples_per_second": rate,
    }


def _last_lines(metrics: Path) -> list[dict[str, Any]]:
    """The last few lines of metrics.jsonl."""
    try:
        with open_file(metrics, "the metrics of a run", _LARGEST_METRICS, follow=False) as file:
            return _last_tables(file, os.fstat(file.fileno()).st_size, _RECENT)
    except InputError:
        return []


# Starting, stopping, resuming


def read_start(studio: Studio, values: Mapping[str, Any]) -> tuple[Recipe, list[str]]:
    """The recipe to train, and the words that say so after `scorefield train`, but for the run.

    Args:
        studio: The server's state, with the declared data.
        values: A `StartRequest`, as the page sent it.

    Raises:
        InputError: For what cannot be trained so.
    """
    asked = parse(StartRequest, values)
    one_of("recipe", asked.recipe, recipe_names())
    recipe, words = read_recipe(asked.recipe), [asked.recipe]
    for setting in asked.settings:
        if setting.partition("=")[0].strip() in ("data", "data.source"):
            raise InputError("the data is chosen among those declared at start: remove data.source")
        words += ["--set", setting]
    if asked.data is not None:
        names = studio.data_names
        if not 0 <= asked.data < len(names):
            raise InputError(f"data is one of 0 … {len(names) - 1}: {', '.join(names)}")
        words += ["--data", names[asked.data]]
    given: dict[str, Any] = {"training.steps": asked.steps, "training.seed": asked.seed}
    given |= {} if asked.data is None else {"data.source": studio.data_names[asked.data]}
    chosen = with_overrides(recipe, asked.settings)
    chosen = with_overrides(chosen, {name: value for name, value in given.items() if value is not None})
    for name, value in (("steps", asked.steps), ("minutes", asked.minutes), ("seed", asked.seed)):
        words += [] if value is None else [f"--{name}", f"{value:g}" if name == "minutes" else str(value)]
    return chosen, words


def planned(studio: Studio, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a training would take on this machine, measured by a few steps.

    Args:
        studio: The server's state.
        values: As of `read_start`.
    """
    nothing: dict[str, Any] = {"rows": [], "memory": None, "seconds": None, "steps": None, "command": None}
    try:
        recipe, words = read_start(studio, values)
        key = json.dumps(recipe.model_dump(), sort_keys=True, default=str)
        plan = studio.recall("plan", key, lambda: _measured(studio, recipe), most=20)
    except ScorefieldError as error:
        return {**nothing, "refused": str(error)}
    return {
        "rows": plan.rows(),
        "memory": plan.plain,
        "seconds": None if plan.seconds is None else plan.seconds * plan.steps,
        "steps": plan.steps,
        "command": shlex.join(["scorefield", "train", *words]),
        "refused": None,
    }


def _measured(studio: Studio, recipe: Recipe) -> Any:
    with studio.jobs.device:
        return make_plan(recipe.sized())


def start(studio: Studio, trainings: _Trainings, values: Mapping[str, Any]) -> dict[str, Any]:
    """Start a training in a new run of the first root.

    Args:
        studio: The server's state.
        trainings: Those started here.
        values: As of `read_start`.

    Raises:
        InputError: For what cannot be trained so, and where no run can be made.
    """
    recipe, words = read_start(studio, values)
    root = studio.catalogue.root
    if root is None:
        raise InputError("every root of this page is a run itself: start it with a folder for new runs")
    try:
        folder = make_numbered(root / recipe.name)
    except OSError as error:
        raise unwritable(root, error, "start the page with another folder") from None
    words = ["train", *words, "--run", str(folder)]
    trainings.start(words, folder)
    return {"name": folder.name, "command": shlex.join(["scorefield", *words])}


def resume(studio: Studio, trainings: _Trainings, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Go on with a run that has stopped.

    Args:
        studio: The server's state.
        trainings: Those started here.
        number: Of the run.
        values: {"steps": the new total} or nothing.

    Raises:
        InputError: For a run that is being trained, that is done, or that cannot be read.
    """
    card, path = studio.catalogue.card(number), studio.catalogue.path(number)
    if card["state"] in ("training", "unreadable"):
        raise InputError(card["problem"] or f"{card['name']} is being trained already")
    own = trainings.of(path)
    if own is not None and own.starting(card):
        raise InputError(f"{card['name']} is being started already")
    steps = values.get("steps")
    if set(values) - {"steps"} or not (steps is None or (isinstance(steps, int) and 1 <= steps <= COUNT)):
        raise InputError("a resumed run takes steps alone, the new total")
    if steps is None and card["state"] == "done":
        raise InputError(
            f"{card['name']} has done its {card['steps']:,} steps: give a larger number of steps"
        )
    words = ["train", card["recipe"], "--run", str(path), "--resume"]
    words += [] if steps is None else ["--steps", str(steps)]
    trainings.start(words, path)
    return {"name": card["name"], "command": shlex.join(["scorefield", *words])}


def stop(studio: Studio, trainings: _Trainings, number: int) -> dict[str, Any]:
    """Ask a training to finish its step, save and end, whoever started it.

    Args:
        studio: The server's state.
        trainings: Those started here.
        number: Of the run.

    Raises:
        InputError: Where it is not being trained on this machine.
    """
    path = studio.catalogue.path(number)
    own = trainings.of(path)
    if own is not None and own.process.poll() is None:
        own.stopped = True
        own.process.terminate()
        return {}
    pid = holder_pid(RunFolder(path).lock)
    if pid is None or pid <= 0:
        raise InputError(f"{path.name} is not being trained by a process of this machine")
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        raise InputError(
            f"process {pid}, which trains {path.name}, cannot be stopped ({error.strerror})"
        ) from None
    return {}


def routes(studio: Studio) -> list[Route]:
    """The panel's routes."""
    trainings = _Trainings(studio)

    async def every(request: Request) -> Response:
        return answer(await studio.aside(_every, studio, trainings))

    async def one(request: Request) -> Response:
        number, at = request.path_params["run"], request.query_params.get("at", "")
        return answer(await studio.aside(watched, studio, trainings, number, at))

    async def preview(request: Request) -> Response:
        folder = RunFolder(studio.catalogue.path(request.path_params["run"]))
        file = folder.samples / f"step-{request.path_params['step']:08d}.png"
        try:
            content = await studio.aside(read_bytes, file, "a preview", _LARGEST_PREVIEW, follow=False)
        except MissingFile:
            raise Refusal(404, f"there is no preview of step {request.path_params['step']}") from None
        return Response(content, media_type="image/png")

    async def plan(request: Request) -> Response:
        studio.check_writes()
        return answer(await studio.aside(planned, studio, await read_object(request)))

    async def begin(request: Request) -> Response:
        studio.check_writes()
        return answer(await studio.aside(start, studio, trainings, await read_object(request)))

    async def go_on(request: Request) -> Response:
        studio.check_writes()
        values = await read_object(request)
        return answer(await studio.aside(resume, studio, trainings, request.path_params["run"], values))

    async def end(request: Request) -> Response:
        studio.check_writes()
        return answer(await studio.aside(stop, studio, trainings, request.path_params["run"]))

    return [
        Route("/api/training", every, methods=["GET"]),
        Route("/api/training", begin, methods=["POST"]),
        Route("/api/training/plan", plan, methods=["POST"]),
        Route("/api/training/{run:int}", one),
        Route("/api/training/{run:int}/preview/{step:int}", preview),
        Route("/api/training/{run:int}/resume", go_on, methods=["POST"]),
        Route("/api/training/{run:int}/stop", end, methods=["POST"]),
    ]


def _every(studio: Studio, trainings: _Trainings) -> dict[str, Any]:
    """All runs with how their training stands, and trainings without a run yet."""
    return {
        "runs": [_standing(studio, trainings, card) for card in studio.catalogue.cards()],
        "starting": trainings.without_run(),
    }


def _standing(studio: Studio, trainings: _Trainings, card: Mapping[str, Any]) -> dict[str, Any]:
    """A run's card with what is left of a training under way, and whether one that was started here is starting or has failed."""
    path = studio.catalogue.path(card["id"])
    own = trainings.of(path)
    return {
        **card,
        "left": _left(RunFolder(path), card),
        "starting": own is not None and own.starting(card),
        "failed": None if own is None else own.failed(),
    }
