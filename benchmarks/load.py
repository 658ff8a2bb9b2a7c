"""Memory, threads and open files under load: 100,000 samples streamed to a file, 3,000 steps of training with its
checkpoints, and one pass over 200,000 picture files. Each must stay flat.

A thread reads /proc (Linux) ten times a second; the table has ten moments of each load, after a tenth of its time that
counts as warming up. The exit status is 1 where memory grew by more than 5 % and 20 MiB from the median of the second fifth
to that of the last one, or threads or open files by more than 2.

    OMP_NUM_THREADS=1 python benchmarks/load.py [samples] [steps] [files] [--share 1.0] [--folder DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from streaming import write_files
from torch import Tensor, nn

import scorefield as sf
from scorefield.data import folder

SAMPLES, STEPS, FILES = 100_000, 3_000, 200_000
ROWS, SHARE, SLACK = 10, 0.05, 20 * 2**20


@dataclass(frozen=True)
class Moment:
    """What the process holds. bytes: its resident memory.   descriptors: open files, sockets and pipes."""

    seconds: float
    bytes: int
    threads: int
    descriptors: int


@dataclass
class Watch:
    """Reads what this process holds ten times a second, while a block runs."""

    moments: list[Moment] = field(default_factory=list)

    def __enter__(self) -> Watch:
        self._start, self._over = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._over.wait(0.1):
            status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.moments.append(
                Moment(
                    time.monotonic() - self._start,
                    int(status["VmRSS"].split()[0]) * 1024,
                    int(status["Threads"]),
                    len(os.listdir("/proc/self/fd")),
                )
            )

    def growth(self, what: Callable[[Moment], float]) -> tuple[float, float]:
        """The medians of the second fifth and of the last one."""
        fifth = max(len(self.moments) // 5, 1)
        parts = self.moments[fifth : 2 * fifth] or self.moments, self.moments[-fifth:]
        early, late = (median(map(what, part)) for part in parts)
        return early, late

    def faults(self) -> list[str]:
        """What grew."""
        found = []
        early, late = self.growth(lambda moment: moment.bytes)
        if late > early * (1 + SHARE) and late > early + SLACK:
            found.append(f"memory grew from {early / 2**20:.0f} to {late / 2**20:.0f} MiB")
        for name in ("threads", "descriptors"):
            early, late = self.growth(lambda moment, name=name: getattr(moment, name))  # type: ignore[misc]
            if late > early + 2:
                found.append(f"{name} grew from {early:.0f} to {late:.0f}")
        return found

    def print(self) -> None:
        print(f"{'seconds':>8} {'MiB':>7} {'threads':>8} {'open files':>11}")
        last = len(self.moments) - 1
        for k in sorted({round(last * row / (ROWS - 1)) for row in range(ROWS)} if last >= 0 else ()):
            moment = self.moments[k]
            print(
                f"{moment.seconds:8.0f} {moment.bytes / 2**20:7.0f} {moment.threads:8} {moment.descriptors:11}"
            )


class Small(nn.Module):
    """A network that costs nothing beside what is done around it: reading, drawing, averaging, saving."""

    config = {"kind": "custom"}

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(size + 1, 32), nn.Linear(32, size)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.first(torch.cat([x.flatten(1), c[:, None] / 100], dim=1))
        return self.last(torch.nn.functional.silu(h)).reshape(x.shape)


def objective(spec: sf.DataSpec) -> sf.objectives.Simple:
    torch.manual_seed(0)
    return sf.objectives.Simple(
        sf.Denoiser(Small(spec.dimensions), sf.process.cosine(100), "v", data=spec), "v"
    )


def points(where: Path) -> sf.Run:
    """A run of points in the plane."""
    model = sf.Denoiser(sf.nets.MLP(2, hidden=16, layers=1), sf.process.cosine(100), "v")
    data = torch.randn(512, 2, generator=torch.Generator().manual_seed(0))
    how = {"sampling": {"sampler": sf.samplers.DDIM(), "steps": 3, "grid": "uniform"}}
    list(
        sf.train(
            sf.objectives.Simple(model), data, steps=2, run=where, batch_size=32, device="cpu", describe=how
        )
    )
    return sf.Run(where)


def samples(where: Path, share: float, watch: Watch) -> str:
    """Samples of a run, a block at a time, into one archive."""
    n, run = round(SAMPLES * share), points(where / "points")
    with watch:
        run.save_samples(where / "samples.npz", n, block=64, device="cpu")
    return f"{n:,} samples into one archive, in blocks of 64"


def steps(where: Path, share: float, watch: Watch) -> str:
    """Training with a checkpoint every 50 steps and a line every 10."""
    count, data = round(STEPS * share), sf.data.digits()
    trainer = sf.train(
        objective(data.spec),
        data,
        steps=count,
        run=where / "trained",
        device="cpu",
        batch_size=16,
        checkpoint_every=50,
        log_every=10,
        flip=True,
        shift=1,
    )
    with watch:
        list(trainer)
    return f"{count:,} steps, with {count // 50} checkpoints"


def files(where: Path, share: float, watch: Watch) -> str:
    """One pass over pictures that are decoded while they are trained on, one in a hundred of them corrupt."""
    count, batch = round(FILES * share), 200
    write_files(where / "pictures", count)
    data = folder(where / "pictures", size=8, on_demand=True)
    trainer = sf.train(objective(data.spec), data, steps=count // batch, batch_size=batch, device="cpu")
    with watch:
        list(trainer)
    return f"{count:,} files, decoded for {count // batch:,} steps of {batch}"


LOADS: dict[str, Callable[[Path, float, Watch], str]] = {"samples": samples, "steps": steps, "files": files}


def main() -> int:
    parser = argparse.ArgumentParser(description="memory, threads and open files under load")
    parser.add_argument("loads", nargs="*", help=f"{', '.join(LOADS)}; all of them without one")
    parser.add_argument("--share", type=float, default=1.0, help="of the load")
    parser.add_argument("--folder", type=Path, default=None, help="where the files go")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    found = {}
    for name in options.loads or LOADS:
        watch = Watch()
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            said = LOADS[name](Path(scratch), options.share, watch)
        print(f"{name}: {said}")
        watch.print()
        faults = watch.faults()
        print("; ".join(faults) or "flat", end="\n\n", flush=True)
        found[name] = {"what": said, "faults": faults, "moments": [vars(moment) for moment in watch.moments]}
    if options.json is not None:
        options.json.write_text(json.dumps(found))
    return int(any(one["faults"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
