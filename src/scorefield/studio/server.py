"""The server: the routes of all panels, on 127.0.0.1 alone."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from scorefield import __version__
from scorefield.runs.build import expected_data
from scorefield.runs.recipe import read_recipe, recipe_names
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.precision import autocast_dtype, pick_device
from scorefield.studio import compare_panel, edit_panel, field_panel, run_panel, sample_panel, training_panel
from scorefield.studio.answers import Refusal, answer, as_json, read_object, refuse
from scorefield.studio.assets import page_routes, read_assets
from scorefield.studio.guard import LARGEST_BODY, Guard
from scorefield.studio.jobs import Job
from scorefield.studio.sample_panel import pixels
from scorefield.studio.session import Studio

__all__ = ["ADDRESS", "PANELS", "build_app", "serve"]

ADDRESS = "127.0.0.1"
PANELS = (sample_panel, training_panel, field_panel, compare_panel, edit_panel, run_panel)
_LONGEST_NAME = 64  # characters of a page's own id
_DEMO = "portraits"
_GRACE = 2  # seconds in which open answers may end


def build_app(studio: Studio, port: int, token: str) -> ASGIApp:
    """The application behind its guard.

    Args:
        studio: Its state.
        port: Of the server, which requests must name.
        token: That requests must carry.
    """
    routes = [*page_routes(read_assets()), *_common(studio), *_job_routes(studio)]
    routes += [route for panel in PANELS for route in panel.routes(studio)]
    handlers: dict[Any, Any] = {
        Refusal: lambda request, error: refuse(error.status, str(error)),
        ScorefieldError: lambda request, error: refuse(400, str(error)),
        HTTPException: lambda request, error: refuse(error.status_code, _HTTP.get(error.status_code, "no")),
        ClientDisconnect: lambda request, error: refuse(413, f"a request has at most {LARGEST_BODY:,} bytes"),
        Exception: _failed,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), port, token)


_HTTP = {404: "there is nothing at this address", 405: "this address does not take this method"}


def _failed(request: Request, error: Exception) -> Response:
    logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
    return refuse(500, f"scorefield failed ({type(error).__name__}): the terminal says more")


def serve(
    roots: Sequence[str | Path] = (),
    port: int = 0,
    data: Sequence[str] = (),
    read_only: bool = False,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the page until a signal ends it.

    Args:
        roots: Folders of runs, or runs. Default: runs/.
        port: On which it answers; 0 takes a free one.
        data: Sources of data that a training may be started with.
        read_only: Whether everything that starts, stops or writes is refused.
        started: Called with the address, once it answers.

    Raises:
        InputError: Where the port is taken.
    """
    with _listening(port) as listener:
        number, token = listener.getsockname()[1], secrets.token_urlsafe(24)
        studio = Studio(roots, data, read_only)
        try:
            config = uvicorn.Config(
                build_app(studio, number, token),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE,
            )
            started(f"http://{ADDRESS}:{number}/#token={token}")
            _Server(config, studio).run(sockets=[listener])
        finally:
            studio.close()


class _Server(uvicorn.Server):
    """A server that ends its jobs, and with them the streams that follow them, before it waits for its connections."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self._studio = studio

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is under way, then close."""
        self._studio.jobs.end()
        await super().shutdown(sockets)


def _listening(port: int) -> socket.socket:
    """A socket that listens on this machine alone."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"port {port} of {ADDRESS} cannot be used ({error.strerror}): choose another one, or 0 for a free one",
            command="--port 0",
        ) from None
    return listener


def _common(studio: Studio) -> list[Route]:
    """What every panel needs to know."""

    async def state(request: Request) -> Response:
        return answer(await studio.aside(_state, studio))

    async def runs(request: Request) -> Response:
        return answer(await studio.aside(studio.catalogue.cards))

    return [Route("/api/state", state), Route("/api/runs", runs)]


def _state(studio: Studio) -> dict[str, Any]:
    device = pick_device(None)
    root = studio.catalogue.root
    return {
        "version": __version__,
        "read_only": studio.read_only,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "precision": "fp32" if autocast_dtype("auto", device) is None else "bf16",
        "root": None if root is None else str(root),
        "can_write": not studio.read_only and root is not None,
        "data": [{"id": k, "name": name} for k, name in enumerate(studio.data_names)],
        "recipes": studio.recall("recipes", None, _recipes),
        "demo": {"recipe": _DEMO, "minutes_text": "about five minutes on two cores"},
        "runs": studio.catalogue.cards(),
    }


def _recipes() -> list[dict[str, Any]]:
    found = [read_recipe(name) for name in recipe_names()]
    return [
        {
            "name": recipe.name,
            "summary": recipe.title,
            "shape": list(expected_data(recipe).shape),
            "data": recipe.data.source,
        }
        for recipe in found
    ]


def _job_routes(studio: Studio) -> list[Route]:
    """Jobs of any kind: started, followed, cancelled, and their frames."""

    async def start(request: Request) -> Response:
        values = await read_object(request)
        page, kind, asked = (values.get(name) for name in ("page", "kind", "request"))
        if not isinstance(page, str) or not 1 <= len(page) <= _LONGEST_NAME:
            raise InputError(f"page is the id of the page, of 1 to {_LONGEST_NAME} characters")
        if not isinstance(kind, str) or kind not in studio.kinds or not isinstance(asked, dict):
            raise InputError(f"a job has a kind, one of {', '.join(studio.kinds)}, and a request")
        planned = await studio.aside(studio.kinds[kind], studio, asked)
        if planned.work is None or planned.request is None:
            raise InputError(str(planned.facts["refused"]))
        job = studio.jobs.start(page, kind, planned.request, planned.work)
        return answer({"id": job.id, **planned.facts})

    async def listed(request: Request) -> Response:
        jobs = studio.jobs.of_page(request.query_params.get("page", ""))
        return answer(
            [
                {"id": job.id, "kind": job.kind, "request": job.request, "state": job.state, **_figures(job)}
                for job in jobs
            ]
        )

    async def events(request: Request) -> Response:
        return _Followed(studio.jobs.find(request.path_params["job"]))

    async def cancel(request: Request) -> Response:
        studio.jobs.cancel(studio.jobs.find(request.path_params["job"]))
        return answer({})

    async def frame(request: Request) -> Response:
        job, what = studio.jobs.find(request.path_params["job"]), request.query_params.get("what", "x0")
        if what not in ("x", "x0"):
            raise InputError("what is x or x0")
        return pixels(job.frames.at(request.path_params["i"], "x" if what == "x" else "x0"))

    return [
        Route("/api/jobs", start, methods=["POST"]),
        Route("/api/jobs", listed, methods=["GET"]),
        Route("/api/jobs/{job}", cancel, methods=["DELETE"]),
        Route("/api/jobs/{job}/events", events),
        Route("/api/jobs/{job}/frame/{i:int}", frame),
    ]


def _figures(job: Job) -> dict[str, Any]:
    last = job.events[-1] if job.events else {}
    return {"calls": last.get("calls"), "ms": last.get("ms")}


class _Followed(Response):
    """The events of a job as JSON lines, for as long as the client listens.

    Versions of Starlette and of servers show a lost client in two ways, by a message and by an error of sending; both end
    the stream here, which lets the job end too.
    """

    media_type = "application/x-ndjson"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until there are no more or the client is gone."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        events = self._job.follow()
        try:
            async for event in events:
                body = as_json(event) + b"\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
        finally:
            await events.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
