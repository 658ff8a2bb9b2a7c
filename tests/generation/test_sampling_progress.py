"""What the progress of sampling counts: samples, as the sentence at the end does."""

from contextlib import contextmanager

import pytest

import scorefield as sf
from scorefield.runtime.progress import Shares


class Watch:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.totals, self.seen = {}, []

    @contextmanager
    def progress(self, what, total):
        self.totals[what] = total
        yield self

    def say(self, text): ...

    def update(self, done, note="", total=None):
        self.seen.append(done)

    def advance(self):
        raise AssertionError("steps were counted")


@pytest.mark.parametrize(("n", "steps"), [(5, 4), (40, 3), (64, 2), (70, 2)])
def test_samples_are_counted(tiny_run, n, steps):
    watch = Watch()
    sf.Run(tiny_run("digits")).sample(n=n, steps=steps, block=32, device="cpu", progress=watch)
    assert watch.totals == {"sampling": n}
    assert watch.seen == sorted(watch.seen)
    assert watch.seen[-1] == n
    assert len(watch.seen) == -(-n // 32) * steps


@pytest.mark.parametrize(("count", "steps"), [(1, 7), (10, 3), (64, 64), (0, 1)])
def test_shares_end_with_all(count, steps):
    watch = Watch()
    shares = Shares(watch, count, steps)
    for _ in range(steps):
        shares.advance()
    counted = watch.seen
    assert counted == sorted(counted)
    assert counted[-1] == count
    assert all(abs(done - count * (k + 1) / steps) < 1 for k, done in enumerate(counted))
