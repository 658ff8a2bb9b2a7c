"""Training on 100,000 pictures, one in a hundred of them corrupt, that are decoded while it trains: files, or
a stream of archives.

The pictures (8×8, RGB, ten classes) are generated into a temporary folder, and the network of the recipe
`digits` trains on them for 2,000 steps: 128,000 examples, so that every picture is read. Printed are the time
from opening the folder to the end of the first step, the resident memory along the way, the share of time
spent waiting for data, and whether each corrupt picture was named once.

    python benchmarks/streaming.py [--files 100000] [--steps 2000] [--folder DIR] [--json FILE]
    python benchmarks/streaming.py --archives 20                     the same pictures in 20 tar files, which
    are only read forwards
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scorefield.data import Dataset, Stream, folder, stream
from scorefield.runs.build import build_model, build_objective, read_recipe
from scorefield.training import train

SHOWN = (100, 500, 1000, 1500, 2000)
CLASSES = 10
BROKEN = 100  # one file of so many


def pictures(count: int) -> Iterator[tuple[str, bytes, bool]]:
    """(CLASS/NAME, content, whether it is cut off in the middle) of `count` pictures of random numbers."""
    rng = np.random.default_rng(0)
    corrupt = set(rng.choice(count, count // BROKEN, replace=False).tolist())
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
            file, format="PNG", compress_level=1
        )
        content = file.getvalue()
        bad = number in corrupt
        yield f"{number % CLASSES}/{number:07d}.png", content[: len(content) // 2] if bad else content, bad


def write_files(root: Path, count: int) -> set[str]:
    """A folder with a subfolder for each class; the names of the corrupt pictures."""
    for label in range(CLASSES):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
    names = set()
    for name, content, bad in pictures(count):
        (root / name).write_bytes(content)
        names |= {name} if bad else set()
    return names


def write_archives(root: Path, count: int, archives: int) -> set[str]:
    """Shards in webdataset's layout; the names of the corrupt pictures."""
    root.mkdir(parents=True, exist_ok=True)
    names, share = set(), -(-count // archives)
    made = pictures(count)
    for shard in range(archives):
        with tarfile.open(root / f"train-{shard:04d}.tar", "w") as archive:
            for _, (path, content, bad) in zip(range(share), made):
                label, name = path.split("/")
                for entry, part in ((name, content), (name.replace("png", "cls"), label.encode())):
                    found = tarfile.TarInfo(entry)
                    found.size = len(part)
                    archive.addfile(found, io.BytesIO(part))
                names |= {name} if bad else set()
    return names


def resident() -> float:
    """MiB of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure(
    opened_by: Callable[[], Dataset | Stream], corrupt: set[str], steps: int, run: Path
) -> dict[str, Any]:
    recipe = read_recipe("digits")
    start = time.perf_counter()
    data = opened_by()
    opened = time.perf_counter() - start
    torch.manual_seed(0)
    model = build_model(recipe, data.spec)
    options = recipe.training.model_dump() | {"steps": steps, "log_every": 1, "checkpoint_every": steps}
    memory = {0: resident()}
    first = began = 0.0
    for step in train(build_objective(recipe, model), data, run=run, **options):
        if step.step == 1:
            began = time.perf_counter()
            first = began - start
        if step.step in SHOWN:
            memory[step.step] = resident()
    seconds = time.perf_counter() - began
    lines = [
        line.split("\t")[0].split(" (")[0] for line in (run / "broken-files.txt").read_text().splitlines()
    ]
    waits = [json.loads(line)["data_wait"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "seconds to open, and look at 64": opened,
        "seconds to the end of step 1": first,
        "seconds a step after it": seconds / max(steps - 1, 1),
        "data-wait share after it": float(np.mean(waits[1:])),
        "MiB of memory at step": {step: round(value, 1) for step, value in memory.items()},
        "corrupt pictures": len(corrupt),
        "lines that name pictures": len(lines),
        "each corrupt picture is named once": sorted(lines) == sorted(corrupt),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--archives", type=int, help="put the pictures into so many tar files, and stream them"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="an empty folder to generate the pictures into; a temporary one if not given",
    )
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = chosen.folder or Path(temporary) / "pictures"
        start = time.perf_counter()
        if chosen.archives:
            corrupt = write_archives(root, chosen.files, chosen.archives)
            opened_by = partial(stream, str(root), classes=CLASSES)
        else:
            corrupt = write_files(root, chosen.files)
            opened_by = partial(folder, root, size=8, on_demand=True)  # type: ignore[arg-type, assignment]
        print(f"generated {chosen.files:,} pictures in {time.perf_counter() - start:.0f} s", flush=True)
        figures = measure(opened_by, corrupt, chosen.steps, Path(temporary) / "run")
    for name, value in figures.items():
        print(f"{name:32} {value if not isinstance(value, float) else f'{value:.4g}'}")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
