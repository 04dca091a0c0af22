"""The short way of a poll: signed requests for upgrade details whose answer is kept go past the framework.

What is polled by everyone, all the time, is this one call. The short way answers 200 or not at all: it takes a request
only when every check of the long way would pass (the same signature check, the same key, the same project, room in the
key's rate, a page that was made for this project's cluster and still holds). All else, each refusal and each first
question among it, goes the long way, so that there is one place for errors and their words.
"""

from __future__ import annotations

import logging
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shardlift.api.limits import Limits
from shardlift.api.pages import Asked, DetailPages, Page
from shardlift.api.signing import Repeated, Secrets, SignatureError, WireRequest
from shardlift.bounded import Bounded
from shardlift.clock import Clock
from shardlift.errors import ShardliftError
from shardlift.model import Image
from shardlift.service import Service
from shardlift.service.requests import Key
from shardlift.web import ARRIVALS, ARRIVED

_PATH = re.compile(
    rb"/v1\.0/([0-9a-f]{32})/clusters/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/upgrade/detail"
)
_CLIENTS_MAX_BYTES = 8 << 20
_USED_EVERY = timedelta(seconds=10)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_CHANCE = random.Random()  # noqa: S311  (an id of a request is no secret, only its own)
_OK = 200
# Those that may mean a body.
_BODY = frozenset({b"content-length", b"transfer-encoding", b"expect"})

_KEYS_MAX = 1024
_NO_SECRETS = Secrets(())

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """A key as of that mark of the database, for all who sign with it. `used_at`: when its use was last told."""

    mark: int = -1
    key: Key | None = None
    secrets: Secrets = _NO_SECRETS
    used_at: datetime = _LONG_AGO

    def secrets_at(self, key: Key, now: datetime) -> Secrets:
        sks = key.sks(now)
        if sks != self.secrets.sks:
            self.secrets = Secrets(sks)
        return self.secrets


@dataclass(slots=True)
class _Client:
    """Whose request the long way has answered: how it signs, for what it asks, what is known of its key, and the page
    that it was given last.

    When many clusters are polled in turn nothing of this is in the processor's cache, so few pieces of memory are
    looked at: what clients have in common is kept once.
    """

    signed: Repeated
    project_id: str
    known: _Known
    page: Page | None
    asked: Asked


class Polls:
    """Plain ASGI, around all else, and so with the duties of the guard inside: it gives a request its id, and logs it.
    Reads are in no audit log.

    A client's first request goes the long way; when it is let in there, those that differ from it by date and signature
    alone come here. `disturbed` says of a simulated cluster that a fault may want to decide its answers; those go the
    long way.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: Service,
        clock: Clock,
        pages: DetailPages,
        limits: Limits,
        disturbed: Callable[[str], bool],
    ) -> None:
        self._app = app
        self._service = service
        self._clock = clock
        self._pages = pages
        self._limits = limits
        self._disturbed = disturbed
        self._clients: Bounded[bytes, _Client] = Bounded(_CLIENTS_MAX_BYTES)
        self._keys: Bounded[str, _Known] = Bounded(_KEYS_MAX)
        self._moment: tuple[int, tuple[Image, ...]] = (-1, ())
        self._moment_of = -1
        self._told: bool | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _may_be_poll(scope):
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        shape, date, authorization = _taken_apart(scope)
        client = self._clients.get(shape)
        page = None
        if client is not None:
            try:
                mark, images = self._now(scope)
                if client.known.mark != mark:
                    # Read again whenever anything in the database has changed: a revoked key counts no longer.
                    client.known.key = await self._service.key(client.signed.ak)
                    client.known.mark = mark
                page = self._kept(client, date, authorization, mark, images)
            except (SignatureError, ShardliftError):
                page = None  # the long way says what is wrong
        if page is None:
            await self._app(scope, receive, self._learning(scope, shape, authorization, send))
            return
        request_id, body = _new_id(), page.body  # which the page may lose while we wait
        headers = [*page.headers, (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": _OK, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        if self._tells():
            took_ms = round((time.monotonic() - began_s) * 1000)
            told = {"method": "GET", "path": scope["path"], "status": _OK, "took_ms": took_ms}
            _log.debug("request", request_id=request_id, **told)

    def quick(self, scope: Scope) -> Sequence[bytes] | None:
        """The rest of the head and the body, for a server that can write them without a task; None: call the app.

        Nothing may be awaited here, so the key must have been read at the database's present mark; and nothing is
        logged, so requests that are to be logged take the app's way.
        """
        if self._tells() or not _may_be_poll(scope):
            return None
        shape, date, authorization = _taken_apart(scope)
        client = self._clients.get(shape)
        if client is None:
            return None
        try:
            mark, images = self._now(scope)
            page = self._kept(client, date, authorization, mark, images) if client.known.mark == mark else None
        except (SignatureError, ShardliftError):
            return None
        if page is None:
            return None
        return page.head + _new_id().encode() + b"\r\n\r\n", page.body

    def _tells(self) -> bool:
        """As the request guard: whether requests are logged is found out once."""
        if self._told is None:
            self._told = bool(_log.is_enabled_for(logging.DEBUG))
        return self._told

    def _now(self, scope: Scope) -> tuple[int, tuple[Image, ...]]:
        """The database's mark, and all images. A request that had come in when they were last asked for has no need to
        ask again: nothing that was written before it came has been missed."""
        arrived = scope.get(ARRIVED)
        if arrived is None or arrived > self._moment_of:
            newest = ARRIVALS.last  # before asking
            self._moment = (self._service.details.mark(), self._service.images())
            self._moment_of = newest
        return self._moment

    def _kept(
        self, client: _Client, date: bytes, authorization: bytes, mark: int, images: tuple[Image, ...]
    ) -> Page | None:
        known = client.known
        key = known.key
        if key is None or key.project_id != client.project_id:
            return None
        now = self._clock.now()
        client.signed.verify(authorization, date, known.secrets_at(key, now), now)
        page = client.page
        if page is None or not page.holds(mark, images):
            client.page = page = self._pages.kept(client.asked, mark, images)
        if page is None or (page.simulated and self._disturbed(client.asked.cluster_id)):
            return None
        # A request that finds no room goes the long way to be told so, and finds none there either.
        if self._limits.keys.take(key.ak):
            return None
        if not known.used_at <= now < known.used_at + _USED_EVERY:
            known.used_at = now
            self._service.key_used(key.ak)
        return page

    def _learning(self, scope: Scope, shape: bytes, authorization: bytes, send: Send) -> Send:
        named = _PATH.fullmatch(scope["raw_path"] or b"")
        if named is None or shape in self._clients or not _BODY.isdisjoint(name for name, _ in scope["headers"]):
            return send

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _OK:
                self._learn(scope, shape, authorization, Asked(named[1].decode(), named[2].decode()))
            await send(message)

        return told

    def _learn(self, scope: Scope, shape: bytes, authorization: bytes, asked: Asked) -> None:
        wire = WireRequest("GET", scope["raw_path"], b"", scope["headers"], b"")
        try:
            signed = Repeated.of(wire, authorization)
        except SignatureError:  # a token has let it in
            return
        if signed is not None:
            known = self._keys.get(signed.ak)
            if known is None:
                known = _Known()
                self._keys.put(signed.ak, known)
            project_id = sys.intern(asked.project_id)
            weight = 2 * (len(authorization) + len(shape))
            self._clients.put(shape, _Client(signed, project_id, known, None, asked), weight)


def _may_be_poll(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] == "GET" and not scope["query_string"]


def _new_id() -> str:
    return f"{_CHANCE.getrandbits(128):032x}"


def _taken_apart(scope: Scope) -> tuple[bytes, bytes, bytes]:
    """All that a client's next request has in common with this one; and the rest: date and Authorization.

    In one piece, since it is compared for each request with what lies anywhere in memory. Nothing that came over the
    wire has a zero byte in it.
    """
    date = authorization = b""
    shape: list[bytes] = [scope["raw_path"] or b""]
    for name, value in scope["headers"]:
        if name == b"authorization" and not authorization:
            authorization = value
        elif name == b"x-sdk-date" and not date:
            date = value
        else:
            shape += (name, value)
    return b"\0".join(shape), date, authorization
