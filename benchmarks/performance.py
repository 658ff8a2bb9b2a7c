"""How fast training and sampling are, beside other libraries and the plain formulas, and where the time and
the memory go.

network: images/s of a training step and of a denoising step, at equal FLOPs, and how near they come to the
    time that the convolutions alone take; memory: of training; startup: of the library and its command;
    trainer, sampler: the share of a step that is not the network's; profile: where a training step's time
    goes; scaling: with batch, image size and width; demo: the commands of `make demo`, once; attention:
the library's, beside torch's fused kernel.

Everything that is compared is timed in turn, A B A B …; a figure is the median over rounds, a ratio the
median of the rounds' ratios.

    python benchmarks/performance.py network memory startup trainer sampler [--cases adm digits mnist]
    [--rounds 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from ceiling import ALONE, Convolutions
from contestants import CASES, OURS, PLAIN, Case, Contestant, contestants, left_out, make, side_by_side
from shares import profile, sampler, trainer

from scorefield.nets import fused
from scorefield.nets.attention import attention as our_attention

Row = dict[str, Any]
SWEEPS = {"batch": (1, 4, 16, 64), "side": (16, 32, 64), "channels": (32, 64, 128)}
MEMORY_OF = (OURS, PLAIN, "diffusers", "diffusers, tuned")


# network, memory and scaling


def network(options: argparse.Namespace) -> list[Row]:
    rows = []
    for name in options.cases:
        entrants = [*contestants(CASES[name]), Convolutions(CASES[name])]
        for action in ("train", "denoise"):
            times = side_by_side(
                {one.name: getattr(one, action) for one in entrants},  # type: ignore[attr-defined]
                options.rounds,
                options.seconds,  # type: ignore[attr-defined]
            )
            rows += [
                _network_row(CASES[name], one, part, times)  # type: ignore[arg-type]
                for part in times[OURS]
                for one in entrants
                if part in times[one.name]  # type: ignore[attr-defined]
            ]
    return rows


def _network_row(
    case: Case, one: Contestant | Convolutions, part: str, times: Mapping[str, Mapping[str, list[float]]]
) -> Row:
    batch = case.denoise_batch if part == "denoising" else case.batch
    own, rate = times[one.name][part], one.flops[part] * batch / 1e9
    seconds = statistics.median(own)
    return {
        "case": case.name,
        "step": part,
        "of": one.name,
        "MFLOP/image": one.flops[part] / 1e6,
        "ms": 1e3 * seconds,
        "images/s": batch / seconds,
        "GFLOP/s": rate / seconds,
        "scorefield is faster by": _ratio(own, times[OURS][part]),
        "rounds (ms)": [1e3 * value for value in own],
    }


def _ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def roofline(rows: list[Row]) -> Iterator[str]:
    """Achieved GFLOP/s of the whole network over those of its convolutions alone; and who is missing."""
    if left_out():
        yield f"left out, not installed: {'; '.join(left_out())}"
    for whole in rows:
        for alone in rows:
            if (
                whole["of"] == OURS
                and alone["of"] == ALONE
                and all(whole[key] == alone[key] for key in ("case", "step"))
            ):
                yield (
                    f"roofline, {whole['case']}, {whole['step']}: {whole['GFLOP/s']:,.0f} GFLOP/s over {alone['GFLOP/s']:,.0f} of its "
                    f"convolutions alone = {100 * whole['GFLOP/s'] / alone['GFLOP/s']:.0f} %; they would take "
                    f"{100 * alone['ms'] / whole['ms']:.0f} % of the time"
                )


def memory(options: argparse.Namespace) -> list[Row]:
    rows = []
    for case in options.cases:
        for name in MEMORY_OF:
            above, in_all = _child(options, "--child", name, case)
            rows.append(
                {
                    "case": case,
                    "of": name,
                    "batch": CASES[case].batch,
                    "MiB above imports": above,
                    "MiB in all": in_all,
                }
            )
    return rows


def _child(options: argparse.Namespace, *arguments: str) -> list[float]:
    """The numbers that this script prints in a process of its own."""
    command = [sys.executable, __file__, "memory", "--threads", str(options.threads), *arguments]
    command += ["--keep-memory"] if options.keep_memory else []
    return [
        float(word)
        for word in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    ]


def print_peak(name: str, case: Case) -> None:
    """By Linux's account: peak resident MiB of three training steps above what the process has before, and in
    all. A tiny network goes first, so that lazy imports and compiled loops do not count.
    """
    make(name, case.of_size(2, side=8)).train()
    gc.collect()
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")  # the peak starts afresh
    before = _status("VmRSS")
    one = make(name, case)
    for _ in range(3):
        one.train()
    peak = _status("VmHWM")
    print(peak - before, peak)


def _status(what: str) -> float:
    """MiB."""
    return int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0]) / 1024


def scaling(options: argparse.Namespace) -> list[Row]:
    """In batches of 8 where the batch is not what changes."""
    rows = []
    for what, values in SWEEPS.items():
        for value in values:
            case = CASES["adm"].of_size(**{"batch": 8, what: value})
            pair = [make(name, case) for name in (OURS, PLAIN)]
            for action, part in (("train", "training"), ("denoise", "denoising")):
                times = side_by_side(
                    {one.name: getattr(one, action) for one in pair}, options.rounds, options.seconds
                )
                row = _network_row(case, pair[0], part, times)
                over = _ratio(times[PLAIN][part], times[OURS][part])
                shown = {key: row[key] for key in ("step", "images/s", "GFLOP/s")}
                rows.append({what: value, **shown, "over the plain formulas": over})
    return rows


# startup


def startup(options: argparse.Namespace) -> list[Row]:
    """Medians of fresh processes, in turn."""
    whole = {
        "python -c pass": ["-c", "pass"],
        "import torch": ["-c", "import torch"],
        "scorefield --help": ["-m", "scorefield", "--help"],
    }
    names = "[getattr(scorefield, name) for name in scorefield.__all__]"
    inside = {"import scorefield, on top of torch": "pass", "and every public name of it": names}
    times: dict[str, list[float]] = {name: [] for name in (*whole, *inside)}
    for _ in range(max(5, options.rounds)):
        for name, arguments in whole.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
        for name, code in inside.items():
            timed = f"import time, torch; start = time.perf_counter(); import scorefield; {code}; print(time.perf_counter() - start)"
            done = subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True, text=True)
            times[name].append(float(done.stdout))
    return [
        {"of": name, "s": statistics.median(values), "rounds (s)": values} for name, values in times.items()
    ]


# attention


def attention(options: argparse.Namespace) -> list[Row]:
    """Of 64 examples of two heads of 64 channels, forward, and forward with backward."""
    fused.switch(True)
    ways = {"scorefield": our_attention, "torch, fused": F.scaled_dot_product_attention}
    rows = []
    for dtype, length in itertools.product((torch.bfloat16, torch.float32), (16, 64, 256)):
        q, k, v, upstream = torch.randn(4, 64, 2, length, 64).to(dtype).unbind()
        inputs = [part.requires_grad_() for part in (q, k, v)]
        for step in ("forward", "with backward"):
            calls = {
                name: partial(_attended, way, inputs, None if step == "forward" else upstream)  # type: ignore[arg-type]
                for name, way in ways.items()
            }
            times = {
                name: found["all"]
                for name, found in side_by_side(calls, options.rounds, options.seconds).items()
            }
            row = {"dtype": str(dtype).removeprefix("torch."), "positions": length, "step": step}
            row |= {f"{name}, ms": 1e3 * statistics.median(found) for name, found in times.items()}
            rows.append(
                {**row, "scorefield is faster by": _ratio(times["torch, fused"], times["scorefield"])}
            )
    return rows


def _attended(
    way: Callable[..., torch.Tensor], inputs: list[torch.Tensor], upstream: torch.Tensor | None
) -> dict[str, float]:
    """Seconds, with the gradients of this gradient if there is one."""
    start = time.perf_counter()
    with torch.set_grad_enabled(upstream is not None):
        out = way(*inputs)
    if upstream is not None:
        torch.autograd.grad(out, inputs, upstream)
    return {"all": time.perf_counter() - start}


# demo


def demo(options: argparse.Namespace) -> list[Row]:
    """Seconds and peak memory of each command, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        run, command = f"{folder}/run", [sys.executable, "-m", "scorefield"]
        paint = str(Path(__file__).parent.parent / "examples" / "paint_a_hat.py")
        shown = ["--out", f"{folder}/portraits.png", "--trajectory", f"{folder}/denoising.gif"]
        ends = ["1", "2", "--frames", "16", "--label", "glasses"]
        judged = ["--metrics", "fd,copies,palette", "--features", "classifier", "-n", "500", "--sets", "1"]
        commands = {
            "train": [*command, "train", "portraits", "--run", run],
            "sample": [*command, "sample", run, "-n", "40", "--guidance", "1.5", *shown],
            "interpolate": [*command, "interpolate", run, *ends, "--out", f"{folder}/walk.gif"],
            "paint": [sys.executable, paint, run, "--out", f"{folder}/hats.png"],
            "evaluate": [*command, "evaluate", run, *judged],
        }
        rows = []
        for name, arguments in commands.items():
            start = time.perf_counter()
            with subprocess.Popen(
                arguments,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as child:
                printed, complaint = child.communicate()
            if child.returncode:
                raise SystemExit(complaint.decode())
            rows.append({"of": f"scorefield {name}", "s": time.perf_counter() - start})
            print(printed.decode(), end="", flush=True)
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        return [
            *rows,
            {"of": "in all", "s": sum(row["s"] for row in rows)},
            {"of": "the largest process", "MiB": largest},
        ]


# The command


def machine(options: argparse.Namespace) -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    probes = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    units = [name for name, probe in probes.items() if getattr(torch.cpu, probe, bool)()]
    allocator = [
        f"{name}={value}" for name, value in os.environ.items() if name.startswith(("MALLOC_", "LD_PRELOAD"))
    ]
    return ", ".join(
        [
            names[0] if names else platform.processor() or platform.machine(),
            f"{os.cpu_count()} cores",
            f"{options.threads} threads",
            f"bf16 units: {' and '.join(units) or 'none'}",
            f"torch {torch.__version__}",
            f"compiled loops: {'yes' if fused.available() else 'no'}",
            *(["freed memory kept"] if options.keep_memory else []),
            *allocator,
        ]
    )


def table(rows: list[Row]) -> str:
    """Lists are for the JSON only. A new table begins where the columns change."""
    shown = [{key: _text(value) for key, value in row.items() if not isinstance(value, list)} for row in rows]
    lines: list[str] = []
    for i, row in enumerate(shown):
        alike = [other for other in shown if other.keys() == row.keys()]
        widths = {key: max(len(key), *(len(other[key]) for other in alike)) for key in row}
        if i == 0 or shown[i - 1].keys() != row.keys():
            lines += ["", "  ".join(key.ljust(width) for key, width in widths.items())]
        lines.append("  ".join(row[key].ljust(width) for key, width in widths.items()))
    return "\n".join(lines)


def _text(value: Any) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


PARTS = {
    part.__name__: part
    for part in (network, memory, startup, trainer, sampler, profile, scaling, attention, demo)
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES)
    )
    parser.add_argument("--rounds", type=int, default=7, help="of everything that is compared")
    parser.add_argument("--seconds", type=float, default=0.3, help="at least so long a round and contestant")
    parser.add_argument("--steps", type=int, default=20, help="of `trainer` and `sampler`")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="the allocator as the command sets it up, for every contestant",
    )
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.keep_memory:
        from scorefield.cli.malloc import keep_memory

        keep_memory()
    if options.child:
        print_peak(options.child[0], CASES[options.child[1]])
        return
    print(machine(options), flush=True)
    record: Row = {"machine": machine(options)}
    for part in options.parts:
        start = time.perf_counter()
        record[part] = PARTS[part](options)
        lines = [*roofline(record[part])] if part == "network" else []
        print(
            f"\n# {part}",
            table(record[part]),
            *lines,
            f"({time.perf_counter() - start:.0f} s)",
            sep="\n",
            flush=True,
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
