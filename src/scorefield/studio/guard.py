"""What every request passes before any other code sees it: who asks, from which page, and with which token."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scorefield.studio.answers import refuse

__all__ = ["LARGEST_BODY", "TOKEN_HEADER", "Guard"]

TOKEN_HEADER = "X-Scorefield-Token"
LARGEST_BODY = 8 * 2**20  # bytes of a request
_OPEN = ("/assets/",)  # the page itself, which holds nothing of the user's; everything else needs the token

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """The outermost layer. It decides by the scope's path and headers alone, never by a URL that is put together from
    them.

    Args:
        app: What it guards.
        port: Of the server: only pages of 127.0.0.1:PORT and localhost:PORT are answered.
        token: That every request but those for the page's own files must carry.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = [f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")]
        self._origins = [b"http://" + host for host in self._hosts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _with_headers(message.get("headers", []))}
            await send(message)

        refused = self._refused(scope)
        if refused is not None:
            await refuse(*refused)(scope, receive, guarded)
            return
        await self._app(scope, _Limited(receive).receive, guarded)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request that is not answered."""
        given = _values(scope, b"host")
        if len(given) != 1 or given[0] not in self._hosts:
            return 400, f"this server answers at {self._hosts[0].decode()} only"
        if any(origin not in self._origins for origin in _values(scope, b"origin")):
            return 403, "this server answers its own page only, and the request comes from another one"
        if any(site not in (b"same-origin", b"none") for site in _values(scope, b"sec-fetch-site")):
            return (
                403,
                "this server answers its own page only: open the address that it printed, not a link to it",
            )
        path = scope["path"]
        if path == "/" or path.startswith(_OPEN):
            return None
        tokens = _values(scope, TOKEN_HEADER.lower().encode())
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self._token):
            return 403, "the token is missing or wrong: open the address that scorefield studio printed"
        lengths = _values(scope, b"content-length")
        if any(not length.isdigit() or int(length[:12]) > LARGEST_BODY for length in lengths):
            return 413, f"a request has at most {LARGEST_BODY:,} bytes"
        return None


class _Limited:
    """The body of a request, which ends where it grows too large."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._left = receive, LARGEST_BODY

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                return {"type": "http.disconnect"}
        return message


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


def _with_headers(headers: Sequence[Any]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those that every answer has."""
    kept = [(bytes(key).lower(), bytes(value)) for key, value in headers]
    named = {key for key, _ in kept}
    ours = {**_HEADERS, "Cache-Control": "no-store"}
    return kept + [
        (name.lower().encode(), value.encode())
        for name, value in ours.items()
        if name.lower().encode() not in named
    ]
