"""Kill a job at random moments until enough kills have met it at work, then let it finish; as a script: jobs
of the command.

python killed_job.py SEED KILLS LAST WHOLE BROKEN ARGUMENT… runs the command once with --out WHOLE, and with
--out BROKEN however often it takes; each of these is a fork. It must be run with OMP_NUM_THREADS=1: a fork
has none of its parent's threads.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

import scorefield.cli
from scorefield.nets import fused


def count(folder):
    walk = os.walk(folder)  # which passes over folders that are gone by now
    finished = ((at, names) for at, _, names in walk if not at.endswith(".partial"))
    return sum(not name.endswith(".partial") for _, names in finished for name in names)


def kill_at_random(start, folder, kills, last, seed):
    """start() -> the number of a child process. The last kill comes before there are `last` files."""
    draw, hits = random.Random(seed), []
    while True:
        pid = start()
        if len(hits) == kills:
            return hits, wait(pid)
        there = count(folder)
        after, pause = (
            there + draw.randint(0, max(0, last - there) // (kills - len(hits) + 1)),
            draw.uniform(0, 0.02),
        )
        while (status := wait(pid, os.WNOHANG)) is None and count(folder) < after:
            time.sleep(0.001)
        time.sleep(pause)
        if status is None and (status := wait(pid, os.WNOHANG)) is None:
            for one in descendants(pid):
                os.kill(one, signal.SIGKILL)
            wait(pid)
            hits.append(count(folder))
        elif status:
            raise SystemExit(f"the job failed with status {status}")
        else:
            shutil.rmtree(folder)  # it was done before the kill: from the beginning
            folder.mkdir()


def wait(pid, options=0):
    """The exit status of a child, None while it runs."""
    done, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if done else None


def descendants(pid):
    """A process and those that it started, from the top."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = children.read_text().split() if children.exists() else []
    return [pid, *(found for child in below for found in descendants(int(child)))]


def forked(arguments):
    pid = os.fork()
    if pid == 0:
        try:
            scorefield.cli.main(arguments)
        except SystemExit as stop:
            os._exit(stop.code or 0)  # type: ignore[arg-type]
        finally:
            os._exit(99)
    return pid


def script(seed, kills, last, whole, broken, *arguments):
    fused.switch(False)  # it has threads of its own, which a fork has none of either
    with pytest.raises(SystemExit) as stop:
        scorefield.cli.main(
            [*arguments, "--out", whole]
        )  # in this process: what it imports, forks do not import again
    assert not stop.value.code
    start = lambda: forked([*arguments, "--out", broken])  # noqa: E731
    hits, status = kill_at_random(start, Path(broken).parent, int(kills), int(last), int(seed))
    print(f"killed with {hits} files there")
    return status


if __name__ == "__main__":
    sys.exit(script(*sys.argv[1:]))
