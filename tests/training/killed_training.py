"""Stop a training at random moments until it is done; as a script: `scorefield train`, killed and resumed,
against a run left alone.

python tests/training/killed_training.py STOPS SIGNAL SEED FOLDER [STEPS] trains FOLDER/whole, and
FOLDER/broken with so many stops by SIGNAL (KILL, TERM or BOTH), says where they struck, and ends with status
0 if both runs have the same bytes. Each start is a fork: run it with OMP_NUM_THREADS=1, because a fork has
none of its parent's threads.
"""

import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli.killed_job import forked, wait
from support import import_for_forks

from scorefield.training import RunFolder, checkpoint

TINY = [
    "net.channels=32",
    "net.channel_mult=[1]",
    "net.blocks=1",
    "net.attention=[]",
    "training.batch_size=8",
]
TINY += [
    "training.checkpoint_every=3",
    "training.log_every=1",
    "training.sample_every=0",
    "training.keep=1",
    "data.holdout=0.9",
]
SIGNALS = {"KILL": (signal.SIGKILL,), "TERM": (signal.SIGTERM,), "BOTH": (signal.SIGKILL, signal.SIGTERM)}
ENDS = {
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (75, -signal.SIGTERM),
}  # before its first step it has nothing to save


def start(run, *arguments):
    """The number of a process that begins the run, or goes on with it."""
    begun = RunFolder(run).config.exists()
    return forked(
        ["train", "digits", "--device", "cpu", "--run", str(run), *(["--resume"] if begun else arguments)]
    )


def train_to_the_end(run, arguments):
    status = wait(start(run, *arguments))
    if status:
        raise SystemExit(f"the training of {run} ended with status {status}")


def stop_at_random(run, arguments, stops, kinds, steps, seed):
    """[(signal and steps logged, what the stop left)] of `stops` stops, spread over the run: at work, while
    it saves, and while it starts.
    """
    draw, hits = random.Random(seed), []
    while len(hits) < stops:
        kind, there = kinds[len(hits) % len(kinds)], logged(run)
        # The next stop is up to twice its share of what is left; one in four comes before the first step is
        # done.
        share = 2 * (steps - 3 - there) // (stops - len(hits))
        after, pause = there + draw.randint(0, max(share, 1)) * (draw.random() < 0.75), draw.uniform(0, 0.05)
        pid = start(run, *arguments)
        began = time.monotonic()
        while logged(run) < min(after, steps - 3) and wait_for(pid) is None and time.monotonic() < began + 60:
            time.sleep(0.001)
        time.sleep(pause if after > there else draw.uniform(0, 0.5))
        if wait_for(pid) is not None:
            raise SystemExit(
                f"the training ended by itself at step {logged(run)}, after {len(hits)} stops: give it more steps"
            )
        os.kill(pid, kind)
        status = wait(pid)
        if status not in ENDS[kind]:
            raise SystemExit(f"{kind.name} ended the training with status {status}")
        hits.append((f"{kind.name} {logged(run)}", check(run)))
    return hits


def wait_for(pid):
    """Whether a child has ended, without taking note of it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def logged(run):
    """Steps of which the run tells."""
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def check(run):
    """What a stop left: a run that is not begun, a whole checkpoint, or one with a half-written one beside
    it.
    """
    folder = RunFolder(run)
    if not folder.config.exists():
        return "nothing"
    found = checkpoint.newest(folder.checkpoints)
    if found is None or found.skipped:
        raise SystemExit(f"something partial was taken for a checkpoint: {found}")
    return (
        "a partial file"
        if [*folder.checkpoints.glob(".*partial*"), *run.glob(".*.partial")]
        else "whole files"
    )


def final_bytes(run):
    """The weights and the last checkpoint, a file a key."""
    folder = RunFolder(run)
    (last,) = folder.checkpoints.iterdir()
    return {
        str(path.relative_to(run)): path.read_bytes() for path in (folder.weights, *sorted(last.iterdir()))
    }


def warm_up():
    """Import what forks would import again. Nothing is trained here: threads that it starts would be missing
    in forks.
    """
    import scorefield.runs.build
    from scorefield.nets import fused

    import_for_forks()
    if fused.available():
        importlib.import_module("scorefield.nets.numba_kernels")
    scorefield.runs.build.open_data(scorefield.runs.build.read_recipe("digits").data)


def main(stops, kind, seed, folder, *arguments):
    folder, stops = Path(folder), int(stops)
    steps = int(arguments[0]) if arguments else 30 * stops
    settings = [word for setting in TINY for word in ("--set", setting)]
    settings += ["--steps", str(steps)]
    warm_up()
    train_to_the_end(folder / "whole", settings)
    hits = stop_at_random(folder / "broken", settings, stops, SIGNALS[kind], steps, int(seed))
    train_to_the_end(folder / "broken", settings)
    left = [what for _, what in hits]
    print(
        f"stopped {len(hits)} times at steps {[where for where, _ in hits]}, leaving { {what: left.count(what) for what in set(left)} }"
    )
    same = final_bytes(folder / "broken") == final_bytes(folder / "whole")
    print("the same bytes" if same else "the bytes differ")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
