"""Writes down each change that was asked for over HTTP, accepted or refused, before its answer leaves.

So whoever has an answer finds its record. Reads are not recorded, and neither is what was answered 429: a flood must
not fill the log. When a record cannot be written the change has happened all the same; the log of the server says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shardlift.api.limits import THROTTLED
from shardlift.errors import ShardliftError
from shardlift.service.audit import ACCEPTED, FAILED, REFUSED, SIGN_IN, Act, acting

if TYPE_CHECKING:
    from shardlift.service import Service

CODE = "shardlift.code"  # where the error handlers leave the code that they answer with

_READS = {"GET", "HEAD", "OPTIONS"}
_CHANGES_NOTHING = {"check", "check_migrate", "check_replace", "check_restart", "plan"}
# The words of the command line for what the routes call otherwise.
_WORDS = {
    "upgrade_core": "upgrade",
    "retry_upgrade_task": "retry",
    "update_az": "az_migrate",
    "migrate": "az_migrate",
    "replace_node": "replace",
    "_restart": "restart",
    "change_policy": "policy",
}
_ERRORS_FROM, _FAILURES_FROM = 400, 500
_SHOWN_MAX = 64

_log = structlog.get_logger(__name__)


class AuditTrail:
    """Plain ASGI, inside the guard that gives each request its id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        act = Act(
            door="native" if scope["path"].startswith("/api/") else "css",
            address=client[0] if client else "",
            request_id=str(structlog.contextvars.get_contextvars().get("request_id", "")),
        )
        written = False

        async def record(status: int) -> None:
            nonlocal written
            written = True
            if _counts(scope, act, status):
                await _record(scope, act, status)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                await record(message["status"])
            await send(message)

        with acting(act):
            try:
                await self._app(scope, receive, told)
            except Exception:
                if not written:
                    await record(_FAILURES_FROM)
                raise


def _counts(scope: Scope, act: Act, status: int) -> bool:
    if act.action == SIGN_IN:
        return True
    if scope["method"] in _READS or not act.actor or status == THROTTLED.status:
        return False
    return _route_name(scope) not in _CHANGES_NOTHING


async def _record(scope: Scope, act: Act, status: int) -> None:
    service = cast("Service", scope["app"].state.service)
    act.action = act.action or _WORDS.get(_route_name(scope), _route_name(scope))
    named = scope.get("path_params", {})
    # What the path names, also where it was not found: bounded, and in the caller's own project's log alone.
    act.cluster_id = act.cluster_id or str(named.get("cluster_id", named.get("cluster", "")))[:_SHOWN_MAX]
    act.task_id = act.task_id or str(named.get("action_id", named.get("task_id", "")))[:_SHOWN_MAX]
    outcome = ACCEPTED if status < _ERRORS_FROM else REFUSED if status < _FAILURES_FROM else FAILED
    try:
        await service.audit.record(act, outcome, str(scope.get(CODE, "")))
    except ShardliftError as error:
        _log.error("audit_record_lost", action=act.action, actor=act.actor, outcome=outcome, message=error.message)


def _route_name(scope: Scope) -> str:
    return str(getattr(scope.get("endpoint"), "__name__", "unknown"))
