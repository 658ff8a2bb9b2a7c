"""What the server answers: JSON, raw pixels, and refusals of one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from scorefield.runtime.errors import InputError

__all__ = ["Refusal", "answer", "as_json", "read_object", "refuse"]


class Refusal(Exception):
    """A request that is not answered, with its HTTP status and a sentence that says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def answer(values: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(as_json(values), status, media_type="application/json")


def refuse(status: int, text: str) -> Response:
    """The answer to what is refused: {"error": sentence}."""
    return answer({"error": text}, status)


def as_json(values: object) -> bytes:
    """JSON on one line, with null for numbers that JSON lacks (NaN and the infinities)."""
    return json.dumps(_finite(values), allow_nan=False, default=str).encode()


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in a request.

    Raises:
        InputError: For anything else.
    """
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError("the body of this request must be a JSON object")
    return found


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
