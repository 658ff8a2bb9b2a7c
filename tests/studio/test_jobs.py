"""Jobs: their order, events and frames; cancelled ones and lost clients leave nothing behind."""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from studio_page import TOKEN, Page

import scorefield as sf
from scorefield.studio.answers import Refusal
from scorefield.studio.frames import Frames, thin
from scorefield.studio.jobs import Job, Jobs
from scorefield.studio.sample_panel import plan_sample
from scorefield.studio.server import _listening, build_app
from scorefield.studio.session import Studio


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.close()


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def moved(job: Job) -> bool:
    return job.state != "queued"


def gone(job: Job) -> bool:
    return job.ended


def waits(gate: threading.Event) -> Any:
    """Work that steps until the gate is open, or it is cancelled."""

    def work(job: Job) -> dict[str, Any]:
        while not gate.wait(0.002):
            job.check()
        return {"calls": 1}

    return work


def test_one_after_another(jobs: Jobs) -> None:
    gate = threading.Event()
    first, second, third = (jobs.start(page, "k", {}, waits(gate)) for page in "abc")
    until(lambda: first.state == "running")
    assert [second.state, third.state] == ["queued", "queued"]
    assert [event["behind"] for event in third.events] == [2] or third.events[-1]["behind"] in (1, 2)
    gate.set()
    until(lambda: third.ended)
    assert [job.events[-1]["event"] for job in (first, second, third)] == ["done"] * 3
    assert third.events[-1]["calls"] == 1


def test_a_new_job_of_a_page_cancels_its_earlier_one(jobs: Jobs) -> None:
    gate = threading.Event()
    running, waiting = jobs.start("a", "k", {}, waits(gate)), jobs.start("b", "k", {}, waits(gate))
    until(lambda: running.state == "running")
    newer = jobs.start("b", "k", {}, waits(gate))
    assert waiting.state == "cancelled"
    newest = jobs.start("a", "k", {}, waits(gate))
    until(lambda: running.ended)
    assert running.state == "cancelled"
    gate.set()
    until(lambda: newest.ended)
    assert (newer.state, newest.state) == ("done", "done")


def test_errors_are_sentences_and_the_thread_goes_on(jobs: Jobs) -> None:
    def user(job: Job) -> Any:
        raise sf.InputError("steps must be positive")

    def fault(job: Job) -> Any:
        raise KeyError("x")

    found = [
        jobs.start(page, "k", {}, work) for page, work in (("a", user), ("b", fault), ("c", lambda job: {}))
    ]
    until(lambda: found[2].ended)
    assert [job.state for job in found] == ["refused", "refused", "done"]
    assert found[0].events[-1]["error"] == "steps must be positive"
    assert "KeyError" in found[1].events[-1]["error"]


def test_the_last_jobs_are_kept(jobs: Jobs) -> None:
    made = [jobs.start(f"p{k}", "k", {}, lambda job: {}) for k in range(40)]
    until(lambda: made[-1].ended)
    jobs.start("q", "k", {}, lambda job: {})
    with pytest.raises(Refusal, match="no such job"):
        jobs.find(made[0].id)
    assert jobs.find(made[-1].id) is made[-1]


def test_frames_above_the_ceiling_are_thinned() -> None:
    several = [Frames(), Frames()]
    for one in several:
        for i in range(11):
            one.keep(i, np.full((2, 4), i, np.uint8), np.full((2, 4), i, np.uint8))
    thin(several, ceiling=300)
    assert sum(one.bytes for one in several) <= 300
    assert several[1].at(5, "x")[0, 0] == 5, "the newest job keeps its frames as long as older ones can give"
    for i in (0, 10):
        assert several[0].at(i, "x0")[0, 0] == i
    with pytest.raises(Refusal, match="not kept") as lost:
        several[0].at(5, "x")
    with pytest.raises(Refusal, match="no step 11") as none:
        several[0].at(11, "x")
    assert (lost.value.status, none.value.status) == (410, 404)


def facts() -> tuple[int, int]:
    """Threads and open files of this process."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_200_cancelled_jobs_leave_nothing(page: Page) -> None:
    request = {"run": page.run("digits"), "steps": 1000, "n": 2}
    page.events(page.start({**request, "steps": 2})["id"])
    jobs, work = page.studio.jobs, plan_sample(page.studio, request).work
    before, memory = facts(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(200):
        job = jobs.start("page", "sample", request, work)
        if k % 3:
            until(partial(moved, job))
        if k % 2:
            jobs.cancel(job)
    page.client.delete(f"/api/jobs/{job.id}")
    until(lambda: job.ended)
    assert job.state == "cancelled"
    assert facts() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 150_000  # kB
    assert page.events(page.start({**request, "steps": 2})["id"])[-1]["event"] == "done"


@contextmanager
def serving(studio: Studio) -> Iterator[int]:
    """The port of a server in a thread of this process."""
    with _listening(0) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(build_app(studio, port, TOKEN), log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until(lambda: server.started)
        yield port
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def spoken(port: int, method: str, path: str, body: object = None) -> socket.socket:
    """A connection on which this request was sent."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Scorefield-Token: {TOKEN}\r\nConnection: close\r\n"
    made = socket.create_connection(("127.0.0.1", port), timeout=20)
    made.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return made


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_50_closed_streams_stop_their_jobs(root: Path) -> None:
    studio = Studio([root])
    request = {"run": studio.catalogue.number("digits"), "steps": 1000, "n": 2}
    with serving(studio) as port:
        work, before = plan_sample(studio, request).work, None
        for k in range(50):
            job = studio.jobs.start(f"page {k}", "sample", request, work)
            with spoken(port, "GET", f"/api/jobs/{job.id}/events") as stream:
                text = b""
                while b'"step"' not in text:
                    text += stream.recv(2**16)
            until(partial(gone, job))
            assert job.state == "cancelled"
            assert not job._watchers
            before = before or facts()
        until(lambda: facts() <= before)
        assert facts()[0] == before[0]
    studio.close()


def test_a_stream_can_be_followed_twice(page: Page) -> None:
    request = {"run": page.run("moons"), "sampler": "ddim", "steps": 3, "n": 4}
    job = page.start(request)["id"]
    first, second = page.events(job), page.events(job)
    assert first == second
    assert [event["i"] for event in first if event["event"] == "step"] == [1, 2, 3]


def test_two_pages_do_not_mix(page: Page) -> None:
    request = {"run": page.run("digits"), "steps": 2, "n": 1}
    a, b = page.start(request, page="a")["id"], page.start({**request, "seed": 1}, page="b")["id"]
    sums = [page.events(job)[-1]["sha256"] for job in (a, b)]
    assert sums[0] != sums[1]
    assert [job["id"] for job in page.get("/api/jobs?page=a")] == [a]
    assert [(job["id"], job["state"], job["calls"]) for job in page.get("/api/jobs?page=b")] == [
        (b, "done", 2)
    ]
    assert page.get("/api/jobs?page=c") == []
