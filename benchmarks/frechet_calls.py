"""Quality against network calls: the Fréchet distance of one trained run under every sampler and budget of
calls, as measured.

Every cell is what `scorefield evaluate RUN --metrics fd` prints, with the labels of the held-out images: sets
of samples with seeds 0, 1, 2, their mean and standard deviation. Heun makes at most 2S − 1 calls in S steps,
so it has the largest odd number within the budget. All walk the uniform grid.

    scorefield train digits --run runs/digits && python benchmarks/frechet_calls.py digits runs/digits
    python benchmarks/frechet_calls.py mnist runs/mnist --data mnist10k.npz -n 500 --most 100

Results are kept in RUN/quality-calls.json, and the samples by evaluate itself: an interrupted table goes on
where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from scorefield.evaluation import EvaluationOptions, EvaluationTarget, evaluate, open_features
from scorefield.runs.build import build_sampling, load, open_data, read_run
from scorefield.runtime.precision import autocast_dtype
from scorefield.runtime.weights import SHOWN, file_sha256

CALLS = (5, 10, 20, 50, 100, 1000)
SAMPLERS: dict[str, tuple[dict[str, Any], str]] = {
    "ancestral": ({"kind": "ancestral", "variance": "lower"}, "#1b2a41"),
    "DDIM, η = 1": ({"kind": "ddim", "eta": 1.0}, "#7a93ac"),
    "DDIM, η = 0.5": ({"kind": "ddim", "eta": 0.5}, "#edae49"),
    "DDIM, η = 0": ({"kind": "ddim", "eta": 0.0}, "#d1495b"),
    "Heun": ({"kind": "heun"}, "#66a182"),
    "DPM-Solver++(2M)": ({"kind": "dpm-solver"}, "#8d4b9f"),
}
ONE_SET = 1000  # calls from which one set is drawn


def steps_of(name: str, calls: int) -> int:
    return (calls + 1) // 2 if name == "Heun" else calls


def measure(run: Path, source: str | None, n: int | None, most: int, also: list[str]) -> dict[str, Any]:
    """{sampler/calls: the Fréchet figure of evaluate, with its sets}."""
    path = run / "quality-calls.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    recipe, _ = read_run(run)
    train, heldout = open_data(
        recipe.data if source is None else recipe.data.model_copy(update={"source": source})
    )
    model, extractor = load(run), open_features(None, train.spec, train)
    model.autocast_dtype = autocast_dtype(recipe.training.precision, model.device)
    weights = {"sha256": file_sha256(run / "model.safetensors")[:SHOWN]}
    for calls in CALLS:
        for name, (sampler, _) in SAMPLERS.items():
            key = f"{name}/{calls}"
            if key in found or (calls > most and name not in also):
                continue
            way = recipe.sampling.model_copy(
                update={"sampler": sampler, "grid": "uniform", "steps": steps_of(name, calls)}
            )
            sampling = build_sampling(way, model)
            subject = EvaluationTarget(sampling, train, heldout, weights, run / "evaluation")
            options = EvaluationOptions(n=n, sets=1 if calls >= ONE_SET else 3)
            result = evaluate(subject, options, extractor=extractor)
            figure = next(figure for figure in result.figures if figure.name == "frechet")
            found[key] = {"value": figure.value, "error": figure.error, "heldout": figure.heldout}
            found[key]["calls"] = figure.stamp["sampling"]["calls"]
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(found))
            partial.rename(path)
            print(key, found[key], flush=True)
    return found


def table(found: dict[str, Any]) -> None:
    columns = [calls for calls in CALLS if any(key.endswith(f"/{calls}") for key in found)]
    print("| sampler | " + " | ".join(f"{calls:,} calls" for calls in columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for name in SAMPLERS:
        print(f"| {name} | " + " | ".join(_cell(found.get(f"{name}/{calls}")) for calls in columns) + " |")
    print(f"\nheld-out images: {next(iter(found.values()))['heldout']:.2f}")


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    return f"{figure['value']:.2f}" + (f" ± {figure['error']:.2f}" if figure["error"] is not None else "")


def draw(found: dict[str, Any], name: str, picture: Path) -> None:
    from matplotlib.figure import Figure

    from scorefield.plots.style import plot_style, save_figure

    with plot_style():
        figure = Figure(figsize=(7, 4.4), layout="compressed")
        axes = figure.subplots()
        for label, (_, color) in SAMPLERS.items():
            cells = [cell for key, cell in found.items() if key.startswith(f"{label}/")]
            calls, values = [cell["calls"] for cell in cells], [cell["value"] for cell in cells]
            axes.errorbar(
                calls,
                values,
                [cell["error"] or 0 for cell in cells],
                fmt="o-",
                color=color,
                markersize=4,
                label=label,
            )
        axes.axhline(
            next(iter(found.values()))["heldout"], color="0.6", linestyle=":", label="held-out images"
        )
        axes.set(xscale="log", yscale="log", xlabel="network calls", ylabel="Fréchet distance")
        ticks = [calls for calls in CALLS if any(key.endswith(f"/{calls}") for key in found)]
        axes.set_xticks(ticks, [f"{calls:,}" for calls in ticks])
        low, high = axes.get_ylim()
        axes.set_yticks(
            shown := [y for y in (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100) if low <= y <= high],
            map(str, shown),
        )
        axes.minorticks_off()
        axes.set_title(f"{name}: quality against network calls")
        axes.legend()
    save_figure(figure, picture)
    print(f"wrote {picture}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the data, for the title and the picture")
    parser.add_argument("run", type=Path)
    parser.add_argument("--data")
    parser.add_argument("-n", type=int)
    parser.add_argument("--most", type=int, default=1000, help="calls, but for ancestral sampling")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.run, arguments.data, arguments.n, arguments.most, ["ancestral"])
    table(found)
    draw(found, arguments.name, arguments.picture or Path(f"docs/figures/calls-{arguments.name}.png"))


if __name__ == "__main__":
    main()
