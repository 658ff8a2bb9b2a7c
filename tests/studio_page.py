"""A page of the server in a test: requests as the page makes them, without a network."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from scorefield.studio.server import build_app
from scorefield.studio.session import Studio

PORT, TOKEN = 8765, "t" * 32


class Page:
    """A page of the server: requests as the page makes them."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.client = TestClient(
            build_app(studio, PORT, TOKEN),
            base_url=f"http://127.0.0.1:{PORT}",
            raise_server_exceptions=False,
            headers={"X-Scorefield-Token": TOKEN},
        )

    def get(self, path: str, status: int = 200) -> Any:
        """The JSON at this address."""
        found = self.client.get(path)
        assert found.status_code == status, found.text
        return found.json()

    def post(self, path: str, values: object, status: int = 200) -> Any:
        """The JSON answer to these values."""
        found = self.client.post(path, json=values)
        assert found.status_code == status, found.text
        return found.json()

    def start(self, request: dict[str, Any], kind: str = "sample", page: str = "page") -> Any:
        """A job."""
        return self.post("/api/jobs", {"page": page, "kind": kind, "request": request})

    def events(self, job: str) -> list[dict[str, Any]]:
        """All events of a job, once it has ended."""
        answer = self.client.get(f"/api/jobs/{job}/events")
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def run(self, name: str) -> int:
        """The number of the run of this name."""
        return next(card["id"] for card in self.get("/api/runs") if card["name"] == name)


def frame(page: Page, job: str, i: int, what: str = "x") -> np.ndarray:
    """Step i of a job: uint8 (n, H, W, C) of images, float32 (n, 2) of points."""
    answer = page.client.get(f"/api/jobs/{job}/frame/{i}?what={what}")
    assert answer.status_code == 200, answer.text
    shape = tuple(int(size) for size in answer.headers["X-Shape"].split(","))
    kind = np.uint8 if len(shape) == 4 else np.dtype("<f4")
    return np.frombuffer(answer.content, kind).reshape(shape)
