"""The page is safe: one test a line of what keeps it so."""

from __future__ import annotations

import json
import re
import socket
from importlib.metadata import requires
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from studio_page import PORT, TOKEN, Page

import scorefield as sf
import scorefield.cli
from scorefield.studio.guard import LARGEST_BODY
from scorefield.studio.server import _listening

SRC = Path(sf.__file__).parent


def asked(page: Page, path: str = "/api/state", method: str = "GET", **headers: str) -> Any:
    """The answer to these headers alone."""
    page.client.headers.pop("X-Scorefield-Token", None)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return page.client.request(method, path, headers=sent)


def raw(page: Page, path: str, **scope: Any) -> int:
    """The status for a scope that no client would send."""
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    given = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "scheme": "http", "http_version": "1.1", "headers": [(b"host", f"127.0.0.1:{PORT}".encode())], **scope,
    }  # fmt: skip
    anyio.run(page.client.app, given, receive, send)
    return int(statuses[0])


def test_it_answers_on_this_machine_alone(capsys) -> None:
    with _listening(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), timeout=2):
            pass
    with pytest.raises(SystemExit):
        scorefield.cli.main(["studio", "--help"])
    assert "ssh -L" in capsys.readouterr().out


@pytest.mark.parametrize(
    "host", ["example.org", f"example.org:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", "[::1]", ""]
)
def test_a_foreign_host_is_refused(page: Page, host: str) -> None:
    answer = asked(page, "/", Host=host)
    assert (answer.status_code, "answers at" in answer.json()["error"]) == (400, True)


def test_two_hosts_are_refused(page: Page) -> None:
    own = (b"host", f"127.0.0.1:{PORT}".encode())
    assert raw(page, "/assets/none.js", headers=[own]) == 404
    assert raw(page, "/assets/none.js", headers=[own, (b"host", b"example.org")]) == 400
    assert raw(page, "/assets/none.js", headers=[]) == 400


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.org",
        "null",
        f"https://127.0.0.1:{PORT}",
        "http://127.0.0.1",
        f"http://localhost.example.org:{PORT}",
    ],
)
def test_a_foreign_page_is_refused(page: Page, origin: str) -> None:
    answer = asked(page, Origin=origin, X_Scorefield_Token=TOKEN)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_a_request_of_another_site_is_refused(page: Page, site: str, status: int) -> None:
    assert asked(page, Sec_Fetch_Site=site, X_Scorefield_Token=TOKEN).status_code == status


def test_no_answer_allows_other_origins(page: Page) -> None:
    own = asked(page, method="OPTIONS", Origin=f"http://127.0.0.1:{PORT}", X_Scorefield_Token=TOKEN)
    assert not [name for name in own.headers if name.startswith("access-control")]


def routes(page: Page) -> list[Route]:
    guard: Any = page.client.app
    found: list[Route] = guard._app.routes
    assert all(type(route) is Route for route in found), "no mounts, no static files, no websockets"
    return found


def test_every_route_but_the_page_needs_the_token(page: Page) -> None:
    for route in routes(page):
        path = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: "main.js" if found[1] == "path" else "0", route.path)
        for method in route.methods or ():
            for headers in (
                {},
                {"X_Scorefield_Token": "x"},
                {"X_Scorefield_Token": ""},
                {"Cookie": f"token={TOKEN}"},
            ):
                status = asked(page, path, method, **headers).status_code
                public = route.path in ("/", "/assets/{path:path}")
                assert (status == 403) is not public, (method, path, status)


@pytest.mark.parametrize(
    "path",
    ["//api/state", "/api/state/", "/assets/../api/state", "/assets/..%2fapi/state", "/API/state", "/assets", "http://x/assets/",
     "/.", "/api/runs/..", "/?/assets/"],
)  # fmt: skip
def test_odd_paths_open_nothing(page: Page, path: str) -> None:
    assert raw(page, path) in (403, 404)
    with_token = [(b"host", f"127.0.0.1:{PORT}".encode()), (b"host", b"example.org/assets/")]
    assert raw(page, path, headers=with_token) == 400


def test_every_answer_has_the_policy(page: Page) -> None:
    for answer in (
        asked(page, "/"),
        asked(page, Host="example.org"),
        asked(page),
        page.client.get("/nothing"),
    ):
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Server" not in answer.headers


def test_the_page_asks_nothing_of_others_and_holds_no_inline_script() -> None:
    for path in Path(str(files("scorefield.studio") / "page")).rglob("*"):
        text = path.read_text() if path.suffix in (".html", ".js", ".css", ".svg") else ""
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/)[\w.]+\.[a-z]{2,}/", text), path
        assert (
            not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", text)
            or path.suffix != ".html"
        ), path
        assert not re.search(r"\beval\(|new Function\(|innerHTML|document\.write", text), path


def test_the_client_never_names_a_path(page: Page, root: Path) -> None:
    secret = root.parent / "secret.js"
    secret.write_text("x")
    for path in ("../../../etc/passwd", "..%2f..%2fsecret.js", str(secret), "%2e%2e/index.html"):
        answer = asked(page, f"/assets/{path}")
        assert answer.status_code in (403, 404), path
    page.client.headers["X-Scorefield-Token"] = TOKEN
    page.post("/api/plan", {"run": str(root / "digits")}, 400)
    page.post("/api/plan", {"run": 99}, 404)
    page.post("/api/plan", {"run": -1}, 404)
    page.post("/api/plan", {"run": 0, "low_res": "/etc/passwd"}, 400)
    page.post("/api/plan", {"run": 0, "classifier": str(root / "classifier")}, 400)


def test_no_websocket_is_opened(page: Page) -> None:
    headers = {"X-Scorefield-Token": TOKEN}
    with pytest.raises(WebSocketDisconnect), page.client.websocket_connect("/api/jobs", headers=headers):
        pass


def test_large_requests_are_refused(page: Page) -> None:
    assert page.client.post("/api/settings", content=b"x" * (LARGEST_BODY + 1)).status_code == 413
    parts = (b"x" * 2**20 for _ in range(LARGEST_BODY // 2**20 + 1))
    answer = page.client.post("/api/settings", content=parts)  # without a length
    assert (answer.status_code, "at most" in answer.text) == (413, True)


def test_a_picture_is_looked_at_before_it_is_decoded(page: Page, tmp_path: Path) -> None:
    Image.new("1", (30_000, 30_000)).save(tmp_path / "large.png")  # 0.9 gigapixels in 110 kB
    answer = page.client.post("/api/settings", content=(tmp_path / "large.png").read_bytes())
    assert (answer.status_code, "pixels" in answer.text) == (400, True)
    for content in (b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"{}"):
        assert page.client.post("/api/settings", content=content).status_code == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"a": NaN, "run": 1e400}', b"\xff"])
def test_bodies_that_are_no_request(page: Page, body: bytes) -> None:
    for path in ("/api/plan", "/api/jobs"):
        answer = page.client.post(path, content=body)
        assert answer.status_code == 400
        assert json.loads(answer.text)["error"]


def test_processes_are_started_by_lists_of_arguments() -> None:
    for path in (SRC / "studio").rglob("*.py"):
        text = path.read_text()
        assert not re.search(
            r"shell=True|os\.system|os\.popen|StaticFiles|python_multipart|import pickle", text
        ), path


def test_starlette_is_new_enough() -> None:
    assert any(re.match(r"starlette>=1\.0\.1", line) for line in requires("scorefield") or ()) or (
        "starlette>=1.0.1" in (SRC.parent.parent / "pyproject.toml").read_text()
    )
    assert TestClient is not None
