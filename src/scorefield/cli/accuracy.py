"""What `scorefield evaluate` shows of a classifier: its accuracy at each noise level, printed and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scorefield.cli.console import print_json, print_line, print_table
from scorefield.evaluation import AccuracyReport, NoisyAccuracy
from scorefield.plots.evaluation_figures import draw_accuracy
from scorefield.plots.style import save_figure
from scorefield.runs.run import Run
from scorefield.runtime.atomic import make_folder
from scorefield.runtime.weights import SHOWN

__all__ = ["report_accuracy"]


def report_accuracy(run: Run, report: AccuracyReport, data: str | None, seed: int, as_json: bool) -> None:
    """The picture, then a table or JSON."""
    target = run.path / "figures" / "accuracy.png"
    make_folder(target.parent)
    save_figure(draw_accuracy(report.parts, run.recipe.name), target)
    if as_json:
        stamp = {
            "run": str(run.path),
            "weights": run.weights_sha256[:SHOWN],
            "data": data or run.recipe.data.source,
        }
        print_json({**stamp, "seed": seed, "figure": str(target), **report.as_dict()})
    else:
        _print(report.parts, target)


def _print(parts: Mapping[str, NoisyAccuracy], target: Path) -> None:
    first = next(iter(parts.values()))
    headers = ["t", "σ/α"]
    columns = [[f"{t:.4g}" for t in first.times], [f"{ratio:.3g}" for ratio in first.ratios]]
    for name, part in parts.items():
        headers += [f"{name}: accuracy", "cross-entropy"]
        columns.append(
            [f"{a:.1%} ± {e:.1%}" for a, e in zip(part.accuracy, part.accuracy_error, strict=True)]
        )
        columns.append(
            [f"{h:.3f} ± {e:.3f}" for h, e in zip(part.cross_entropy, part.cross_entropy_error, strict=True)]
        )
    print_table(headers, zip(*columns, strict=True))
    counts = " and ".join(f"{part.examples:,} {name}" for name, part in parts.items())
    print_line(f"{counts} examples (mean ± standard error); cross-entropy in nats")
    print_line(f"chance level: accuracy {first.chance:.1%}, cross-entropy {first.entropy:.3f}")
    print_line(f"figure: {target}")
