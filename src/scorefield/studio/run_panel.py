"""The Run panel: what a run is, as its files say it."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from torch import nn

from scorefield.core.shapes import are_images
from scorefield.planning.facts import info_facts, info_rows
from scorefield.process import GaussianProcess
from scorefield.runs.build import meta_model
from scorefield.runs.run import Run
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.reading import MissingFile, open_file, read_text
from scorefield.runtime.weights import SHOWN
from scorefield.studio.answers import answer
from scorefield.studio.session import Studio

__all__ = ["describe", "routes"]

_POINTS = 200  # of the process's curve
_LISTED = 100  # unreadable files, and evaluations
_LARGEST = 2**26  # bytes of a file of results


def describe(studio: Studio, number: int) -> dict[str, Any]:
    """Everything that the panel shows of a run.

    Args:
        studio: The server's state.
        number: Of the run.

    Raises:
        InputError: For a run that cannot be read.
    """
    card, run = studio.catalogue.card(number), studio.catalogue.run(number)
    if card["problem"] is not None:
        raise InputError(card["problem"])
    recipe, spec = run.recipe, run.data_spec
    model = meta_model(recipe, spec)
    return {
        **card,
        "path": str(run.path),
        "title": recipe.title,
        "paper": recipe.paper,
        "rows": info_rows(info_facts(str(run.path))),
        "blocks": _blocks(model.net),
        "process": _curve(model.process),
        "data": _data(run),
        "evaluations": _evaluations(run.path / "evaluation" / "results.jsonl"),
        "config": read_text(run.folder.config, "the description of a run"),
        "weights": _weights(run),
        "commands": _commands(run, card),
    }


def _blocks(net: object) -> list[dict[str, Any]]:
    """Parameters of each part of a network, in its order; of a list of parts those of each."""
    if not isinstance(net, nn.Module):
        return []
    found: Counter[str] = Counter()
    for name, parameter in net.named_parameters():
        first, *others = name.split(".")
        found[f"{first}.{others[0]}" if others and others[0].isdecimal() else first] += parameter.numel()
    return [{"name": name, "parameters": count} for name, count in found.items()]


def _curve(process: object) -> dict[str, Any] | None:
    """α, σ and ln(σ/α) by t of a process of Gaussian noise; None of any other."""
    if not isinstance(process, GaussianProcess):
        return None
    first, last = float(process.t_min), float(process.T)
    times = torch.linspace(first, last, _POINTS, dtype=torch.float64)
    times = times.round().unique() if process.is_discrete else times
    times = times[process.level(times).alpha > 0]  # JSON has no infinite ratio
    level = process.level(times)
    return {
        "t": times.tolist(),
        "alpha": level.alpha.tolist(),
        "sigma": level.sigma.tolist(),
        "log_ratio": level.ratio.log().tolist(),
    }


def _data(run: Run) -> dict[str, Any]:
    """What the run was trained on."""
    spec, seen, options = run.data_spec, run.recipe.trained_on, run.recipe.data
    counts = () if seen is None else seen.counts
    return {
        "source": options.source if seen is None else seen.source,
        "examples": None if seen is None else seen.examples,
        "fingerprint": None if seen is None else seen.fingerprint,
        "shape": list(spec.shape),
        "range": list(spec.range),
        "bins": spec.bins,
        "holdout": options.holdout,
        "classes": [
            {"name": name, "examples": counts[k] if k < len(counts) else None}
            for k, name in enumerate(spec.classes)
        ],
        "unreadable": _unreadable(run.folder.unreadable_files),
    }


def _unreadable(file: Path) -> dict[str, Any]:
    """Files that training could not read: how many, and the first of them with the reason."""
    try:
        lines = read_text(file, "a list of files", _LARGEST, follow=False).splitlines()
    except MissingFile:
        lines = []
    named = [line.partition("\t") for line in lines if line]
    return {
        "count": len(named),
        "files": [{"name": name, "reason": reason} for name, _, reason in named[:_LISTED]],
    }


def _evaluations(file: Path) -> list[dict[str, Any]]:
    """The last lines of results.jsonl, the newest first: figures with what they were measured with."""
    try:
        with open_file(file, "results of an evaluation", _LARGEST, follow=False) as opened:
            lines = opened.read(_LARGEST).splitlines()
    except MissingFile:
        return []
    found: list[dict[str, Any]] = []
    for line in reversed(lines):
        try:
            table = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(table, dict):
            found.append(table)
        if len(found) == _LISTED:
            break
    return found


def _weights(run: Run) -> dict[str, Any]:
    """Size and hash of the weights; the reason where there are none."""
    try:
        size = run.folder.weights.stat().st_size
        return {"bytes": size, "sha256": run.weights_sha256[:SHOWN], "problem": None}
    except (ScorefieldError, OSError) as error:
        return {"bytes": None, "sha256": None, "problem": str(error)}


def _commands(run: Run, card: Mapping[str, Any]) -> list[dict[str, str]]:
    """What to type for more, of what fits this run."""
    path, recipe = shlex.quote(str(run.path)), run.recipe
    found = [("what it is", f"scorefield info {path}"), ("its figures", f"scorefield plot {path}")]
    if card["can"]["sample"] is None:
        found.append(("its samples", f"scorefield sample {path}"))
    if recipe.model.low_res is None:
        found.append(("its metrics", f"scorefield evaluate {path}"))
    if card["state"] == "stopped":
        found.append(("the rest of its training", f"scorefield train {card['recipe']} --run {path} --resume"))
    if are_images(run.data_spec.shape) and not recipe.is_classifier and recipe.process is not None:
        found.append(
            (
                "for diffusers",
                f"scorefield export diffusers {path} {shlex.quote(run.path.name + '-diffusers')}",
            )
        )
    return [{"what": what, "command": command} for what, command in found]


def routes(studio: Studio) -> list[Route]:
    """The panel's route."""

    async def facts(request: Request) -> Response:
        return answer(await studio.aside(describe, studio, request.path_params["run"]))

    return [Route("/api/runs/{run:int}", facts)]
