"""What `scorefield plan` says of memory and time, beside what training takes.

Each recipe trains for some steps in a process of its own, which reports the peak of its resident memory and
the median time of a step. Another process of its own makes the plan. The plan's memory of a process on a CPU
is what Python and the libraries take after a step of two examples, and the tensors that a step needs at a
time; and at least what the plan's own trial of a few steps took. What the count cannot see are the buffers
that a kernel takes within one operation, and the gaps of the C library's heap. To see how much they are, the
same steps run once more with a heap that gives every larger tensor pages of its own (MALLOC_MMAP_THRESHOLD_),
which is slower and leaves no gaps.

    python benchmarks/plan_check.py [--data mnist.npz] [--recipes digits,mnist] [--steps 12] [--precision
    auto] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scorefield.cli.malloc import keep_memory

MIB = 2**20
NO_GAPS = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def peak() -> int:
    """Bytes of the largest resident size that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def train_and_measure(recipe: str, data: str | None, steps: int, precision: str) -> dict[str, float]:
    """In a process that does nothing else."""
    import torch

    from scorefield.runs.build import build_model, build_objective, open_data, read_recipe, with_overrides
    from scorefield.training import train

    changes = [f"training.precision={precision}", f"training.steps={steps}"]
    chosen = with_overrides(
        read_recipe(recipe), changes + ([f"data.source={json.dumps(data)}"] if data else [])
    )
    examples, _ = open_data(chosen.data)
    torch.manual_seed(0)
    objective = build_objective(chosen, build_model(chosen, examples.spec))
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        done = list(
            train(objective, examples, run=Path(folder) / "run", device="cpu", **chosen.training.model_dump())
        )
    seconds = statistics.median(chosen.training.batch_size / step.examples_per_second for step in done[2:])
    return {"before": before, "peak": peak(), "seconds": seconds}


def plan(recipe: str, precision: str) -> dict[str, Any]:
    """In a process that does nothing else."""
    import dataclasses

    from scorefield.planning import make_plan
    from scorefield.runs.build import read_recipe, with_overrides

    if precision == "auto":
        return dataclasses.asdict(make_plan(recipe, device="cpu"))
    import tomli_w

    changed = with_overrides(read_recipe(recipe), [f"training.precision={precision}"]).model_dump(
        exclude_none=True
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{recipe}.toml"
        path.write_text(tomli_w.dumps(changed))
        return dataclasses.asdict(make_plan(str(path), device="cpu"))


def child(what: str, chosen: argparse.Namespace, recipe: str, **environment: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, "--recipes", recipe, "--steps", str(chosen.steps)]
    command += ["--precision", chosen.precision] + (["--data", chosen.data] if chosen.data else [])
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def compare(chosen: argparse.Namespace, recipe: str) -> dict[str, Any]:
    planned = child("plan", chosen, recipe)
    measured, without_gaps = child("train", chosen, recipe), child("train", chosen, recipe, **NO_GAPS)
    tensors = planned["plain"] - planned["process"]
    return {
        "recipe": recipe,
        "precision": planned["precision"],
        "planned MiB": planned["plain"] / MIB,
        "measured MiB": measured["peak"] / MIB,
        "of it before training": measured["before"] / MIB,
        "planned / measured": planned["plain"] / measured["peak"],
        "planned MiB of tensors": tensors / MIB,
        "planned MiB of the process": planned["process"] / MIB,
        "measured MiB without gaps": without_gaps["peak"] / MIB,
        "planned / without gaps": planned["plain"] / without_gaps["peak"],
        "planned s": planned["seconds"],
        "measured s": measured["seconds"],
        "planned / measured s": planned["seconds"] / measured["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", default="digits,mnist")
    parser.add_argument("--data", help="an .npz of MNIST, for the recipe mnist")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--child", choices=["train", "plan"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child and not NO_GAPS.keys() <= os.environ.keys():
        keep_memory()  # as the command does
    if chosen.child == "plan":
        print(json.dumps(plan(chosen.recipes, chosen.precision)))
        return
    if chosen.child == "train":
        data = None if chosen.recipes == "digits" else chosen.data
        print(json.dumps(train_and_measure(chosen.recipes, data, chosen.steps, chosen.precision)))
        return
    rows = []
    for recipe in chosen.recipes.split(","):
        if recipe != "digits" and not chosen.data:
            print(f"{recipe}: left out, it needs --data")
            continue
        rows.append(compare(chosen, recipe))
        for name, value in rows[-1].items():
            print(f"{name:28} {value if isinstance(value, str) else f'{value:.3g}'}", flush=True)
        print(flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
