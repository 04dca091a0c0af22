"""The short way of a poll: signed requests for upgrade details whose answer is kept go past the framework.

What is polled by everyone, all the time, is this one call. The short way answers 200 or not at all: it takes a request
only when every check of the long way would pass (the same signature check, the same key, the same project, room in the
key's rate, a page that was made for this project's cluster and still holds). All else, each refusal and each first
question among it, goes the long way, so that there is one place for errors and their words.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shardlift.api.limits import Limits
from shardlift.api.pages import Asked, DetailPages
from shardlift.api.signing import CONTENT_HEADER, Claim, SignatureError, WireRequest, parse_authorization, verify
from shardlift.bounded import Bounded
from shardlift.clock import Clock
from shardlift.errors import ShardliftError
from shardlift.service import Service
from shardlift.service.requests import Key

_PATH = re.compile(
    rb"/v1\.0/([0-9a-f]{32})/clusters/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/upgrade/detail"
)
_KEYS_MAX = 10_000
_OK = 200
# Those that may mean a body, and the one that the long way looks at for itself.
_LONG_WAY = frozenset({b"content-length", b"transfer-encoding", b"expect", CONTENT_HEADER.encode()})


class Polls:
    """Plain ASGI, inside the request guard and around all else. Reads are in no audit log, so that one is behind it.

    `disturbed` says of a cluster that something else may want to decide its answers; those go the long way.
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
        # Keys that the long way has let in, with the mark of when they were read. Of others nobody learns here.
        self._keys: Bounded[str, tuple[int, Key | None]] = Bounded(_KEYS_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = _PATH.fullmatch(scope["raw_path"] or b"") if _is_poll(scope) else None
        claim = None if named is None else _claim_of(scope["headers"])
        if named is None or claim is None:
            await self._app(scope, receive, send)
            return
        body = await self._kept(scope, claim, named[1].decode(), named[2].decode())
        if body is None:
            await self._app(scope, receive, self._learning(claim.ak, send))
            return
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": _OK, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _kept(self, scope: Scope, claim: Claim, project_id: str, cluster_id: str) -> bytes | None:
        try:
            mark = self._service.details.mark()
            key = await self._key(claim.ak, mark)
            if key is None or key.project_id != project_id:
                return None
            now = self._clock.now()
            verify(WireRequest("GET", scope["raw_path"], b"", scope["headers"], b""), claim, key.sks(now), now)
            body = self._pages.kept(Asked(project_id, cluster_id), mark)
            # A request that finds no room goes the long way to be told so, and finds none there either.
            if body is None or self._disturbed(cluster_id) or self._limits.keys.take(claim.ak):
                return None
        except (SignatureError, ShardliftError):
            return None
        self._service.key_used(claim.ak)
        return body

    async def _key(self, ak: str, mark: int) -> Key | None:
        """The key, read again whenever anything in the database has changed: a revoked one counts no longer."""
        known = self._keys.get(ak)
        if known is None:
            return None
        if known[0] == mark and known[1] is not None:
            return known[1]
        key = await self._service.key(ak)
        if key is None:
            self._keys.drop(ak)
        else:
            self._keys.put(ak, (mark, key))
        return key

    def _learning(self, ak: str, send: Send) -> Send:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _OK and self._keys.get(ak) is None:
                self._keys.put(ak, (-1, None))
            await send(message)

        return told


def _is_poll(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] == "GET" and not scope["query_string"]


def _claim_of(headers: list[tuple[bytes, bytes]]) -> Claim | None:
    """Of a request without a body whose headers are each there once."""
    sent = dict(headers)
    text = sent.get(b"authorization")
    if text is None or len(sent) != len(headers) or not _LONG_WAY.isdisjoint(sent):
        return None
    try:
        return parse_authorization(text.decode("latin-1"))
    except SignatureError:
        return None
