"""How `scorefield evaluate` shows what it measured: tables with their stamps, JSON, and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure

from scorefield.cli.console import print_json, print_line, print_table, say
from scorefield.evaluation import Evaluation, MetricValue
from scorefield.evaluation.metric_value import grouped, stamp_lines
from scorefield.plots.evaluation_figures import draw_bound, draw_guidance
from scorefield.plots.style import save_figure
from scorefield.runtime.atomic import make_folder

__all__ = ["report", "report_scales"]

# What a table of several scales shows, by the figures' names; JSON has all of them.
_COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "frechet": "Fréchet distance",
    "agreement": "class agreement",
    "kid": "kernel distance",
    "inception_score": "Inception Score",
    "copies": "copies",
    "palette": "palette",
}


def report(run: str, folder: Path, result: Evaluation, as_json: bool) -> None:
    """Warnings, the picture of the bound, then the figures: a table under each stamp, or JSON."""

    _warn(result.warnings)
    bounds = [figure for figure in result.figures if "terms" in figure.parts]
    pictures = {figure.name: _save(draw_bound(figure, run), folder.parent, "bound") for figure in bounds}
    if as_json:
        print_json({"run": run, **result.as_dict(), "pictures": pictures})
    else:
        for figures, stamp in grouped(result.figures):
            _print_table(figures)
            _print_stamp(stamp)
    _say_size(folder)


def report_scales(run: str, folder: Path, results: Mapping[float, Evaluation], as_json: bool) -> None:
    """A table with a row for each scale of the guidance, and the picture; or JSON."""

    _warn(list(dict.fromkeys(text for result in results.values() for text in result.warnings)))
    picture = _save(draw_guidance(results, run), folder.parent, "guidance")
    if as_json:
        scales = [{"scale": scale, **result.as_dict()} for scale, result in results.items()]
        print_json({"run": run, "guidance": scales, "pictures": {"guidance": picture}})
    else:
        found = {
            scale: {figure.name: figure for figure in result.figures} for scale, result in results.items()
        }
        first = next(iter(found.values()))
        names = [name for name in _COLUMNS if name in first]
        rows = [
            (f"{scale:g}", *(_row(figures[name])[1] for name in names)) for scale, figures in found.items()
        ]
        heldout = ("held-out images", *(_row(first[name])[2] for name in names))
        print_table(("scale", *(_COLUMNS[name] for name in names)), [*rows, heldout])
        _explain_errors(list(first.values()))
        scale, result = next(iter(results.items()))
        for _, stamp in grouped(result.figures):
            guidance = str(stamp["sampling"]["guidance"]).replace(f"scale {scale:g}", "scale of the row")
            _print_stamp({**stamp, "sampling": {**stamp["sampling"], "guidance": guidance}})
    _say_size(folder)


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


def _save(drawn: matplotlib.figure.Figure, run: Path, name: str) -> str:
    """The picture as figures/NAME.png of the run's folder."""

    target = run / "figures" / f"{name}.png"
    make_folder(target.parent)
    save_figure(drawn, target)
    say(f"wrote {target}")
    return str(target)


def _say_size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    say(f"{folder} holds {_size(size)} of stored samples and results; it can be deleted")


def _print_table(figures: Sequence[MetricValue]) -> None:
    beside = any(figure.heldout is not None for figure in figures)
    headers = ("", "samples", "held-out images", "ratio") if beside else ("", figures[0].unit)
    print_table(headers, [_row(figure)[: len(headers)] for figure in figures])
    _explain_errors(figures)


def _print_stamp(stamp: Mapping[str, Any]) -> None:
    for line in stamp_lines(stamp):
        print_line(line)


def _explain_errors(figures: Sequence[MetricValue]) -> None:
    for text in dict.fromkeys(figure.error_of for figure in figures if figure.error is not None):
        print_line(f"±: {text}")


def _row(figure: MetricValue) -> tuple[str, str, str, str]:
    if figure.unit == "%":
        show = "{:.1%}".format
        error = "" if figure.error is None else f" ± {100 * figure.error:.1f}"
        return (
            figure.label,
            show(figure.value) + error,
            "" if figure.heldout is None else show(figure.heldout),
            "",
        )
    digits = _digits(figure)
    value, error, heldout = (_number(x, digits) for x in (figure.value, figure.error, figure.heldout))
    return figure.label, value + (f" ± {error}" if error else ""), heldout, _number(figure.ratio, 3)


def _number(x: float | None, digits: int) -> str:
    return "" if x is None else f"{x:.1e}" if 0 < abs(x) < 1e-6 else f"{x:.{digits}f}"


def _digits(figure: MetricValue) -> int:
    """Decimals that show three digits of the smaller of the value and its held-out figure, three at least and
    eight at the most.
    """
    sizes = [abs(x) for x in (figure.value, figure.heldout) if x]
    return min(max(3, 2 - math.floor(math.log10(min(sizes)))), 8) if sizes else 3


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
