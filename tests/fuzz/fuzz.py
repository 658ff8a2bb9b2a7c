"""The fuzzer: `make fuzz MINUTES=60 SEED=0`, or `python tests/fuzz/fuzz.py --minutes 60 --seed 0 [--only api,files,commands]`.

Every finding is printed with what repeats it: `python tests/fuzz/fuzz.py --repeat api:0:17`.
"""

import argparse
import gc
import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent.parent)

import torch
from fuzz import edits, judge, names, world
from fuzz.api_calls import ApiCalls
from fuzz.command_calls import CommandCalls
from fuzz.file_mutations import FileMutations
from fuzz.sandbox import Case, Limits, Outcome, Sandbox

import scorefield.cli

__all__ = ["Fuzzer", "main", "scratch_folder"]

GENERATORS = ("api", "files", "commands")


class Fuzzer:
    """A world, a sandbox and the three generators.

    Args:
        scratch: An empty folder.
        warm: Import at once what commands import when they run: worth it for more than a hundred calls.
    """

    def __init__(self, scratch: Path, seed: int = 0, limits: Limits | None = None, warm: bool = False):
        self.seed = seed
        torch.set_num_threads(1)
        os.environ["MPLCONFIGDIR"] = str(scratch / "matplotlib")
        world.build(scratch / "template")
        if warm:
            _import_everything()
        self.sandbox = Sandbox(scratch / "template", scratch / "run", limits)
        before = Path.cwd()
        os.chdir(scratch / "template" / "work")
        self.names = names.namespace()
        os.chdir(before)
        self.generators: dict[str, ApiCalls | FileMutations | CommandCalls] = {
            "api": ApiCalls(seed, self.names),
            "files": FileMutations(seed, scratch / "template" / "work"),
            "commands": CommandCalls(seed),
        }
        gc.collect()
        gc.freeze()  # a collection in a child would copy all that it shares with its parent

    def call(self, case: Case) -> Mapping[str, object]:
        """In the child: the command or the code."""
        if case.words:
            scorefield.cli.main([*case.words])
        with_names = dict(self.names)
        *before, last = case.code.split("\n")
        exec("\n".join(before), with_names)
        result = eval(compile(last, "<case>", "eval"), with_names)
        return {"nan": judge.has_nan(result), "repr": repr(result)[:200]}

    def judged(self, case: Case) -> tuple[Outcome, list[judge.Fault]]:
        try:
            outcome = self.sandbox.run(case, edits.apply, self.call)
        except Exception as error:  # of the fuzzer itself
            self.sandbox.clean(None, case)
            return Outcome(), [judge.Fault("the fuzzer failed", f"{type(error).__name__}", f"{error}")]
        faults = judge.faults_of(case, outcome, self.sandbox.place)
        self.sandbox.clean(outcome, case)
        return outcome, faults

    def cases(self, only: tuple[str, ...] = GENERATORS, start: int = 0) -> Iterator[tuple[str, Case]]:
        """("api:0:17", its call), …, from each generator in turn, without end."""
        for index in itertools.count(start):
            for name in only:
                yield f"{name}:{self.seed}:{index}", self.generators[name].case(index)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in memory where there is one: a disk's fsync would take most of the time."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory, ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def _import_everything() -> None:
    """What commands import when they run, so that children share it."""
    import importlib
    import pkgutil

    import scorefield

    for module in pkgutil.walk_packages(scorefield.__path__, "scorefield."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in (
        "accelerate",
        "matplotlib.pyplot",
        "sklearn.neighbors",
        "torchdiffeq",
        "PIL.Image",
        "rich.table",
        "datasets",
        "torch._dynamo",
    ):
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--start", type=int, default=0, help="the first index")
    options.add_argument("--only", default=",".join(GENERATORS))
    options.add_argument("--repeat", help="GENERATOR:SEED:INDEX of a finding")
    options.add_argument("--json", type=Path, help="where findings are written, as JSON lines")
    options.add_argument("--again", type=Path, help="the calls of such a file, in place of new ones")
    given = options.parse_args()
    with scratch_folder() as scratch:
        if given.repeat:
            name, seed, index = given.repeat.split(":")
            fuzzer = Fuzzer(scratch, int(seed))
            return repeat(fuzzer, fuzzer.generators[name].case(int(index)))
        fuzzer = Fuzzer(scratch, given.seed, warm=True)
        cases = (
            fuzzer.cases(tuple(given.only.split(",")), given.start)
            if given.again is None
            else again(given.again)
        )
        return search(fuzzer, cases, given.minutes, given.seed, given.json)


def repeat(fuzzer: Fuzzer, case: Case) -> int:
    """One call, with all that is known of it."""
    print(case)
    outcome, faults = fuzzer.judged(case)
    print(f"status {outcome.status}, signal {outcome.signal}, {outcome.timeout or 'in time'}", end=", ")
    print(f"{outcome.seconds:.1f} s, {outcome.memory / 2**20:.0f} MiB, changes {outcome.changes}")
    print(f"stdout: {outcome.out[-2000:]!r}\nstderr: {outcome.err[-2000:]!r}\nresult: {outcome.result}")
    print(outcome.error.get("text", ""))
    for fault in faults:
        print(f"FAULT {fault.kind}: {fault.text}")
    return bool(faults)


def again(file: Path) -> Iterator[tuple[str, Case]]:
    """The calls behind earlier findings."""
    for line in file.read_text().splitlines():
        found = json.loads(line)
        entry = found["entry"]
        yield (
            found["repeat"],
            Case(
                tuple(entry["words"]),
                entry["code"],
                tuple(entry["edits"]),
                entry["unbounded"],
                entry["expect"],
                entry.get("full", False),
            ),
        )


def search(
    fuzzer: Fuzzer, cases: Iterable[tuple[str, Case]], minutes: float, seed: int, file: Path | None
) -> int:
    """Calls until the time is over; equal findings are printed once."""
    until = time.monotonic() + 60 * minutes
    found: Counter[tuple[str, str]] = Counter()
    calls: Counter[str] = Counter()
    for name, case in cases:
        if time.monotonic() > until:
            break
        outcome, faults = fuzzer.judged(case)
        end = "refused" if outcome.status or outcome.error else "done"
        calls[f"{name.partition(':')[0]} {end}"] += 1
        for fault in faults:
            found[fault.kind, fault.key] += 1
            if found[fault.kind, fault.key] > 1:
                continue
            print(f"\n{fault.kind}: {fault.text}\n  {case}\n  --repeat {name}", flush=True)
            if file is not None:
                line = {
                    "kind": fault.kind,
                    "key": fault.key,
                    "text": fault.text,
                    "place": outcome.error.get("place", ""),
                    "repeat": name,
                    "entry": asdict(case),
                    "case": str(case)[:1500],
                    "trace": outcome.error.get("text", ""),
                }
                with file.open("a") as lines:
                    lines.write(json.dumps(line) + "\n")
    print(
        f"\n{calls.total()} calls, seed {seed}: {len(found)} findings, {found.total()} times; {dict(calls)}"
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
