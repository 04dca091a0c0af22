"""Around every answer: a request id, one log line, and no traceback for the client whatever happens inside."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shardlift.api.errors import SERVER_ERROR, ApiError

_log = structlog.get_logger(__name__)


class RequestGuard:
    """Plain ASGI, so that it also sees what the framework's own layers answer or raise.

    The log line has method, path and status. Query, headers and body stay out of it: they may hold secrets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._told: bool | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, secrets.token_hex(16))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=answer.request_id)
        began_s = time.monotonic()
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            _log.exception("request_crashed", method=scope["method"], path=scope["path"])
            if answer.status is not None:
                raise  # half an answer is out: only cutting the connection tells the client
            detail = f"Look for request id {answer.request_id} in the log."
            await ApiError(SERVER_ERROR, detail).response()(scope, receive, answer.send)
        finally:
            if self._tells():
                took_ms = round((time.monotonic() - began_s) * 1000)
                _log.debug("request", method=scope["method"], path=scope["path"], status=answer.status, took_ms=took_ms)

    def _tells(self) -> bool:
        """Whether requests are logged. Found out once: a logger that drops its lines still takes its time over each."""
        if self._told is None:
            self._told = bool(_log.is_enabled_for(logging.DEBUG))
        return self._told


class _Answer:
    """Passes messages on, with the request id on the first one, and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            _add_header(message, b"x-request-id", self.request_id.encode())
        await self._send(message)


def _add_header(message: MutableMapping[str, Any], name: bytes, value: bytes) -> None:
    message["headers"] = [*message.get("headers", ()), (name, value)]
