"""The short way of a poll: signed requests for upgrade details whose answer is kept go past the framework.

What is polled by everyone, all the time, is this one call. The short way answers 200 or not at all: it takes a request
only when every check of the long way would pass (the same signature check, the same key, the same project, a page that
was made for this project's cluster and still holds). All else, each refusal and each first question among it, goes the
long way, so that there is one place for errors and their words.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from shardlift.api.pages import Asked, DetailPages
from shardlift.api.signing import CONTENT_HEADER, SignatureError, WireRequest, parse_authorization, verify
from shardlift.bounded import Bounded
from shardlift.clock import Clock
from shardlift.service import Service
from shardlift.service.requests import Key
from shardlift.store import StoreError

_PATH = re.compile(
    rb"/v1\.0/([0-9a-f]{32})/clusters/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/upgrade/detail"
)
_KEYS_MAX = 10_000
# Those that may mean a body, and the one that the long way looks at for itself.
_LONG_WAY = frozenset({b"content-length", b"transfer-encoding", b"expect", CONTENT_HEADER.encode()})


class Polls:
    """Plain ASGI, inside the request guard and around the app."""

    def __init__(self, app: ASGIApp, *, service: Service, clock: Clock, pages: DetailPages) -> None:
        self._app = app
        self._service = service
        self._clock = clock
        self._pages = pages
        self._keys: Bounded[str, tuple[int, Key]] = Bounded(_KEYS_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._kept(scope) if scope["type"] == "http" and not scope["query_string"] else None
        if body is None:
            await self._app(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _kept(self, scope: Scope) -> bytes | None:
        named = _PATH.fullmatch(scope["raw_path"] or b"") if scope["method"] == "GET" else None
        if named is None:
            return None
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        sent = dict(headers)
        claimed = sent.get(b"authorization")
        if claimed is None or len(sent) != len(headers) or not _LONG_WAY.isdisjoint(sent):
            return None
        try:
            claim = parse_authorization(claimed.decode("latin-1"))
            mark = self._service.details.mark()
            key = await self._key(claim.ak, mark)
            if key is None or key.project_id.encode() != named[1]:
                return None
            wire = WireRequest("GET", scope["raw_path"], b"", tuple(headers), b"")
            verify(wire, claim, key.sk, self._clock.now())
            return self._pages.kept(Asked(key.project_id, named[2].decode()), mark)
        except (SignatureError, StoreError):
            return None

    async def _key(self, ak: str, mark: int) -> Key | None:
        """The key, read again whenever anything in the database has changed: a revoked one counts no longer."""
        known = self._keys.get(ak)
        if known is not None and known[0] == mark:
            return known[1]
        key = await self._service.key(ak)
        if key is None:
            self._keys.drop(ak)
        else:
            self._keys.put(ak, (mark, key))
        return key
