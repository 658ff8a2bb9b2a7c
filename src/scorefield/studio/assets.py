"""The files of the page, read once at start: nothing is ever served by its path on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scorefield.studio.answers import Refusal

__all__ = ["Asset", "page_routes", "read_assets"]

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FRONT = "index.html"


class Asset(NamedTuple):
    """One file of the page."""

    content: bytes
    type: str


def read_assets() -> dict[str, Asset]:
    """Path below page/ -> the file, for every file of a known type."""
    return dict(_found(files("scorefield.studio") / "page", ""))


def page_routes(assets: dict[str, Asset]) -> list[Route]:
    """The page at / and its files at /assets/PATH.

    Args:
        assets: As `read_assets` gives them.
    """

    async def front(request: Request) -> Response:
        return _served(assets, _FRONT)

    async def asset(request: Request) -> Response:
        return _served(assets, request.path_params["path"])

    return [Route("/", front), Route("/assets/{path:path}", asset)]


def _served(assets: dict[str, Asset], path: str) -> Response:
    if path not in assets:
        raise Refusal(404, "the page has no such file")
    return Response(assets[path].content, media_type=assets[path].type)


def _found(folder: Traversable, above: str) -> Iterator[tuple[str, Asset]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _found(entry, f"{above}{entry.name}/")
        elif (kind := _TYPES.get(entry.name.rpartition(".")[2])) is not None:
            yield above + entry.name, Asset(entry.read_bytes(), kind)
