"""Fidelity against diversity on the digits: an unconditional model and a conditional one under guidance, as
measured.

Trains, where they are not there yet, an unconditional model (recipe digits without labels), a conditional one
with 10 % of the labels dropped, and a noisy classifier; all three share the recipe's cosine process. Then
`sf.Run.evaluate` at every scale, 3 × 360 ancestral samples of 40 steps with the labels of the
held-out digits, for

- the unconditional model guided by the classifier,
- the conditional model guided by the classifier,
- the conditional model with classifier-free guidance, where 0 is unconditional and 1 the conditional model as
it is; the same within an interval of σ/α, and rescaled,
- the conditional model with autoguidance by the same network after 300 steps, where 1 is the conditional model as it is.

    python benchmarks/guidance.py [--out runs/guidance] [--picture docs/figures/guidance.png]         resumes
    where it was stopped
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import scorefield as sf

SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 10.0)
RUNS = {
    "unconditional": ["digits", "--set", "model.conditional=false"],
    "conditional": ["digits", "--set", "training.label_dropout=0.1"],
    "classifier": ["digits-classifier"],
    "weaker": ["digits", "--set", "training.label_dropout=0.1", "--steps", "300"],
}
INTERVAL = {"guidance_low": 0.3, "guidance_high": 3.0}
GUIDED: dict[str, tuple[str, str | None, dict[str, float], str]] = {  # run, what guides it, settings, color
    "unconditional, classifier": ("unconditional", "classifier", {}, "#d1495b"),
    "conditional, classifier": ("conditional", "classifier", {}, "#edae49"),
    "conditional, classifier-free": ("conditional", None, {}, "#1b2a41"),
    "conditional, classifier-free, σ/α in (0.3, 3]": ("conditional", None, INTERVAL, "#00798c"),
    "conditional, classifier-free, rescaled by 0.7": (
        "conditional",
        None,
        {"guidance_rescale": 0.7},
        "#8d6a9f",
    ),
    "conditional, autoguidance": ("conditional", "weaker", {}, "#5a9e6f"),
}
COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "frechet": "Fréchet distance",
    "agreement": "class agreement",
}


def command(*arguments: Any) -> None:
    """Run `scorefield ARGUMENTS`; the end of this program if it fails."""
    done = subprocess.run([sys.executable, "-m", "scorefield", *map(str, arguments)])
    if done.returncode:
        raise SystemExit(done.returncode)


def measure(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The figures at every scale, by the name of the guidance."""
    for name, arguments in RUNS.items():
        if not (out / name / "model.safetensors").exists():
            command("train", *arguments, "--run", out / name, "--device", "cpu")
    found = {}
    for label, (run, guide, settings, _) in GUIDED.items():
        scales = sf.Run(out / run).evaluate(
            "fd,pr",
            guidance=SCALES,
            classifier=out / guide if guide == "classifier" else None,
            autoguidance=out / guide if guide == "weaker" else None,
            settings=settings,
            device="cpu",
        )
        found[label] = [{"scale": scale, **one.as_dict()} for scale, one in zip(SCALES, scales, strict=True)]
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> None:
    print("| guidance | scale | " + " | ".join(COLUMNS.values()) + " |")
    print("|---" * (2 + len(COLUMNS)) + "|")
    for label, scales in found.items():
        for row in scales:
            print(
                f"| {label} | {row['scale']:g} | "
                + " | ".join(_cell(row["figures"][name]) for name in COLUMNS)
                + " |"
            )
    first = next(iter(found.values()))[0]["figures"]
    print("| held-out images | | " + " | ".join(_text(first[name], "heldout") for name in COLUMNS) + " |")


def _cell(figure: dict[str, Any]) -> str:
    return _text(figure, "value") + (f" ± {_text(figure, 'error')}" if "error" in figure else "")


def _text(figure: dict[str, Any], key: str) -> str:
    return f"{figure[key]:.1%}" if figure.get("unit") == "%" else f"{figure[key]:.2f}"


def draw(found: dict[str, list[dict[str, Any]]], picture: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from scorefield.plots.style import plot_style, save_figure

    with plot_style():
        figure = Figure(figsize=(10, 3.8), layout="compressed")
        left, middle, right = figure.subplots(1, 3)
        for label, scales in found.items():
            color = GUIDED[label][3]
            values = {name: [row["figures"][name]["value"] for row in scales] for name in COLUMNS}
            left.plot(values["recall"], values["precision"], "o-", color=color, markersize=4, label=label)
            for x, y, row in zip(values["recall"], values["precision"], scales, strict=True):
                left.annotate(
                    f"{row['scale']:g}", (x, y), (3, 3), textcoords="offset points", fontsize=7, color=color
                )
            for axes, name in ((middle, "agreement"), (right, "frechet")):
                axes.plot(range(len(scales)), values[name], "o-", color=color, markersize=4)
        first = next(iter(found.values()))[0]["figures"]
        for axes, name in ((middle, "agreement"), (right, "frechet")):
            axes.axhline(first[name]["heldout"], color="0.6", linestyle=":")
            axes.set_xticks(range(len(SCALES)), [f"{scale:g}" for scale in SCALES])
            axes.set(xlabel="scale of the guidance", ylim=(0, None), title=COLUMNS[name])
        left.plot(
            first["recall"]["heldout"],
            first["precision"]["heldout"],
            "*",
            color="0.5",
            markersize=11,
            label="held-out images",
        )
        left.set(xlabel="recall", ylabel="precision", title="fidelity against diversity")
        for axis in (left.xaxis, left.yaxis, middle.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save_figure(figure, picture)
    print(f"\nwrote {picture}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/guidance"))
    parser.add_argument("--picture", type=Path, default=Path("docs/figures/guidance.png"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = measure(arguments.out)
    table(found)
    draw(found, arguments.picture)


if __name__ == "__main__":
    main()
